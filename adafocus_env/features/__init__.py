"""What a frozen recogniser says about videos: computed when it is asked, or remembered in memory or in a file."""

from adafocus_env.features.feature_bank import FeatureBank
from adafocus_env.features.frozen_features import FrozenFeatures
from adafocus_env.features.resolution_bank import ResolutionBank

__all__ = ["FeatureBank", "FrozenFeatures", "ResolutionBank"]
