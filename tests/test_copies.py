"""Live environments and what they are made of pickle and deep-copy, and the copies go on as the originals would."""

from __future__ import annotations

import copy
import dataclasses
import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.wrappers import RecordEpisodeStatistics
from torch import Tensor

from adafocus_env import FeatureBank, FrozenFeatures, Recognizer, ResolutionBank, RoamingFashion, RoamingMotion
from adafocus_env.environments.rewards import ConfidenceGain
from agents.sb3 import make_vec_env
from tests.conftest import TINY, make_tiny_recognizer, make_tiny_videos
from tests.spawned import go_on
from tests.test_motion import make_recognizer as make_clip_recognizer
from tests.test_motion import make_videos as make_clips


def in_memory(env: Any) -> Any:
    return pickle.loads(pickle.dumps(env))


WAYS = pytest.mark.parametrize("duplicate", [copy.deepcopy, in_memory])


def assert_identical(one: Any, other: Any) -> None:
    """To the last bit, types included."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_identical(one[key], other[key])
    elif isinstance(one, (tuple, list)) or (isinstance(one, np.ndarray) and one.dtype == object):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_identical(left, right)
    elif isinstance(one, Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    else:
        np.testing.assert_array_equal(one, other, strict=True)


class Halved(ConfidenceGain):
    """A reward of one's own."""

    def __call__(self, confidence: Tensor, reference: Tensor, focused: Tensor, skip_cost: float | Tensor) -> Tensor:
        return super().__call__(confidence, reference, focused, skip_cost) / 2


class Changing(RoamingFashion):
    """Another view at every visit: a video is as dark as it was seen often."""

    changing = True
    visits = 0

    def frames(self, indices: Tensor) -> Tensor:
        self.visits += 1
        return super().frames(indices) // self.visits


def play(env: Any, actions: list[Any]) -> list[Any]:
    """What an environment says to actions, and at every end of an episode, on resetting if it has to be reset."""
    found: list[Any] = []
    for action in actions:
        found.append(env.step(action))
        over = np.asarray(found[-1][2])
        if over.all() and env.metadata.get("autoreset_mode", AutoresetMode.DISABLED) is AutoresetMode.DISABLED:
            found.append(env.reset())
    return found


def check_copies(env: Any, duplicate: Callable[[Any], Any], before: int, after: int = 7) -> None:
    env.reset(seed=3)
    env.action_space.seed(4)
    play(env, [env.action_space.sample() for _ in range(before)])
    other = duplicate(env)
    assert other is not env
    assert other.spec.id == env.spec.id
    actions = [env.action_space.sample() for _ in range(after)]
    assert_identical([other.action_space.sample() for _ in range(after)], actions)  # its generator too
    assert_identical(play(other, actions), play(env, actions))
    for seed in (None, 11):
        assert_identical(other.reset(seed=seed), env.reset(seed=seed))
    assert_identical(other.unwrapped.np_random.random(3), env.unwrapped.np_random.random(3))


@WAYS
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"skip": False, "baseline": "exact"},
        {"observation": "glance", "baseline": "pixel"},
        {"reward": "gain_over_blank"},
        {"reward": Halved("previous")},
        {"render_mode": "rgb_array"},
    ],
)
@pytest.mark.parametrize("before", [0, 3])
def test_a_single_environment(
    duplicate: Callable[[Any], Any], arguments: dict[str, Any], before: int, env_kwargs: dict[str, Any]
) -> None:
    check_copies(gym.make("AdaFocus-v0", **env_kwargs, **arguments), duplicate, before)


@WAYS
@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("output", ["numpy", "torch"])
def test_a_vector_environment(
    duplicate: Callable[[Any], Any], mode: AutoresetMode, output: str, env_kwargs: dict[str, Any]
) -> None:
    check_copies(
        gym.make_vec("AdaFocus-v0", 3, autoreset_mode=mode, output=output, **env_kwargs), duplicate, before=6, after=9
    )


@WAYS
def test_lanes_out_of_phase_and_one_that_was_never_reset(
    duplicate: Callable[[Any], Any], env_kwargs: dict[str, Any]
) -> None:
    env = gym.make_vec("AdaFocus-v0", 3, **env_kwargs)
    fresh = duplicate(env)
    with pytest.raises(gym.error.ResetNeeded):
        fresh.step(env.action_space.sample())
    for each in (env, fresh):
        each.reset(seed=1)
        each.step(np.array([[1, 0]] * 3))
        each.reset(options={"reset_mask": np.array([True, False, True])})
    other = duplicate(env)
    actions = [np.array([[k, k % 2], [5, 0], [2 * k, 0]]) for k in range(8)]
    wanted = play(env, actions)
    assert_identical(play(other, actions), wanted)
    assert_identical(play(fresh, actions), wanted)


@WAYS
@pytest.mark.parametrize("action", ["continuous", "grid"])
@pytest.mark.parametrize("vector", [False, True])
def test_one_look_per_clip(duplicate: Callable[[Any], Any], action: str, vector: bool) -> None:
    arguments = {"recognizer": make_clip_recognizer(), "videos": make_clips(), "action": action, "grid": 4}
    env = gym.make_vec("AdaFocusTSM-v0", 2, **arguments) if vector else gym.make("AdaFocusTSM-v0", **arguments)
    check_copies(env, duplicate, before=1, after=3)


def features_of(kind: str, recognizer: Recognizer, videos: RoamingFashion, folder: Path) -> FrozenFeatures:
    match kind:
        case "online":
            return FrozenFeatures(recognizer, videos, 4)
        case "memory" | "half":
            return FeatureBank(recognizer, videos, 4, dtype="float16" if kind == "half" else "float32")
        case "file" | "full file":
            bank = FeatureBank(recognizer, videos, 4, path=folder / "bank")
            if kind == "full file":
                bank.build()
            return bank
        case "changing":
            return FrozenFeatures(recognizer, Changing("val", num_videos=12, num_frames=4, frame_size=48), 4)
    whole = Recognizer(dataclasses.replace(TINY, patch_size=48)).eval()
    path = folder / "bank" if kind == "resolutions in a file" else None
    return ResolutionBank({1.0: whole, 0.5: whole}, videos, path=path)


KINDS = ["online", "memory", "half", "file", "full file", "changing", "resolutions", "resolutions in a file"]


@WAYS
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_features(
    duplicate: Callable[[Any], Any], kind: str, recognizer: Recognizer, videos: RoamingFashion, tmp_path: Path
) -> None:
    features = features_of(kind, recognizer, videos, tmp_path)
    env = gym.make_vec("AdaFocus-v0", 2, features=features)
    check_copies(env, duplicate, before=2, after=8)
    # Within a process the table is one, unless each copy has views of its own to go on from.
    assert (duplicate(features) is features) == (kind != "changing")


def test_copies_within_a_process_have_one_recogniser(env_kwargs: dict[str, Any]) -> None:
    env = gym.make("AdaFocus-v0", **env_kwargs)
    for other in (in_memory(env), copy.deepcopy(env)):
        assert other.unwrapped.features is env.unwrapped.features
        assert other.unwrapped.recognizer is env.unwrapped.recognizer


def spawned(target: Callable[..., None], *arguments: Any) -> Any:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(*arguments, sender))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        process.join(60)


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_spawned_process_goes_on_identically(
    kind: str, recognizer: Recognizer, videos: RoamingFashion, tmp_path: Path
) -> None:
    """Also beside the original, which is still filling its file. The videos are new, so that a table that starts empty
    is filled in the same batches."""
    features = features_of(kind, recognizer, videos, tmp_path)
    env = gym.make("AdaFocus-v0", features=features)
    env.reset(seed=0, options={"video": 5})
    actions = [np.array([k * 3, k % 3 == 2]) for k in range(4)]
    play(env, actions[:1])
    pickled = pickle.dumps(env)
    found, filled = spawned(go_on, pickled, actions[1:3])
    assert_identical(found, play(env, actions[1:3]))
    # What the copy computed is the copy's: the original's file is as the original alone filled it.
    assert features.filled_bytes() >= filled
    if kind == "file":
        features.close()
        again = FeatureBank(recognizer, videos, 4, path=tmp_path / "bank")
        assert again.filled_bytes() == features.filled_bytes()
        other = gym.make("AdaFocus-v0", features=again)
        fresh = gym.make("AdaFocus-v0", features=FrozenFeatures(recognizer, videos, 4))
        for each in (other, fresh):
            each.reset(seed=0, options={"video": 5})
        rewards = [[other.step(action)[1], fresh.step(action)[1]] for action in actions]
        np.testing.assert_allclose(*zip(*rewards, strict=True), atol=1e-6)


def test_a_private_bank_reads_beside_a_writer(recognizer: Recognizer, videos: RoamingFashion, tmp_path: Path) -> None:
    """What both fill meanwhile gets in nobody's way, though it takes the same rows."""
    writer = FeatureBank(recognizer, videos, 4, path=tmp_path / "bank")
    writer.ensure_videos(torch.tensor([3]), lambda rows: writer.load(torch.tensor([3])[rows]))
    with pytest.raises(BlockingIOError):
        FeatureBank(recognizer, videos, 4, path=tmp_path / "bank")
    pickle.dumps(writer)  # brings what it knows to the disk
    reader = FeatureBank(recognizer, videos, 4, path=tmp_path / "bank", private=True)
    assert reader.filled_bytes() == writer.filled_bytes()
    online = FrozenFeatures(recognizer, videos, 4)
    for bank, order in ((writer, (7, 1)), (reader, (1, 9)), (writer, (9, 4)), (reader, (4, 7, 3))):
        for video in torch.tensor(order).split(1):
            bank.ensure_videos(video, lambda rows, video=video, bank=bank: bank.load(video[rows]))
    for bank in (writer, reader):
        for video in torch.tensor([1, 3, 4, 7, 9]).split(1):
            time = torch.tensor([2])
            found = bank.glance(video, time, lambda rows: pytest.fail("it is in the table"))
            units = online.load(video)[:, 2]
            for one, other in zip(found, online.glance(video, time, lambda rows, units=units: units), strict=True):
                torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    writer.build()
    writer.close()
    assert FeatureBank(recognizer, videos, 4, path=tmp_path / "bank").full


def test_a_pickle_holds_no_table_and_no_images(recognizer: Recognizer) -> None:
    videos = RoamingFashion("val", num_videos=300)
    bank = FeatureBank(recognizer, videos)
    empty = len(pickle.dumps(bank))
    bank.ensure_videos(torch.arange(80), lambda rows: bank.load(rows))
    assert bank.filled_bytes() > 1_000_000
    assert len(pickle.dumps(bank)) == empty < 200_000
    assert len(pickle.dumps(videos)) < 50_000


def test_data_sets_and_recognisers(recognizer: Recognizer, videos: RoamingFashion) -> None:
    clips = RoamingMotion("test", num_videos=3)
    for duplicate in (in_memory, copy.deepcopy):
        for original in (videos, clips):
            other = duplicate(original)
            assert other.fingerprint == original.fingerprint
            assert torch.equal(other.labels, original.labels)
            assert torch.equal(other.frames(torch.tensor([2, 0])), original.frames(torch.tensor([2, 0])))
        assert duplicate(recognizer).fingerprint() == recognizer.fingerprint()


def test_windows_stay_apart(env_kwargs: dict[str, Any]) -> None:
    from matplotlib import pyplot

    env = gym.make("AdaFocus-v0", render_mode="human", **env_kwargs)
    env.reset(seed=0)
    other = copy.deepcopy(env)
    in_memory(env).close()
    other.step(np.array([3, 0]))
    assert len(pyplot.get_fignums()) == 2
    other.close()
    env.step(np.array([3, 0]))
    assert len(pyplot.get_fignums()) == 1
    env.close()
    assert not pyplot.get_fignums()


@WAYS
def test_wrapped_and_in_sb3s_terms(duplicate: Callable[[Any], Any], env_kwargs: dict[str, Any]) -> None:
    check_copies(RecordEpisodeStatistics(gym.make("AdaFocus-v0", **env_kwargs)), duplicate, before=0, after=3)
    lanes = make_vec_env(2, seed=0, **env_kwargs)
    lanes.reset()
    lanes.step(np.array([[3, 0], [5, 1]]))
    other = duplicate(lanes)
    for step in range(6):
        action = np.array([[step, 0], [step + 4, step % 2]])
        assert_identical(other.step(action), lanes.step(action))


def make_workers_env() -> gym.Env[Any, Any]:
    torch.set_num_threads(1)
    return gym.make("AdaFocus-v0", recognizer=make_tiny_recognizer(), videos=make_tiny_videos(), grid=4)


@pytest.mark.slow
def test_spawned_workers_of_gymnasium_and_sb3() -> None:
    """With environments that workers make, and with a live one that travels to its worker."""
    from stable_baselines3.common.vec_env import SubprocVecEnv

    alone = make_workers_env()
    live = make_workers_env()
    actions = [np.array([3, 0]), np.array([9, 1]), np.array([1, 0])]
    workers = AsyncVectorEnv([make_workers_env, lambda: live], context="spawn", shared_memory=False)
    try:
        first, _ = workers.reset(seed=[6, 6])
        wanted = [alone.reset(seed=6)[0]["glance"], *(alone.step(action)[1] for action in actions)]
        found = [first["glance"], *(workers.step(np.stack((action, action)))[1] for action in actions)]
        for lane in range(2):
            # Another process fills its table in other batches, which some processors round differently.
            for one, other in zip(found, wanted, strict=True):
                np.testing.assert_allclose(one[lane], other, atol=1e-6)
    finally:
        workers.close()
    subprocesses = SubprocVecEnv([make_workers_env, make_workers_env], start_method="spawn")
    try:
        subprocesses.seed(6)
        np.testing.assert_allclose(subprocesses.reset()["glance"][0], wanted[0], atol=1e-6)
        for action, reward in zip(actions, wanted[1:], strict=True):
            assert subprocesses.step(np.stack((action, action)))[1][0] == pytest.approx(reward, abs=1e-6)
    finally:
        subprocesses.close()


def test_the_package_need_not_be_imported() -> None:
    """Gymnasium imports what comes before the colon, and the spec finds its way back."""
    script = """
import sys, gymnasium as gym
assert "adafocus_env" not in sys.modules
env = gym.make("adafocus_env:AdaFocus-v0", split="val", skip=False)
again = gym.make("adafocus_env:AdaFocusTSM-v0", split="val", action="grid")
stills = gym.make("adafocus_env:GlanceFocus-v0", split="val")
vector = gym.make_vec("adafocus_env:AdaFocus-v0", num_envs=2, split="val")
rebuilt = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
print(env.spec.id, again.spec.id, stills.spec.id, vector.spec.id, rebuilt.action_space == env.action_space)
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    assert found.stdout.split() == ["AdaFocus-v0", "AdaFocusTSM-v0", "GlanceFocus-v0", "AdaFocus-v0", "True"]


def test_a_spec_makes_the_same_environment(env_kwargs: dict[str, Any]) -> None:
    env = gym.make("AdaFocus-v0", reward="confidence", skip=False, **env_kwargs)
    for spec in (env.spec, in_memory(env.spec), copy.deepcopy(env).spec):
        other = gym.make(spec)
        assert_identical(other.reset(seed=2), env.reset(seed=2))
        assert_identical(other.step(5), env.step(5))
