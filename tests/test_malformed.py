"""Malformed input to environments, agents, evaluation and recognising: one clear error each, which says what is
allowed."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import agents
from adafocus_env import AdaFocusVectorEnv, FeatureBank, FrozenFeatures, Recognizer, RoamingFashion
from adafocus_env.checks import Bounds, check_integer, check_number
from adafocus_env.patches import grid_corners
from agents.baselines import CenterPolicy
from tests.test_motion import make_recognizer as make_clip_recognizer
from tests.test_motion import make_videos as make_clips

NAN, INF, HUGE = float("nan"), float("inf"), 10**400
RAGGED = [[1], [1, 2]]
OBJECTS = np.array([None, None])


@pytest.fixture(scope="module", autouse=True)
def _one_table(recognizer: Recognizer, videos: RoamingFashion) -> Any:
    """Held, so that not every environment here makes its own."""
    return FeatureBank.shared(recognizer, videos, 4)


class Unreferenced:
    reference = np.array(["random", "blank"])

    def __call__(self, *_: Any) -> None: ...


ARGUMENTS = [
    ("grid", "an integer of at least 2", [1, 0, -3, 7.5, True, "7", None, NAN, [7]]),
    ("grid", "at most 48", [49, 10**6, HUGE]),
    ("skip", "True or False", [1, "yes", None]),
    ("skip_cost", "a finite number of at least 0", [-0.1, NAN, INF, "a", True, [0.1], HUGE]),
    ("reward", "one of", ["gain", ""]),
    ("reward", "callable and have a `reference`", [object(), 3, None, Unreferenced, Unreferenced(), lambda: 0]),
    ("baseline", "one of", ["mean", 3, None, ["sample"]]),
    ("observation", "one of", ["pixels", None, np.array(["full", "glance"])]),
    ("render_mode", "one of", [3, "ansi", True, b"human", ["human"]]),
    ("split", "one of", ["testing", 3, None, ["test"]]),
    ("videos", "", ["no-such-videos", 3, ["a"], RoamingFashion]),
    ("recognizer", "", ["no-such-file", "", 3, Recognizer, "/"]),
    ("device", "a torch device of this machine", ["nonsense", "cuda:99", 3.5, ["cpu"]]),
    ("device", "one that computes", ["meta"]),
    ("features", "a FeatureBank or FrozenFeatures", [3, "bank"]),
]
VECTOR_ARGUMENTS = [
    ("num_envs", "an integer of at least 1", [0, -1, 1.5, True, "2", None, NAN, 2**20 + 1, 10**12]),
    ("output", "one of", ["jax", None, torch]),
    ("autoreset_mode", "one of", ["LATER", None, 3, np.array(["NextStep", ""])]),
]


def rows(table: list[tuple[Any, ...]]) -> Any:
    """One case for each of the values in the last column."""
    return [(*row[:-1], value) for row in table for value in row[-1]]


@pytest.mark.parametrize(("argument", "allowed", "value"), rows(ARGUMENTS))
def test_arguments(argument: str, allowed: str, value: Any, env_kwargs: dict[str, Any]) -> None:
    if argument == "features":
        env_kwargs = {}
    with pytest.raises(ValueError, match=rf"(?s){argument}.*{allowed}"):
        gym.make("AdaFocus-v0", **{**env_kwargs, argument: value})


@pytest.mark.parametrize(("argument", "allowed", "value"), rows(VECTOR_ARGUMENTS))
def test_vector_arguments(argument: str, allowed: str, value: Any, env_kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{argument} must be {allowed}"):
        AdaFocusVectorEnv(**{"num_envs": 2, **env_kwargs, argument: value})


def test_a_grid_may_be_as_fine_as_the_frame_has_pixels() -> None:
    assert len(grid_corners(48, (30, 48), 24).unique(dim=0)) == 7 * 25  # several candidates share a position
    assert not grid_corners(7, (4, 4), 4).any()


SEEDS = [-1, 1.5, "a", True, NAN, 2**62, [1, 2], np.array([1, 2]), {}]


@pytest.mark.parametrize("seed", SEEDS)
def test_seeds(seed: Any, env_kwargs: dict[str, Any]) -> None:
    env = gym.make("AdaFocus-v0", **env_kwargs)
    with pytest.raises(ValueError, match=r"seed must be an integer of at least 0 and below 2\*\*62, not"):
        env.reset(seed=seed)
    vector = AdaFocusVectorEnv(3, **env_kwargs)
    with pytest.raises(ValueError, match="seed must be an integer"):
        vector.reset(seed=seed)
    env.reset(seed=np.int64(3))  # but NumPy's integers are integers


OPTIONS = [
    ("options must be a dict", [3, "video", [("video", 3)]]),
    (r"options must hold nothing but.*clip", [{"clip": 3}, {"clip": 3, 1: 2}]),
    (r"options\['video'\] must be an integer", [{"video": v} for v in (1.5, "a", RAGGED, True, NAN, 2**70, OBJECTS)]),
    (r"options\['video'\] must be between 0 and 11", [{"video": v} for v in (12, -1, np.uint64(2**63), [0, 12])]),
    (r"options\['reset_mask'\] must be 2 booleans", [{"reset_mask": m} for m in ([1, 0], "a", [False] * 2, [True], 1)]),
]


@pytest.mark.parametrize(("message", "options"), rows(OPTIONS))
def test_options(message: str, options: Any, env_kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=message):
        AdaFocusVectorEnv(2, **env_kwargs).reset(options=options)


ACTIONS = [99, 16, -1, 1.5, NAN, None, "left", True, 1 + 1j, [3], RAGGED, {}, 2**70, np.array(None), torch.tensor(3.0)]


@pytest.mark.parametrize("action", ACTIONS)
def test_actions_of_a_single_environment(action: Any, env_kwargs: dict[str, Any]) -> None:
    env = gym.make("AdaFocus-v0", skip=False, **env_kwargs).unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"^action must be an integer \(patch index from 0 to 15\), not"):
        env.step(action)
    env.step(np.int32(3))
    with_skip = gym.make("AdaFocus-v0", **env_kwargs).unwrapped
    with_skip.reset(seed=0)
    with pytest.raises(ValueError, match=r"^action must be \(2,\) integers \(patch index .* skip bit 0 or 1\), not"):
        with_skip.step(action)


def test_an_action_out_of_range_is_shown(env_kwargs: dict[str, Any]) -> None:
    env = AdaFocusVectorEnv(20, **env_kwargs)
    env.reset(seed=0)
    actions = np.zeros((20, 2), dtype=int)
    actions[13, 0] = 77
    with pytest.raises(ValueError, match="not 77 in int64 of shape"):
        env.step(actions)


POSITIONS = [[2, 0], [0, -1.01], [NAN, 0], [0, INF], [0], 0, None, ["0", "0"], [True, False], [1j, 0], RAGGED, OBJECTS]


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("env_id", ["AdaFocus-v0", "AdaFocusTSM-v0"])
def test_positions(env_id: str, position: Any, env_kwargs: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"recognizer": make_clip_recognizer(), "videos": make_clips()}
    if env_id == "AdaFocus-v0":
        arguments = {"action": "continuous", "skip": False, **env_kwargs}
    env = gym.make(env_id, **arguments).unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"^action must be \(2,\) numbers \(row and column from -1 .* to 1 .*\), not"):
        env.step(position)
    vector = gym.make_vec(env_id, 2, **arguments)
    vector.reset(seed=0)
    with pytest.raises(ValueError, match=r"^actions must be \(2, 2\) numbers"):
        vector.step([position, position])


HYPERPARAMETERS = [
    ("learning_rate", "a finite number above 0", ["a", NAN, -1e-3, 0, INF, None, True, [1e-3]]),
    ("gamma", "a finite number of at least 0 and of at most 1", [2, -0.1, NAN, "0.9"]),
    ("episodes_per_batch", "an integer of at least 1", [1.5, 0, -64, "64", True, INF, NAN]),
    ("value_coefficient", "a finite number of at least 0", [-1, INF, NAN, "a"]),
    ("entropy_coefficient", "a finite number of at least 0", [INF, -0.01, NAN, None]),
    ("max_grad_norm", "a number above 0", [0, NAN, "a", -INF]),
    ("averaging", "a finite number of at least 0 and below 1", [1, -0.1, NAN, "a"]),
    ("encoder_size", "an integer of at least 1", [0, 2.0, "a"]),
    ("hidden_size", "an integer of at least 1", [0, 2.0, None]),
    ("position_std", "a finite number above 0", [0, NAN, INF]),
    ("normalize_advantage", "True or False", [1, "yes", None]),
    ("recurrent", "True or False", [0, NAN]),
    ("seed", "an integer of at least 0", [-1, 1.5, "a", None]),
    ("device", "a torch device of this machine", ["nonsense", "cuda:99"]),
]


@pytest.mark.parametrize(("argument", "allowed", "value"), rows(HYPERPARAMETERS))
@pytest.mark.parametrize("kind", ["Reinforce", "AllAction", "PaperPPO", "Localizer"])
def test_hyperparameters(kind: str, argument: str, allowed: str, value: Any, env_kwargs: dict[str, Any]) -> None:
    env = AdaFocusVectorEnv(2, skip=False, baseline="exact", **env_kwargs)
    with pytest.raises(ValueError, match=f"^{argument} must be {allowed}"):
        getattr(agents, kind)(env, **{"encoder_size": 4, "hidden_size": 4, argument: value})


def test_numpys_numbers_become_pythons(env_kwargs: dict[str, Any]) -> None:
    """So that a policy's file holds nothing but what is loaded without running code."""
    env = AdaFocusVectorEnv(2, **env_kwargs)
    config = agents.Reinforce(env, episodes_per_batch=np.int64(8), gamma=np.float32(0.5), recurrent=np.True_).config
    assert [type(value) for value in (config.episodes_per_batch, config.gamma, config.recurrent)] == [int, float, bool]
    assert check_number("x", 10**30, Bounds()) == 1e30
    with pytest.raises(ValueError, match="x must be an integer below 3, not 3"):
        check_integer("x", 3, Bounds(below=3))


FRAMES = [
    ("tensor", [None, np.zeros((1, 2, 3, 48, 48), dtype=np.uint8), [[]]]),
    (r"\(B, T, 3, H, W\) tensor", [torch.zeros(s, dtype=torch.uint8) for s in ((3, 48, 48), (1, 3, 48, 48))]),
    ("torch.float32", [torch.zeros(1, 2, 3, 48, 48)]),
    ("torch.int64", [torch.zeros(1, 2, 3, 48, 48, dtype=torch.int64)]),
    (r"channels are last, so pass frames\.permute", [torch.zeros(1, 2, 48, 48, 3, dtype=torch.uint8)]),
    ("not torch.uint8 of shape", [torch.zeros(1, 2, 1, 48, 48, dtype=torch.uint8)]),
    ("at least one video of at least one frame", [
        torch.zeros(shape, dtype=torch.uint8) for shape in ((0, 2, 3, 48, 48), (1, 0, 3, 48, 48), (0, 0, 3, 48, 48))
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("message", "frames"), rows(FRAMES))
def test_frames_to_recognise(message: str, frames: Any, recognizer: Recognizer, env_kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^frames must .*{message}"):
        recognizer.recognize(frames, CenterPolicy(gym.make("AdaFocus-v0", **env_kwargs)))
    clips = gym.make("AdaFocusTSM-v0", recognizer=make_clip_recognizer(), videos=make_clips())
    with pytest.raises(ValueError, match=f"^frames must .*{message}"):
        make_clip_recognizer().recognize(frames, CenterPolicy(clips))


def test_frames_smaller_than_a_patch(recognizer: Recognizer, env_kwargs: dict[str, Any]) -> None:
    policy = CenterPolicy(gym.make("AdaFocus-v0", **env_kwargs))
    with pytest.raises(ValueError, match=r"patch_size must be between 1 and the frame's shorter side 20, not 24"):
        recognizer.recognize(torch.zeros(1, 2, 3, 20, 48, dtype=torch.uint8), policy)


@pytest.mark.parametrize("policy", [None, "center", CenterPolicy, Recognizer, object()])
def test_what_is_no_policy(policy: Any, recognizer: Recognizer) -> None:
    with pytest.raises(ValueError, match=r"^policy must have SB3's predict and an action_space"):
        recognizer.recognize(torch.zeros(1, 2, 3, 48, 48, dtype=torch.uint8), policy)


def test_a_policy_of_another_grid(recognizer: Recognizer, videos: RoamingFashion, env_kwargs: dict[str, Any]) -> None:
    policy = CenterPolicy(gym.make("AdaFocus-v0", **{**env_kwargs, "grid": 3}))
    with pytest.raises(ValueError, match=r"the policy acts in MultiDiscrete\(\[9 2\]\).*`grid`"):
        agents.evaluate(policy, features=FrozenFeatures(recognizer, videos, 4))
    with pytest.raises(ValueError, match="not the patch indices of grid 4"):
        recognizer.recognize(torch.zeros(1, 2, 3, 48, 48, dtype=torch.uint8), policy, grid=4)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("num_envs", 0), ("num_envs", 1.5), ("seed", -1), ("seed", "a"), ("split", 3), ("grid", 10**6)],
)
def test_arguments_of_evaluate(argument: str, value: Any, env_kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{argument} must be"):
        agents.evaluate(CenterPolicy, **{**env_kwargs, argument: value})


@pytest.mark.parametrize(
    ("argument", "value"), [("dtype", "int8"), ("precision", "float64"), ("grid", 1), ("grid", 10**6)]
)
def test_arguments_of_banks(argument: str, value: Any, recognizer: Recognizer, videos: RoamingFashion) -> None:
    with pytest.raises(ValueError, match=argument):
        FeatureBank(recognizer, videos, **{"grid": 4, argument: value})
