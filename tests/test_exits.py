"""Thresholds of conditional exit."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from adafocus_env import AdaFocusVectorEnv
from agents import Evaluation, Reinforce, calibrate_exit, evaluate, exit_curve
from agents.baselines import RandomPolicy
from agents.exits import outcomes


@pytest.fixture
def policy(env_kwargs: dict[str, Any]) -> Reinforce:
    return Reinforce(AdaFocusVectorEnv(2, **env_kwargs), seed=3)


@pytest.fixture
def whole(policy: Reinforce, env_kwargs: dict[str, Any]) -> Evaluation:
    return evaluate(policy, **env_kwargs)


def test_the_curve_is_what_evaluations_with_its_thresholds_find(
    policy: Reinforce, whole: Evaluation, env_kwargs: dict[str, Any]
) -> None:
    curve = exit_curve(whole, 6)
    assert len(curve.thresholds) > 3
    assert (np.diff(curve.thresholds) < 0).all()
    assert (np.diff(curve.gflops) <= 0).all()
    for threshold, accuracy, gflops in zip(*curve, strict=True):
        found = evaluate(policy, exit_threshold=float(threshold), **env_kwargs)
        assert found.accuracy == pytest.approx(accuracy)
        assert found.gflops_per_video == pytest.approx(gflops)


def test_outcomes_of_given_thresholds(policy: Reinforce, whole: Evaluation, env_kwargs: dict[str, Any]) -> None:
    thresholds = [0.9, float(np.median(whole.confidences)), 0.2]  # in any order, and between those of the curve
    found = outcomes(whole, thresholds)
    assert found.thresholds.tolist() == thresholds
    for threshold, accuracy, gflops in zip(*found, strict=True):
        again = evaluate(policy, exit_threshold=float(threshold), **env_kwargs)
        assert again.accuracy == pytest.approx(accuracy)
        assert again.gflops_per_video == pytest.approx(gflops)


def test_budgets_and_losses_are_kept(policy: Reinforce, whole: Evaluation, env_kwargs: dict[str, Any]) -> None:
    curve = exit_curve(whole)
    budget = float((curve.gflops.min() + curve.gflops.max()) / 2)
    threshold = calibrate_exit(whole, gflops=budget)
    assert evaluate(policy, exit_threshold=threshold, **env_kwargs).gflops_per_video <= budget
    assert curve.gflops[curve.thresholds > threshold].min() > 0
    assert (curve.gflops[curve.thresholds > threshold] > budget).all()
    for loss in (0.0, 0.1, 1.0):
        threshold = calibrate_exit(whole, loss=loss)
        found = evaluate(policy, exit_threshold=threshold, **env_kwargs)
        assert found.accuracy >= whole.accuracy - loss - 1e-9
        assert found.gflops_per_video <= whole.gflops_per_video + 1e-9
    assert threshold == curve.thresholds[-1]  # everything may be lost


def test_a_known_curve() -> None:
    """Two videos of two frames: one is certain and right at first and wrong at last, the other never certain."""
    found = Evaluation(
        labels=np.array([0, 1]),
        label_sets=np.eye(2, dtype=bool),
        probabilities=np.array([[0.4, 0.6], [0.45, 0.55]], dtype=np.float32),
        predictions=np.array([[0, 1], [0, 1]]),
        returns=np.zeros(2),
        gflops=np.full(2, 3.0),
        focused=np.full(2, 2),
        corners=np.zeros((2, 2, 2), dtype=np.int64),
        skipped=np.zeros((2, 2), dtype=bool),
        policy_gflops=0.0,
        confidences=np.array([[0.9, 0.6], [0.5, 0.55]], dtype=np.float32),
        step_gflops=np.array([[1.0, 2.0], [1.0, 2.0]]),
    )
    curve = exit_curve(found, 3)
    np.testing.assert_allclose(curve.thresholds, [1.01, 0.9, 0.5])
    np.testing.assert_allclose(curve.accuracy, [0.5, 1.0, 0.5])
    np.testing.assert_allclose(curve.gflops, [3.0, 2.0, 1.0])
    assert calibrate_exit(found, loss=0.0) == 0.5
    assert calibrate_exit(found, gflops=2.5) == pytest.approx(0.9)
    with pytest.raises(ValueError, match="no threshold takes less than 1"):
        calibrate_exit(found, gflops=0.5)


def test_what_cannot_be_calibrated_is_refused(policy: Reinforce, whole: Evaluation, env_kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="either gflops"):
        calibrate_exit(whole)
    with pytest.raises(ValueError, match="either gflops"):
        calibrate_exit(whole, gflops=1.0, loss=0.1)
    with pytest.raises(ValueError, match="loss"):
        calibrate_exit(whole, loss=-0.1)
    with pytest.raises(ValueError, match="without exit_threshold"):
        exit_curve(evaluate(policy, exit_threshold=1e-6, **env_kwargs))
    with pytest.raises(ValueError, match="whole episodes"):  # of an older file
        exit_curve(dataclasses.replace(whole, confidences=np.empty((0, 0)), step_gflops=np.empty((0, 0))))


def test_policies_without_networks_have_a_curve_too(env_kwargs: dict[str, Any]) -> None:
    curve = exit_curve(evaluate(RandomPolicy, **env_kwargs))
    assert curve.gflops[-1] < curve.gflops[0]
