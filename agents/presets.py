"""Settings of the agents on the embedded benchmark, chosen on its validation split."""

from __future__ import annotations

from typing import Any

from adafocus_env.recognition.recipes import Stage3Config

PATCH_HYPERPARAMETERS: dict[str, Any] = {
    "learning_rate": 3e-3,
    "gamma": 0.3,
    "entropy_coefficient": 0.01,
    "use_belief": True,
}
"""REINFORCE for the patch policy π (stage 2). A patch is rewarded at once, so a γ below the paper's 0.7 mostly removes
noise. The paper's π sees the glance alone; the belief was worth two to three hundredths of the gap between random
patches and the true location on 5,000 validation videos (seeds 1 and 2)."""
PATCH_EPISODES = 38_400

ALL_ACTION_HYPERPARAMETERS: dict[str, Any] = {
    "learning_rate": 2e-3,
    "gamma": 0.0,
    "entropy_coefficient": 0.003,
    "use_belief": True,
    "episodes_per_batch": 16,
}
"""The all-action agent. Its gradients are so much less noisy that it can take four times as many updates, from batches
of a quarter of the size. With such small batches REINFORCE often learns nothing (validation, seeds 1000 to 1002: 78.1
against 61.6 % after 9,600 episodes)."""

SOFT_TARGET_HYPERPARAMETERS: dict[str, Any] = {
    "learning_rate": 2e-3,
    "gamma": 0.0,
    "entropy_coefficient": 0.0,
    "use_belief": True,
    "episodes_per_batch": 16,
    "temperature": 0.02,
    "score_map": True,
}
"""Soft targets. Trained on 1,600 videos (19,200 episodes, seed 0), they reach 76.4 % without the score map, 77.8 % with
it, and 77.4 % at τ = 0.05 on 500 validation videos. There the all-action agent reaches 75.4 %, random patches 56.8 %,
and the true location 79.6 %."""

SOFT_TARGET_EPISODES = 19_200
QUICK_VIDEOS, QUICK_EPISODES = 1_200, 12_800
"""Training videos and episodes of soft targets in the quickstart. The table of all candidates of these videos takes
about as long to fill as REINFORCE's of what it visits on all 6,000. On the 500 validation videos above they reach
76.8 % (seed 0); with 19,200 episodes it was 76.6 %."""

DIFFERENTIABLE_HYPERPARAMETERS: dict[str, Any] = {
    "learning_rate": 2e-3,
    "gamma": 0.0,
    "use_belief": True,
    "episodes_per_batch": 16,
    "interpolate": "vectors",
    "score_map": True,
}
"""Positions by gradients. On the 1,600 and 500 videos above, they reach 78.4 and 78.8 % (seeds 0 and 1) after 4,000 and
3,000 episodes; with γ = 1, 77.8 and 78.8 %. Without the score map nothing is learnt in 4,000 episodes (54.2 %), nor is
much with AdaFocusV2's interpolated pixels in 2,000: with the score map 58.2 % for γ = 0 and 54.4 % for γ = 1, and
53.4 % without it."""

SKIP_HYPERPARAMETERS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "gamma": 0.9,
    "entropy_coefficient": 0.02,
    "use_belief": True,
}
"""REINFORCE for the skip policy π′ over a frozen π (AdaFocus+). With ``gain_over_previous`` and γ = 1 the return would
telescope to the confidence at the end minus the price of the focused frames, which is the trade-off wanted. γ = 0.9 is
close to it and less noisy."""
SKIP_EPISODES = 12_800

STOP_HYPERPARAMETERS: dict[str, Any] = {**SKIP_HYPERPARAMETERS, "gamma": 1.0}
"""REINFORCE for a head that ends videos, over a frozen π′. With γ = 1 its return is the confidence at the end minus the
price of the compute spent."""
STOP_EPISODES = SKIP_EPISODES

SOFT_CHOICE_HYPERPARAMETERS: dict[str, Any] = {"learning_rate": 1e-3, "use_belief": True}
"""Soft targets for the skip bit, over a frozen π; :mod:`agents.soft_choices` says how they compare with REINFORCE."""

RESOLUTION_HYPERPARAMETERS: dict[str, Any] = {
    "learning_rate": 3e-3,
    "gamma": 0.9,
    "entropy_coefficient": 0.01,
    "use_belief": True,
}
"""REINFORCE for adaptive resolution. Both heads learn jointly, rewarded like the skip policy, for as many episodes as π
and π′ have together if REINFORCE trains both. Soft targets see the reward of the moment alone, and a cheaper reading
now leaves more to be gained later."""
RESOLUTION_EPISODES = PATCH_EPISODES + SKIP_EPISODES

CLIP_HYPERPARAMETERS: dict[str, Any] = {
    "learning_rate": 2e-3,
    "gamma": 0.0,
    "entropy_coefficient": 0.0,
    "learn_position_std": True,
}
"""REINFORCE for one position per clip (AdaFocus-TSM). With one step there is nothing to discount."""
CLIP_PATCH_HYPERPARAMETERS: dict[str, Any] = {"learning_rate": 1e-3, "gamma": 0.0, "entropy_coefficient": 0.01}
"""The same with patch indices as actions."""
CLIP_EPISODES = 19_200
CLIP_STAGE3 = Stage3Config(epochs=5, classifier_learning_rate=1e-3)
"""Stage 3 of AdaFocus-TSM."""

STAGE3 = Stage3Config(epochs=5)
"""Stage 3 on the patches of π and π′. More epochs overfit."""
