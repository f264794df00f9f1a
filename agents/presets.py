"""Settings of the agents on the embedded benchmark, chosen on its validation split.

What settings are worth, with intervals, is in docs/results/ablations.md, and more of them in docs/tune/tuning.csv.
"""

from __future__ import annotations

from typing import Any

from adafocus_env.recognition.recipes import Stage3Config

PATCH_HYPERPARAMETERS: dict[str, Any] = {
    "learning_rate": 3e-3,
    "gamma": 0.3,
    "entropy_coefficient": 0.01,
    "use_belief": True,
    "score_map": True,
}
"""REINFORCE for the patch policy π (stage 2). A patch is rewarded at once, so a γ below the paper's 0.7 mostly removes
noise. Scores of the glance's map are worth most. The paper's π sees the glance alone; the belief helped a little."""
PATCH_EPISODES = 19_200

ALL_ACTION_HYPERPARAMETERS: dict[str, Any] = {
    "learning_rate": 2e-3,
    "gamma": 0.0,
    "entropy_coefficient": 0.003,
    "use_belief": True,
    "episodes_per_batch": 16,
    "score_map": True,
}
"""The all-action agent. Its gradients are so much less noisy that it can take four times as many updates, from batches
of a quarter of the size, with which REINFORCE often learns nothing."""

SOFT_TARGET_HYPERPARAMETERS: dict[str, Any] = {
    "learning_rate": 2e-3,
    "gamma": 0.0,
    "entropy_coefficient": 0.0,
    "use_belief": True,
    "episodes_per_batch": 16,
    "encoder_size": 64,
    "temperature": 0.02,
    "score_map": True,
}
"""Soft targets. An encoder of 256 does as well on all 6,000 training videos, but of fewer it learns some by heart.
Longer training gains nothing, nor does a τ of 0.03 or slower averaging."""
SOFT_TARGET_EPISODES = 9_600
QUICK_VIDEOS, QUICK_EPISODES = 1_600, 9_600
"""Training videos and episodes of soft targets in the quickstart. More videos gain more than more episodes, but their
table of all candidates takes longer to fill."""

STILL_PICTURES, STILL_EPISODES = 2_000, 9_600
"""Training pictures and episodes of soft targets on still pictures."""

DIFFERENTIABLE_HYPERPARAMETERS: dict[str, Any] = {
    "learning_rate": 2e-3,
    "gamma": 0.0,
    "use_belief": True,
    "episodes_per_batch": 16,
    "encoder_size": 64,
    "interpolate": "vectors",
    "random_share": 0.2,
    "score_map": True,
}
"""Positions by gradients, through the candidates' vectors. With AdaFocusV2's half of the patches random they do a
little worse, and with its interpolated pixels or without scores of the map they hardly
learnt in a few thousand episodes."""
DIFFERENTIABLE_EPISODES = 9_600

SKIP_HYPERPARAMETERS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "gamma": 0.9,
    "entropy_coefficient": 0.02,
    "use_belief": True,
    "share_encoder": True,
}
"""REINFORCE for the skip policy π′ over a frozen π (AdaFocus+), whose encoder and memory it shares. With
``gain_over_previous`` and γ = 1 the return would telescope to the confidence at the end minus the price of the focused
frames, which is the trade-off wanted. γ = 0.9 is close to it and less noisy. An encoder of its own took π′ more looks
for no more accuracy."""
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
"""REINFORCE for adaptive resolution. Both heads learn jointly, rewarded like the skip policy, for more episodes than π
and π′ have together. Soft targets see the reward of the moment alone, and a cheaper reading now leaves more to be
gained later."""
RESOLUTION_EPISODES = 51_200

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
CLIP_SOFT_TARGET_HYPERPARAMETERS: dict[str, Any] = {
    **SOFT_TARGET_HYPERPARAMETERS,
    "use_belief": False,
    "temperature": 0.1,
}
"""Soft targets with patch indices as actions. They close as much of the gap between random patches and the true
location as a localiser with the same network, which is told where the item is; a lower τ and longer training
don't help."""
CLIP_SOFT_TARGET_EPISODES = 14_400
CLIP_SOFT_TARGET_VIDEOS = 6_000
"""Number of training clips for soft targets, whose table of all candidates is to fill in minutes."""
CLIP_STAGE3 = Stage3Config(epochs=5, classifier_learning_rate=1e-3)
"""Stage 3 of AdaFocus-TSM."""

STAGE3 = Stage3Config(epochs=5)
"""Stage 3 on the patches of π and π′. More epochs overfit."""
STAGE3_SKIP_COST = 0.025
"""Price of a look for the skip policy that stage 3 follows where at most half of the frames are to be looked at: the
lowest price tried on the validation split that keeps clearly below half."""
