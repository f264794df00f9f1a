"""Evaluation of policies on every video of a split exactly once."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import AutoresetMode
from sklearn.metrics import average_precision_score
from torch import Tensor

from adafocus_env import AdaFocusTSMVectorEnv, AdaFocusVectorEnv, FrozenFeatures
from adafocus_env.checks import Bounds, check_integer
from adafocus_env.files import write_atomically
from adafocus_env.policies import decide
from adafocus_env.progress import tqdm
from adafocus_env.recognition.compute_cost import policy_gflops
from adafocus_env.recognition.deployment import as_thresholds, refuse_exit
from agents.baselines import seeded
from agents.environments import check_fit, fitting_arguments, is_policy, vector_env_class


@dataclass(frozen=True)
class Evaluation:
    """The result of :func:`evaluate`: values for each of the V videos, in their order, and figures made from them.

    T is the number of steps of an episode: one per look at a frame, or a single one for AdaFocus-TSM.

    Attributes:
        labels: (V,) int64, the first label of every video.
        label_sets: (V, classes) bool, all labels of every video; only that of ``labels`` if the data set has no others.
        probabilities: (V, classes) float32, class probabilities after the last frame.
        predictions: (V, T) int64, the most probable class after every frame.
        confidences: (V, T) float32, its probability.
        returns: (V,) float64, undiscounted sum of rewards.
        gflops: (V,) float64, multiply-adds / 1e9, the policy's own included.
        focused: (V,) int64, frames on which the local CNN ran.
        corners: (V, T, 2) int64, top and left of every patch.
        skipped: (V, T) bool, whether the local CNN was left out.
        policy_gflops: The policy's own share of ``gflops``, mean over videos.
        frames: (V,) int64, frames glanced at: all that a video has, or fewer with ``exit_threshold``.
        step_gflops: (V, T) float64, the ``gflops`` of every step.
        source_images: (V,) int64, the image that each video is made of; every video has its own unless the data set
            says otherwise.
    """

    labels: npt.NDArray[np.int64]
    label_sets: npt.NDArray[np.bool_]
    probabilities: npt.NDArray[np.float32]
    predictions: npt.NDArray[np.int64]
    returns: npt.NDArray[np.float64]
    gflops: npt.NDArray[np.float64]
    focused: npt.NDArray[np.int64]
    corners: npt.NDArray[np.int64]
    skipped: npt.NDArray[np.bool_]
    policy_gflops: float
    frames: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    confidences: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))
    step_gflops: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    source_images: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def __post_init__(self) -> None:
        if not len(self.frames):  # also in files that are older than conditional exit
            object.__setattr__(self, "frames", np.full(*self.predictions.shape))
        if not len(self.source_images):  # also in files that are older than these
            object.__setattr__(self, "source_images", np.arange(len(self.labels)))

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """(V,) bool, whether the last prediction is right."""
        return self.probabilities.argmax(axis=1) == self.labels

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy after the last frame, in [0, 1]."""
        return float(self.correct.mean())

    @property
    def top5_accuracy(self) -> float:
        """Share of the videos whose label is among the five most probable classes, in [0, 1]."""
        above = self.probabilities > self.probabilities[np.arange(len(self.labels)), self.labels][:, None]
        return float((above.sum(axis=1) < 5).mean())

    @property
    def accuracy_per_frame(self) -> npt.NDArray[np.float64]:
        """(T,) accuracy of the predictions after every frame, in [0, 1]."""
        return (self.predictions == self.labels[:, None]).mean(axis=0)

    @property
    def mean_average_precision(self) -> float:
        """Mean of scikit-learn's average precision over all classes that occur, in [0, 1].

        It is multi-label if videos have several labels (FCVID's metric), and single-label otherwise.
        """
        return _mean_average_precision(self.label_sets, self.probabilities)

    @property
    def single_label_mean_average_precision(self) -> float:
        """Mean average precision on ``labels`` alone, in [0, 1]: ActivityNet's metric.

        The released code draws one of a video's labels anew in every evaluation; here it is always the first.
        """
        truth = self.labels[:, None] == np.arange(self.probabilities.shape[1])
        return _mean_average_precision(truth, self.probabilities)

    @property
    def reference_mean_average_precision(self) -> float:
        """What the released code calls mAP, on ``label_sets``, in [0, 1].

        It is the mean of the precisions at every positive, in falling order of probability, and then over all classes,
        where classes without positives count as 0. If a class doesn't occur, there is a second difference from a mean
        average precision: the released code renumbers the classes that do occur from 0, in their order, and compares
        the first of them with the probability of class 0, and so on. Use it for comparison with published figures.
        """
        occurring = self.label_sets[:, self.label_sets.any(axis=0)]
        truth = np.zeros_like(self.label_sets)
        truth[:, : occurring.shape[1]] = occurring
        order = np.argsort(-self.probabilities, axis=0, kind="stable")
        truth = np.take_along_axis(truth, order, axis=0)
        precision = truth.cumsum(axis=0) / np.arange(1, len(truth) + 1)[:, None]
        return float(((precision * truth).sum(axis=0) / truth.sum(axis=0).clip(min=1)).mean())

    @property
    def mean_return(self) -> float:
        """Mean undiscounted return of an episode."""
        return float(self.returns.mean())

    @property
    def mean_confidence(self) -> float:
        """Mean softmax confidence on the label after the last frame."""
        return float(self.probabilities[np.arange(len(self.labels)), self.labels].mean())

    @property
    def gflops_per_video(self) -> float:
        """Mean multiply-adds / 1e9 per video, the policy's own included."""
        return float(self.gflops.mean())

    @property
    def focused_per_video(self) -> float:
        """Mean number of frames per video on which the local CNN ran."""
        return float(self.focused.mean())

    @property
    def frames_per_video(self) -> float:
        """Mean number of frames per video that were glanced at."""
        return float(self.frames.mean())

    @property
    def num_videos(self) -> int:
        """Number of videos evaluated."""
        return len(self.labels)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all arrays as one ``.npz`` file, atomically."""
        data = io.BytesIO()
        np.savez_compressed(data, **dataclasses.asdict(self))
        write_atomically(path, data.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Evaluation:
        """Read what :meth:`save` wrote."""
        with np.load(path) as arrays:
            values = {key: arrays[key] for key in arrays}
        return cls(**{**values, "policy_gflops": float(values["policy_gflops"])})

    def summary(self) -> dict[str, float]:
        """The figures above by name."""
        names = (
            "accuracy", "top5_accuracy", "mean_average_precision", "single_label_mean_average_precision",
            "reference_mean_average_precision", "mean_return", "mean_confidence", "gflops_per_video",
            "focused_per_video", "frames_per_video", "num_videos",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}


def _mean_average_precision(truth: npt.NDArray[np.bool_], probabilities: npt.NDArray[np.float32]) -> float:
    occurs = truth.any(axis=0)
    return float(average_precision_score(truth[:, occurs], probabilities[:, occurs], average="macro"))


def evaluate(
    policy: Any,
    split: str = "test",
    *,
    env_id: str | None = None,
    num_envs: int = 250,
    seed: int = 0,
    progress_bar: bool = False,
    exit_threshold: float | Sequence[float] | None = None,
    **env_kwargs: Any,
) -> Evaluation:
    """Run a policy with ``deterministic=True`` on every video of a split exactly once.

    Args:
        policy: Anything with SB3's ``predict`` and an ``action_space``, or a callable that takes the environment and
            returns one, such as ``OraclePolicy``. It is given NumPy arrays, or tensors if it says ``takes_tensors``
            (:func:`adafocus_env.policies.decide`).
        split: The split, for videos given by name.
        env_id: ``"AdaFocus-v0"``, ``"AdaFocusTSM-v0"`` or ``"GlanceFocus-v0"``; ``None`` chooses between the first two
            by the recogniser that is passed, or else by the policy: one that acts in continuous positions and sees no
            belief belongs to AdaFocus-TSM.
        num_envs: Number of videos that run at once, at most as many as there are.
        seed: Seed of the environment's draws (the random patches of the reward), and of those of a baseline given as a
            class.
        progress_bar: Show a progress bar.
        exit_threshold: As in :meth:`adafocus_env.Recognizer.recognize`: nothing after the frame at which a video is
            left counts, neither in the figures nor in compute.
        env_kwargs: As in ``gym.make("AdaFocus-v0", …)``. ``skip`` (or ``action``), ``observation`` and ``grid`` follow
            the policy's spaces unless given. A policy that sees prices acts by the ``skip_cost`` (and, if it can stop,
            the ``glance_cost``) given here, a number or a range to draw from. As every video is visited only once, no
            table is made: without ``features``, a table that the process already shares for these videos is used, or
            ``FrozenFeatures``.

    Raises:
        ValueError: The policy's spaces don't fit the environment's, it sees prices and is given none, or it is an
            ``OraclePolicy`` made with another one.
    """
    if not is_policy(policy) and not callable(policy):
        raise ValueError(f"policy must have SB3's predict or make what has, not be {policy!r} (see load_policy)")
    seed = check_integer("seed", seed, Bounds(at_least=0))
    num_envs = check_integer("num_envs", num_envs, Bounds(at_least=1))
    kind = vector_env_class(env_id, env_kwargs, policy)
    env = _made(kind, num_envs, split, fitting_arguments(policy, kind, env_kwargs))
    if not is_policy(policy):
        policy = (seeded(policy, seed) if isinstance(policy, type) else policy)(env)
    check_fit(policy, env)
    if issubclass(kind, AdaFocusTSMVectorEnv):
        refuse_exit(exit_threshold)
    thresholds = as_thresholds(exit_threshold, env.num_steps).copy()
    thresholds[-1] = 0  # the last frame is the last in any case
    videos, cost = len(env.videos), policy_gflops(policy)
    batches = tqdm(range(0, videos, env.num_envs), desc=f"evaluate on {split}", disable=not progress_bar)
    played = [_play(env, policy, range(start, min(start + env.num_envs, videos)), seed + start) for start in batches]
    values = [_cut_short(each, thresholds, cost) for each in played]
    joined = {name: np.concatenate([part[name] for part in values]) for name in values[0]}
    decisions = joined.pop("decisions")
    labels = env.videos.labels.cpu().numpy()
    label_sets = getattr(env.videos, "label_sets", None)
    label_sets = labels[:, None] == np.arange(env.num_classes) if label_sets is None else label_sets.cpu().numpy()
    env.close()
    return Evaluation(
        labels=labels,
        label_sets=label_sets,
        policy_gflops=cost * float(decisions.mean()),
        frames=-(-decisions // env.looks) * (env.num_frames * env.looks // env.num_steps),
        source_images=np.asarray(getattr(env.videos, "source_images", np.arange(videos))),
        **joined,
    )


def _made(kind: type[AdaFocusVectorEnv], num_envs: int, split: str, arguments: dict[str, Any]) -> AdaFocusVectorEnv:
    """An environment in which every video is visited once, so it makes no table, but uses one that there is."""
    if arguments.get("features") is None:
        names = ("videos", "recognizer", "grid", "device")
        found = {name: arguments.pop(name) for name in names if name in arguments}
        arguments["features"] = kind.find_features(split=split, **found, remember=False)
    features = arguments["features"]
    if isinstance(features, FrozenFeatures):  # else the environment says what is wrong with them
        num_envs = min(num_envs, len(features.videos))  # a lane without a video would be computed, too
    return kind(num_envs, split=split, autoreset_mode=AutoresetMode.DISABLED, output="torch", **arguments)


def one_episode(
    env: AdaFocusVectorEnv, policy: Any, videos: npt.NDArray[np.int64], seed: int = 0
) -> Iterator[tuple[Tensor, dict[str, Any], Tensor]]:
    """Play one episode in each of B lanes, to the end of the last one.

    Args:
        env: The environment, without autoreset and with tensors as output.
        policy: What decides.
        videos: (B,) int64, the lanes' videos.
        seed: Seed of the environment.

    Yields:
        After every step the rewards, (B,) float32, the infos, and whether episodes have ended, (B,) bool. Nothing
        counts that follows an episode's end.
    """
    observation, _ = env.reset(seed=seed, options={"video": videos})
    state: Any = None
    over = torch.zeros(env.num_envs, dtype=torch.bool, device=env.device)
    for step in range(env.num_steps):
        actions, state = decide(policy, observation, state, np.full(env.num_envs, step == 0))
        observation, reward, ended, _, info = env.step(actions)
        over = over | ended
        yield reward, info, over
        if over.all():
            return
        if env.stop and ended.any():  # lanes go on together, and those that have stopped once more with their videos
            observation, _ = env.reset(options={"reset_mask": ended.cpu().numpy(), "video": videos})


class _Played(NamedTuple):
    """What a policy did on B videos in T steps, and what the recogniser said after each."""

    rewards: Tensor  # (B, T) float32
    corners: Tensor  # (B, T, 2) int64
    skipped: Tensor  # (B, T) bool
    gflops: Tensor  # (B, T) float64, without the policy's
    probabilities: Tensor  # (B, T, classes) float32
    over: Tensor  # (B, T) bool, whether the episode has ended; nothing counts that follows its end
    going_on: Tensor  # (B, T) float32, the price of going on that rewards have lost


def _play(env: AdaFocusVectorEnv, policy: Any, videos: range, seed: int) -> _Played:
    """One episode on each of some videos, no more than there are lanes."""
    # A last batch is filled up with its first video; what the filling lanes do is not counted.
    chosen = np.full(env.num_envs, videos.start)
    chosen[: len(videos)] = videos
    kept: list[tuple[Tensor, ...]] = []  # on the device, until the episodes are over
    price = torch.zeros(env.num_envs, device=env.device)
    for reward, info, over in one_episode(env, policy, chosen, seed):
        if env.stop and not kept:  # later, lanes that have stopped may have drawn another one
            price = price + info.get("glance_cost", env.glance_cost)
        going_on = price.masked_fill(over, 0.0)
        kept.append((reward, info["patch"][:, :2], info["skipped"], info["gflops"], env.probabilities, over, going_on))
    kept += kept[-1:] * (env.num_steps - len(kept))
    return _Played(*(torch.stack(part, dim=1)[: len(videos)].cpu() for part in zip(*kept, strict=True)))


def _cut_short(played: _Played, thresholds: npt.NDArray[np.float64], cost: float) -> dict[str, npt.NDArray[Any]]:
    """Values of an :class:`Evaluation`, and the ``decisions`` taken, if each video is left where it is certain enough.

    Args:
        played: Whole episodes.
        thresholds: (T,) confidences at which a video is left; 0 after the last step.
        cost: GFLOPs of a decision of the policy.
    """
    rewards, corners, skipped, gflops, probabilities, over, going_on = (part.numpy() for part in played)
    confidences = probabilities.max(axis=2)
    last = ((confidences >= thresholds) | over).argmax(axis=1)
    steps = np.arange(len(thresholds))
    after = steps > last[:, None]
    shown = np.take_along_axis(probabilities, np.minimum(steps, last[:, None])[..., None], axis=1)
    step_gflops = np.where(after, 0.0, gflops + cost)
    rewards = rewards + np.where(steps == last[:, None], going_on, 0.0)  # whoever is left there doesn't go on
    # Sums run over steps in their order, so that they don't depend on how arrays lie in memory.
    returns, spent = np.zeros(len(last)), np.zeros(len(last))
    for step in steps:
        returns += np.where(after[:, step], 0.0, rewards[:, step])
        spent += np.where(after[:, step], 0.0, gflops[:, step])
    return {
        "probabilities": shown[:, -1],
        "predictions": shown.argmax(axis=2),
        "confidences": np.take_along_axis(confidences, np.minimum(steps, last[:, None]), axis=1),
        "returns": returns,
        "gflops": spent + (last + 1) * cost,
        "step_gflops": step_gflops,
        "focused": (~skipped & ~after).sum(axis=1),
        "corners": corners,
        "skipped": skipped | after,
        "decisions": last + 1,
    }
