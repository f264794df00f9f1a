"""Data sets of videos."""

from adafocus_env.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
