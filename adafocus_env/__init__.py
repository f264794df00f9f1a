"""AdaFocus as a reinforcement-learning environment: where should a video recogniser look?"""

from adafocus_env.recognition import Recognizer
from adafocus_env.videos import RoamingFashion

__all__ = ["Recognizer", "RoamingFashion"]
