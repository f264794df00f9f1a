"""RoamingMotion, and the environment, the agents and stage 3 of AdaFocus-TSM on it."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from PIL import Image
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from torch import Tensor

from adafocus_env import (
    AdaFocusTSMVectorEnv,
    AdaFocusVectorEnv,
    FeatureBank,
    FrameFolders,
    FrozenFeatures,
    Recognizer,
    RoamingMotion,
    TSMConfig,
    TSMRecognizer,
    load_recognizer,
)
from adafocus_env.patches import centered_corners, corner_positions, grid_corners, position_corners
from adafocus_env.recognition import BackboneConfig
from adafocus_env.recognition.assessment import reference_accuracies
from adafocus_env.recognition.optimization import Progress
from adafocus_env.recognition.recipes import Stage0Config, Stage1Config, Stage3Config
from adafocus_env.recognition.training import train_stage0, train_stage1, train_stage3
from adafocus_env.recognition.warm_up import start_from
from adafocus_env.videos import SPLITS, get_videos
from adafocus_env.videos.roaming_motion import MOTIONS, STAGE_SIZE
from agents import AllAction, Reinforce, evaluate, finetune, from_pretrained, sb3
from agents.baselines import CenterPolicy, GaussianPolicy, OraclePolicy, RandomPolicy
from agents.figures import play
from tests.conftest import make_tiny_recognizer

TINY = TSMConfig(
    num_classes=10,
    global_backbone=BackboneConfig("tiny_resnet", (8, 8), (4, 2)),
    local_backbone=BackboneConfig("tiny_resnet", (8, 16), (2, 2)),
    glance_size=24,
    glance_interpolation="bilinear",
    patch_size=20,
    global_frames=2,
    local_frames=3,
)


def make_videos(split: str = "val", num_videos: int = 12, **kwargs: Any) -> RoamingMotion:
    return RoamingMotion(split, num_videos=num_videos, samplings=(2, 3), frame_size=48, num_distractors=1, **kwargs)


def make_recognizer() -> TSMRecognizer:
    """An untrained recogniser whose predictions depend visibly on the patch."""
    torch.manual_seed(0)
    recognizer = TSMRecognizer(TINY).train()
    videos = make_videos()
    frames = videos.frames(torch.arange(12))
    patches = recognizer.cut(frames, torch.randint(28, (12, 2)))
    with torch.no_grad():
        for _ in range(20):
            recognizer.glance(recognizer.glanced(frames))
            recognizer.look(patches)
        recognizer.eval()
        spread = recognizer.look(patches).std(dim=0).mean()
        recognizer.local_head.weight.div_(spread)
    return recognizer


@pytest.fixture(scope="module")
def recognizer() -> TSMRecognizer:
    return make_recognizer()


@pytest.fixture(scope="module")
def videos() -> RoamingMotion:
    return make_videos()


@pytest.fixture
def env_kwargs(recognizer: TSMRecognizer, videos: RoamingMotion) -> dict[str, Any]:
    return {"recognizer": recognizer, "videos": videos, "grid": 4}


def make_vec(num_envs: int, **kwargs: Any) -> AdaFocusTSMVectorEnv:
    env = gym.make_vec("AdaFocusTSM-v0", num_envs=num_envs, **kwargs)
    assert isinstance(env, AdaFocusTSMVectorEnv)
    return env


# ---------------------------------------------------------------------------------------------------- RoamingMotion


def test_the_pixels_are_those_of_version_1() -> None:
    frames = RoamingMotion("test").frames(torch.arange(4))
    assert frames.shape == (4, 10, 3, 112, 112)
    assert frames.dtype == torch.uint8
    assert int(frames.sum(dtype=torch.int64)) == pytest.approx(PIXEL_SUM, rel=1e-5)


PIXEL_SUM = 168_781_271


def test_a_clip_depends_on_its_index_only() -> None:
    videos = RoamingMotion("val")
    batch = videos.frames(torch.tensor([7, 500, 7]))
    assert torch.equal(batch[0], batch[2])
    assert torch.equal(batch[1], videos.frames(torch.tensor([500]))[0])
    assert not torch.equal(batch[0], RoamingMotion("val", seed=1).frames(torch.tensor([7]))[0])


def test_splits_share_no_image() -> None:
    images = {split: {image.tobytes() for image in RoamingMotion(split)._images.numpy()} for split in SPLITS}
    assert sum(map(len, images.values())) == len(set().union(*images.values()))


def shown(videos: RoamingMotion, indices: Tensor) -> Tensor:
    """(B, T, H, W) bool, pixels that differ from the empty scene."""
    bare = videos._frames_of(videos._background(indices, 4.0 * videos._times))
    return (videos.frames(indices) != bare).any(dim=2)


def centres(changed: Tensor) -> Tensor:
    """(B, T, 2) row and column of the middle of what is shown."""
    places = torch.stack(torch.meshgrid(*map(torch.arange, changed.shape[-2:]), indexing="ij"), dim=-1)
    weight = changed[..., None].float()
    return (places * weight).sum((2, 3)) / weight.sum((2, 3)).clamp(min=1)


def clips_of(motion: str, videos: RoamingMotion, count: int = 20) -> Tensor:
    return (videos.labels == MOTIONS.index(motion)).nonzero()[:count, 0]


@pytest.mark.parametrize(
    ("motion", "axis", "sign"),
    [("moves left", 1, -1), ("moves right", 1, 1), ("moves up", 0, -1), ("moves down", 0, 1)],
)
def test_moving_items_move_their_way(motion: str, axis: int, sign: int) -> None:
    videos = RoamingMotion("val", num_distractors=0, samplings=(8,))
    path = centres(shown(videos, clips_of(motion, videos)))
    steps = sign * path.diff(dim=1)
    assert float(steps[..., axis].mean()) > 0.8
    assert float(steps[..., 1 - axis].abs().mean()) < 0.3
    assert bool(((path[:, -1] - path[:, 0])[:, axis] * sign > 5).all())


def test_other_items_grow_turn_and_come() -> None:
    videos = RoamingMotion("val", num_distractors=0, samplings=(8,))

    def area(motion: str) -> Tensor:
        return shown(videos, clips_of(motion, videos)).sum((2, 3)).float()

    for grows, shrinks in (("approaches", "recedes"), ("appears", "disappears")):
        assert bool((area(grows)[:, -1] > 1.3 * area(grows)[:, 0]).all())
        assert bool((area(shrinks)[:, 0] > 1.3 * area(shrinks)[:, -1]).all())
    for motion in ("turns clockwise", "turns counter-clockwise"):
        matrices = videos._poses(clips_of(motion, videos), 0)[1]
        angle = torch.atan2(matrices[..., 0, 1], matrices[..., 0, 0])
        turned = (angle[:, -1] - angle[:, 0]) * (1 if motion == "turns clockwise" else -1)
        assert bool((turned > 1).all())


@pytest.mark.parametrize("pair", range(5))
def test_a_clip_played_backwards_is_of_the_other_class(pair: int) -> None:
    """With another label, and nothing else changed, the item does what it did, backwards."""
    videos, backwards = (RoamingMotion("val", num_distractors=0, samplings=(4, 6)) for _ in range(2))
    indices = clips_of(MOTIONS[2 * pair], videos)
    backwards.labels[indices] += 1
    assert {MOTIONS[label] for label in backwards.labels[indices].tolist()} == {MOTIONS[2 * pair + 1]}
    for sampling in (slice(0, 4), slice(4, 10)):
        for one, other in zip(videos._poses(indices, 0), backwards._poses(indices, 0), strict=True):
            torch.testing.assert_close(one[:, sampling].flip(1), other[:, sampling], atol=1e-5, rtol=1e-5)
        one, other = (centres(shown(v, indices))[:, sampling] for v in (videos, backwards))
        assert float((one.flip(1) - other).abs().max()) < 1.5


def test_items_stay_where_locations_say_and_distractors_do_something_else() -> None:
    videos = RoamingMotion("train", num_distractors=0)
    indices = torch.arange(60)
    boxes, visible = videos.locations(indices)
    assert bool(visible.all())
    assert bool((boxes == boxes[:, :1]).all())
    changed = shown(videos, indices).any(dim=1)
    for video, (top, left, height, width) in enumerate(boxes[:, 0].tolist()):
        rows, columns = changed[video].nonzero(as_tuple=True)
        assert (height, width) == (STAGE_SIZE, STAGE_SIZE)
        assert 0 <= top <= int(rows.min()) <= int(rows.max()) < top + height <= 112
        assert 0 <= left <= int(columns.min()) <= int(columns.max()) < left + width <= 112
    for sprite in (1, 2, 3):
        assert not bool((videos._motions(torch.arange(2000), sprite) == videos.labels[:2000]).any())
    assert torch.bincount(RoamingMotion("test").labels, minlength=10).min() > 400


def test_stages_reach_every_border() -> None:
    """And no further: an item may be anywhere that its square fits."""
    for size in (STAGE_SIZE, STAGE_SIZE + 1, STAGE_SIZE + 3):
        videos = RoamingMotion("val", num_videos=300, frame_size=size)
        boxes, _ = videos.locations(torch.arange(300))
        for axis in (0, 1):
            assert boxes[..., axis].unique().tolist() == list(range(size - STAGE_SIZE + 1))


@pytest.mark.parametrize("arguments", [{"split": "dev"}, {"samplings": (4, 0)}, {"samplings": ()}, {"frame_size": 31}])
def test_bad_arguments_are_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        RoamingMotion(**arguments)


# -------------------------------------------------------------------------------------------------------- positions


def test_positions_and_corners() -> None:
    corners = grid_corners(7, (112, 96), 40)
    assert torch.equal(position_corners(corner_positions(corners, (112, 96), 40), (112, 96), 40), corners)
    ends = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, -0.99]])
    assert position_corners(ends, (112, 96), 40).tolist() == [[0, 0], [72, 56], [36, 0]]
    assert position_corners(torch.ones(1, 2), (40, 40), 40).tolist() == [[0, 0]]
    boxes = torch.tensor([[0, 70, 32, 32], [50, 40, 32, 32]])
    assert centered_corners(boxes, (112, 112), 40).tolist() == [[0, 66], [46, 36]]


# ------------------------------------------------------------------------------------------------------ environment


@pytest.mark.parametrize("action", ["continuous", "grid"])
@pytest.mark.parametrize("observation", ["full", "glance"])
@pytest.mark.filterwarnings("ignore")
def test_checkers_agree(action: str, observation: str, env_kwargs: dict[str, Any]) -> None:
    env = gym.make("AdaFocusTSM-v0", action=action, observation=observation, **env_kwargs)
    check_env(env.unwrapped, skip_render_check=True)
    sb3_check_env(env)
    glance = env.observation_space if observation == "glance" else env.observation_space["glance"]  # type: ignore[index]
    assert glance.shape == (2 * 8, 3, 3)
    assert env.unwrapped.num_steps == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("action", ["continuous", "grid"])
@pytest.mark.parametrize("reward", ["gain_over_random", "gain_over_previous", "gain_over_blank", "confidence"])
@pytest.mark.parametrize("baseline", ["sample", "exact", "pixel"])
def test_rewards_are_the_recognisers_confidences(
    action: str, reward: str, baseline: str, env_kwargs: dict[str, Any]
) -> None:
    """Step by step, with nothing but the recogniser's forward pass."""
    recognizer, videos = env_kwargs["recognizer"], env_kwargs["videos"]
    env = make_vec(5, action=action, reward=reward, baseline=baseline, output="torch", **env_kwargs)
    observation, info = env.reset(seed=3)
    frames = videos.frames(info["video"])
    maps, logits = recognizer.glance(recognizer.glanced(frames))
    torch.testing.assert_close(observation["glance"], maps, atol=1e-4, rtol=1e-4)

    def confidence(corners: Tensor) -> Tensor:
        with torch.no_grad():
            found = recognizer(*recognizer.samplings(frames), corners).softmax(dim=1)
        return found.gather(1, info["label"][:, None])[:, 0]

    actions = torch.as_tensor(env.action_space.sample())
    _, rewards, terminated, truncated, after = env.step(actions)
    assert bool(terminated.all())
    assert not bool(truncated.any())
    corners = env.corners[actions] if action == "grid" else position_corners(actions, (48, 48), 20)
    assert torch.equal(after["patch"][:, :2], corners)
    chosen = confidence(corners)
    torch.testing.assert_close(after["confidence"], chosen, atol=1e-5, rtol=1e-5)
    everywhere = torch.stack([confidence(corner.expand(5, 2)) for corner in env.corners], dim=1)
    if reward == "gain_over_random":
        drawn = env._lanes.random_patches
        reference = {
            "sample": lambda: everywhere.gather(1, drawn)[:, 0],
            "exact": lambda: everywhere.mean(dim=1),
            "pixel": lambda: confidence(drawn[:, 0]),
        }[baseline]()
    elif reward == "gain_over_previous":
        reference = logits.softmax(dim=1).gather(1, info["label"][:, None])[:, 0]
    elif reward == "gain_over_blank":
        blank = (logits + recognizer.local_head.bias).softmax(dim=1)
        reference = blank.gather(1, info["label"][:, None])[:, 0]
    else:
        reference = torch.zeros(5)
    torch.testing.assert_close(rewards, (chosen - reference).detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after["baseline_confidence"], reference.detach(), atol=1e-5, rtol=1e-5)
    assert after["gflops"].tolist() == pytest.approx([recognizer.cost().always + recognizer.cost().local] * 5)
    assert torch.equal(after["is_success"], after["prediction"] == info["label"])
    if reward == "gain_over_random" and baseline == "exact":
        earned = everywhere - reference[:, None]
        torch.testing.assert_close(after["candidate_rewards"], earned.detach(), atol=1e-5, rtol=1e-5)


def test_before_the_look_the_glance_alone_speaks(env_kwargs: dict[str, Any]) -> None:
    env = make_vec(3, output="torch", **env_kwargs)
    _, info = env.reset(seed=0)
    frames = env_kwargs["videos"].frames(info["video"])
    logits = env_kwargs["recognizer"].glance(env_kwargs["recognizer"].glanced(frames))[1]
    torch.testing.assert_close(env.probabilities, logits.softmax(dim=1).detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("action", ["continuous", "grid"])
def test_memoised_is_online(action: str, env_kwargs: dict[str, Any]) -> None:
    online = FrozenFeatures(env_kwargs["recognizer"], env_kwargs["videos"], 4)
    envs = [make_vec(4, action=action, features=online), make_vec(4, action=action, **env_kwargs)]
    for seed in range(3):
        observations = [env.reset(seed=seed)[0]["glance"] for env in envs]
        np.testing.assert_allclose(*observations, atol=1e-5)
        actions = envs[0].action_space.sample()
        results = [env.step(actions) for env in envs]
        np.testing.assert_allclose(results[0][1], results[1][1], atol=1e-5)
        np.testing.assert_array_equal(results[0][4]["prediction"], results[1][4]["prediction"])


def test_a_bank_built_ahead_is_one_that_fills_lazily(env_kwargs: dict[str, Any], tmp_path: Path) -> None:
    arguments = (env_kwargs["recognizer"], env_kwargs["videos"], 4)
    ahead = FeatureBank(*arguments, path=tmp_path / "bank")
    ahead.build()
    assert ahead.full
    lazy = FeatureBank(*arguments)
    envs = [make_vec(4, action="grid", features=bank, baseline="exact") for bank in (ahead, lazy)]
    for env in envs:
        env.reset(seed=0)
    actions = np.array([0, 5, 10, 15])
    np.testing.assert_allclose(*(env.step(actions)[1] for env in envs), atol=1e-5)


def test_positions_and_patches_at_the_same_corner_earn_the_same(env_kwargs: dict[str, Any]) -> None:
    continuous, grid = (make_vec(16, action=action, **env_kwargs) for action in ("continuous", "grid"))
    for env in (continuous, grid):
        env.reset(seed=5)
    patches = np.arange(16)
    positions = corner_positions(grid.corners, grid.frame_size, grid.patch_size).numpy()
    one, other = continuous.step(positions), grid.step(patches)
    np.testing.assert_allclose(one[1], other[1], atol=1e-5)
    np.testing.assert_array_equal(one[4]["patch"], other[4]["patch"])
    np.testing.assert_allclose(one[4]["confidence"], other[4]["confidence"], atol=1e-5)


@pytest.mark.parametrize("action", ["continuous", "grid"])
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_lane_is_a_single_environment(mode: AutoresetMode, action: str, env_kwargs: dict[str, Any]) -> None:
    batched = make_vec(3, autoreset_mode=mode, action=action, **env_kwargs)
    single = SyncVectorEnv([lambda: gym.make("AdaFocusTSM-v0", action=action, **env_kwargs)] * 3, autoreset_mode=mode)
    batched.action_space.seed(0)
    one, other = batched.reset(seed=11), single.reset(seed=11)
    for step in range(5):
        np.testing.assert_allclose(one[0]["glance"], other[0]["glance"], atol=1e-5)
        np.testing.assert_array_equal(one[-1]["video"], other[-1]["video"])
        if mode is AutoresetMode.DISABLED and step:
            one, other = batched.reset(), single.reset()
        actions = batched.action_space.sample()
        one, other = batched.step(actions), single.step(actions)
        np.testing.assert_allclose(one[1], other[1], atol=1e-5)
        np.testing.assert_array_equal(one[2], other[2])
        if mode is AutoresetMode.SAME_STEP:
            np.testing.assert_array_equal(one[-1]["final_info"]["patch"], other[-1]["final_info"]["patch"])


@pytest.mark.parametrize("skip_cost", [None, 0.25])
def test_the_price_of_a_look_is_taken_off(skip_cost: float | None, env_kwargs: dict[str, Any]) -> None:
    env = gym.make("AdaFocusTSM-v0", skip_cost=skip_cost, **env_kwargs)
    env.reset(seed=0)
    _, reward, _, _, info = env.step(np.zeros(2, dtype=np.float32))
    price = info["confidence"] - info["baseline_confidence"] - reward
    assert price == pytest.approx(skip_cost or 0.0, abs=1e-6)


def test_some_lanes_can_be_reset(env_kwargs: dict[str, Any]) -> None:
    env = make_vec(4, autoreset_mode="DISABLED", **env_kwargs)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    before = env.current_videos
    mask = np.array([True, False, True, False])
    _, info = env.reset(options={"reset_mask": mask, "video": 3})
    np.testing.assert_array_equal(info["_video"], mask)
    assert env.current_videos[mask].tolist() == [3, 3]
    assert torch.equal(env.current_videos[~mask], before[~mask])
    with pytest.raises(gym.error.ResetNeeded):
        env.step(env.action_space.sample())


def test_errors_name_what_is_wrong(env_kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="action must be one of"):
        make_vec(2, action="anywhere", **env_kwargs)
    with pytest.raises(TypeError, match="skip"):
        make_vec(2, skip=True, **env_kwargs)
    with pytest.raises(ValueError, match=r"reads 2 \+ 3 frames"):
        make_vec(2, recognizer=env_kwargs["recognizer"], videos=RoamingMotion("val", samplings=(2, 4)))
    with pytest.raises(ValueError, match="must be a TSMRecognizer"):
        make_vec(2, recognizer=make_tiny_recognizer())
    with pytest.raises(ValueError, match="must be of a Recognizer"):
        AdaFocusVectorEnv(2, features=FrozenFeatures(env_kwargs["recognizer"], env_kwargs["videos"]))
    env = make_vec(2, **env_kwargs)
    env.reset(seed=0)
    for wrong in (np.array([[0.0, 1.5], [0, 0]]), np.array([[0.0, np.nan], [0, 0]]), np.zeros((2, 3)), ["a", "b"]):
        with pytest.raises(ValueError, match="actions must be"):
            env.step(wrong)


def test_pictures_show_the_patch_in_all_frames(env_kwargs: dict[str, Any]) -> None:
    env = gym.make("AdaFocusTSM-v0", render_mode="rgb_array", **env_kwargs)
    env.reset(seed=0)
    before: Any = env.render()
    env.step(np.array([-1, -1], dtype=np.float32))
    after: Any = env.render()
    width = before.shape[1] // 3  # three frames of the second sampling
    green = (after == (64, 220, 96)).all(axis=-1)
    assert all(green[0, start : start + 5].all() for start in (0, width, 2 * width))


def test_pictures_show_what_the_local_cnn_reads(env_kwargs: dict[str, Any]) -> None:
    """The frames of the second sampling, side by side."""
    env = gym.make("AdaFocusTSM-v0", render_mode="rgb_array", **env_kwargs)
    _, info = env.reset(seed=0)
    frames = env_kwargs["videos"].frames(torch.tensor([info["video"]]))[0, 2:].permute(0, 2, 3, 1).numpy()
    picture: Any = env.render()
    factor = picture.shape[1] // (3 * 48)
    assert np.array_equal(picture[: 48 * factor : factor, ::factor], np.concatenate(list(frames), axis=1))


# ----------------------------------------------------------------------------------------------------------- agents


@pytest.mark.parametrize("action", ["continuous", "grid"])
def test_sb3_ppo_trains(action: str, env_kwargs: dict[str, Any]) -> None:
    env = sb3.make_vec_env(8, env_id="AdaFocusTSM-v0", action=action, **env_kwargs)
    model = PPO(sb3.GlancePolicy, env, n_steps=4, batch_size=16, n_epochs=1, device="cpu")
    model.learn(64)
    assert len(model.ep_info_buffer or ()) > 0
    assert evaluate(model, **env_kwargs).num_videos == 12
    with pytest.raises(ValueError, match="env_id"):
        sb3.make_vec_env(2, env_id="AdaFocus-v9")


def test_reinforce_learns_where_the_reward_is() -> None:
    """A recogniser that is right where the patch is bright: the policy has to go to the bright side."""

    class Sides:
        """One half of the frame is white: the left one in videos of class 0, where only a look at white helps."""

        num_frames, frame_size, class_names, num_classes = 5, (32, 32), ("left", "right"), 2
        labels = torch.arange(8) % 2
        fingerprint = "sides"

        def __len__(self) -> int:
            return 8

        def frames(self, indices: Tensor) -> Tensor:
            frames = torch.zeros(len(indices), 5, 3, 32, 32, dtype=torch.uint8)
            for row, index in enumerate(indices.tolist()):
                half = slice(0, 16) if index % 4 < 2 else slice(16, 32)
                frames[row, ..., half] = 255 if index % 2 else 128
            return frames

    torch.manual_seed(1)
    recognizer = TSMRecognizer(dataclasses.replace(TINY, num_classes=2, patch_size=8, glance_size=32))
    videos = Sides()
    places = torch.tensor([[0, 0] if index % 4 < 2 else [0, 24] for index in range(8)])
    optimizer = torch.optim.Adam(recognizer.parameters(), 3e-3)
    frames = videos.frames(torch.arange(8))
    for _ in range(60):
        patches = recognizer.cut(frames, places)
        loss = torch.nn.functional.cross_entropy(recognizer.look(patches), videos.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    recognizer.glance(recognizer.glanced(frames))
    with torch.no_grad():
        recognizer.global_head.weight.zero_()
        recognizer.global_head.bias.zero_()
        for _ in range(30):
            recognizer.glance(recognizer.glanced(frames))
    recognizer.eval()
    env = make_vec(64, recognizer=recognizer, videos=videos, output="torch")
    agent = Reinforce(env, seed=0, learning_rate=3e-3, entropy_coefficient=0.0, encoder_size=32, hidden_size=32)
    agent.learn(64 * 60)
    found = evaluate(agent, recognizer=recognizer, videos=videos)
    start = evaluate(RandomPolicy, recognizer=recognizer, videos=videos)
    assert found.mean_confidence > start.mean_confidence + 0.1
    columns = found.corners[:, 0, 1]
    assert columns[[0, 1, 4, 5]].max() < 12 <= columns[[2, 3, 6, 7]].min() + 4


@pytest.mark.parametrize("learn_std", [False, True])
def test_reinforce_saves_what_it_is(learn_std: bool, env_kwargs: dict[str, Any], tmp_path: Path) -> None:
    env = make_vec(8, output="torch", **env_kwargs)
    small: dict[str, Any] = {"encoder_size": 16, "hidden_size": 16, "episodes_per_batch": 8}
    agent = Reinforce(env, seed=0, learn_position_std=learn_std, **small)
    agent.learn(32)
    assert agent.num_timesteps == 32
    assert bool(agent.policy.position_log_std.exp() == 0.25) is not learn_std
    agent.save(tmp_path / "agent.pt")
    loaded = Reinforce.load(tmp_path / "agent.pt", env)
    assert loaded.action_space == agent.action_space
    glance = env.reset(seed=0)[0]["glance"].numpy()
    for deterministic in (True, False):
        actions = [a.predict(glance, deterministic=deterministic)[0] for a in (agent, loaded)]
        np.testing.assert_array_equal(*actions)
        assert env.action_space.contains(actions[0])
    agent.learn(8)
    loaded.learn(8)
    for one, other in zip(agent.policy.parameters(), loaded.policy.parameters(), strict=True):
        assert torch.equal(one, other)


def test_gaussian_log_probabilities(env_kwargs: dict[str, Any]) -> None:
    env = make_vec(4, output="torch", **env_kwargs)
    agent = Reinforce(env, seed=0, encoder_size=16, hidden_size=16, episodes_per_batch=4, position_std=0.1)
    hidden = torch.randn(6, 16)
    generator = torch.Generator().manual_seed(1)
    distribution = agent.policy.distribution({}, hidden, None)
    drawn = distribution.sample(generator)
    action, log_prob, entropy = distribution.action(drawn), distribution.log_prob(drawn), distribution.entropy(drawn)
    mean = distribution.mode()
    assert bool(((mean - 0.5).abs() < 0.1).all())  # starts at the centre
    place = (action + 1) / 2
    wanted = (-((place - mean) ** 2) / 0.02 - np.log(0.1 * np.sqrt(2 * np.pi))).sum(dim=1)
    torch.testing.assert_close(log_prob, wanted, atol=1e-4, rtol=1e-4)
    assert entropy.tolist() == pytest.approx([2 * np.log(0.1 * np.sqrt(2 * np.pi * np.e))] * 6, rel=1e-5)
    with pytest.raises(ValueError, match="patches alone"):
        AllAction(env)


@pytest.mark.parametrize("action", ["continuous", "grid"])
def test_baselines_act_where_they_say(action: str, env_kwargs: dict[str, Any]) -> None:
    corners = {}
    for kind in (RandomPolicy, CenterPolicy, GaussianPolicy, OraclePolicy):
        corners[kind] = evaluate(kind, action=action, **env_kwargs).corners[:, 0]
    assert (corners[CenterPolicy] == corners[CenterPolicy][0]).all()
    assert abs(corners[CenterPolicy][0] - 14).max() <= 5
    boxes = env_kwargs["videos"].locations(torch.arange(12))[0][:, 0]
    best = centered_corners(boxes, (48, 48), 20).numpy()
    assert np.abs(corners[OraclePolicy] - best).max() <= (0 if action == "continuous" else 6)
    assert len(np.unique(corners[RandomPolicy], axis=0)) > 3


def test_evaluation_finds_its_environment(env_kwargs: dict[str, Any], tmp_path: Path) -> None:
    recognizer = env_kwargs["recognizer"]
    recognizer.save(tmp_path / "tiny.safetensors")
    assert isinstance(load_recognizer(tmp_path / "tiny.safetensors"), TSMRecognizer)
    assert isinstance(load_recognizer("roaming-fashion"), Recognizer)
    by_path = evaluate(RandomPolicy, **{**env_kwargs, "recognizer": str(tmp_path / "tiny.safetensors")})
    by_object = evaluate(RandomPolicy, env_id="AdaFocusTSM-v0", **env_kwargs)
    np.testing.assert_array_equal(by_path.corners, by_object.corners)
    assert by_path.corners.shape == (12, 1, 2)
    assert by_path.gflops_per_video == pytest.approx(recognizer.cost().always + recognizer.cost().local)
    strips = play(CenterPolicy, [0, 1], **env_kwargs)
    assert [len(strip) for strip in strips] == [1, 1]


@pytest.mark.parametrize("action", ["continuous", "grid"])
def test_deployment_computes_what_the_environment_does(action: str, env_kwargs: dict[str, Any]) -> None:
    recognizer, videos = env_kwargs["recognizer"], env_kwargs["videos"]
    env = make_vec(12, action=action, **env_kwargs)
    agent = Reinforce(env, seed=0, encoder_size=16, hidden_size=16)
    with torch.no_grad():
        for head in (agent._average.module.position_head, agent._average.module.patch_head):
            if head is not None:
                head.weight.mul_(300)  # so that clips are told apart
    found = evaluate(agent, **env_kwargs)
    result = recognizer.recognize(videos.frames(torch.arange(12)), agent)
    np.testing.assert_array_equal(result.corners.numpy(), found.corners)
    np.testing.assert_allclose(result.logits[:, 0].softmax(dim=1).numpy(), found.probabilities, atol=1e-5)
    assert result.gflops.tolist() == pytest.approx(found.gflops.tolist())
    assert len(np.unique(found.corners[:, 0], axis=0)) > 1


def test_folding_changes_nothing(recognizer: TSMRecognizer, videos: RoamingMotion) -> None:
    frames, corners = videos.frames(torch.arange(3)), torch.tensor([[0, 3], [9, 9], [28, 20]])
    twin = recognizer.deployed()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in twin.modules())
    with torch.no_grad():
        one, other = (model(*model.samplings(frames), corners) for model in (recognizer, twin))
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


# --------------------------------------------------------------------------------------------------------- training


def test_all_stages_run_and_train_what_they_should() -> None:
    torch.manual_seed(0)
    videos = make_videos("recognizer", 32)
    recognizer = TSMRecognizer(TINY)

    def weights() -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in recognizer.state_dict().items() if "num_batches" not in name}

    def changed(before: dict[str, Tensor]) -> set[str]:
        return {name.split(".")[0] for name, tensor in weights().items() if not torch.equal(tensor, before[name])}

    before = weights()
    train_stage0(recognizer, videos, Stage0Config(global_steps=2, local_steps=0, videos_per_step=8))
    assert changed(before) == {"global_cnn", "global_head"}
    before = weights()
    train_stage0(recognizer, videos, Stage0Config(global_steps=0, local_steps=2, videos_per_step=8))
    assert changed(before) == {"local_cnn", "local_head"}
    before = weights()
    train_stage1(recognizer, videos, Stage1Config(steps=2, videos_per_step=8))
    assert changed(before) == {"local_cnn", "local_head"}
    before = weights()
    tuned = finetune(recognizer, RandomPolicy, Stage3Config(epochs=2, videos_per_step=8), videos=videos)
    assert changed(before) == set()
    heads = {name for name, tensor in tuned.state_dict().items() if not torch.equal(tensor, before.get(name, tensor))}
    assert heads == {"local_head.weight", "local_head.bias"}
    with pytest.raises(ValueError, match="local_learning_rate"):
        train_stage3(
            recognizer, videos, torch.arange(4), torch.zeros(4, 1, 2, dtype=torch.int64),
            torch.zeros(4, 1, dtype=torch.bool), Stage3Config(local_learning_rate=0.1),
        )  # fmt: skip
    assert set(reference_accuracies(tuned, videos)) == {"glances_only", "random", "center", "true_location"}


def test_stage3_fits_the_patches_that_were_picked(recognizer: TSMRecognizer, videos: RoamingMotion) -> None:
    losses: list[float] = []
    model = TSMRecognizer(TINY).eval()
    model.load_state_dict(recognizer.state_dict())
    corners = videos.locations(torch.arange(12))[0][:, :1, :2].clamp(max=28)
    skipped = torch.zeros(12, 1, dtype=torch.bool)
    config = Stage3Config(epochs=60, videos_per_step=12, classifier_learning_rate=0.05, weight_decay=0.0)
    progress = Progress(lambda stage, step, metrics: losses.append(metrics["loss"]))
    train_stage3(model, videos, torch.arange(12), corners, skipped, config, progress=progress)
    assert losses[-1] < 0.7 * losses[0]


def test_the_first_loss_of_stage3_is_that_of_the_forward_pass(recognizer: TSMRecognizer, videos: RoamingMotion) -> None:
    model, indices = copy.deepcopy(recognizer), torch.tensor([7, 2, 9, 2])
    corners = torch.randint(28, (4, 2), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model(*model.samplings(videos.frames(indices)), corners)
    wanted = torch.nn.functional.cross_entropy(logits, videos.labels[indices])
    losses: list[float] = []
    progress = Progress(lambda stage, step, metrics: losses.append(metrics["loss"]))
    config, skipped = Stage3Config(epochs=1, videos_per_step=4), torch.zeros(4, 1, dtype=torch.bool)
    train_stage3(model, videos, indices, corners[:, None], skipped, config, progress=progress)
    assert losses == [pytest.approx(float(wanted), rel=1e-5)]


def test_stage1_drops_out_and_lets_the_global_cnn_be(recognizer: TSMRecognizer, videos: RoamingMotion) -> None:
    found = []
    for dropout in (0.0, 0.5):
        model = TSMRecognizer(dataclasses.replace(TINY, dropout=dropout)).train()
        model.load_state_dict(recognizer.state_dict())
        before = copy.deepcopy(model.state_dict())
        torch.manual_seed(0)
        train_stage1(model, videos, Stage1Config(steps=2, videos_per_step=6))
        after = model.state_dict()
        same = {name for name, tensor in after.items() if torch.equal(tensor, before[name])}
        assert {name for name in after if name.startswith("global")} <= same
        assert not any(name.startswith("local") for name in same)
        found.append(model.local_head.weight.detach().clone())
    assert not torch.equal(*found)


def test_networks_start_from_anothers(recognizer: TSMRecognizer) -> None:
    known = make_tiny_recognizer(
        global_backbone=BackboneConfig("tiny_resnet", (8, 8), (4, 2)),
        local_backbone=BackboneConfig("tiny_resnet", (8, 12), (2, 2)),
    )
    model = TSMRecognizer(TINY)
    fresh = {name: tensor.clone() for name, tensor in model.local_cnn.state_dict().items()}
    start_from(model, known)
    assert torch.equal(model.global_cnn[3].conv1.net.weight, known.global_cnn[3].conv1.weight)  # type: ignore[union-attr, index]
    assert torch.equal(model.local_cnn[0].weight, known.local_cnn[0].weight)  # type: ignore[index]
    assert torch.equal(model.local_cnn.state_dict()["3.conv1.net.weight"], fresh["3.conv1.net.weight"])  # other shape


def test_the_shipped_recogniser_needs_the_place_and_the_policy_finds_it() -> None:
    recognizer, videos = load_recognizer("roaming-motion"), RoamingMotion("val", num_videos=200)
    found = reference_accuracies(recognizer, videos)
    assert found["true_location"] > 80
    assert found["random"] < found["true_location"] - 30
    assert found["glances_only"] < found["random"] + 5
    learned = evaluate(from_pretrained("roaming-motion"), recognizer=recognizer, videos=videos)
    assert 100 * learned.accuracy > found["random"] + 0.6 * (found["true_location"] - found["random"])


# ------------------------------------------------------------------------------------------- Something-Something


@pytest.fixture(scope="module")
def something(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames and lists as of Something-Something V2: one folder per number, six digits, fields between spaces."""
    root = tmp_path_factory.mktemp("something")
    lines = []
    for row, count in enumerate((40, 25, 12, 5, 30, 9)):
        folder = root / "frames" / f"{1000 + row}"
        folder.mkdir(parents=True)
        for number in range(1, count + 1):
            pixels = np.full((36, 48, 3), 4 * number, dtype=np.uint8)
            pixels[..., 2] = 4 * np.arange(48)  # left and right differ
            Image.fromarray(pixels).save(folder / f"{number:06d}.jpg", quality=95)
        lines.append(f"{1000 + row} {count} {row % 3}")
    (root / "train_videofolder.txt").write_text("\n".join(lines))
    (root / "val_videofolder.txt").write_text("\n".join(lines))
    (root / "something.toml").write_text(
        'root = "frames"\ntrain_list = "train_videofolder.txt"\ntest_list = "val_videofolder.txt"\nnum_classes = 3\n'
        'template = "{:06d}.jpg"\nnum_frames = [8, 12]\nrepeat = "first"\nflip = false\nframe_size = 32\nresized = 36\n'
    )
    return root


def numbers(frames: Tensor) -> list[int]:
    """Which frames these are, counted from 1, from their brightness."""
    return (frames[:, 0].float().mean(dim=(1, 2)) / 4).round().int().tolist()


def test_two_samplings_of_a_clip_on_disk(something: Path) -> None:
    videos = get_videos(str(something / "something.toml"), "test")
    assert isinstance(videos, FrameFolders)
    assert (videos.num_frames, videos.samplings, videos.flip) == (20, (8, 12), False)
    frames = videos.frames(torch.tensor([0, 3, 5]))
    assert frames.shape == (3, 20, 3, 32, 32)
    middles = [int(40 / count / 2 + 40 / count * k) + 1 for count in (8, 12) for k in range(count)]
    assert numbers(frames[0]) == middles
    assert numbers(frames[1]) == [1] * 20  # five frames are fewer than either sampling
    assert numbers(frames[2])[8:] == [1] * 12  # nine are enough for eight
    assert numbers(frames[2])[:8] == [int(9 / 16 + 9 / 8 * k) + 1 for k in range(8)]


def test_training_views_are_one_crop_for_both_samplings_without_a_mirror(something: Path) -> None:
    videos = FrameFolders(
        something / "frames", something / "train_videofolder.txt", num_classes=3, template="{:06d}.jpg",
        num_frames=(8, 12), repeat="first", flip=False, frame_size=32, resized=36, training=True,
    )  # fmt: skip
    drawn = set()
    for _ in range(6):
        (view,) = videos.frames(torch.tensor([4]))
        order = numbers(view)
        assert order[:8] == sorted(order[:8])
        assert order[8:] == sorted(order[8:])
        drawn.add(tuple(order))
        blue = view[:, 2].float().mean(dim=1)  # rises from left to right
        assert bool((blue[:, -1] > blue[:, 0] + 40).all())
        assert float((blue - blue.mean(dim=0)).abs().max()) < 6  # one crop for all
    assert len(drawn) > 1


def test_bad_samplings_are_named(something: Path) -> None:
    for arguments in ({"num_frames": ()}, {"num_frames": (8, 0)}, {"repeat": "middle"}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            FrameFolders(
                something / "frames", something / "val_videofolder.txt", num_classes=3, template="{:06d}.jpg",
                **arguments,
            )  # type: ignore[arg-type] # fmt: skip


def test_the_environment_runs_on_frames_from_disk(something: Path) -> None:
    torch.manual_seed(0)
    recognizer = TSMRecognizer(
        dataclasses.replace(TINY, num_classes=3, global_frames=8, local_frames=12, patch_size=16)
    ).eval()
    env = make_vec(2, recognizer=recognizer, videos=str(something / "something.toml"), split="test", action="grid")
    env.reset(seed=0)
    assert np.isfinite(env.step(np.array([3, 40]))[1]).all()


def test_no_clip_is_left_early(env_kwargs: dict[str, Any]) -> None:
    agent = Reinforce(make_vec(2, **env_kwargs), seed=0)
    with pytest.raises(ValueError, match="exit_threshold: a clip is decided about at once"):
        evaluate(agent, exit_threshold=0.5, **env_kwargs)
    clips = env_kwargs["videos"].frames(torch.arange(2))
    with pytest.raises(ValueError, match="exit_threshold: a clip is decided about at once"):
        env_kwargs["recognizer"].recognize(clips, agent, exit_threshold=0.5)
