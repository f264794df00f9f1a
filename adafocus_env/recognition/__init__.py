"""The recogniser: its networks, its training, its compute cost, its checkpoints."""

from adafocus_env.recognition.backbones import BackboneConfig
from adafocus_env.recognition.compute_cost import ComputeCost
from adafocus_env.recognition.deployment import Recognition
from adafocus_env.recognition.loading import load_recognizer
from adafocus_env.recognition.recognizer import Recognizer, RecognizerConfig
from adafocus_env.recognition.tsm_recognizer import TSMConfig, TSMRecognizer

__all__ = [
    "BackboneConfig",
    "ComputeCost",
    "Recognition",
    "Recognizer",
    "RecognizerConfig",
    "TSMConfig",
    "TSMRecognizer",
    "load_recognizer",
]
