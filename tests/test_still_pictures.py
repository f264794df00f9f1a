"""Several looks at one still picture, and continuous positions in ``AdaFocus-v0`` and ``GlanceFocus-v0``."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from torch import Tensor

import agents
from adafocus_env import (
    AdaFocusVectorEnv,
    FeatureBank,
    FrozenFeatures,
    GlanceFocusVectorEnv,
    Recognizer,
    RoamingFashion,
    TSMRecognizer,
    VideoDataset,
)
from adafocus_env.patches import corner_positions
from adafocus_env.recognition.assessment import reference_accuracies
from adafocus_env.recognition.recipes import Stage1Config, Stage3Config
from adafocus_env.recognition.training import train_stage1
from adafocus_env.videos import get_videos
from agents.baselines import CenterPolicy, GaussianPolicy, OraclePolicy, RandomPolicy
from agents.sb3 import make_vec_env
from tests.test_copies import check_copies
from tests.test_environment import assert_same

LOOKS = 3
ACTIONS = pytest.mark.parametrize(
    "actions", [{"skip": False}, {"skip": True}, {"skip": False, "action": "continuous"}], ids=["grid", "skip", "place"]
)


class Repeated:
    """Pictures as videos that show each of them several times."""

    def __init__(self, pictures: VideoDataset, times: int) -> None:
        self._pictures, self.num_frames = pictures, times
        self.frame_size, self.labels = pictures.frame_size, pictures.labels
        self.class_names, self.num_classes = pictures.class_names, pictures.num_classes
        self.fingerprint = f"{times} times {pictures.fingerprint}"

    def __len__(self) -> int:
        return len(self._pictures)

    def frames(self, indices: Tensor) -> Tensor:
        return self._pictures.frames(indices).repeat_interleave(self.num_frames, dim=1)


def make_pictures(num_videos: int = 12) -> RoamingFashion:
    return RoamingFashion(
        "val", num_videos=num_videos, num_frames=1, visible_fraction=1.0, frame_size=48, num_distractors=1
    )


@pytest.fixture(scope="module")
def pictures() -> RoamingFashion:
    return make_pictures()


@pytest.fixture
def picture_kwargs(recognizer: Recognizer, pictures: RoamingFashion) -> dict[str, Any]:
    return {"recognizer": recognizer, "videos": pictures, "grid": 4}


def counted_glances(network: torch.nn.Module) -> list[int]:
    """Grows by the number of images of every call of a CNN."""
    found: list[int] = []
    network.register_forward_hook(lambda module, inputs, output: found.append(len(inputs[0])))
    return found


def a_policy(features: FrozenFeatures, actions: dict[str, Any], *, use_belief: bool = True) -> agents.Reinforce:
    env = GlanceFocusVectorEnv(4, looks=LOOKS, features=features, **actions)
    sizes = {"encoder_size": 8, "hidden_size": 8, "episodes_per_batch": 4}
    return agents.Reinforce(env, use_belief=use_belief, learning_rate=0.05, **sizes).learn(4 * LOOKS)


# ------------------------------------------------------------------------------------------------------ the process


def test_still_fashion_shows_the_item_in_its_only_frame() -> None:
    pictures = get_videos("still-fashion", "val")
    assert pictures.num_frames == 1
    assert bool(pictures.locations(torch.arange(100))[1].all())  # type: ignore[attr-defined]


@ACTIONS
def test_one_look_is_adafocus(actions: dict[str, Any], picture_kwargs: dict[str, Any]) -> None:
    envs = [AdaFocusVectorEnv(3, **picture_kwargs, **actions)]
    envs.append(GlanceFocusVectorEnv(3, looks=1, **picture_kwargs, **actions))
    assert envs[0].observation_space == envs[1].observation_space
    assert envs[0].action_space == envs[1].action_space
    envs[0].action_space.seed(0)
    assert_same(*(env.reset(seed=4) for env in envs))
    for _ in range(4):
        chosen = envs[0].action_space.sample()
        assert_same(*(env.step(chosen) for env in envs))


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("kind", [FrozenFeatures, FeatureBank])
@pytest.mark.parametrize(
    "arguments",
    [
        {"skip": True},
        {"skip": True, "baseline": "pixel", "skip_cost": 0.1},
        {"skip": True, "reward": "gain_over_previous", "observation": "glance"},
        {"skip": False, "baseline": "exact"},
        {"skip": False, "action": "continuous", "baseline": "exact"},
        {"skip": False, "action": "continuous", "reward": "gain_over_blank"},
    ],
    ids=["sample", "pixel", "previous", "exact", "place-exact", "place-blank"],
)
def test_looks_at_a_picture_are_a_video_of_it(
    arguments: dict[str, Any],
    kind: type[FrozenFeatures],
    mode: AutoresetMode,
    recognizer: Recognizer,
    pictures: RoamingFashion,
) -> None:
    """Step by step, with lanes out of step; the later frames of the video cost a glance each, the later looks none."""
    arguments = {"autoreset_mode": mode, **arguments}
    looking = GlanceFocusVectorEnv(3, looks=LOOKS, features=kind(recognizer, pictures, 4), **arguments)
    watching = AdaFocusVectorEnv(3, features=kind(recognizer, Repeated(pictures, LOOKS), 4), **arguments)
    assert (looking.num_frames, looking.num_steps, watching.num_steps) == (1, LOOKS, LOOKS)
    assert looking.observation_space == watching.observation_space
    glance, episodes = recognizer.cost().glance, 0
    looking.action_space.seed(1)

    def compare(found: dict[str, Any], wanted: dict[str, Any], again: np.ndarray) -> int:
        """Infos, without the glances of looks ``again`` at a picture; how many episodes they end."""
        found, wanted = dict(found), dict(wanted)
        ended = 0
        if "final_info" in wanted:
            ended = compare(found.pop("final_info"), wanted.pop("final_info"), again)
        if "gflops" in wanted:
            spent, of_video = (np.asarray(info.pop("gflops")) for info in (found, wanted))
            np.testing.assert_allclose(spent, of_video - glance * again, atol=1e-12)
        if "video_gflops" in wanted:
            over = wanted["_video_gflops"]
            spent, of_video = (info.pop("video_gflops")[over] for info in (found, wanted))
            np.testing.assert_allclose(of_video - spent, (LOOKS - 1) * glance, atol=1e-12)
            ended += int(over.sum())
        assert_same(found, wanted)
        return ended

    assert_same(looking.reset(seed=7), watching.reset(seed=7))
    for step in range(11):
        if step == 2:
            mask = np.array([True, False, False])
            assert_same(*(env.reset(options={"reset_mask": mask.copy()}) for env in (looking, watching)))
        taken = looking.current_steps.numpy()
        assert taken.tolist() == watching.current_steps.tolist()
        chosen = looking.action_space.sample()
        found, wanted = looking.step(chosen), watching.step(chosen)
        assert_same(found[:4], wanted[:4])
        np.testing.assert_allclose(looking.probabilities, watching.probabilities, atol=1e-5)
        episodes += compare(found[4], wanted[4], (taken > 0) & (taken < LOOKS))
        if mode is AutoresetMode.DISABLED and (over := found[2]).any():
            assert_same(*(env.reset(options={"reset_mask": over.copy()}) for env in (looking, watching)))
    assert episodes >= 6


@pytest.mark.parametrize("looks", [1, 2])
def test_looks_at_a_video_glance_at_every_frame_once(
    looks: int, recognizer: Recognizer, videos: RoamingFashion
) -> None:
    """AdaFocus-v0 takes ``looks`` too: a frame's steps follow one another."""
    env = AdaFocusVectorEnv(2, looks=looks, features=FrozenFeatures(recognizer, videos, 4), autoreset_mode="DISABLED")
    counted = counted_glances(env.features._fast.global_cnn)
    env.reset(seed=0)
    frames, focused = [], np.zeros(2)
    for _ in range(4 * looks):
        frames += env.current_frames[:1].tolist()
        *_, info = env.step(env.action_space.sample())
        focused += ~info["skipped"]
    assert frames == np.repeat(np.arange(4), looks).tolist()
    assert sum(counted) == 2 * 4
    cost = recognizer.cost()
    spent = 4 * cost.glance + 4 * looks * cost.classifier + focused * cost.local
    np.testing.assert_allclose(info["video_gflops"], spent, atol=1e-12)


@ACTIONS
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_picture_is_glanced_at_once(
    mode: AutoresetMode, actions: dict[str, Any], recognizer: Recognizer, pictures: RoamingFashion
) -> None:
    """Online, and with lanes out of step."""
    features = FrozenFeatures(recognizer, pictures, 4)
    counted = counted_glances(features._fast.global_cnn)
    env = GlanceFocusVectorEnv(3, looks=LOOKS, features=features, autoreset_mode=mode, **actions)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    env.reset(options={"reset_mask": np.array([False, True, False])})
    started = 4
    for _ in range(9):
        *_, over, _, info = env.step(env.action_space.sample())
        if mode is AutoresetMode.DISABLED and over.any():
            _, info = env.reset(options={"reset_mask": over.copy()})
            started += int(info["_video"].sum())
        elif mode is AutoresetMode.SAME_STEP:
            started += int(over.sum())
        elif mode is AutoresetMode.NEXT_STEP:
            started += int((~np.asarray(info.get("_gflops", np.zeros(3, dtype=bool)))).sum())
    assert started > 8
    assert sum(counted) == started


def test_pictures_alone(recognizer: Recognizer, videos: RoamingFashion, picture_kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="looks at pictures, and these videos have 4 frames"):
        gym.make("GlanceFocus-v0", recognizer=recognizer, videos=videos)
    for looks in (0, 1.5, "a"):
        with pytest.raises(ValueError, match="looks must be an integer of at least 1"):
            gym.make("GlanceFocus-v0", looks=looks, **picture_kwargs)


# -------------------------------------------------------------------------------------------------- Gymnasium and SB3


@ACTIONS
@pytest.mark.parametrize("env_id", ["AdaFocus-v0", "GlanceFocus-v0"])
@pytest.mark.parametrize("observation", ["full", "glance"])
def test_checkers_agree(observation: str, env_id: str, actions: dict[str, Any], picture_kwargs: dict[str, Any]) -> None:
    arguments = {**picture_kwargs, **actions, "observation": observation}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(env_id, render_mode="rgb_array", **arguments).unwrapped)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sb3_check_env(gym.make(env_id, **arguments).unwrapped)
    assert all("image" in str(warning.message) or "CnnPolicy" in str(warning.message) for warning in caught)


@ACTIONS
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_lane_is_a_single_environment(
    mode: AutoresetMode, actions: dict[str, Any], picture_kwargs: dict[str, Any]
) -> None:
    arguments = {"looks": LOOKS, **picture_kwargs, **actions}
    vector = gym.make_vec("GlanceFocus-v0", 3, autoreset_mode=mode, **arguments)
    singles = SyncVectorEnv([lambda: gym.make("GlanceFocus-v0", **arguments)] * 3, autoreset_mode=mode)
    assert vector.observation_space == singles.observation_space
    assert vector.action_space == singles.action_space
    assert_same(vector.reset(seed=5), singles.reset(seed=5))
    vector.action_space.seed(0)
    for _ in range(9):
        chosen = vector.action_space.sample()
        found, wanted = vector.step(chosen), singles.step(chosen)
        assert_same(found, wanted)
        if mode is AutoresetMode.DISABLED and found[2].all():
            assert_same(vector.reset(), singles.reset())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
@pytest.mark.parametrize("kind", [FrozenFeatures, FeatureBank])
@pytest.mark.parametrize("before", [1, 2])
@pytest.mark.parametrize("vector", [False, True])
def test_copies_go_on_between_two_looks(
    vector: bool,
    before: int,
    kind: type[FrozenFeatures],
    duplicate: Callable[[Any], Any],
    recognizer: Recognizer,
    pictures: RoamingFashion,
) -> None:
    actions: dict[str, Any] = {"skip": True} if before == 1 else {"action": "continuous"}
    arguments: dict[str, Any] = {"features": kind(recognizer, pictures, 4), "looks": LOOKS, **actions}
    env = gym.make_vec("GlanceFocus-v0", 2, **arguments) if vector else gym.make("GlanceFocus-v0", **arguments)
    check_copies(env, duplicate, before)


# ------------------------------------------------------------------------------------------- recognising, evaluating


@ACTIONS
@pytest.mark.parametrize("exit_threshold", [None, 0.4, [0.6, 0.5, 0.4]])
@pytest.mark.parametrize(("kind", "use_belief"), [(FrozenFeatures, True), (FeatureBank, False)])
def test_evaluation_equals_recognition(
    kind: type[FrozenFeatures],
    use_belief: bool,
    exit_threshold: Any,
    actions: dict[str, Any],
    recognizer: Recognizer,
    pictures: RoamingFashion,
) -> None:
    features = kind(recognizer, pictures, 4)
    policy = a_policy(features, actions, use_belief=use_belief)
    deployed = copy.deepcopy(recognizer)
    counted = counted_glances(deployed.global_cnn)
    found = deployed.recognize(pictures.frames(torch.arange(12)), policy, looks=LOOKS, exit_threshold=exit_threshold)
    assert sum(counted) == 12
    run = agents.evaluate(
        policy, env_id="GlanceFocus-v0", looks=LOOKS, features=features, exit_threshold=exit_threshold, num_envs=5
    )
    np.testing.assert_array_equal(run.frames, 1)
    np.testing.assert_array_equal(found.frames, 1)
    assert run.predictions.shape == (12, LOOKS)
    np.testing.assert_allclose(run.probabilities, found.logits[:, -1].softmax(dim=1), atol=1e-4)
    np.testing.assert_array_equal(run.predictions, found.logits.argmax(dim=2))
    np.testing.assert_array_equal(run.skipped, found.skipped)
    np.testing.assert_array_equal(run.corners[~run.skipped], found.corners[~found.skipped])
    np.testing.assert_allclose(run.gflops, found.gflops, atol=1e-12)
    if exit_threshold is not None and not actions["skip"]:
        assert 12 < run.focused.sum() < 12 * LOOKS  # some leave early


@pytest.mark.parametrize("looks", [1, LOOKS])
def test_recognition_is_the_forward_pass(looks: int, recognizer: Recognizer, videos: RoamingFashion) -> None:
    """Which takes as many patches of a frame as there are corners for it."""
    env = AdaFocusVectorEnv(1, recognizer=recognizer, videos=videos, grid=4, skip=False)
    frames = videos.frames(torch.arange(5))
    found = recognizer.recognize(frames, RandomPolicy(env, seed=3), looks=looks)
    assert found.corners.shape == (5, 4 * looks, 2)
    torch.testing.assert_close(recognizer(frames, found.corners), found.logits, atol=1e-4, rtol=1e-4)
    repeated = frames.repeat_interleave(looks, dim=1)
    torch.testing.assert_close(recognizer(repeated, found.corners), found.logits, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match=r"\(B, T·k, 2\) for k looks"):
        recognizer(frames, found.corners[:, :-1] if looks > 1 else found.corners.repeat(1, 2, 1)[:, :-1])


@pytest.mark.parametrize("baseline", [RandomPolicy, CenterPolicy, GaussianPolicy, OraclePolicy])
@ACTIONS
def test_baselines_act(baseline: type[Any], actions: dict[str, Any], picture_kwargs: dict[str, Any]) -> None:
    run = agents.evaluate(baseline, env_id="GlanceFocus-v0", looks=LOOKS, **picture_kwargs, **actions)
    assert run.corners.shape == (12, LOOKS, 2)
    same = bool((run.corners == run.corners[:, :1]).all())
    assert same == (baseline in (CenterPolicy, OraclePolicy))
    if baseline is OraclePolicy:
        boxes, _ = picture_kwargs["videos"].locations(torch.arange(12))
        offset = run.corners + 12 - (boxes[..., :2] + boxes[..., 2:] / 2).numpy()
        assert np.abs(offset).max() <= 12


# ---------------------------------------------------------------------------------------------- continuous positions


def test_positions_have_no_skip_bit(env_kwargs: dict[str, Any]) -> None:
    for env_id in ("AdaFocus-v0", "GlanceFocus-v0"):
        with pytest.raises(ValueError, match="action='continuous' carries no skip bit: pass skip=False"):
            gym.make(env_id, action="continuous", skip=True, **env_kwargs)
    with pytest.raises(ValueError, match="action must be one of"):
        gym.make("AdaFocus-v0", action="free", **env_kwargs)


@pytest.mark.parametrize("baseline", ["sample", "exact", "pixel"])
def test_positions_and_patches_at_the_same_corner_earn_the_same(baseline: str, env_kwargs: dict[str, Any]) -> None:
    arguments = {"baseline": baseline, "skip": False, **env_kwargs}
    continuous, grid = (gym.make_vec("AdaFocus-v0", 16, action=kind, **arguments) for kind in ("continuous", "grid"))
    continuous.reset(seed=5), grid.reset(seed=5)
    env: Any = grid.unwrapped
    places = corner_positions(env.corners, env.frame_size, env.patch_size).numpy()
    for step in range(4):
        chosen = np.roll(np.arange(16), step)
        assert_same(continuous.step(places[chosen]), grid.step(chosen))


@pytest.mark.parametrize("use_belief", [True, False])
def test_a_policy_of_positions_learns_saves_and_evaluates(
    use_belief: bool, env_kwargs: dict[str, Any], recognizer: Recognizer, videos: RoamingFashion, tmp_path: Path
) -> None:
    arguments = {"action": "continuous", "skip": False, **env_kwargs}
    env = gym.make_vec("AdaFocus-v0", 4, **arguments)
    sizes = {"encoder_size": 8, "hidden_size": 8, "episodes_per_batch": 4}
    agent = agents.Reinforce(env, use_belief=use_belief, learn_position_std=True, learning_rate=0.05, **sizes)
    before = copy.deepcopy(agent.policy.state_dict())
    agent.learn(4 * 4 * 3)
    assert any(not torch.equal(before[name], value) for name, value in agent.policy.state_dict().items())
    agent.save(tmp_path / "policy.pt")
    loaded = agents.load_policy(tmp_path / "policy.pt")
    runs = [agents.evaluate(policy, num_envs=5, **arguments) for policy in (agent, loaded)]
    np.testing.assert_array_equal(*(run.corners for run in runs))
    for exit_threshold in (None, 0.4):
        found = recognizer.recognize(videos.frames(torch.arange(12)), loaded, exit_threshold=exit_threshold)
        run = agents.evaluate(loaded, exit_threshold=exit_threshold, **env_kwargs)  # which finds the action by itself
        np.testing.assert_allclose(run.probabilities, found.logits[:, -1].softmax(dim=1), atol=1e-4)
        np.testing.assert_array_equal(run.skipped, found.skipped)
        np.testing.assert_array_equal(run.corners[~run.skipped], found.corners[~found.skipped])
        np.testing.assert_allclose(run.gflops, found.gflops, atol=1e-12)
    resumed = agents.Reinforce.load(tmp_path / "policy.pt", env).learn(16)
    assert resumed.num_timesteps == agent.num_timesteps + 16
    assert 0 <= agents.evaluate(OraclePolicy, **arguments).accuracy <= 1


@pytest.mark.parametrize("env_id", ["AdaFocus-v0", "GlanceFocus-v0"])
@pytest.mark.parametrize("action", ["continuous", "grid"])
def test_sb3_trains(action: str, env_id: str, picture_kwargs: dict[str, Any]) -> None:
    env = make_vec_env(2, env_id=env_id, action=action, looks=LOOKS, skip=False, **picture_kwargs)
    model = PPO("MultiInputPolicy", env, n_steps=6, batch_size=6, n_epochs=1, seed=0)
    before = copy.deepcopy(model.policy.state_dict())
    model.learn(24)
    assert any(not torch.equal(before[name], value) for name, value in model.policy.state_dict().items())
    assert [info["l"] for info in model.ep_info_buffer] == [LOOKS] * 8
    run = agents.evaluate(model, env_id=env_id, looks=LOOKS, **picture_kwargs)
    assert run.corners.shape == (12, LOOKS, 2)


# ------------------------------------------------------------------------------------------------------- the stages


def test_stage_1_reads_several_patches_of_a_picture(recognizer: Recognizer, pictures: RoamingFashion) -> None:
    """The same as one of each frame of a video that repeats the picture, but for the glances."""
    weights = []
    for videos, looks in ((pictures, LOOKS), (Repeated(pictures, LOOKS), 1)):
        model = copy.deepcopy(recognizer)
        torch.manual_seed(0)
        train_stage1(model, videos, Stage1Config(steps=3, videos_per_step=6), looks=looks, seed=2)
        weights.append(model.state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], atol=1e-4, rtol=1e-4)
    assert not torch.equal(weights[0]["classifier.fc.weight"], recognizer.state_dict()["classifier.fc.weight"])


def test_clips_are_looked_at_once(pictures: RoamingFashion) -> None:
    from tests.test_motion import TINY

    with pytest.raises(ValueError, match="looks must be 1"):
        train_stage1(TSMRecognizer(TINY), pictures, Stage1Config(steps=1), looks=2)


@pytest.mark.parametrize("local_rate", [0.0, 1e-3])
@pytest.mark.parametrize("skip", [False, True])
def test_stage_3_reads_the_looks_of_the_policy(
    skip: bool, local_rate: float, recognizer: Recognizer, pictures: RoamingFashion
) -> None:
    features = FrozenFeatures(recognizer, pictures, 4)
    policy = a_policy(features, {"skip": skip})
    config = Stage3Config(epochs=2, videos_per_step=6, local_learning_rate=local_rate)
    looking = {"env_id": "GlanceFocus-v0", "looks": LOOKS}
    tuned = agents.finetune(recognizer, policy, config, videos=pictures, **looking)
    watching = agents.finetune(recognizer, policy, config, videos=Repeated(pictures, LOOKS))
    for name, value in tuned.state_dict().items():
        torch.testing.assert_close(value, watching.state_dict()[name], atol=1e-4, rtol=1e-4)
    assert not torch.equal(tuned.classifier.fc.weight, recognizer.classifier.fc.weight)


def test_reference_accuracies_are_those_of_policies(recognizer: Recognizer, pictures: RoamingFashion) -> None:
    found = reference_accuracies(recognizer, pictures, grid=4, looks=LOOKS)
    arguments = {"env_id": "GlanceFocus-v0", "looks": LOOKS, "features": FrozenFeatures(recognizer, pictures, 4)}
    for name, policy in (("center", CenterPolicy), ("true_location", OraclePolicy)):
        assert found[name] == pytest.approx(100 * agents.evaluate(policy, **arguments).accuracy)


@pytest.mark.parametrize("algorithm", [agents.AllAction, agents.SoftTargets, agents.Localizer])
def test_agents_that_know_more_learn_on_pictures(algorithm: type[Any], picture_kwargs: dict[str, Any]) -> None:
    env = gym.make_vec("GlanceFocus-v0", 4, looks=LOOKS, baseline="exact", output="torch", **picture_kwargs)
    agent = algorithm(env, encoder_size=8, hidden_size=8, episodes_per_batch=4)
    before = copy.deepcopy(agent.policy.state_dict())
    agent.learn(4 * LOOKS)
    assert any(not torch.equal(before[name], value) for name, value in agent.policy.state_dict().items())


def test_the_shipped_policy_finds_what_the_shipped_recogniser_needs() -> None:
    videos = RoamingFashion("val", num_videos=200, num_frames=1, visible_fraction=1.0)
    arguments = {"env_id": "GlanceFocus-v0", "looks": 5, "videos": videos}
    runs = {
        name: agents.evaluate(policy, **arguments).accuracy_per_frame
        for name, policy in {
            "random": RandomPolicy,
            "learned": agents.from_pretrained("still-fashion"),
            "oracle": OraclePolicy,
        }.items()
    }
    assert runs["oracle"][-1] > 0.75
    assert runs["random"][0] < runs["random"][-1] < runs["oracle"][0]
    assert runs["learned"][0] > runs["random"][0] + 0.5 * (runs["oracle"][0] - runs["random"][0])
    assert runs["learned"][-1] > runs["random"][-1]
