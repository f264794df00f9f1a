"""Outputs of a frozen recogniser on videos, computed on demand, or stored in memory or in a file."""

from adafocus_env.features.feature_bank import FeatureBank
from adafocus_env.features.frozen_features import FrozenFeatures
from adafocus_env.features.resolution_bank import ResolutionBank

__all__ = ["FeatureBank", "FrozenFeatures", "ResolutionBank"]
