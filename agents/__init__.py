"""Agents for AdaFocus: REINFORCE, baselines, Stable-Baselines3, evaluation."""

from agents import baselines, sb3
from agents.evaluation import Evaluation, evaluate
from agents.pretrained import from_pretrained
from agents.reinforce import Reinforce

__all__ = ["Evaluation", "Reinforce", "baselines", "evaluate", "from_pretrained", "sb3"]
