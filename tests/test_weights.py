"""Files of weights: rotten bytes, other files under their names, values that no network can compute with."""

from __future__ import annotations

import contextlib
import fractions
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file

from adafocus_env import Recognizer, TSMRecognizer, load_official_checkpoint, load_recognizer
from adafocus_env.weights import read_torch_file
from agents import Reinforce, evaluate, load_policy, sb3
from agents.baselines import RandomPolicy
from agents.policy_file import PICKLED_FORMAT, read_state
from agents.pretrained import CHECKPOINTS as POLICIES
from tests.test_tsm import TINY as TINY_TSM


def corrupted(data: bytes, seed: int) -> bytes:
    """Zeroed, with one bit flipped, or cut off, at a random place; every second time in the first or last 2,000 bytes,
    where names, shapes and settings are."""
    random = np.random.default_rng(seed)
    place = int(random.integers(len(data)))
    if seed % 2:
        place = int(random.integers(-2000, 2000)) % len(data)
    changed = bytearray(data)
    match seed % 3:
        case 0:
            changed[place : place + 400] = bytes(len(changed[place : place + 400]))
        case 1:
            changed[place] ^= 1 << int(random.integers(8))
        case 2:
            del changed[place:]
    return bytes(changed)


def recogniser_content(path: Path) -> Any:
    recognizer = load_recognizer(path)
    return recognizer.config, recognizer.fingerprint()


def policy_content(path: Path) -> Any:
    agent = Reinforce.load(path)
    return _dump(read_state(path)), agent.config, agent.observation_space, agent.action_space


def torch_content(path: Path) -> bytes:
    return _dump(read_torch_file(path, "a file"))


def sb3_content(path: Path) -> Any:
    model = load_policy(path)
    return {name: value.tolist() for name, value in model.policy.state_dict().items()}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, recognizer: Recognizer, videos: Any) -> dict[str, Path]:
    """A file of every kind."""
    folder = tmp_path_factory.mktemp("files")
    arguments = {"recognizer": recognizer, "videos": videos, "grid": 4}
    patch_policy = Reinforce(gym.make_vec("AdaFocus-v0", 1, skip=False, observation="glance", **arguments))
    env = gym.make_vec("AdaFocus-v0", 1, reward="gain_over_previous", **arguments)
    agent = Reinforce(env, patch_policy=patch_policy, hidden_size=8, encoder_size=8)
    agent.save(folder / "policy.safetensors")
    torch.save({"format": PICKLED_FORMAT, **agent._state(training_state=True)}, folder / "policy.pt")
    network = torch.nn.Linear(30, 40)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(30)).sum().backward()
    optimizer.step()
    state = {"networks": network.state_dict(), "others": [optimizer.state_dict()], "random": torch.get_rng_state()}
    torch.save({"settings": json.dumps({"steps": 3}), "step": 2, **state}, folder / "stage1.checkpoint")
    noted = Recognizer.from_pretrained(_saved(recognizer, folder / "recognizer.safetensors"))
    noted.metadata = {"training": "none", "accuracy": "0.5"}
    _saved(noted, folder / "recognizer.safetensors")
    _saved(TSMRecognizer(TINY_TSM), folder / "tsm.safetensors")
    model = sb3.make_model(
        "ppo", sb3.make_vec_env(2, skip=False, observation="glance", **arguments), n_steps=4, batch_size=8
    )
    model.save(folder / "ppo.zip")
    return {path.name: path for path in folder.iterdir()}


def _saved(recognizer: Any, path: Path) -> Path:
    recognizer.save(path)
    return path


@pytest.mark.parametrize(
    ("name", "content", "count"),
    [
        ("recognizer.safetensors", recogniser_content, 60),
        ("tsm.safetensors", recogniser_content, 20),
        ("policy.safetensors", policy_content, 40),
        ("policy.pt", policy_content, 20),
        ("stage1.checkpoint", torch_content, 20),
        ("ppo.zip", sb3_content, 10),
    ],
)
def test_rotten_files_are_refused_or_equal(
    files: dict[str, Path], tmp_path: Path, name: str, content: Callable[[Path], Any], count: int
) -> None:
    good = content(files[name])
    refused = 0
    for seed in range(count):
        path = tmp_path / name
        path.write_bytes(corrupted(files[name].read_bytes(), seed))
        with contextlib.suppress(ValueError):
            assert content(path) == good, seed
            continue
        with pytest.raises(ValueError, match=re.escape(str(path))):
            content(path)
        refused += 1
    assert refused > count / 2


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_called_so(files: dict[str, Path], tmp_path: Path, share: float) -> None:
    data = files["recognizer.safetensors"].read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match=r"cut\.safetensors is (damaged, or not whole|not .*, or not a whole one)"):
        load_recognizer(path)


def test_every_bit_of_a_number_and_of_a_name_counts(files: dict[str, Path], tmp_path: Path) -> None:
    """One bit each, where nothing but the checksum can tell."""
    data = files["recognizer.safetensors"].read_bytes()
    for place in (len(data) - 1, data.index(b'0.5"'), data.index(b"none"), data.index(b'\\"std\\": [') + 11):
        path = tmp_path / "r.safetensors"
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(ValueError, match=r"r\.safetensors has changed since it was written"):
            load_recognizer(path)


def test_files_of_earlier_versions_load(files: dict[str, Path], tmp_path: Path) -> None:
    with safe_open(files["recognizer.safetensors"], framework="pt") as file:
        header = dict(file.metadata())
    del header["checksum"]
    save_file(load_file(files["recognizer.safetensors"]), tmp_path / "old.safetensors", metadata=header)
    assert recogniser_content(tmp_path / "old.safetensors") == recogniser_content(files["recognizer.safetensors"])
    for name in ("roaming-fashion", "roaming-motion"):
        load_recognizer(name)
    for path in POLICIES.glob("*.safetensors"):
        Reinforce.load(path)


def _dump(content: Any, **kwargs: Any) -> bytes:
    data = io.BytesIO()
    torch.save(content, data, **kwargs)
    return data.getvalue()


TENSORS = {"a": torch.zeros(1000)}
FOREIGN = {"acc": fractions.Fraction(1, 2)}
OTHERS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "html": (b"<!DOCTYPE html><html><body>Virus scan warning</body></html>", "web page"),
    "html-after-a-mark": (b"\xef\xbb\xbf\r\n <html>", "web page"),
    "text": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "torch.save didn't write it"),
    "cut": (_dump(TENSORS)[:-100], "cut off"),
    "changed": (_dump(TENSORS).replace(bytes(64), bytes(63) + b"\1", 1), "have changed"),
    "foreign": (_dump(FOREIGN), "fractions.Fraction"),
    "foreign-old": (_dump(FOREIGN, _use_new_zipfile_serialization=False), "plain values alone"),
    "list": (_dump([1, 2]), "list|not a policy file"),
    "tensor": (_dump(torch.zeros(3)), "Tensor|not a policy file"),
    "other-dictionary": (_dump({"state_dict": TENSORS}), "lacks|not a policy file"),
}


@pytest.mark.parametrize("name", [*OTHERS, "safetensors", "folder"])
def test_other_files_are_named_for_what_they_are(files: dict[str, Path], tmp_path: Path, name: str) -> None:
    data, match = OTHERS.get(name, (files["recognizer.safetensors"].read_bytes(), "safetensors file"))
    loaders = {"96s3_checkpoint.pth.tar": load_official_checkpoint, "policy.pt": Reinforce.load}
    for file, load in loaders.items():
        path = tmp_path / file
        if name == "folder":
            path.mkdir()
            with pytest.raises(FileNotFoundError, match=f"{file} is a folder"):
                load(path)
            continue
        path.write_bytes(data)
        with pytest.raises(ValueError, match=match) as raised:
            load(path)
        assert str(path) in str(raised.value)
        told = str(raised.value) + str(raised.value.__cause__ or "") + str(raised.value.__context__ or "")
        assert "weights_only" not in told


@pytest.mark.parametrize(
    ("data", "match"), [(b"", "empty"), (b" <html>", "web page"), (_dump(TENSORS), "archive.*import_checkpoint")]
)
def test_a_recogniser_under_a_wrong_name_is_explained(tmp_path: Path, data: bytes, match: str) -> None:
    path = tmp_path / "r.safetensors"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=match):
        load_recognizer(path)


def test_weights_that_are_not_finite_are_refused_by_name(files: dict[str, Path], tmp_path: Path) -> None:
    recognizer = load_recognizer(files["recognizer.safetensors"])
    recognizer.classifier.fc.bias.data[1] = torch.nan
    recognizer.save(tmp_path / "nan.safetensors")
    with pytest.raises(
        ValueError, match=r"nan\.safetensors .*\n.*classifier\.fc\.bias holds values that are not finite"
    ):
        load_recognizer(tmp_path / "nan.safetensors")
    agent = Reinforce.load(files["policy.safetensors"])
    agent._average.module.value_head.weight.data[0, 0] = -torch.inf
    agent.save(tmp_path / "nan-policy.safetensors")
    with pytest.raises(
        ValueError, match=r"nan-policy\.safetensors .*\n.*value_head\.weight holds values that are not finite"
    ):
        load_policy(tmp_path / "nan-policy.safetensors")
    model = load_policy(files["ppo.zip"])
    next(model.policy.parameters()).data.view(-1)[0] = torch.nan
    model.save(tmp_path / "ppo-nan.zip")
    with pytest.raises(ValueError, match=r"ppo-nan\.zip: .* holds values that are not finite"):
        load_policy(tmp_path / "ppo-nan.zip")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda state: state.pop("glance"), "glance"),
        (lambda state: state.update(hyperparameters={"hidden_size": -1}), r"bad\.pt can't be used"),
        (lambda state: state.update(average=[1]), r"bad\.pt can't be used"),
        (lambda state: state["average"].pop("value_head.bias"), r"value_head\.bias is missing"),
        (lambda state: state["average"].update(more=torch.zeros(1)), "more is unknown"),
        (lambda state: state["average"].update({"value_head.bias": torch.zeros(2)}), r"must be \(1,\), not \(2,\)"),
        (lambda state: state["average"].update({"value_head.bias": torch.zeros(1).long()}), "must be torch.float32"),
    ],
)
def test_policy_files_of_other_content(
    files: dict[str, Path], tmp_path: Path, change: Callable[[Any], Any], match: str
) -> None:
    state = torch.load(files["policy.pt"], weights_only=True)
    change(state)
    torch.save(state, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match=match) as raised:
        Reinforce.load(tmp_path / "bad.pt")
    assert "bad.pt" in str(raised.value)


def test_prefixes_of_wrappers_are_harmless(files: dict[str, Path], tmp_path: Path) -> None:
    recognizer = load_recognizer(files["recognizer.safetensors"])
    before = recognizer.fingerprint()
    recognizer.local_cnn = torch.nn.DataParallel(recognizer.local_cnn)
    recognizer.save(tmp_path / "wrapped.safetensors")
    assert load_recognizer(tmp_path / "wrapped.safetensors").fingerprint() == before


def test_classes_that_do_not_match_are_refused_before_any_video_is_read(recognizer: Recognizer) -> None:
    class Unread:
        """Four classes, and no frames."""

        num_frames, frame_size, num_classes, class_names = 4, (48, 48), 4, ("a", "b", "c", "d")
        labels = torch.zeros(3, dtype=torch.int64)
        fingerprint = "unread"

        def __len__(self) -> int:
            return 3

        def frames(self, indices: torch.Tensor) -> torch.Tensor:
            raise AssertionError("a video was read")

    with pytest.raises(ValueError, match="knows 10 classes, but videos have 4"):
        evaluate(RandomPolicy, "val", recognizer=recognizer, videos=Unread(), grid=4)
