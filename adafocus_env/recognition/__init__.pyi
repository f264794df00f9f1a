from adafocus_env.recognition.backbones import BackboneConfig as BackboneConfig
from adafocus_env.recognition.compute_cost import ComputeCost as ComputeCost
from adafocus_env.recognition.deployment import Recognition as Recognition
from adafocus_env.recognition.loading import load_recognizer as load_recognizer
from adafocus_env.recognition.recognizer import Recognizer as Recognizer
from adafocus_env.recognition.recognizer import RecognizerConfig as RecognizerConfig
from adafocus_env.recognition.tsm_recognizer import TSMConfig as TSMConfig
from adafocus_env.recognition.tsm_recognizer import TSMRecognizer as TSMRecognizer
