"""AdaFocus as a reinforcement-learning environment: where should a video recogniser look?

Importing the package registers ``AdaFocus-v0``, ``AdaFocusTSM-v0`` and ``GlanceFocus-v0`` with Gymnasium.
"""

import os

import gymnasium
import torch

from adafocus_env.environments.env import AdaFocusEnv
from adafocus_env.environments.glance_env import GlanceFocusEnv, GlanceFocusVectorEnv
from adafocus_env.environments.tsm_env import AdaFocusTSMEnv, AdaFocusTSMVectorEnv
from adafocus_env.environments.vector_env import AdaFocusVectorEnv
from adafocus_env.features.feature_bank import FeatureBank
from adafocus_env.features.frozen_features import FrozenFeatures
from adafocus_env.features.resolution_bank import ResolutionBank
from adafocus_env.recognition import Recognizer, RecognizerConfig, TSMConfig, TSMRecognizer, load_recognizer
from adafocus_env.recognition.official_checkpoint import load_official_checkpoint
from adafocus_env.version import __version__
from adafocus_env.videos import FrameFolders, PictureFolders, RoamingFashion, RoamingMotion, VideoDataset, VideoFiles

__all__ = [
    "AdaFocusEnv",
    "AdaFocusTSMEnv",
    "AdaFocusTSMVectorEnv",
    "AdaFocusVectorEnv",
    "FeatureBank",
    "FrameFolders",
    "FrozenFeatures",
    "GlanceFocusEnv",
    "GlanceFocusVectorEnv",
    "PictureFolders",
    "Recognizer",
    "RecognizerConfig",
    "ResolutionBank",
    "RoamingFashion",
    "RoamingMotion",
    "TSMConfig",
    "TSMRecognizer",
    "VideoDataset",
    "VideoFiles",
    "__version__",
    "load_official_checkpoint",
    "load_recognizer",
]


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

if hasattr(os, "register_at_fork"):
    # An OpenMP thread pool doesn't survive a fork. If the parent has already run a convolution, one in a child (such as
    # an AsyncVectorEnv worker) would wait for threads that don't exist. A single thread needs no pool, and workers
    # should share the cores anyway.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))
