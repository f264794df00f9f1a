"""AdaFocus as a reinforcement-learning environment: where should a video recogniser look?

Importing the package registers ``AdaFocus-v0``, ``AdaFocusTSM-v0`` and ``GlanceFocus-v0`` with Gymnasium. Its names
are imported when they are first asked for, and torch with them.
"""

import os
import sys

import gymnasium

from adafocus_env.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

gymnasium.register(
    id="AdaFocus-v0",
    entry_point="adafocus_env.environments.env:AdaFocusEnv",
    vector_entry_point="adafocus_env.environments.vector_env:AdaFocusVectorEnv",
)

gymnasium.register(
    id="AdaFocusTSM-v0",
    entry_point="adafocus_env.environments.tsm_env:AdaFocusTSMEnv",
    vector_entry_point="adafocus_env.environments.tsm_env:AdaFocusTSMVectorEnv",
)

gymnasium.register(
    id="GlanceFocus-v0",
    entry_point="adafocus_env.environments.glance_env:GlanceFocusEnv",
    vector_entry_point="adafocus_env.environments.glance_env:GlanceFocusVectorEnv",
)


def _use_one_thread() -> None:
    """Keep torch in a fork from waiting for threads that don't exist.

    An OpenMP thread pool doesn't survive a fork. If the parent has already run a convolution, one in a child (such as
    an AsyncVectorEnv worker) would wait forever. A single thread needs no pool, and workers should share the cores
    anyway.
    """
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_use_one_thread)
