"""Agents for AdaFocus: REINFORCE and its relatives, baselines, Stable-Baselines3, evaluation, stage 3."""

from adafocus_env.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
