"""The environment as Gymnasium and its users see it."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FlattenObservation, RecordEpisodeStatistics, RecordVideo
from torch import Tensor

import adafocus_env
from adafocus_env import AdaFocusVectorEnv, FeatureBank, FrozenFeatures, Recognizer, RoamingFashion


def assert_same(first: Any, second: Any) -> None:
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            if f"_{key}" in first and not isinstance(first[key], dict):  # a vector info: only masked entries count
                masked = np.asarray(first[f"_{key}"])
                assert_same(np.asarray(first[key])[masked], np.asarray(second[key])[masked])
            else:
                assert_same(first[key], second[key])
    elif isinstance(first, tuple):
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    elif isinstance(first, np.ndarray) and first.dtype == object:
        for one, other in zip(first, second, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                assert_same(one, other)
    else:
        np.testing.assert_allclose(np.asarray(first, float), np.asarray(second, float), atol=1e-5)


def test_gymnasium_check_env_without_a_warning(env_kwargs: dict[str, Any]) -> None:
    for changes in ({}, {"skip": False}, {"observation": "glance"}):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            env = gym.make("AdaFocus-v0", render_mode="rgb_array", **env_kwargs, **changes)
            check_env(env.unwrapped)


def test_sb3_check_env_hints_at_images_only(env_kwargs: dict[str, Any]) -> None:
    from stable_baselines3.common.env_checker import check_env as sb3_check_env

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sb3_check_env(gym.make("AdaFocus-v0", **env_kwargs).unwrapped)
    assert all("image" in str(warning.message) or "CnnPolicy" in str(warning.message) for warning in caught)


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("observation", ["full", "glance"])
def test_vector_env_equals_single_envs(mode: AutoresetMode, observation: str, env_kwargs: dict[str, Any]) -> None:
    """Step for step, infos and autoreset included, against Gymnasium's own SyncVectorEnv of single environments."""
    lanes = 3
    vector = gym.make_vec("AdaFocus-v0", lanes, observation=observation, autoreset_mode=mode, **env_kwargs)
    make = [lambda: gym.make("AdaFocus-v0", observation=observation, **env_kwargs) for _ in range(lanes)]
    singles = SyncVectorEnv(make, autoreset_mode=mode)
    assert vector.observation_space == singles.observation_space
    assert vector.action_space == singles.action_space
    assert vector.metadata["autoreset_mode"] == mode
    for one, other in zip(vector.reset(seed=5), singles.reset(seed=5), strict=True):
        assert_same(one, other)
    vector.action_space.seed(0)
    for _ in range(11):
        actions = vector.action_space.sample()
        found, wanted = vector.step(actions), singles.step(actions)
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other)
        if mode is AutoresetMode.DISABLED and found[2].all():
            for one, other in zip(vector.reset(), singles.reset(), strict=True):
                assert_same(one, other)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_lanes_out_of_phase(mode: AutoresetMode, env_kwargs: dict[str, Any]) -> None:
    """Lanes reset at different times behave as single environments all the same."""
    vector = gym.make_vec("AdaFocus-v0", 2, autoreset_mode=mode, **env_kwargs)
    singles = SyncVectorEnv([lambda: gym.make("AdaFocus-v0", **env_kwargs) for _ in range(2)], autoreset_mode=mode)
    for env in (vector, singles):
        env.reset(seed=0)
        env.step(np.array([[1, 0], [2, 1]]))
    mask = np.array([True, False])
    for one, other in zip(
        vector.reset(options={"reset_mask": mask}), singles.reset(options={"reset_mask": mask.copy()}), strict=True
    ):
        assert_same(one, other)
    for step in range(10):
        actions = np.array([[step, step % 2], [15 - step, 0]])
        for one, other in zip(vector.step(actions), singles.step(actions), strict=True):
            assert_same(one, other)


def test_torch_output_equals_numpy_output(env_kwargs: dict[str, Any]) -> None:
    arrays = gym.make_vec("AdaFocus-v0", 3, **env_kwargs)
    tensors = gym.make_vec("AdaFocus-v0", 3, output="torch", **env_kwargs)
    assert_same(arrays.reset(seed=2)[0], tensors.reset(seed=2)[0])
    for step in range(6):
        actions = np.array([[step, 0], [7, 1], [3, 0]])
        for one, other in zip(arrays.step(actions), tensors.step(torch.from_numpy(actions)), strict=True):
            assert_same(one, other)
    assert isinstance(tensors.step(actions)[1], torch.Tensor)


class ConfidenceItself:
    """A reward that hands its argument on."""

    reference = "random"

    def __call__(self, confidence: Tensor, reference: Tensor, focused: Tensor, skip_cost: float) -> Tensor:
        return confidence


@pytest.mark.parametrize("skipped", [False, True])
@pytest.mark.parametrize("baseline", ["sample", "exact", "pixel"])
@pytest.mark.parametrize("reward", ["gain_over_random", "gain_over_previous", "confidence", ConfidenceItself()])
def test_one_can_train_with_all_tensors(reward: Any, baseline: str, skipped: bool, env_kwargs: dict[str, Any]) -> None:
    env = gym.make_vec("AdaFocus-v0", 2, output="torch", reward=reward, baseline=baseline, **env_kwargs)
    found = [*env.reset(seed=0)]
    for _ in range(env.unwrapped.num_steps + 1):  # beyond the end and into the next episode
        found += env.step(torch.tensor([[3, 0], [5, int(skipped)]]))
    tensors = [value for part in found for value in (part.values() if isinstance(part, dict) else [part])]
    assert len(tensors) > 50
    weight = torch.ones(1, requires_grad=True)
    for tensor in tensors:
        (weight * tensor).sum().backward()  # which refuses the tensors of inference mode
        tensor.zero_()


@pytest.mark.parametrize("remembers", [True, False])
def test_inference_mode_comes_and_goes(remembers: bool, recognizer: Recognizer, videos: RoamingFashion) -> None:
    """As agents call their environments within it or not, and as the environment itself uses it."""
    kind = FeatureBank if remembers else FrozenFeatures
    with torch.inference_mode():
        env = gym.make_vec("AdaFocus-v0", 2, features=kind(recognizer, videos, grid=4))
        other = gym.make_vec("AdaFocus-v0", 2, features=kind(recognizer, videos, grid=4))
        other.reset(seed=0)
    env.reset(seed=0)
    for step in range(2 * env.unwrapped.num_steps):
        action = np.array([[step % 16, 0], [5, step % 2]])
        with torch.inference_mode(step % 3 == 0):
            found = env.step(action)
        with torch.inference_mode(step % 2 == 0):
            for one, same in zip(found, other.step(action), strict=True):
                assert_same(one, same)


def test_observations_belong_to_the_caller(env_kwargs: dict[str, Any]) -> None:
    env = gym.make_vec("AdaFocus-v0", 2, **env_kwargs)
    other = gym.make_vec("AdaFocus-v0", 2, **env_kwargs)
    actions = np.array([[1, 0], [2, 0]])
    for vector in (env, other):
        vector.reset(seed=0)
    spoiled = env.step(actions)
    other.step(actions)
    for array in (*spoiled[0].values(), *spoiled[1:4], *(v for v in spoiled[4].values() if isinstance(v, np.ndarray))):
        array[...] = 0
    assert_same(env.step(actions), other.step(actions))


def test_reset_picks_the_video(env_kwargs: dict[str, Any], videos: RoamingFashion) -> None:
    env = gym.make("AdaFocus-v0", **env_kwargs)
    _, info = env.reset(seed=0, options={"video": 7})
    assert (info["video"], info["label"]) == (7, int(videos.labels[7]))
    vector = gym.make_vec("AdaFocus-v0", 3, **env_kwargs)
    _, info = vector.reset(options={"video": np.array([2, 11, 0])})
    assert info["video"].tolist() == [2, 11, 0]


def test_a_seed_starts_the_same_episode_again(env_kwargs: dict[str, Any]) -> None:
    """However many episodes went before; other lanes go on with theirs."""
    env = gym.make_vec("AdaFocus-v0", 2, autoreset_mode="DISABLED", **env_kwargs)
    actions = np.array([[1, 0], [2, 0]])
    first = [env.reset(seed=[8, 5]), env.step(actions)]
    second = [env.reset(), env.step(actions)]
    again = [env.reset(seed=[8, None]), env.step(actions)]
    third = [env.reset(), env.step(actions)]
    assert again[0][1]["video"][0] == first[0][1]["video"][0]
    assert again[1][1][0] == pytest.approx(first[1][1][0], abs=1e-6)
    assert third[0][1]["video"][0] == second[0][1]["video"][0]
    assert third[1][1][0] == pytest.approx(second[1][1][0], abs=1e-6)
    other = gym.make_vec("AdaFocus-v0", 2, autoreset_mode="DISABLED", **env_kwargs)
    other.reset(seed=[1, 5])
    for wanted in (second, again, third):
        assert other.reset()[1]["video"][1] == wanted[0][1]["video"][1]


def test_the_label_is_not_observed(env_kwargs: dict[str, Any]) -> None:
    """Relabelling the videos changes rewards, never observations."""

    class Relabelled(RoamingFashion):
        pass

    videos = Relabelled("val", num_videos=12, num_frames=4, frame_size=48, num_distractors=1)
    videos.labels = (videos.labels + 1) % 10
    videos.fingerprint += "relabelled"
    one, other = (gym.make("AdaFocus-v0", **{**env_kwargs, "videos": v}) for v in (env_kwargs["videos"], videos))
    rewards = []
    for env in (one, other):
        env.reset(seed=0)
        rewards.append([env.step(np.array([k, 0])) for k in range(4)])
    for first, second in zip(*rewards, strict=True):
        assert_same(first[0], second[0])
        assert first[1] != second[1]


def test_same_seed_same_trajectory_in_a_fresh_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = """
import sys, torch, numpy as np, gymnasium as gym, adafocus_env
from adafocus_env import RoamingFashion
torch.set_num_threads(1)
videos = RoamingFashion("val", num_videos=20)
env = gym.make("AdaFocus-v0", videos=videos)
env.action_space.seed(3)
values = []
for episode in range(2):
    observation, info = env.reset(seed=9 if episode == 0 else None)
    values += [info["video"], *observation["glance"].ravel()]
    for _ in range(8):
        observation, reward, *_, info = env.step(env.action_space.sample())
        values += [reward, info["baseline_confidence"], *observation["belief"]]
np.save(sys.argv[1], np.array(values))
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "fresh")], check=True, timeout=120)
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "here")])
    exec(script, {})
    np.testing.assert_array_equal(np.load(tmp_path / "fresh.npy"), np.load(tmp_path / "here.npy"))


def test_wrappers(env_kwargs: dict[str, Any], tmp_path: Path) -> None:
    env = gym.make("AdaFocus-v0", render_mode="rgb_array", **env_kwargs)
    env = RecordVideo(RecordEpisodeStatistics(FlattenObservation(env)), str(tmp_path), episode_trigger=lambda _: True)
    observation, _ = env.reset(seed=0)
    assert observation.shape == (env.observation_space.shape[0],)
    total, done = 0.0, False
    while not done:
        observation, reward, done, _, info = env.step(env.action_space.sample())
        total += reward
    env.close()
    assert info["episode"]["l"] == 4
    assert info["episode"]["r"] == pytest.approx(total)
    assert [path.stat().st_size > 0 for path in tmp_path.glob("*.mp4")] == [True]


def test_async_vector_env_after_convolutions_in_the_parent() -> None:
    """A forked child can't use its parent's OpenMP pool: without care, its first convolution would hang for ever."""
    script = """
import torch, numpy as np, gymnasium as gym, adafocus_env
from adafocus_env import RoamingFashion
torch.set_num_threads(2)
torch.nn.Conv2d(16, 64, 3)(torch.rand(64, 16, 64, 64)).sum().backward()
make = lambda: gym.make("AdaFocus-v0", videos=RoamingFashion("val", num_videos=8))
envs = gym.vector.AsyncVectorEnv([make, make], context="fork")
envs.reset(seed=0)
for _ in range(9):
    envs.step(envs.action_space.sample())
envs.close()
print("done")
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert found.stdout.strip().endswith("done")


def test_async_vector_env_equals_the_batched_one(env_kwargs: dict[str, Any]) -> None:
    workers = AsyncVectorEnv([lambda: gym.make("AdaFocus-v0", **env_kwargs) for _ in range(2)])
    batched = gym.make_vec("AdaFocus-v0", 2, **env_kwargs)
    try:
        assert_same(workers.reset(seed=4)[0], batched.reset(seed=4)[0])
        actions = np.array([[3, 0], [9, 1]])
        for one, other in zip(workers.step(actions), batched.step(actions), strict=True):
            assert_same(one, other)
    finally:
        workers.close()


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("split", "testing"),
        ("videos", "no-such-videos"),
        ("videos", 3),
        ("grid", 1),
        ("grid", 7.0),
        ("recognizer", 3),
        ("device", "nonsense"),
        ("skip", "yes"),
        ("skip_cost", -0.1),
        ("skip_cost", float("nan")),
        ("reward", "gain"),
        ("reward", object()),
        ("baseline", "mean"),
        ("observation", "pixels"),
        ("render_mode", "ansi"),
        ("output", "jax"),
        ("autoreset_mode", "LATER"),
        ("num_envs", 0),
    ],
)
def test_bad_arguments_are_named(argument: str, value: object, env_kwargs: dict[str, Any]) -> None:
    arguments = {"num_envs": 2, **env_kwargs, argument: value}
    with pytest.raises(ValueError, match=argument):
        AdaFocusVectorEnv(**arguments)


@pytest.mark.parametrize("argument", [{"output": "torch"}, {"autoreset_mode": AutoresetMode.DISABLED}])
def test_arguments_of_many_lanes_are_refused_by_name(argument: dict[str, Any], env_kwargs: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=rf"{next(iter(argument))} is an argument of gym\.make_vec"):
        gym.make("AdaFocus-v0", **env_kwargs, **argument)


def test_an_unknown_recognizer_names_the_shipped_ones() -> None:
    with pytest.raises(ValueError, match=r"recognizer.*roaming-fashion"):
        gym.make("AdaFocus-v0", recognizer="no-such-file")


@pytest.mark.parametrize(
    "actions",
    [
        np.array([0, 0]),
        np.array([[0.0, 1.0], [0.0, 0.0]]),
        np.array([[16, 0], [0, 0]]),
        np.array([[0, 2], [0, 0]]),
        np.array([[-1, 0], [0, 0]]),
        np.array([[True, False], [True, True]]),
        "left",
        None,
    ],
)
def test_bad_actions_are_errors(actions: Any, env_kwargs: dict[str, Any]) -> None:
    env = gym.make_vec("AdaFocus-v0", 2, **env_kwargs)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="actions must"):
        env.step(actions)


def test_stepping_out_of_turn_is_an_error(env_kwargs: dict[str, Any]) -> None:
    env = gym.make("AdaFocus-v0", **env_kwargs).unwrapped
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.array([0, 0]))
    env.reset(seed=0)
    for _ in range(env.num_frames):
        env.step(np.array([0, 0]))
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.array([0, 0]))


@pytest.mark.parametrize("options", [{"video": 12}, {"video": -1}, {"video": 1.5}, {"video": "a"}, {"clip": 3}])
def test_bad_options_are_errors(options: dict[str, Any], env_kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="options"):
        gym.make("AdaFocus-v0", **env_kwargs).reset(options=options)


def test_values_that_are_not_finite_are_errors(env_kwargs: dict[str, Any], recognizer: Recognizer) -> None:
    import copy

    broken = copy.deepcopy(recognizer)
    broken.local_cnn[0].weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"local_cnn\.0\.weight"):
        gym.make("AdaFocus-v0", **{**env_kwargs, "recognizer": broken})
    huge = copy.deepcopy(recognizer)
    huge.classifier.fc.weight.data.fill_(3e38)
    env = gym.make_vec("AdaFocus-v0", num_envs=32, **{**env_kwargs, "recognizer": huge})
    env.reset(seed=0)

    def run() -> None:
        for _ in range(4):
            env.step(np.zeros((32, 2), dtype=int))

    with pytest.raises(FloatingPointError, match="not finite on video"):  # as soon as a state's sum is beyond 1
        run()


def test_training_the_recogniser_later_changes_nothing(env_kwargs: dict[str, Any], recognizer: Recognizer) -> None:
    import copy

    mine = copy.deepcopy(recognizer)
    one = gym.make("AdaFocus-v0", **{**env_kwargs, "recognizer": mine})
    other = gym.make("AdaFocus-v0", **env_kwargs)
    mine.classifier.fc.weight.data.zero_()
    for env in (one, other):
        env.reset(seed=0)
    assert_same(one.step(np.array([0, 0])), other.step(np.array([0, 0])))
    third = gym.make("AdaFocus-v0", **{**env_kwargs, "recognizer": mine})
    third.reset(seed=0)
    assert third.step(np.array([0, 0]))[1] == pytest.approx(-0.015)  # a recogniser of zeros gains nothing but the price
    assert third.unwrapped.features is not other.unwrapped.features


def test_rendering_shows_the_patch(env_kwargs: dict[str, Any]) -> None:
    env = gym.make("AdaFocus-v0", render_mode="rgb_array", **env_kwargs)
    env.reset(seed=0)
    green = np.array((64, 220, 96))
    first = env.render()
    env.step(np.array([0, 0]))
    focused = env.render()
    env.step(np.array([0, 1]))
    skipped = env.render()
    assert first.shape == focused.shape == skipped.shape
    assert not (first[0, 0] == green).all()
    assert (focused[0, 0] == green).all()  # patch 0 starts at the top left
    assert not (skipped[0, 0] == green).all()
    assert skipped[: skipped.shape[1]].mean() < 0.7 * first[: first.shape[1]].mean()


@pytest.mark.parametrize("skip_cost", [None, 0.0, 0.25])
@pytest.mark.parametrize("skip", [True, False])
def test_the_price_of_a_frame_is_the_documented_one(
    skip_cost: float | None, skip: bool, env_kwargs: dict[str, Any]
) -> None:
    env = gym.make("AdaFocus-v0", skip=skip, skip_cost=skip_cost, **env_kwargs)
    env.reset(seed=0)
    _, reward, _, _, info = env.step(np.array([3, 0]) if skip else 3)
    price = (0.015 if skip else 0.0) if skip_cost is None else skip_cost
    assert info["confidence"] - info["baseline_confidence"] - reward == pytest.approx(price, abs=1e-6)


def test_pictures_are_of_the_frame_that_was_acted_on(env_kwargs: dict[str, Any], videos: RoamingFashion) -> None:
    env = gym.make("AdaFocus-v0", render_mode="rgb_array", **env_kwargs)
    env.reset(seed=0, options={"video": 5})
    frames = videos.frames(torch.tensor([5]))[0].permute(0, 2, 3, 1).numpy()

    def shown() -> int:
        picture: Any = env.render()  # eight pixels for each; the patch is at the top left, 24 pixels wide
        pixels = picture[: 48 * 8 : 8, : 48 * 8 : 8]
        (frame,) = (time for time in range(4) if np.array_equal(pixels[24:, 24:], frames[time, 24:, 24:]))
        return frame

    found = [shown()]
    for _ in range(4):
        env.step(np.array([0, 0]))
        found.append(shown())
    assert found == [0, 0, 1, 2, 3]


def test_memory_stays_within_the_documented_bound(env_kwargs: dict[str, Any]) -> None:
    env = AdaFocusVectorEnv(4, **env_kwargs)
    empty = env.features.filled_bytes()
    env.features.build()
    assert empty < env.features.filled_bytes() <= FeatureBank.predicted_bytes(env.recognizer, env.videos, 4)
    filled = env.features.filled_bytes()
    env.reset(seed=0)
    env.step(env.action_space.sample())
    assert env.features.filled_bytes() == filled  # nothing was missing


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from Linux's /proc")
def test_the_default_environment_is_light() -> None:
    """Videos are drawn when asked for and the table fills lazily: making and resetting adds less than 500 MB."""
    script = r"""
import re, gymnasium as gym, adafocus_env
adafocus_env.AdaFocusEnv  # imports what making it needs
def peak():
    return int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1])
before = peak()
env = gym.make("AdaFocus-v0")
env.reset(seed=0)
print(peak() - before)
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert 1_000 < int(found.stdout) < 500_000  # KiB


def test_version() -> None:
    assert adafocus_env.__version__
