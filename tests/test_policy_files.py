"""Files of policies: what they hold, what they say of themselves, files of earlier versions, exact resumption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from safetensors import safe_open
from stable_baselines3 import PPO
from torch import Tensor

from adafocus_env import Recognizer, load_recognizer
from agents import Reinforce, SoftTargets, from_pretrained, load_policy
from agents.environments import VECTOR_ENVS
from agents.policy_file import PICKLED_FORMAT, read_state
from agents.pretrained import CHECKPOINTS, save_policy
from agents.sb3 import make_vec_env

LANES = 4


def equal(first: Any, second: Any) -> bool:
    """Of nested mappings and lists, tensors to the bit; lists for tuples and text for numbers as keys."""
    if isinstance(first, Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        second = {str(name): value for name, value in second.items()}
        return {str(name) for name in first} == set(second) and all(
            equal(value, second[str(name)]) for name, value in first.items()
        )
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(equal, first, second))
    return bool(first == second)


@pytest.fixture(scope="module")
def trained(recognizer: Recognizer, videos: Any) -> Reinforce:
    """A skip policy over a frozen patch policy, in the midst of its training."""
    shared = {"recognizer": recognizer, "videos": videos, "grid": 4}
    patch_policy = Reinforce(gym.make_vec("AdaFocus-v0", LANES, skip=False, observation="glance", **shared), seed=1)
    env = gym.make_vec("AdaFocus-v0", LANES, reward="gain_over_previous", skip_cost=0.25, **shared)
    small = {"hidden_size": 8, "encoder_size": 8, "episodes_per_batch": LANES, "max_grad_norm": float("inf")}
    return Reinforce(env, patch_policy=patch_policy, use_belief=True, **small).learn(3 * LANES * 4)


def as_before(agent: Reinforce, path: Path) -> Path:
    """Write an agent as earlier versions did."""
    state = agent._state(training_state=True)
    del state["made_for"], state["patch_policy"]["made_for"]
    state["patch_policy"]["format"] = PICKLED_FORMAT
    torch.save({"format": PICKLED_FORMAT, **state}, path)
    return path


def test_a_file_holds_the_whole_state(trained: Reinforce, tmp_path: Path) -> None:
    trained.save(tmp_path / "policy.safetensors")
    state = trained._state(training_state=True)
    assert state["optimizer"]["state"]
    assert equal(state, read_state(tmp_path / "policy.safetensors"))
    assert equal(state, Reinforce.load(tmp_path / "policy.safetensors")._state(training_state=True))
    trained.save(tmp_path / "acts.safetensors", training_state=False)
    assert not {"optimizer", "generator", "policy"} & read_state(tmp_path / "acts.safetensors").keys()
    assert (tmp_path / "acts.safetensors").stat().st_size < (tmp_path / "policy.safetensors").stat().st_size


def test_the_same_state_gives_the_same_file(trained: Reinforce, tmp_path: Path) -> None:
    for name in "ab":
        trained.save(tmp_path / name)
    Reinforce.load(tmp_path / "a").save(tmp_path / "c")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()


def test_training_goes_on_exactly_from_files_of_both_kinds(trained: Reinforce, tmp_path: Path) -> None:
    trained.save(tmp_path / "new")
    as_before(trained, tmp_path / "old.pt")
    ends = []
    for name in ("new", "old.pt"):
        agent = Reinforce.load(tmp_path / name, trained.get_env())
        agent.learn(2 * LANES * 4)
        ends.append(
            {name: value for name, value in agent._state(training_state=True).items() if name != "patch_policy"}
        )
    agent = Reinforce.load(as_before(trained, tmp_path / "again.pt"), trained.get_env())
    assert not equal(agent._state(training_state=True)["policy"], ends[0]["policy"])
    assert equal(*ends)


def test_the_metadata_describes_the_policy(trained: Reinforce, recognizer: Recognizer, tmp_path: Path) -> None:
    trained.save(tmp_path / "policy.safetensors")
    with safe_open(tmp_path / "policy.safetensors", framework="pt") as file:
        header = file.metadata()
    assert header["format"] == "adafocus-policy-1"
    said = {name: json.loads(text) for name, text in header.items() if name not in ("format", "checksum")}
    assert said["hyperparameters"]["hidden_size"] == 8
    assert said["algorithm"] == "Reinforce"
    made_for = said["made_for"]
    assert made_for["recognizer"] == recognizer.fingerprint()
    expected = {"grid": 4, "looks": 1, "num_frames": 4, "patch_size": 24, "skip_cost": 0.25, "glance_cost": 0.0}
    assert made_for.items() >= expected.items()
    assert said["patch_policy"]["made_for"]["skip_cost"] == 0


def test_single_environments_and_none_are_noted_too(env_kwargs: dict[str, Any], tmp_path: Path) -> None:
    agent = Reinforce(gym.make("AdaFocus-v0", looks=2, **env_kwargs), hidden_size=8, encoder_size=8)
    assert agent.made_for["looks"] == 2
    agent.set_env(None)
    assert agent.made_for["grid"] == 4
    assert not Reinforce.load(as_before_without_patches(agent, tmp_path / "old.pt")).made_for


def as_before_without_patches(agent: Reinforce, path: Path) -> Path:
    state = agent._state(training_state=False)
    del state["made_for"]
    torch.save({"format": PICKLED_FORMAT, **state}, path)
    return path


def test_a_file_without_its_checksum_is_refused(trained: Reinforce, tmp_path: Path) -> None:
    path = tmp_path / "policy.safetensors"
    trained.save(path)
    path.write_bytes(path.read_bytes().replace(b'"checksum"', b'"checksun"'))
    with pytest.raises(ValueError, match="checksum is gone"):
        Reinforce.load(path)


def test_recognisers_and_policies_are_told_apart(trained: Reinforce, recognizer: Recognizer, tmp_path: Path) -> None:
    trained.save(tmp_path / "policy.safetensors")
    recognizer.save(tmp_path / "recognizer.safetensors")
    with pytest.raises(ValueError, match=r"not a policy file, but .* 'adafocus-recognizer-1'"):
        from_pretrained(tmp_path / "recognizer.safetensors")
    with pytest.raises(ValueError, match=r"not a recogniser .* 'adafocus-policy-1'"):
        load_recognizer(tmp_path / "policy.safetensors")


@pytest.mark.parametrize("path", sorted(CHECKPOINTS.iterdir()), ids=lambda path: path.stem)
def test_shipped_policies_say_what_they_were_made_for(path: Path) -> None:
    state = read_state(path)
    videos = path.stem.removesuffix("-skip")
    recognizer = load_recognizer(videos)
    made_for = state["made_for"]
    assert made_for["recognizer"] == recognizer.fingerprint()
    assert made_for["glance"] == recognizer.glance_fingerprint()
    (kind,) = (kind for kind in VECTOR_ENVS.values() if kind.__name__ == made_for["environment"])
    assert kind.default_name == videos
    assert tuple(state["glance"][0]) == recognizer.glance_shape
    assert state["skip"] == path.stem.endswith("-skip") == (made_for["skip_cost"] > 0)


def test_stage_3_leaves_the_glance_as_it_was(recognizer: Recognizer) -> None:
    tuned = recognizer.frozen()
    tuned.classifier.fc.bias.add_(1)
    assert tuned.fingerprint() != recognizer.fingerprint()
    assert tuned.glance_fingerprint() == recognizer.glance_fingerprint()
    next(tuned.global_cnn.parameters()).add_(1)
    assert tuned.glance_fingerprint() != recognizer.glance_fingerprint()


def test_settings_of_other_algorithms_survive(env_kwargs: dict[str, Any], tmp_path: Path) -> None:
    env = gym.make_vec("AdaFocus-v0", LANES, skip=False, baseline="exact", **env_kwargs)
    agent = SoftTargets(env, temperature=0.125, hidden_size=8, encoder_size=8)
    agent.save(tmp_path / "policy")
    assert SoftTargets.load(tmp_path / "policy", env).config == agent.config


@pytest.mark.parametrize(("stem", "name"), [("mine", "ppo-mine.zip"), ("ppo_glance", "ppo_glance.zip")])
def test_a_models_file_is_named_so_that_it_loads(
    stem: str, name: str, env_kwargs: dict[str, Any], tmp_path: Path
) -> None:
    class Mine(PPO):
        pass

    model = Mine("MultiInputPolicy", make_vec_env(2, **env_kwargs), n_steps=2, batch_size=4)
    path = save_policy(model, tmp_path / stem)
    assert path == tmp_path / name
    assert load_policy(path).action_space == model.action_space
