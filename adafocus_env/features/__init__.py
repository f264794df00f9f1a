"""Outputs of a frozen recogniser on videos, computed on demand, or stored in memory or in a file."""

from adafocus_env.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
