"""Speed and memory, side by side in one run: stepping, filling the table, deployment, training.

Every figure of a comparison is the median over repeats that alternate with those of the others, so that whatever else
the machine does hits all alike. Paper scale means MobileNet-V2, ResNet-50 on 128² patches, a GRU of 1024, 16 frames of
224², with random weights: speed doesn't depend on them.
"""

from __future__ import annotations

import copy
import functools
import itertools
import multiprocessing
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from stable_baselines3 import PPO
from torch import Tensor, nn

from adafocus_env import AdaFocusVectorEnv, FeatureBank, FrozenFeatures, Recognizer, RecognizerConfig, RoamingFashion
from adafocus_env.checks import as_device
from adafocus_env.command_line import run_script
from adafocus_env.recognition import BackboneConfig, TSMRecognizer
from adafocus_env.recognition.classifier import tanh_
from adafocus_env.recognition.official_tsm import OfficialTSMPolicy
from adafocus_env.recognition.presets import TSM_PATCH_SIZES, TSM_PRESETS
from adafocus_env.run_folder import RunFolder
from agents import Reinforce, from_pretrained
from agents.presets import PATCH_EPISODES, PATCH_HYPERPARAMETERS
from agents.sb3 import PPO_EPISODES, PPO_HYPERPARAMETERS, GlanceExtractor, make_vec_env

Scale = Literal["embedded", "paper", "tsm"]
GRID = 7
console = Console(soft_wrap=True)


@dataclass
class Config:
    scales: tuple[Scale, ...] = ("embedded", "paper", "tsm")
    """The shipped recogniser, networks of the paper's size, and those of its AdaFocus-TSM."""
    clips: int = 64
    """Clips in a batch of AdaFocus-TSM."""
    device: str = "cpu"
    """torch device."""
    seconds: float = 4.0
    """Time for each figure, over all of its repeats."""
    repeats: int = 7
    """Repeats, of which the median counts."""
    training: bool = True
    """Also time whole training runs of REINFORCE and PPO, cold and warm."""
    quick: bool = False
    """A rehearsal of everything in a few minutes; its numbers mean little."""
    seed: int = 0
    out: Path = Path("runs/benchmark")
    """Folder for the table, the figure and the log."""


# --------------------------------------------------------------------------------------------------------- measuring


class Results:
    """Figures by name, and the ratios that are asked of them."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.ratios: list[dict[str, Any]] = []

    def add(self, scale: str, what: str, value: float, unit: str, num_envs: int | str = "") -> None:
        self.rows.append({"scale": scale, "what": what, "num_envs": num_envs, "value": value, "unit": unit})
        console.print(f"  {scale:9}{what:62}{num_envs!s:>5} {value:14,.2f} {unit}")

    def ratio(self, what: str, value: float, asked: str) -> None:
        self.ratios.append({"ratio": what, "measured": round(value, 3), "asked": asked})
        console.print(f"  [bold]{what}: {value:.3f}[/bold] ({asked or 'nothing asked'})")


def side_by_side(functions: dict[str, Callable[[], Any]], config: Config) -> dict[str, float]:
    """Median seconds per call of each function, in alternation."""
    cuda = config.device.startswith("cuda")

    def timed(function: Callable[[], Any], calls: int) -> float:
        started = time.perf_counter()
        for _ in range(calls):
            function()
        if cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - started) / calls

    share = config.seconds / config.repeats
    calls = {}
    for name, function in functions.items():
        timed(function, 1)
        calls[name] = max(1, min(200, int(share / max(timed(function, 1), 1e-6))))
    found: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(config.repeats):
        for name, function in functions.items():
            if repeat < 3 or calls[name] > 1:  # calls that take long vary less
                found[name].append(timed(function, calls[name]))
    return {name: float(np.median(seconds)) for name, seconds in found.items()}


# ------------------------------------------------------------------------------------------------------ what to time


def paper_recognizer() -> Recognizer:
    """MobileNet-V2 and ResNet-50 with random weights, their batch norms fitted to some frames."""
    torch.manual_seed(0)
    config = RecognizerConfig(
        num_classes=10, global_backbone=BackboneConfig("mobilenet_v2"), local_backbone=BackboneConfig("resnet50")
    )
    recognizer = Recognizer(config)
    frames = paper_videos("val", 4).frames(torch.arange(4)).flatten(0, 1)[::4]
    for module in recognizer.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain mean over what follows
    recognizer.train()
    with torch.no_grad():
        recognizer.glance(frames)
        recognizer.look(frames[..., 40:168, 40:168])
    return recognizer.eval()


def paper_videos(split: str, num_videos: int) -> RoamingFashion:
    return RoamingFashion(split, num_videos=num_videos, num_frames=16, frame_size=224)


def normalisation(recognizer: Recognizer) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each colour channel, of bytes."""
    config, device = recognizer.config, recognizer.device
    return tuple(255 * torch.tensor(values, device=device).view(3, 1, 1) for values in (config.mean, config.std))


class ReferenceProcedure:
    """A step as one would write it down: global CNN, crop, local CNN on the chosen patch, local CNN on the random one,
    classifier twice. No table, no batch over both patches, torch's default memory format.

    The frames are given, so loading them costs nothing here.
    """

    def __init__(self, recognizer: Recognizer, frames: Tensor, labels: Tensor, corners: Tensor) -> None:
        self.global_cnn = recognizer.frozen().global_cnn.to(memory_format=torch.contiguous_format)
        self.local_cnn = recognizer.frozen().local_cnn.to(memory_format=torch.contiguous_format)
        self.gru, self.fc = recognizer.frozen().classifier.gru, recognizer.frozen().classifier.fc
        self.config, (self.mean, self.std) = recognizer.config, normalisation(recognizer)
        self.frames, self.labels, self.corners = frames.contiguous(), labels, corners
        self.hidden = torch.zeros(1, len(frames), self.config.hidden_size, device=frames.device)
        self.time = 0
        self.maps: Tensor | None = None

    @torch.no_grad()
    def step(self, patch: Tensor, random_patch: Tensor, *, glance: bool = True) -> tuple[Tensor, Tensor]:
        """Global maps and rewards of all lanes; without ``glance`` the last maps are taken once more."""
        frame = self.frames[:, self.time]
        if self.time == 0:
            self.hidden = torch.zeros_like(self.hidden)
        if glance or self.maps is None:
            self.maps = self._glance(frame)
        global_vectors = self.maps.mean(dim=(2, 3))
        confidence, hidden = self._look(frame, global_vectors, patch)
        reference, _ = self._look(frame, global_vectors, random_patch)
        self.hidden = hidden
        self.time = (self.time + 1) % self.frames.shape[1]
        return self.maps, confidence - reference

    def _glance(self, frame: Tensor) -> Tensor:
        images = frame.float()
        if images.shape[-1] != self.config.glance_size:
            smooth = self.config.glance_interpolation == "bilinear"
            images = nn.functional.interpolate(
                images, (self.config.glance_size,) * 2, mode=self.config.glance_interpolation, antialias=smooth
            )
        return self.global_cnn((images - self.mean) / self.std)

    def _look(self, frame: Tensor, global_vectors: Tensor, patch: Tensor) -> tuple[Tensor, Tensor]:
        size = self.config.patch_size
        corners = self.corners[patch.cpu()].tolist()
        patches = torch.stack(
            [image[:, top : top + size, left : left + size] for image, (top, left) in zip(frame, corners, strict=True)]
        )
        local_vectors = self.local_cnn((patches.float() - self.mean) / self.std).mean(dim=(2, 3))
        output, hidden = self.gru(torch.cat((global_vectors, local_vectors), dim=1)[:, None], self.hidden)
        probabilities = torch.softmax(self.fc(output[:, 0]), dim=1)
        return probabilities.gather(1, self.labels[:, None])[:, 0], hidden


class Stepper:
    """Steps an environment with actions drawn beforehand. Every call is one transition of every lane; the resets
    between episodes are paid for by the calls that end one."""

    def __init__(self, env: Any, actions: list[Any]) -> None:
        self.env, self.actions, self.count = env, actions, 0
        env.reset(seed=0)

    def __call__(self) -> None:
        self.count += 1
        _, _, terminated, _, _ = self.env.step(self.actions[self.count % len(self.actions)])
        if terminated if isinstance(terminated, bool) else terminated.any():
            self.env.reset()


class Floor:
    """The least that a memoised step has to do, on preallocated tensors: gathers, one matrix product, the GRU's gates,
    the class softmax, in blocks of lanes that fit the cache. No actions, no draws, no infos, no resets.

    As in an environment, every call gathers other rows: the next frames of some videos, and now and then other videos.
    """

    def __init__(self, bank: FeatureBank, num_envs: int, patches: int, device: str) -> None:
        classifier, hidden_size = bank.recognizer.classifier, bank.recognizer.config.hidden_size
        random = torch.Generator().manual_seed(0)
        times, count = bank.videos.num_frames, 4 * bank.videos.num_frames
        video = torch.randint(len(bank.videos), (count // times, num_envs), generator=random)
        frame = video.repeat_interleave(times, dim=0) * times + torch.arange(count)[:, None] % times
        # The candidates of a frame lie side by side in a table that was built ahead.
        candidate = (
            torch.arange(patches).expand(count, num_envs, -1)
            if patches == GRID**2
            else torch.randint(GRID**2, (count, num_envs, patches), generator=random)
        )
        self.bank, self.classifier, self.size, self.patches = bank, classifier, hidden_size, patches
        self.block = min(num_envs, max(1, (1 << 19) // (3 * hidden_size * patches))) if device == "cpu" else num_envs
        frame_rows, patch_rows = 1 + frame, (1 + frame[..., None] * GRID**2 + candidate).flatten(1)
        self.rows = itertools.cycle(list(zip(frame_rows.to(device), patch_rows.to(device), strict=True)))
        empty = functools.partial(torch.empty, device=device)
        self.maps = empty(num_envs, bank._maps.shape[1])
        self.frame_gates, self.hidden_gates = empty(num_envs, 3 * hidden_size), empty(num_envs, 3 * hidden_size)
        self.gates = empty(self.block * patches, 3 * hidden_size)
        self.new, self.states = empty(self.block, patches, hidden_size), empty(self.block, patches, hidden_size)
        self.logits = empty(classifier.fc.out_features, self.block * patches)
        self.probabilities = torch.empty_like(self.logits)
        self.hidden = torch.zeros(num_envs, hidden_size, device=device)

    @torch.no_grad()
    def step(self, *, glance: bool) -> None:
        gru, fc, size, patches = self.classifier.gru, self.classifier.fc, self.size, self.patches
        frame_rows, patch_rows = next(self.rows)
        if glance:
            torch.index_select(self.bank._maps, 0, frame_rows, out=self.maps)
        torch.index_select(self.bank._global_gates, 0, frame_rows, out=self.frame_gates)
        torch.addmm(gru.bias_hh_l0, self.hidden, gru.weight_hh_l0.T, out=self.hidden_gates)
        self.frame_gates[:, : 2 * size] += self.hidden_gates[:, : 2 * size]
        for start in range(0, len(self.hidden), self.block):
            lanes = slice(start, start + self.block)
            count = len(self.hidden[lanes])
            new, states, flat = self.new[:count], self.states[:count], self.gates[: count * patches]
            torch.index_select(
                self.bank._local_gates, 0, patch_rows[start * patches : (start + count) * patches], out=flat
            )
            gates = flat.view(count, patches, -1)
            gates += self.frame_gates[lanes, None]
            gates[..., : 2 * size].sigmoid_()
            new_hidden = self.hidden_gates[lanes, None, 2 * size :]
            torch.addcmul(gates[..., 2 * size :], gates[..., :size], new_hidden, out=new)
            tanh_(new)
            torch.lerp(new, self.hidden[lanes, None], gates[..., size : 2 * size], out=states)
            logits, probabilities = self.logits[:, : count * patches], self.probabilities[:, : count * patches]
            torch.addmm(fc.bias[:, None], fc.weight, states.view(-1, size).T, out=logits)
            torch.softmax(logits, dim=0, out=probabilities)
            self.hidden[lanes].copy_(states[:, 0])


# -------------------------------------------------------------------------------------------------------- the figures


def stepping(scale: Scale, bank: FeatureBank, config: Config, results: Results) -> dict[tuple[str, int], float]:
    """(a) to (e): environment steps per second, by what and number of lanes."""
    videos, recognizer, device = bank.videos, bank.recognizer, config.device
    generator = torch.Generator().manual_seed(config.seed)
    paper = scale == "paper"
    found: dict[tuple[str, int], float] = {}

    def record(group: dict[str, Callable[[], Any]], num_envs: int) -> None:
        for name, seconds in side_by_side(group, config).items():
            found[name, num_envs] = num_envs / seconds
            results.add(scale, name, num_envs / seconds, "env steps/s", num_envs)

    online = {"online": FrozenFeatures(recognizer, videos, GRID, device)}
    if paper:
        online["online, bfloat16"] = FrozenFeatures(recognizer, videos, GRID, device, precision="bfloat16")
    partial = copy.copy(bank)
    partial._full = False  # looks for what is missing in every step, as a table that fills lazily does
    for num_envs in (1, 64, 256):
        draws = torch.randint(GRID**2, (32, 2, num_envs), generator=generator)
        skips = torch.stack((draws[:, 0], draws[:, 1] % 2), dim=-1)

        def make(output: Any, actions: Tensor, **kwargs: Any) -> Stepper:
            env = AdaFocusVectorEnv(num_envs, output=output, autoreset_mode="DISABLED", **kwargs)  # noqa: B023
            return Stepper(env, list(actions.to(device) if output == "torch" else actions.numpy()))

        group: dict[str, Callable[[], Any]] = {}
        for baseline in ("sample", "exact"):
            for output in ("torch", "numpy"):
                group[f"memoised, {baseline}, {output}"] = make(
                    output, draws[:, 0], features=bank, baseline=baseline, skip=False
                )
            floor = Floor(bank, num_envs, 2 if baseline == "sample" else GRID**2, device)
            group[f"floor, {baseline}"] = functools.partial(floor.step, glance=True)
            group[f"floor without the glance, {baseline}"] = functools.partial(floor.step, glance=False)
        group["memoised, sample, torch, lazy table"] = make("torch", draws[:, 0], features=partial, skip=False)
        group["memoised, sample, torch, half of the frames skipped"] = make("torch", skips, features=bank, skip=True)

        index = torch.arange(num_envs) % len(videos)
        reference = ReferenceProcedure(
            recognizer, videos.frames(index).to(device), videos.labels[index].to(device), bank.corners
        )
        count = itertools.count()

        def refer(reference: Any, draws: Any, count: Any, glance: bool) -> None:
            reference.step(*draws[next(count) % 32], glance=glance)

        group["reference procedure"] = functools.partial(refer, reference, draws, count, True)
        if not (paper and num_envs == 256):  # these would take minutes and say nothing new
            group["reference procedure without the global CNN"] = functools.partial(
                refer, reference, draws, count, False
            )
            group["online, numpy"] = make("numpy", draws[:, 0], features=online["online"], skip=False)
        for name, features in online.items():
            group[f"{name}, torch"] = make("torch", draws[:, 0], features=features, skip=False)
        record(group, num_envs)

    single = Stepper(
        gym.make("AdaFocus-v0", features=bank, skip=False), torch.randint(GRID**2, (97,), generator=generator).tolist()
    )
    sync = Stepper(
        gym.vector.SyncVectorEnv(
            [lambda: gym.make("AdaFocus-v0", features=bank, skip=False)] * 16,
            autoreset_mode=gym.vector.AutoresetMode.DISABLED,
        ),
        list(torch.randint(GRID**2, (32, 16), generator=generator).numpy()),
    )
    seconds = side_by_side({"gym.make": single, "SyncVectorEnv": sync}, config)
    results.add(scale, "gym.make, sample", 1 / seconds["gym.make"], "env steps/s", 1)
    results.add(scale, "SyncVectorEnv, sample", 16 / seconds["SyncVectorEnv"], "env steps/s", 16)

    def ratio(what: str, first: str, second: str, num_envs: int, asked: str) -> None:
        results.ratio(f"{scale}: {what}, {num_envs} envs", found[first, num_envs] / found[second, num_envs], asked)

    memoised, asked = "memoised, sample, torch", "at least 200" if paper else "at least 50"
    ratio("memoised sampled / reference procedure", memoised, "reference procedure", 64, asked)
    without = "reference procedure without the global CNN"
    ratio(f"memoised sampled / {without}", memoised, without, 64, asked)
    for baseline in ("sample", "exact"):
        for floor_name in ("floor", "floor without the glance"):
            ratio(
                f"memoised {baseline} / {floor_name}", f"memoised, {baseline}, torch", f"{floor_name}, {baseline}", 256,
                "at least 0.5",
            )  # fmt: skip
    ratio("numpy / torch output", "memoised, sample, numpy", memoised, 256, "at least 0.6")
    ratio("online / reference procedure", "online, torch", "reference procedure", 64, "at least 1.1" if paper else "")
    if paper:
        ratio("online bfloat16 / reference procedure", "online, bfloat16, torch", "reference procedure", 64,
              "at least 1.8")  # fmt: skip
    return found


def filling(
    scale: Scale, bank: FeatureBank, steps: dict[tuple[str, int], float], config: Config, results: Results
) -> None:
    """(f) and (i): building the table against the bare local CNN, and when it has paid."""
    recognizer = bank.recognizer
    paper = scale == "paper"
    # Enough videos that making the bank itself, which builds once, does not count.
    some = (
        paper_videos("train", 1 if config.quick else 3)
        if paper
        else RoamingFashion("train", num_videos=2 if config.quick else 192)
    )
    size, frames = recognizer.config.patch_size, some.num_frames
    patches = len(some) * frames * GRID**2
    # The CNN as it is, and as building uses it, with its batch norms folded.
    cnns = {"bare local CNN": recognizer.local_cnn, "folded local CNN": recognizer.deployed().local_cnn}
    groups: dict[str, Callable[[], Any]] = {}

    @torch.no_grad()
    def bare(cnn: nn.Module, batch: Tensor) -> None:
        cnn(batch)

    own = len(next(recognizer.batches(torch.empty(10**4), size)))
    sizes = sorted({own, *((4, 8, 16, 32) if paper else (32, 64, 128, 256))})
    for count in sizes:
        images = torch.randn(count, 3, size, size, device=config.device).to(memory_format=torch.channels_last)
        for name, cnn in cnns.items():
            groups[f"{name}, batch {count}"] = functools.partial(bare, cnn, images)
    groups["bank building"] = lambda: FeatureBank(recognizer, some, GRID, config.device).build()
    seconds = side_by_side(groups, config)
    building = patches / seconds["bank building"]
    results.add(scale, "bank building, glances and frames included", building, "patches/s")
    for name in cnns:
        rates = {count: count / seconds[f"{name}, batch {count}"] for count in sizes}
        for count, rate in rates.items():
            results.add(scale, f"{name}, batch {count}", rate, "patches/s")
        asked = "at least 0.9" if name == "bare local CNN" else ""
        results.ratio(f"{scale}: bank building / {name} at its best", building / max(rates.values()), asked)

    # One epoch is one episode per video, at 64 lanes. A lazy table meets two patches of every frame in every epoch.
    online = frames / steps["online, torch", 64]
    warm = frames / steps["memoised, sample, torch, lazy table", 64]
    patch = seconds["bank building"] / patches
    built = seconds["bank building"] / len(some)
    glances = max(0.0, online - warm - 2 * frames * patch)
    epochs = np.arange(1, 1001)
    met = GRID**2 * (1 - (1 - 1 / GRID**2) ** (2 * epochs))
    paid = np.flatnonzero(glances + frames * met * patch + epochs * warm < online * epochs)
    results.add(scale, "an epoch online, per video", 1e3 * online, "ms")
    results.add(scale, "an epoch out of a warm table, per video", 1e3 * warm, "ms")
    results.add(scale, "filling the whole table, per video", 1e3 * built, "ms")
    results.add(scale, "break-even of a table built ahead", built / max(online - warm, 1e-9), "epochs")
    results.add(scale, "break-even of a lazy table", float(paid[0] + 1) if len(paid) else np.inf, "epochs")
    for dtype in ("float32", "float16"):
        per_video = FeatureBank.predicted_bytes(recognizer, some, GRID, dtype) / len(some)
        results.add(scale, f"table, {dtype}", per_video / 1e6, "MB/video")


def deployment(scale: Scale, bank: FeatureBank, config: Config, results: Results) -> None:
    """(g): recognising videos with a policy that sees the glance alone, against the sum of the bare network calls and
    against full frames."""
    paper, recognizer = scale == "paper", bank.recognizer
    count = 2 if paper else 64
    videos = paper_videos("test", count) if paper else RoamingFashion("test", num_videos=count)
    frames = videos.frames(torch.arange(count)).to(config.device)
    # Whole pixels side by side, as decoders give them.
    frames = frames.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    flat, times, size = frames.flatten(0, 1), videos.num_frames, recognizer.config.patch_size
    env = gym.make_vec("AdaFocus-v0", features=bank, skip=False, observation="glance")
    policy = Reinforce(env, seed=config.seed)  # speed doesn't depend on what it learnt
    twins = {"": recognizer, ", deployed": recognizer.deployed()}
    if paper:
        twins[", deployed, bfloat16"] = recognizer.deployed("bfloat16")
    groups: dict[str, Callable[[], Any]] = {}

    def bare(model: Recognizer) -> None:
        """The networks alone, on inputs that are there already, in the same batches."""
        side, kind = model.config.glance_size, next(model.global_cnn.parameters()).dtype
        with torch.no_grad():
            for batch in model.batches(images[side, kind], side):
                model.global_cnn(batch)
            hidden = torch.zeros(count, policy.config.hidden_size, device=config.device)
            for time_ in range(times):
                hidden = policy.policy({"glance": maps[:, time_]}, hidden)
                policy.policy.patch_head(hidden)
            for batch in model.batches(images[size, kind], size):
                model.local_cnn(batch)
            model.classifier.fc(model.classifier.gru(vectors)[0])

    images: dict[Any, Tensor] = {}
    for model in twins.values():
        kind = next(model.global_cnn.parameters()).dtype
        for side in (model.config.glance_size, size):
            made = torch.randn(count * times, 3, side, side, device=config.device, dtype=kind)
            images[side, kind] = made.contiguous(memory_format=torch.channels_last)
    maps = torch.rand(count, times, *recognizer.glance_shape, device=config.device)
    vectors = torch.rand(
        count, times, recognizer.glance_shape[0] + recognizer.local_size, device=config.device
    )  # one GRU pass
    for name, model in twins.items():
        groups[f"recognize{name}"] = functools.partial(model.recognize, frames, policy)
        groups[f"bare network calls{name}"] = functools.partial(bare, model)

    def full_frames(model: Recognizer) -> None:
        with torch.no_grad():
            for batch in flat.split(8 if paper else 64):
                model.look(batch)

    mean, std = normalisation(recognizer)
    plain = recognizer.frozen().local_cnn.to(memory_format=torch.contiguous_format)

    def plain_full_frames() -> None:
        with torch.no_grad():
            for batch in flat.split(8 if paper else 64):
                plain((batch.float() - mean) / std)

    fastest = list(twins)[-1]
    groups[f"local CNN on full frames{fastest}"] = functools.partial(full_frames, twins[fastest])
    groups["local CNN on full frames, plain float32"] = plain_full_frames
    seconds = side_by_side(groups, config)
    for name, value in seconds.items():
        results.add(scale, name, count / value, "videos/s")
    for name in twins:
        results.ratio(f"{scale}: recognize / bare network calls{name}",
                      seconds[f"bare network calls{name}"] / seconds[f"recognize{name}"], "at least 0.9")  # fmt: skip
    results.ratio(f"{scale}: recognize / local CNN on full frames, both{fastest}",
                  seconds[f"local CNN on full frames{fastest}"] / seconds[f"recognize{fastest}"],
                  "at least 1.5" if paper else "")  # fmt: skip
    results.ratio(f"{scale}: recognize with everything on / plain float32 local CNN on full frames",
                  seconds["local CNN on full frames, plain float32"] / seconds[f"recognize{fastest}"],
                  "at least 3" if paper else "")  # fmt: skip
    if not paper:  # random weights decide nothing by a margin that could be judged
        agreement(recognizer, config, results)


def clips(config: Config, results: Results) -> None:
    """AdaFocus-TSM at its patch sizes beside its networks on whole frames: videos per second, and latency of one."""
    torch.manual_seed(0)
    preset = TSM_PRESETS["something-v1-144"]
    policy = OfficialTSMPolicy().to(config.device).eval()
    full = TSMRecognizer(replace(preset, patch_size=preset.glance_size, local_frames=preset.global_frames))
    twins = {"TSM": full} | {
        f"AdaFocus-TSM {size}²": TSMRecognizer(replace(preset, patch_size=size)) for size in TSM_PATCH_SIZES
    }
    fast = {name: model.to(config.device).deployed() for name, model in twins.items()}
    size = (preset.global_frames + preset.local_frames, 3, preset.glance_size, preset.glance_size)

    @torch.no_grad()
    def whole_frames(frames: Tensor, *, glance: bool) -> None:
        for batch in fast["TSM"].batches(frames[:, : preset.global_frames], preset.glance_size):
            fast["TSM"].look(batch)
            if glance:
                fast["TSM"].glance(batch)

    found: dict[int, dict[str, float]] = {}
    for count in (config.clips, 1):
        frames = torch.randint(0, 256, (count, *size), dtype=torch.uint8).to(config.device)
        groups: dict[str, Callable[[], Any]] = {
            "TSM, 8 whole frames": functools.partial(whole_frames, frames, glance=False),
            "TSM+, 8 + 8 whole frames": functools.partial(whole_frames, frames, glance=True),
        }
        for name in list(fast)[1:]:
            groups[name] = functools.partial(fast[name].recognize, frames, policy)
        found[count] = side_by_side(groups, config)
        for name, seconds in found[count].items():
            results.add("tsm", f"{name}, batch of {count}", count / seconds, "videos/s")
        if count == 1:
            for name, seconds in found[count].items():
                results.add("tsm", f"{name}, latency", 1e3 * seconds, "ms")
    for what, count, asked in (("throughput", config.clips, 1.37), ("latency", 1, 1.31)):
        ratio = found[count]["TSM+, 8 + 8 whole frames"] / found[count]["AdaFocus-TSM 144²"]
        results.ratio(f"tsm: {what}, AdaFocus-TSM 144² / TSM+", ratio, f"at least {asked}")


def agreement(recognizer: Recognizer, config: Config, results: Results) -> None:
    """How often bfloat16 changes the patch that the shipped policy chooses: as environments use it, where the global
    CNN stays in float32, and in both CNNs."""
    policy = from_pretrained("roaming-fashion")
    videos = RoamingFashion("val", num_videos=64 if config.quick else 1000)
    others = {
        "online (local CNN only)": recognizer.deployed("bfloat16", global_precision="float32").to(config.device),
        "in both CNNs": recognizer.deployed("bfloat16").to(config.device),
    }
    agreed: dict[str, list[Tensor]] = {name: [] for name in others}
    used: set[tuple[int, ...]] = set()
    for index in torch.arange(len(videos)).split(64):
        frames = videos.frames(index).to(config.device)
        corners = recognizer.recognize(frames, policy).corners
        used |= {tuple(corner) for corner in corners.flatten(0, 1).tolist()}
        for name, other in others.items():
            agreed[name].append((other.recognize(frames, policy).corners == corners).all(dim=-1))
    results.add("embedded", "different patches that the policy chose", len(used), f"of {GRID**2}")
    for name, asked in zip(others, ("at least 0.99", ""), strict=True):
        results.ratio(
            f"embedded: share of frames on which bfloat16 {name} chooses the same patch",
            float(torch.cat(agreed[name]).float().mean()),
            asked,
        )


def training(bank: FeatureBank, config: Config, results: Results) -> None:
    """(h): whole training runs, cold and warm, and how much of them is the environment."""
    share = 50 if config.quick else 1

    class Timed(AdaFocusVectorEnv):
        spent = 0.0

        def step(self, actions: Any) -> Any:
            started = time.perf_counter()
            found = super().step(actions)
            self.spent += time.perf_counter() - started
            return found

        def reset(self, **kwargs: Any) -> Any:
            started = time.perf_counter()
            found = super().reset(**kwargs)
            self.spent += time.perf_counter() - started
            return found

    def reinforce(episodes: int) -> tuple[float, float]:
        env = Timed(64, features=bank, skip=False, output="torch")
        agent = Reinforce(env, seed=config.seed, **PATCH_HYPERPARAMETERS)
        started = time.perf_counter()
        agent.learn(episodes * env.num_frames)
        seconds = time.perf_counter() - started
        return seconds, env.spent / seconds

    def ppo(episodes: int, features: FeatureBank) -> float:
        env = make_vec_env(64, seed=config.seed, features=features, skip=False)
        kwargs = GlanceExtractor.policy_kwargs()
        model = PPO("MultiInputPolicy", env, seed=config.seed, policy_kwargs=kwargs, device=config.device,
                    **PPO_HYPERPARAMETERS)  # fmt: skip
        started = time.perf_counter()
        model.learn(episodes * env.env.num_frames)
        return time.perf_counter() - started

    for state in ("cold", "warm"):
        episodes = PATCH_EPISODES // share
        seconds, in_env = reinforce(episodes)
        results.add("embedded", f"REINFORCE, {state} table, {episodes} episodes", episodes / seconds, "episodes/s", 64)
        results.add("embedded", f"REINFORCE, {state} table, share of time in env.step and reset", in_env, "")
        if state == "warm":
            results.ratio(
                "embedded: share of REINFORCE's time in env.step and reset, 64 envs, warm", in_env, "at most 0.4"
            )
    for state in ("cold", "warm"):
        if state == "cold":
            bank = FeatureBank(bank.recognizer, bank.videos, GRID, config.device)
        episodes = PPO_EPISODES // share
        seconds = ppo(episodes, bank)
        results.add("embedded", f"SB3 PPO, {state} table, {episodes} episodes", episodes / seconds, "episodes/s", 64)


def peak_memory(scale: Scale, kind: str) -> float:
    """Peak resident memory, MB, of a fresh process that steps some lanes through an episode."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_memory, (scale, kind))


def _peak_memory(scale: Scale, kind: str) -> float:
    recognizer, videos = _subjects(scale, 1 if scale == "paper" else 200)
    lanes = 4 if scale == "paper" else 64
    if kind == "reference procedure":
        index = torch.arange(lanes) % len(videos)
        corners = FrozenFeatures(recognizer, videos, GRID).corners
        reference = ReferenceProcedure(recognizer, videos.frames(index), videos.labels[index], corners)
        for _ in range(videos.num_frames):
            reference.step(torch.zeros(lanes, dtype=torch.int64), torch.zeros(lanes, dtype=torch.int64))
    else:
        features = (
            FrozenFeatures(recognizer, videos, GRID) if kind == "online" else FeatureBank(recognizer, videos, GRID)
        )
        if kind == "memoised, built ahead" and isinstance(features, FeatureBank):
            features.build()
        env = AdaFocusVectorEnv(lanes, features=features, skip=False, output="torch")
        env.action_space.seed(0)
        env.reset(seed=0)
        for _ in range(env.num_frames):
            env.step(env.action_space.sample())
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would give the parent's peak if that is higher
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _subjects(scale: Scale, num_videos: int) -> tuple[Recognizer, RoamingFashion]:
    if scale == "paper":
        return paper_recognizer(), paper_videos("train", num_videos)
    return Recognizer.from_pretrained("roaming-fashion"), RoamingFashion("train", num_videos=num_videos)


# --------------------------------------------------------------------------------------------------------------- main


def draw(results: Results, path: Path) -> None:
    """Bar chart of all environment steps per second at 64 lanes."""
    scales = list(dict.fromkeys(row["scale"] for row in results.rows if row["unit"] == "env steps/s"))
    if not scales:
        return
    figure, axes = plt.subplots(1, len(scales), figsize=(7 * len(scales), 4), squeeze=False, layout="constrained")
    for axis, scale in zip(axes[0], scales, strict=True):
        rows = [row for row in results.rows if row["scale"] == scale and row["num_envs"] == 64]
        rows = [row for row in rows if row["unit"] == "env steps/s"]
        bars = axis.barh([row["what"] for row in rows], [row["value"] for row in rows])
        axis.bar_label(bars, [f"{row['value']:,.0f}" for row in rows], padding=3)
        axis.set(xscale="log", xlabel="environment steps per second, 64 lanes", title=scale)
        axis.margins(x=0.2)
        axis.invert_yaxis()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(config: Config) -> None:
    if config.quick:
        config.seconds, config.repeats, config.clips = 0.5, 3, 2
    as_device(config.device)
    results = Results()
    started = time.perf_counter()
    with RunFolder(config.out, config) as run:
        console.print(
            f"torch {torch.__version__}, {torch.get_num_threads()} threads, "
            f"{platform.processor() or platform.machine()}"
        )
        for scale in config.scales:
            if scale == "tsm":
                clips(config, results)
                continue
            num_videos = {"paper": 1 if config.quick else 3, "embedded": 64 if config.quick else 500}[scale]
            recognizer, videos = _subjects(scale, num_videos)
            recognizer = recognizer.to(config.device)
            bank = FeatureBank(recognizer, videos, GRID, config.device)
            bank.build(progress_bar=True)
            steps = stepping(scale, bank, config, results)
            filling(scale, bank, steps, config, results)
            deployment(scale, bank, config, results)
            if config.device == "cpu":
                for kind in ("reference procedure", "online", "memoised, lazy", "memoised, built ahead"):
                    lanes = 4 if scale == "paper" else 64
                    results.add(scale, f"peak memory of a process, {kind}", peak_memory(scale, kind), "MB", lanes)
            else:
                results.add(scale, "peak memory on the device", torch.cuda.max_memory_allocated() / 1e6, "MB")
            del bank
        if config.training and "embedded" in config.scales:
            recognizer = Recognizer.from_pretrained("roaming-fashion")
            videos = RoamingFashion("train", num_videos=500) if config.quick else RoamingFashion("train")
            training(FeatureBank(recognizer, videos, GRID, config.device), config, results)
        for row in results.rows:
            row["value"] = float(f"{row['value']:.5g}")
        run.write_table("benchmark", results.rows)
        run.write_table("ratios", results.ratios)
        draw(results, config.out / "benchmark.png")
    table = Table("ratio", "measured", "asked", title="ratios of this run")
    for row in results.ratios:
        table.add_row(row["ratio"], f"{row['measured']:g}", row["asked"])
    console.print(table)
    console.print(f"everything is in {config.out}; {(time.perf_counter() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    run_script(main, Config, __doc__)
