"""Thresholds of conditional exit, chosen on validation videos for a budget or an allowed loss of accuracy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from adafocus_env.checks import Bounds, check_integer, check_number
from agents.evaluation import Evaluation

NEVER = 1.01
"""A threshold that no confidence reaches."""


class ExitCurve(NamedTuple):
    """What K thresholds of conditional exit would have led to, in falling order of threshold."""

    thresholds: npt.NDArray[np.float64]
    """(K,), the first of them :data:`NEVER`."""
    accuracy: npt.NDArray[np.float64]
    """(K,) in [0, 1]."""
    gflops: npt.NDArray[np.float64]
    """(K,), mean multiply-adds / 1e9 of a video, the policy's own included."""


def exit_curve(found: Evaluation, num_thresholds: int = 200) -> ExitCurve:
    """Accuracy and compute by threshold, from one evaluation without exit; no video is read again.

    Args:
        found: An evaluation of a policy with whole episodes.
        num_thresholds: K, at most: quantiles of the confidences that occur before the last step.

    Raises:
        ValueError: The evaluation has one step a video, was made with ``exit_threshold``, or is of an older file that
            doesn't hold every step's confidence.
    """
    _check_whole(found)
    if found.confidences.shape[1] < 2:
        raise ValueError("found has one step for each video, so that none can be left early")
    num_thresholds = check_integer("num_thresholds", num_thresholds, Bounds(at_least=2))
    quantiles = np.quantile(found.confidences[:, :-1].astype(np.float64), np.linspace(1, 0, num_thresholds - 1))
    return outcomes(found, np.concatenate(([NEVER], np.unique(quantiles)[::-1])))


def outcomes(found: Evaluation, thresholds: npt.ArrayLike) -> ExitCurve:
    """Accuracy and compute at given thresholds, from one evaluation without exit.

    Args:
        found: An evaluation of a policy with whole episodes.
        thresholds: (K,).

    Raises:
        ValueError: The evaluation was made with ``exit_threshold``, or as :func:`exit_curve`.
    """
    _check_whole(found)
    chosen = np.asarray(thresholds, dtype=np.float64)
    spent = found.step_gflops.cumsum(axis=1)
    accuracy, gflops = np.empty(len(chosen)), np.empty(len(chosen))
    for number, threshold in enumerate(chosen):
        certain = found.confidences >= threshold
        certain[:, -1] = True
        last = certain.argmax(axis=1)[:, None]
        accuracy[number] = (np.take_along_axis(found.predictions, last, axis=1)[:, 0] == found.labels).mean()
        gflops[number] = np.take_along_axis(spent, last, axis=1).mean()
    return ExitCurve(chosen, accuracy, gflops)


def _check_whole(found: Evaluation) -> None:
    if found.confidences.shape != found.predictions.shape or not found.step_gflops.all():
        raise ValueError(
            "found must be an evaluation of whole episodes: evaluate without exit_threshold, and no policy that stops"
        )


def calibrate_exit(found: Evaluation, *, gflops: float | None = None, loss: float | None = None) -> float:
    """The threshold for ``exit_threshold``, chosen on validation videos (AdaFocusV2, Sec. 3.4, sets them so).

    Args:
        found: ``evaluate(policy, "val")``, without exit.
        gflops: A budget: the highest threshold at which a video takes no more than this on average.
        loss: An allowed loss of accuracy, in [0, 1]: the lowest threshold down to which it is never exceeded.

    Returns:
        The threshold; above 1 where no video can be left early.

    Raises:
        ValueError: Not exactly one of ``gflops`` and ``loss`` is given, no threshold keeps the budget, or as
            :func:`exit_curve`.
    """
    if (gflops is None) == (loss is None):
        raise ValueError("pass either gflops, a budget, or loss, an allowed loss of accuracy")
    curve = exit_curve(found)
    if loss is not None:
        check_number("loss", loss, Bounds(at_least=0, at_most=1))
        exceeded = curve.accuracy < curve.accuracy[0] - loss
        return float(curve.thresholds[np.argmax(exceeded) - 1 if exceeded.any() else -1])
    budget = check_number("gflops", gflops, Bounds(above=0))
    kept = curve.gflops <= budget
    if not kept.any():
        raise ValueError(f"gflops: no threshold takes less than {curve.gflops.min():.4g} a video, above {budget:g}")
    return float(curve.thresholds[np.argmax(kept)])
