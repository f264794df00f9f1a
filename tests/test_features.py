"""Feature banks in memory and in files, and the online path."""

from __future__ import annotations

import concurrent.futures
import copy
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from adafocus_env import AdaFocusVectorEnv, FeatureBank, FrozenFeatures, Recognizer, RoamingFashion
from adafocus_env.environments.rewards import REWARDS
from adafocus_env.features.bank_file import BankFile
from tests.conftest import make_tiny_recognizer, make_tiny_videos


def rollout(features: FrozenFeatures, lanes: int = 6, **env_kwargs: Any) -> list[Any]:
    """Two episodes per lane under fixed actions: everything that a step gives."""
    env = AdaFocusVectorEnv(lanes, features=features, **env_kwargs)
    env.action_space.seed(3)
    found: list[Any] = [env.reset(seed=5)]
    found += [env.step(env.action_space.sample()) for _ in range(2 * env.num_frames + 1)]
    return found


def assert_near(first: Any, second: Any) -> None:
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_near(first[key], second[key])
    elif isinstance(first, (list, tuple)):
        for one, other in zip(first, second, strict=True):
            assert_near(one, other)
    else:
        np.testing.assert_allclose(first, second, atol=2e-6)  # batches of different sizes round differently


def test_a_file_says_what_memory_says(tmp_path: Path, recognizer: Recognizer, videos: RoamingFashion) -> None:
    wanted = rollout(FeatureBank(recognizer, videos, 4))
    bank = FeatureBank(recognizer, videos, 4, path=tmp_path / "bank")
    assert_near(rollout(bank), wanted)
    bank.close()
    again = FeatureBank(recognizer, videos, 4, path=tmp_path / "bank")  # half filled, by now
    filled = again.filled_bytes()
    assert filled == bank.filled_bytes()
    assert_near(rollout(again), wanted)
    assert again.filled_bytes() == filled
    again.build()
    assert again.full
    assert_near(rollout(again), wanted)
    again.close()
    whole = FeatureBank.open(tmp_path / "bank", recognizer, videos)
    assert whole.full
    assert whole.grid == 4
    assert_near(rollout(whole), wanted)


def test_many_read_a_full_file_at_once(tmp_path: Path, recognizer: Recognizer, videos: RoamingFashion) -> None:
    path = tmp_path / "bank"
    builder = FeatureBank(recognizer, videos, 4, path=path)
    builder.build()
    builder.close()
    before = path.read_bytes()
    banks = [FeatureBank(recognizer, videos, 4, path=path) for _ in range(3)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.map(_sum_of_rewards, [(str(path), seed) for seed in (1, 2)])
    wanted = [sum(_rewards(bank, seed)) for bank, seed in zip(banks, (1, 2), strict=False)]
    assert found == pytest.approx(wanted)
    assert path.read_bytes() == before


def _rewards(features: FrozenFeatures, seed: int) -> list[float]:
    env = AdaFocusVectorEnv(2, features=features)
    env.reset(seed=seed)
    env.action_space.seed(seed)
    return [float(env.step(env.action_space.sample())[1].sum()) for _ in range(4)]


def _sum_of_rewards(arguments: tuple[str, int]) -> float:
    path, seed = arguments
    return sum(_rewards(FeatureBank(make_tiny_recognizer(), make_tiny_videos(), 4, path=path), seed))


def test_one_process_fills_at_a_time(tmp_path: Path, recognizer: Recognizer, videos: RoamingFashion) -> None:
    path, alias = tmp_path / "bank", tmp_path / "alias"
    first = FeatureBank(recognizer, videos, 4, path=path)
    alias.symlink_to(path)
    for name in (path, alias):
        with pytest.raises(BlockingIOError, match=r"bank is being filled"):
            FeatureBank(recognizer, videos, 4, path=name)
    with multiprocessing.get_context("spawn").Pool(1) as pool, pytest.raises(BlockingIOError):
        pool.map(_sum_of_rewards, [(str(path), 0)])
    first.close()
    FeatureBank(recognizer, videos, 4, path=path).close()


def test_a_closed_or_forked_bank_does_not_fill(tmp_path: Path, recognizer: Recognizer, videos: RoamingFashion) -> None:
    bank = FeatureBank(recognizer, videos, 4, path=tmp_path / "bank")
    rollout(bank, lanes=2)
    child = os.fork()
    if child == 0:
        try:
            bank.build()
        except BlockingIOError:
            os._exit(17)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17
    bank.close()
    rollout(bank, lanes=2)  # what is there can be read
    with pytest.raises(ValueError, match="was closed"):
        bank.build()


def test_a_forks_end_leaves_the_bank_to_its_owner(tmp_path: Path) -> None:
    """A fork inherits the finaliser: neither the counters on the disk nor the lock are its to touch."""
    path, arrays = tmp_path / "bank", {"filled": ((2,), torch.int64), "rows": ((4, 1000), torch.float32)}
    file = BankFile(path, {}, arrays, total=(4, 0))
    empty = path.read_bytes()
    file.arrays["filled"][0] += 1  # counted, but not yet brought to the disk
    child = os.fork()
    if child == 0:
        del file  # which finishes it, as the end of a process does
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert path.read_bytes() == empty
    with pytest.raises(BlockingIOError, match="is being filled"):
        BankFile(path, {}, arrays, total=(4, 0))
    file.close()
    again = BankFile(path, {}, arrays, total=(4, 0))
    assert again.arrays["filled"].tolist() == [1, 0]
    again.close()


def test_rows_reach_the_disk_before_their_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may write a page back at any time, so no counter may be raised before its rows were flushed."""
    path, arrays = tmp_path / "bank", {"filled": ((2,), torch.int64), "rows": ((4, 1000), torch.float32)}
    file = BankFile(path, {}, arrays, total=(4, 0))
    flush, seen = np.memmap.flush, []

    def observed(memory: np.memmap[Any, Any]) -> None:
        content = path.read_bytes()  # of the mapping, flushed or not
        seen.append((b"\x02" in content[4096:4112], np.float32(7).tobytes() in content[8192:]))
        flush(memory)

    monkeypatch.setattr(np.memmap, "flush", observed)
    file.arrays["rows"][:2] = 7
    file.arrays["filled"][0] = 2
    file.close()
    assert seen[0] == (False, True)
    assert seen[-1] == (True, True)


def test_threads_share_a_bank(recognizer: Recognizer, videos: RoamingFashion) -> None:
    for seed in range(3):
        bank = FeatureBank(recognizer, videos, 4)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda lanes: rollout(bank, lanes=lanes), [5 + seed] * 4))  # noqa: B023
        for one in found:
            assert_near(one, rollout(FeatureBank(recognizer, videos, 4), lanes=5 + seed))


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_full_file_is_read_from_a_read_only_folder(
    tmp_path: Path, recognizer: Recognizer, videos: RoamingFashion
) -> None:
    folder = tmp_path / "folder"
    bank = FeatureBank(recognizer, videos, 4, path=folder / "bank")
    bank.build()
    bank.close()
    (folder / "bank.lock").unlink(missing_ok=True)
    folder.chmod(0o500)
    try:
        assert FeatureBank(recognizer, videos, 4, path=folder / "bank").full
    finally:
        folder.chmod(0o700)


def test_a_spec_does_not_copy_the_table(recognizer: Recognizer, videos: RoamingFashion) -> None:
    bank = FeatureBank(recognizer, videos, 4)
    env = gym.make("AdaFocus-v0", features=bank)
    assert env.spec is not None
    assert env.spec.kwargs["features"] is bank


def test_what_a_step_gives_is_the_callers(recognizer: Recognizer, videos: RoamingFashion) -> None:
    def spoil(value: Any) -> None:
        if isinstance(value, dict):
            for part in value.values():
                spoil(part)
        elif isinstance(value, (tuple, list)):
            for part in value:
                spoil(part)
        elif isinstance(value, np.ndarray) and value.dtype != object:
            value[:] = ~value if value.dtype == bool else 77

    for make in (FeatureBank, FrozenFeatures):
        envs = [AdaFocusVectorEnv(3, features=make(recognizer, videos, 4)) for _ in range(2)]
        spoil(envs[0].reset(seed=2))
        envs[1].reset(seed=2)
        envs[0].action_space.seed(0)
        for _ in range(11):
            action = envs[0].action_space.sample()
            wanted = copy.deepcopy(envs[1].step(action))
            found = envs[0].step(action)
            assert_near(found, wanted)
            spoil(found)


@pytest.mark.parametrize("output", ["numpy", "torch"])
def test_observations_stay_as_they_were(output: Any, recognizer: Recognizer, videos: RoamingFashion) -> None:
    """For as long as somebody holds them, their memory serves no later one."""
    env = AdaFocusVectorEnv(3, features=FeatureBank(recognizer, videos, 4), output=output)
    kept = [env.reset(seed=0)[0]["glance"]]
    copies = [torch.as_tensor(kept[0]).clone()]
    for _ in range(6):
        kept.append(env.step(env.action_space.sample())[0]["glance"])
        copies.append(torch.as_tensor(kept[-1]).clone())
    assert all(torch.equal(torch.as_tensor(one), other) for one, other in zip(kept, copies, strict=True))


def test_a_video_in_several_lanes_is_filled_once(recognizer: Recognizer, videos: RoamingFashion) -> None:
    banks = []
    for lanes in ([3, 3, 5, 3], [3, 5]):
        banks.append(FeatureBank(recognizer, videos, 4))
        env = AdaFocusVectorEnv(len(lanes), features=banks[-1], skip=False, reward="confidence")
        env.reset(seed=0, options={"video": np.array(lanes)})
        env.step(np.full(len(lanes), 7))
    assert banks[0].filled_bytes() == banks[1].filled_bytes()


@pytest.mark.parametrize("what", ["recognizer", "videos", "grid", "dtype", "precision"])
def test_a_foreign_file_is_refused(what: str, tmp_path: Path, recognizer: Recognizer, videos: RoamingFashion) -> None:
    FeatureBank(recognizer, videos, 4, path=tmp_path / "bank").close()
    arguments: dict[str, Any] = {"recognizer": recognizer, "videos": videos, "grid": 4}
    arguments[what] = {
        "recognizer": make_tiny_recognizer(seed=1),
        "videos": RoamingFashion("test", num_videos=12, num_frames=4, frame_size=48, num_distractors=1),
        "grid": 5,
        "dtype": "float16",
        "precision": "bfloat16",
    }[what]
    with pytest.raises(ValueError, match=f"bank was filled for another .*{what}"):
        FeatureBank(**arguments, path=tmp_path / "bank")


def test_a_damaged_file_is_refused(tmp_path: Path, recognizer: Recognizer, videos: RoamingFashion) -> None:
    path = tmp_path / "bank"
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="is no feature bank"):
        FeatureBank(recognizer, videos, 4, path=path)
    path.unlink()
    FeatureBank(recognizer, videos, 4, path=path).close()
    for size in (path.stat().st_size - 1, 100):
        os.truncate(path, size)
        with pytest.raises(ValueError, match="cut short"):
            FeatureBank(recognizer, videos, 4, path=path)


def test_a_disk_that_is_too_small_is_refused(
    tmp_path: Path, recognizer: Recognizer, videos: RoamingFashion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(OSError, match="the whole table needs"):
        FeatureBank(recognizer, videos, 4, path=tmp_path / "bank")
    assert not (tmp_path / "bank").exists()


def test_a_killed_build_goes_on(tmp_path: Path, recognizer: Recognizer, videos: RoamingFashion) -> None:
    """Rows that were written but not yet brought to the disk are computed again; no row is wrong."""
    path = tmp_path / "bank"
    script = textwrap.dedent(
        f"""
        import os, signal
        from adafocus_env import FeatureBank
        from tests.conftest import make_tiny_recognizer, make_tiny_videos
        import adafocus_env.features.bank_file as bank_file
        bank = FeatureBank(make_tiny_recognizer(), make_tiny_videos(), 4, path={str(path)!r})
        calls = 0
        wrote = bank_file.BankFile.wrote
        def killed(self, *, full):
            global calls
            calls += 1
            if calls == 2:
                self._sync()
            if calls == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            wrote(self, full=full)
        bank_file.BankFile.wrote = killed
        bank.build()
        """
    )
    done = subprocess.run([sys.executable, "-c", script], timeout=120, check=False, cwd=Path(__file__).parents[1])
    assert done.returncode == -signal.SIGKILL
    bank = FeatureBank(recognizer, videos, 4, path=path)
    assert not bank.full
    assert bank.filled_bytes() > FeatureBank(recognizer, videos, 4).filled_bytes()
    bank.build()
    assert_near(rollout(bank), rollout(FeatureBank(recognizer, videos, 4)))


def test_the_predicted_size_is_the_filled_size(recognizer: Recognizer, videos: RoamingFashion) -> None:
    sizes = []
    for dtype in ("float32", "float16"):
        bank = FeatureBank(recognizer, videos, 4, dtype=dtype)  # type: ignore[arg-type]
        bank.build()
        predicted = FeatureBank.predicted_bytes(recognizer, videos, 4, dtype)  # type: ignore[arg-type]
        assert bank.filled_bytes() <= predicted <= bank.filled_bytes() + 10_000  # a row of zeros and the counters
        sizes.append(predicted)
    assert 1.7 < sizes[0] / sizes[1] < 2


def test_building_fills_what_stepping_asks_for(recognizer: Recognizer, videos: RoamingFashion) -> None:
    lazy, ahead = FeatureBank(recognizer, videos, 4), FeatureBank(recognizer, videos, 4)
    ahead.build()
    filled = ahead.filled_bytes()
    assert_near(rollout(lazy), rollout(ahead))
    assert ahead.filled_bytes() == filled > lazy.filled_bytes()


def test_values_too_large_for_float16(recognizer: Recognizer, videos: RoamingFashion) -> None:
    large = make_tiny_recognizer()
    with torch.no_grad():
        large.classifier.gru.weight_ih_l0.mul_(1e6)
    with pytest.raises(FloatingPointError, match="float16"):
        rollout(FeatureBank(large, videos, 4, dtype="float16"))


@pytest.mark.parametrize("part", ["global", "local"])
@pytest.mark.parametrize("kind", [FeatureBank, FrozenFeatures])
def test_a_cnn_that_overflows_is_named(
    kind: type[FrozenFeatures], part: str, recognizer: Recognizer, videos: RoamingFashion
) -> None:
    """All weights are finite, as files are checked for, but what comes of them is not."""
    huge = copy.deepcopy(recognizer)
    norms = [each for each in getattr(huge, f"{part}_cnn").modules() if isinstance(each, torch.nn.BatchNorm2d)]
    norms[-1].weight.data.fill_(3e38)
    norms[-1].bias.data.fill_(3e38)
    env = AdaFocusVectorEnv(1, features=kind(huge, videos, 4), skip=False)

    def run() -> None:
        env.reset(seed=0, options={"video": 7})
        env.step(np.zeros(1, dtype=np.int64))

    with pytest.raises(FloatingPointError, match=f"{part} CNN gave values that are not finite on video 7"):
        run()


def test_negative_values_too_large_for_float16(recognizer: Recognizer, videos: RoamingFashion) -> None:
    low = make_tiny_recognizer()
    with torch.no_grad():
        low.classifier.gru.bias_ih_l0.sub_(1e6)
    with pytest.raises(FloatingPointError, match="float16"):
        rollout(FeatureBank(low, videos, 4, dtype="float16"))


@pytest.mark.parametrize("kind", [FeatureBank, FrozenFeatures])
def test_a_skipped_frame_shows_nothing_and_costs_nothing(
    kind: type[FrozenFeatures], recognizer: Recognizer, videos: RoamingFashion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where fresh memory is full of what somebody left there."""
    fresh = torch.empty

    def poisoned(*arguments: Any, **keywords: Any) -> torch.Tensor:
        tensor = fresh(*arguments, **keywords)
        return tensor.fill_(torch.nan) if tensor.is_floating_point() else tensor

    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", poisoned)
        features = kind(recognizer, videos, 4)
        assert_near(rollout(features), rollout(FrozenFeatures(recognizer, videos, 4)))
        features = kind(recognizer, videos, 4)
    video, time = torch.tensor([3, 8, 3, 5]), torch.tensor([0, 1, 2, 3])
    candidates, focused = torch.tensor([[0, 5], [9, 9], [15, 2], [7, 7]]), torch.tensor([True, False, True, False])
    frames, cut_from = videos.frames(video)[torch.arange(4), time], set()

    def cut(rows: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
        cut_from.update(rows.tolist())
        return recognizer.cut(frames, corners, rows)

    features.ensure_videos(video, lambda rows: videos.frames(video[rows]))
    found = features.look(video, time, candidates, focused, cut)
    assert cut_from == {0, 2}
    assert not found[~focused].any()
    wanted = FrozenFeatures(recognizer, videos, 4).look(video, time, candidates, None, cut)
    assert_near(found[focused], wanted[focused])


@pytest.mark.parametrize("kind", [FeatureBank, FrozenFeatures])
def test_features_are_of_the_recogniser_as_it_was(
    kind: type[FrozenFeatures], recognizer: Recognizer, videos: RoamingFashion
) -> None:
    """Training it further, in all its parts, changes nothing; nor are they of any use to its gradients."""
    mine = copy.deepcopy(recognizer)
    features = kind(mine, videos, 4)
    with torch.no_grad():
        for parameter in mine.parameters():
            parameter.mul_(0.5)
    assert_near(rollout(features), rollout(kind(recognizer, videos, 4)))
    assert all(parameter.requires_grad for parameter in mine.parameters())


def test_environments_share_a_table_of_their_own_grid_alone(env_kwargs: dict[str, Any]) -> None:
    one, same, other = (AdaFocusVectorEnv(1, **{**env_kwargs, "grid": grid}) for grid in (4, 4, 5))
    assert one.features is same.features
    assert (other.num_patches, other.features.grid) == (25, 5)


def test_the_patch_matters(recognizer: Recognizer, videos: RoamingFashion) -> None:
    """What the other tests rely on: another patch is another confidence, by far more than their tolerances."""
    confidences = []
    for patch in range(16):
        env = AdaFocusVectorEnv(12, features=FrozenFeatures(recognizer, videos, 4), skip=False)
        env.reset(seed=0, options={"video": np.arange(12)})
        confidences.append(env.step(np.full(12, patch))[4]["confidence"])
    assert np.median(np.ptp(confidences, axis=0)) > 0.1


def test_bfloat16_stays_near(recognizer: Recognizer, videos: RoamingFashion) -> None:
    near = rollout(FrozenFeatures(recognizer, videos, 4, precision="bfloat16"))
    for (_, reward, *_), (_, wanted, *_) in zip(
        near[1:], rollout(FrozenFeatures(recognizer, videos, 4))[1:], strict=True
    ):
        np.testing.assert_allclose(reward, wanted, atol=0.02)


def test_what_policies_see_is_not_rounded(recognizer: Recognizer, videos: RoamingFashion) -> None:
    """``precision`` is the local CNN's; the global one's maps stay as they are, to the bit."""
    seen = [
        AdaFocusVectorEnv(4, features=FrozenFeatures(recognizer, videos, 4, precision=precision)).reset(seed=0)[0]
        for precision in ("float32", "bfloat16")
    ]
    np.testing.assert_array_equal(seen[0]["glance"], seen[1]["glance"])


def test_changing_videos_are_loaded_afresh(recognizer: Recognizer, videos: RoamingFashion) -> None:
    """Augmented videos differ from one episode to the next, so nothing of the last episode may be kept."""

    class Fading(RoamingFashion):
        shade = 0

        def frames(self, indices: torch.Tensor) -> torch.Tensor:
            self.shade += 40
            return super().frames(indices) // 2 + self.shade % 120

    changing = Fading("val", num_videos=12, num_frames=4, frame_size=48, num_distractors=1)
    env = AdaFocusVectorEnv(1, features=FrozenFeatures(recognizer, changing, 4))
    glances = [env.reset(seed=0, options={"video": 3})[0]["glance"] for _ in range(3)]
    assert not np.array_equal(glances[0], glances[1])
    same = AdaFocusVectorEnv(1, features=FeatureBank(recognizer, videos, 4))
    glances = [same.reset(seed=0, options={"video": 3})[0]["glance"] for _ in range(2)]
    assert np.array_equal(glances[0], glances[1])


def test_changing_videos_stay_the_same_within_an_episode(recognizer: Recognizer) -> None:
    """Whoever else starts anew: a view lasts until its own lane's next episode."""

    class Fading(RoamingFashion):
        loaded = 0

        def frames(self, indices: torch.Tensor) -> torch.Tensor:
            self.loaded += len(indices)
            return super().frames(indices) // 2 + torch.tensor(40 * self.loaded % 120, dtype=torch.uint8)

    changing = Fading("val", num_videos=12, num_frames=4, frame_size=48, num_distractors=1)
    env = AdaFocusVectorEnv(2, features=FrozenFeatures(recognizer, changing, 4))
    env.reset(seed=0, options={"video": np.array([3, 5])})
    assert changing.loaded == 2
    env.step(np.array([[0, 0], [5, 0]]))
    env.reset(options={"reset_mask": np.array([True, False]), "video": 3})
    env.step(np.array([[0, 0], [5, 0]]))
    assert changing.loaded == 3  # the first lane's, though it is of the same video


def test_changing_videos_need_no_features(recognizer: Recognizer) -> None:
    changing = make_tiny_videos()
    changing.changing = True  # type: ignore[attr-defined]
    env = gym.make_vec("AdaFocus-v0", 2, videos=changing, recognizer=recognizer, grid=4)
    assert type(env.unwrapped.features) is FrozenFeatures  # type: ignore[attr-defined]


def test_another_grid_or_device_beside_features_is_refused(recognizer: Recognizer, videos: RoamingFashion) -> None:
    bank = FeatureBank(recognizer, videos, 4)
    with pytest.raises(ValueError, match="grid of 4, so grid can't be 5"):
        AdaFocusVectorEnv(1, features=bank, grid=5)
    with pytest.raises(ValueError, match="is on cpu, so device can't be meta"):
        AdaFocusVectorEnv(1, features=bank, device="meta")


def test_features_bring_their_own_recogniser(recognizer: Recognizer, videos: RoamingFashion) -> None:
    bank = FeatureBank(recognizer, videos, 4)
    assert AdaFocusVectorEnv(2, features=bank).num_patches == 16
    with pytest.raises(ValueError, match="features brings its own"):
        AdaFocusVectorEnv(2, features=bank, recognizer=recognizer)
    with pytest.raises(ValueError, match="features must be"):
        AdaFocusVectorEnv(2, features="bank")  # type: ignore[arg-type]


@pytest.mark.parametrize("labels", [torch.full((12,), 10), torch.full((12,), -1), torch.zeros(12)])
def test_labels_that_are_no_classes(labels: torch.Tensor, recognizer: Recognizer) -> None:
    wrong = RoamingFashion("val", num_videos=12, num_frames=4, frame_size=48, num_distractors=1)
    wrong.labels = labels
    with pytest.raises(ValueError, match=r"videos\.labels must be"):
        FeatureBank(recognizer, wrong, 4)


@pytest.mark.parametrize("baseline", ["sample", "exact", "pixel"])
def test_blocks_of_lanes_change_nothing(
    baseline: str, recognizer: Recognizer, videos: RoamingFashion, monkeypatch: pytest.MonkeyPatch
) -> None:
    for features in (FeatureBank(recognizer, videos, 4), FrozenFeatures(recognizer, videos, 4)):
        whole = rollout(features, baseline=baseline)
        with monkeypatch.context() as patch:
            patch.setattr("adafocus_env.environments.lane_blocks.NUMBERS_PER_BLOCK", 200)  # 2 lanes, or 1
            assert_near(rollout(features, baseline=baseline), whole)


@pytest.mark.parametrize("reward", [reward for reward in REWARDS if reward != "gain_over_random"])
def test_blocks_of_lanes_change_no_other_reward(
    reward: str, recognizer: Recognizer, videos: RoamingFashion, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = FeatureBank(recognizer, videos, 4)
    whole = rollout(features, reward=reward)
    monkeypatch.setattr("adafocus_env.environments.lane_blocks.NUMBERS_PER_BLOCK", 200)
    assert_near(rollout(features, reward=reward), whole)
