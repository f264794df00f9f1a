"""The environments: the rules of the process, and Gymnasium's protocol around them."""

from adafocus_env.environments.env import AdaFocusEnv
from adafocus_env.environments.tsm_env import AdaFocusTSMEnv, AdaFocusTSMVectorEnv
from adafocus_env.environments.vector_env import AdaFocusVectorEnv

__all__ = ["AdaFocusEnv", "AdaFocusTSMEnv", "AdaFocusTSMVectorEnv", "AdaFocusVectorEnv"]
