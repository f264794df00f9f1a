"""Settings of the agents on the embedded benchmark, chosen on its validation split."""

from __future__ import annotations

from typing import Any

from adafocus_env.recognition.training import Stage3Config

PATCH_HYPERPARAMETERS: dict[str, Any] = {"learning_rate": 1e-3, "gamma": 0.7, "entropy_coefficient": 0.01}
"""REINFORCE, patch policy π (stage 2)."""
PATCH_EPISODES = 25_600

SKIP_HYPERPARAMETERS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "gamma": 1.0,
    "entropy_coefficient": 0.003,
    "use_belief": True,
}
"""REINFORCE, skip policy π′ over a frozen π (AdaFocus+). With ``gain_over_previous`` and γ = 1 the return telescopes to
the confidence at the end minus the price of the frames looked at: exactly the trade-off that is wanted."""
SKIP_EPISODES = 12_800

STAGE3 = Stage3Config(epochs=10, classifier_learning_rate=1e-3)
"""Stage 3 on the patches of π and π′."""

RANDOM_CONTROL = Stage3Config(epochs=2, classifier_learning_rate=1e-3)
RANDOM_CONTROL_ROLLOUTS = 5
"""The control of stage 3: as many steps, on fresh random patches in every pass over two epochs."""
