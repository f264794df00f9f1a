"""Pairs on the Hugging Face Hub, with a stand-in for its package that keeps repositories in a folder."""

from __future__ import annotations

import importlib.util
import inspect
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import pytest

from adafocus_env import Recognizer, load_recognizer
from adafocus_env.hub import is_repository
from agents import Reinforce, from_pretrained, load_pair, load_policy, push_to_hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of repositories, where the working directory isn't."""
    repositories, here = tmp_path / "hub", tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    class Api:
        def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> str:
            (repositories / repo_id).mkdir(parents=True, exist_ok=exist_ok)
            (repositories / "private" / str(private)).mkdir(parents=True, exist_ok=True)
            return f"https://hub.example/{repo_id}"

        def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> None:
            shutil.copytree(folder_path, repositories / repo_id, dirs_exist_ok=True)

    def hf_hub_download(repo_id: str, filename: str) -> str:
        path = repositories / repo_id / filename
        if not path.exists():
            raise RuntimeError("404 Client Error: Repository Not Found")
        return str(path)

    stub = SimpleNamespace(HfApi=Api, hf_hub_download=hf_hub_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", stub)  # type: ignore[arg-type]
    return repositories


def make_policy(env_kwargs: dict[str, Any]) -> Reinforce:
    return Reinforce(gym.make_vec("AdaFocus-v0", 1, **env_kwargs), hidden_size=8, encoder_size=8)


def test_what_is_pushed_is_loaded_by_its_name(hub: Path, recognizer: Recognizer, env_kwargs: dict[str, Any]) -> None:
    policy = make_policy(env_kwargs)
    address = push_to_hub("org/looks-closely", recognizer, policy, private=True, data="Twelve clips.")
    assert address == "https://hub.example/org/looks-closely"
    assert {path.name for path in (hub / "org" / "looks-closely").iterdir()} == {
        "README.md",
        "policy.safetensors",
        "recognizer.safetensors",
    }
    card = (hub / "org" / "looks-closely" / "README.md").read_text()
    assert "# looks-closely" in card
    assert "Twelve clips." in card
    assert (hub / "private" / "True").exists()
    loaded, decides = load_pair("org/looks-closely")
    assert loaded.fingerprint() == load_recognizer("org/looks-closely").fingerprint() == recognizer.fingerprint()
    assert decides.config == policy.config == from_pretrained("org/looks-closely").config
    assert load_policy("org/looks-closely").made_for == policy.made_for
    push_to_hub("org/looks-closely", recognizer, policy)  # once more


def test_names_that_are_here_keep_their_meaning(hub: Path, recognizer: Recognizer, env_kwargs: dict[str, Any]) -> None:
    push_to_hub("org/name", recognizer, make_policy(env_kwargs))
    for name in ("roaming-fashion", "roaming-fashion/", "org/name.safetensors", "org/name.pt", "/org/name", "a/b/c",
                 "org/../name", "", "org/", Path("org/name"), 3, "https://hub/name"):  # fmt: skip
        assert not is_repository(name), name
    assert is_repository("org/name")
    assert from_pretrained("roaming-fashion").made_for["num_frames"] == 8
    Path("org").mkdir()
    assert not is_repository("org/name")
    with pytest.raises(FileNotFoundError, match="neither a file nor one of the shipped ones"):
        from_pretrained("org/name")
    with pytest.raises(ValueError, match='must be "org/name"'):
        push_to_hub("name", recognizer, make_policy(env_kwargs))


def test_what_the_hub_does_not_have(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"'org/nothing' is no folder here.*recognizer\.safetensors.*404"):
        load_recognizer("org/nothing")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match=r"pip install 'adafocus-env\[hub\]'"):
        from_pretrained("org/nothing")


@pytest.mark.skipif(importlib.util.find_spec("huggingface_hub") is None, reason="needs the extra hub")
def test_the_stand_in_is_called_as_the_package_wants() -> None:
    import huggingface_hub

    inspect.signature(huggingface_hub.hf_hub_download).bind("org/name", "policy.safetensors")
    api = huggingface_hub.HfApi()
    inspect.signature(api.create_repo).bind("org/name", private=False, exist_ok=True)
    inspect.signature(api.upload_folder).bind(repo_id="org/name", folder_path=".", commit_message="text")
