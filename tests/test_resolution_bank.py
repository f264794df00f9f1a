"""Whole frames at a choice of resolutions: the same process, other candidates."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms.v2.functional import resize

from adafocus_env import AdaFocusVectorEnv, Recognizer, ResolutionBank, RoamingFashion
from adafocus_env.recognition.compute_cost import multiply_adds
from adafocus_env.recognition.optimization import Progress
from adafocus_env.recognition.recipes import Stage1Config
from adafocus_env.recognition.whole_frames import read_at, train_whole_frames
from agents import Reinforce, evaluate
from agents.baselines import ScheduledPolicy
from tests.conftest import make_tiny_recognizer

SCALES = (1.0, 0.75, 0.5)
SIZES = (48, 36, 24)


@pytest.fixture(scope="module")
def whole() -> Recognizer:
    """The tiny recogniser, its patch the whole frame."""
    tiny = make_tiny_recognizer()
    recognizer = Recognizer(dataclasses.replace(tiny.config, patch_size=48))
    recognizer.load_state_dict(tiny.state_dict())
    return recognizer.eval()


@pytest.fixture(scope="module")
def readers(whole: Recognizer, videos: RoamingFashion) -> dict[float, Recognizer]:
    return {scale: read_at(whole, videos, scale) for scale in SCALES}


@pytest.fixture
def bank(readers: dict[float, Recognizer], videos: RoamingFashion) -> ResolutionBank:
    return ResolutionBank(readers, videos)


def test_every_scale_has_its_own_statistics(
    whole: Recognizer, readers: dict[float, Recognizer], videos: RoamingFashion
) -> None:
    frames = videos.frames(torch.arange(len(videos))).flatten(0, 1)
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    for scale, size in zip(SCALES, SIZES, strict=True):
        reader = read_at(whole, videos, scale)
        convolution, norm = reader.local_cnn[0], reader.local_cnn[1]  # type: ignore[index]
        with torch.no_grad():
            seen = convolution(reader.normalize(resize(frames, [size, size])))
        assert torch.allclose(norm.running_mean, seen.mean(dim=(0, 2, 3)), atol=1e-4)
        # Batches of equal size: the mean of their variances, which differs a little from that of all.
        assert torch.allclose(norm.running_var, seen.var(dim=(0, 2, 3)), rtol=0.02)
        changed = {name for name, value in reader.state_dict().items() if not torch.equal(value, before[name])}
        assert changed
        assert all(name.startswith("local_cnn") and "running" in name for name in changed - _counters(changed))
        assert all(torch.equal(value, readers[scale].state_dict()[name]) for name, value in reader.state_dict().items())
        assert not reader.training
    assert all(torch.equal(value, before[name]) for name, value in whole.state_dict().items())


def _counters(names: set[str]) -> set[str]:
    return {name for name in names if name.endswith("num_batches_tracked")}


def test_a_file_keeps_the_table(
    bank: ResolutionBank, readers: dict[float, Recognizer], whole: Recognizer, videos: RoamingFashion, tmp_path: Path
) -> None:
    def evaluated(features: ResolutionBank) -> np.ndarray:
        return evaluate(lambda env: ScheduledPolicy(env, candidate=1, frames=4), features=features).probabilities

    def forbidden(*args: object) -> None:
        raise AssertionError("a full table computes nothing")

    path = tmp_path / "whole.bank"
    half = ResolutionBank(readers, videos, path=path)
    env = AdaFocusVectorEnv(4, features=half)  # 16 frames: some processors round differently in smaller batches
    env.reset(seed=0, options={"video": np.array([7, 2, 5, 0])})
    half.close()
    full = ResolutionBank(readers, videos, path=path)
    np.testing.assert_array_equal(evaluated(full), evaluated(bank))
    full.close()
    read = ResolutionBank(readers, videos, path=path)
    read.compute_look = read.compute_glance = forbidden  # type: ignore[assignment, method-assign]
    np.testing.assert_array_equal(evaluated(read), evaluated(bank))
    with pytest.raises(ValueError, match="another recognizers"):
        ResolutionBank(dict.fromkeys(SCALES, whole), videos, path=path)


def test_skipped_frames_show_nothing(bank: ResolutionBank, videos: RoamingFashion) -> None:
    video, time = torch.tensor([3, 8, 5]), torch.tensor([0, 1, 3])
    bank.ensure_videos(video, lambda rows: videos.frames(video[rows]))
    focused, choice = torch.tensor([True, False, True]), torch.tensor([[0, 1], [2, 0], [1, 2]])
    whole, part = (bank.look(video, time, choice, lanes, lambda *_: choice) for lanes in (None, focused))
    assert bool(whole.any(dim=2).all())
    assert not bool(part[1].any())
    assert torch.equal(part[focused], whole[focused])


def test_what_was_counted_is_not_done_again(
    readers: dict[float, Recognizer], videos: RoamingFashion, tmp_path: Path
) -> None:
    path = tmp_path / "whole.bank"
    first = ResolutionBank(readers, videos, path=path)
    AdaFocusVectorEnv(3, features=first).reset(seed=0, options={"video": np.array([4, 9, 1])})
    first.close()
    again = ResolutionBank(readers, videos, path=path)
    again.ensure_videos(torch.tensor([1, 4, 9]), lambda _: pytest.fail("it was loaded again"))
    again.close()


def test_what_a_killed_process_did_not_count_is_done_again(
    readers: dict[float, Recognizer], bank: ResolutionBank, videos: RoamingFashion, tmp_path: Path
) -> None:
    path = tmp_path / "whole.bank"
    killed = ResolutionBank(readers, videos, path=path)
    AdaFocusVectorEnv(2, features=killed).reset(seed=0, options={"video": np.array([4, 9])})
    killed._filled.zero_()  # as if the counters hadn't reached the disk
    killed.close()
    again = ResolutionBank(readers, videos, path=path)
    for features in (again, bank):
        AdaFocusVectorEnv(12, features=features).reset(seed=0, options={"video": np.arange(12)})
    everything, start = torch.arange(12), torch.zeros(12, dtype=torch.int64)
    for one, other in zip(*(f.glance(everything, start, lambda rows: rows) for f in (again, bank)), strict=True):
        assert torch.equal(one, other)


PRICE = pytest.mark.parametrize("price", [0.2, (0.2, 0.2)], ids=["fixed", "drawn"])


@PRICE
def test_steps_equal_the_plain_procedure(
    price: Any, bank: ResolutionBank, readers: dict[float, Recognizer], whole: Recognizer, videos: RoamingFashion
) -> None:
    env = AdaFocusVectorEnv(
        5, features=bank, reward="gain_over_previous", skip_cost=price, output="torch", autoreset_mode="DISABLED"
    )
    index = torch.tensor([3, 3, 7, 0, 11])
    _, info = env.reset(seed=0, options={"video": index.numpy()})
    frames, labels = videos.frames(index), videos.labels[index]
    hidden = torch.zeros(5, whole.config.hidden_size)
    previous = torch.softmax(whole.classifier.predict(hidden), dim=-1).gather(1, labels[:, None])[:, 0]
    share = bank.local_gflops / bank.local_gflops[0]
    draws = np.random.default_rng(0)
    for time in range(4):
        actions = torch.as_tensor(np.stack((draws.integers(3, size=5), draws.integers(2, size=5)), axis=1))
        _, reward, _, _, info = env.step(actions)
        with torch.no_grad():
            for lane, (choice, skip) in enumerate(actions.tolist()):
                gflops = float(info["gflops"][lane])
                if skip:
                    assert reward[lane] == 0
                    assert gflops == pytest.approx(whole.cost().always)
                    continue
                frame = frames[lane, time][None]
                local = readers[SCALES[choice]].look(resize(frame, [SIZES[choice]] * 2))
                vectors = torch.cat((whole.glance(frame)[1], local), dim=1)
                hidden[lane] = whole.classifier.gru(vectors[:, None], hidden[None, lane, None].contiguous())[1][0, 0]
                after = torch.softmax(whole.classifier.predict(hidden[lane]), dim=-1)[labels[lane]]
                wanted = after - previous[lane] - 0.2 * share[choice]
                previous[lane] = after
                assert float(reward[lane]) == pytest.approx(float(wanted), abs=1e-5)
                assert gflops == pytest.approx(whole.cost().always + float(bank.local_gflops[choice]))


def test_prices_are_the_multiply_adds_of_the_resolutions(bank: ResolutionBank, whole: Recognizer) -> None:
    assert float(bank.local_gflops[0]) == pytest.approx(whole.cost().local)
    half = multiply_adds(lambda: whole.look(torch.zeros(1, 3, 24, 24, dtype=torch.uint8))) / 1e9
    assert float(bank.local_gflops[2]) == pytest.approx(half)
    assert bank.local_gflops[0] > bank.local_gflops[1] > bank.local_gflops[2]


@PRICE
def test_exact_baseline_prices_every_candidate(price: Any, bank: ResolutionBank) -> None:
    def step(choice: int) -> tuple[np.ndarray, np.ndarray]:
        env = AdaFocusVectorEnv(4, features=bank, baseline="exact", skip=False, skip_cost=price)
        env.reset(seed=1)
        _, reward, _, _, info = env.step(np.full(4, choice))
        return reward, info["candidate_rewards"]

    for choice in range(3):
        reward, candidates = step(choice)
        np.testing.assert_allclose(candidates[:, choice], reward, atol=1e-6)


@pytest.mark.parametrize(("frames", "focused"), [(1, [2]), (2, [1, 3]), (3, [0, 2, 3]), (4, [0, 1, 2, 3])])
def test_schedules_are_even(bank: ResolutionBank, frames: int, focused: list[int]) -> None:
    found = evaluate(lambda env: ScheduledPolicy(env, candidate=1, frames=frames), features=bank, num_envs=6)
    assert all(np.flatnonzero(~row).tolist() == focused for row in found.skipped)


def test_agents_learn_on_it(bank: ResolutionBank) -> None:
    env = AdaFocusVectorEnv(12, features=bank, reward="gain_over_previous", skip_cost=5.0, output="torch")
    agent = Reinforce(env, seed=0, use_belief=True, learning_rate=3e-3, episodes_per_batch=12).learn(60 * 12 * 4)
    focused = [update["ep_focused_mean"] for update in agent.history]
    assert np.mean(focused[-5:]) < 0.5 < np.mean(focused[:5])  # at such a price nothing is worth a look
    assert evaluate(agent, features=bank, num_envs=12).focused_per_video == 0


def test_training_on_whole_frames_lowers_the_loss(whole: Recognizer) -> None:
    recognizer = Recognizer(whole.config)
    recognizer.load_state_dict(whole.state_dict())
    recognizer.classifier.dropout.p = 0.0
    data = RoamingFashion("recognizer", num_videos=32, num_frames=4, frame_size=48, num_distractors=0)
    losses: list[float] = []
    train_whole_frames(
        recognizer, data, Stage1Config(steps=80, videos_per_step=16), SCALES,
        progress=Progress(lambda stage, step, metrics: losses.append(metrics["loss"])),
    )  # fmt: skip
    assert losses[-1] < losses[0]
    before, after = whole.state_dict(), recognizer.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith("global_cnn"))


def test_training_reads_one_resolution_at_a_time(whole: Recognizer) -> None:
    recognizer = Recognizer(whole.config)
    read: list[tuple[int, int]] = []  # frames and their size

    def note(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        read.append((len(inputs[0]), inputs[0].shape[-1]))

    recognizer.local_cnn.register_forward_pre_hook(note)
    data = RoamingFashion("recognizer", num_videos=32, num_frames=4, frame_size=48)
    train_whole_frames(recognizer, data, Stage1Config(steps=4, videos_per_step=16), SCALES)
    assert [size for _, size in read] == list(SIZES) * 4
    assert 0.3 < sum(frames for frames, _ in read) / (4 * 16 * 4) < 0.7  # half is skipped


def test_what_does_not_fit_is_refused(
    readers: dict[float, Recognizer], recognizer: Recognizer, videos: RoamingFashion
) -> None:
    with pytest.raises(ValueError, match="whole frames"):
        ResolutionBank({1.0: recognizer}, videos)
    with pytest.raises(ValueError, match="scales"):
        ResolutionBank({1.5: readers[1.0]}, videos)
    other = Recognizer(readers[1.0].config)
    with pytest.raises(ValueError, match="read_at"):
        ResolutionBank({**readers, 0.25: other}, videos)
    bank = ResolutionBank(readers, videos)
    env = AdaFocusVectorEnv(1, features=bank, baseline="pixel", skip=False)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="pixel"):
        env.step(np.zeros(1, dtype=np.int64))
    with pytest.raises(ValueError, match="skip=True"):
        ScheduledPolicy(env)
    with pytest.raises(ValueError, match="frames between 1 and 4"):
        ScheduledPolicy(AdaFocusVectorEnv(1, features=bank), frames=5)
