"""Agents for AdaFocus: REINFORCE and its relatives, baselines, Stable-Baselines3, evaluation, stage 3."""

from agents import baselines, sb3
from agents.advantage_weighted import AdvantageWeighted
from agents.all_action import AllAction
from agents.differentiable import Differentiable
from agents.end_to_end import EndToEndConfig, train_end_to_end
from agents.evaluation import Evaluation, evaluate, paired_difference
from agents.exits import calibrate_exit, exit_curve
from agents.finetuning import finetune
from agents.localizer import Localizer
from agents.pairs import load_pair, push_to_hub, save_pair
from agents.paper_ppo import PaperPPO
from agents.pretrained import from_pretrained, load_policy
from agents.reinforce import Reinforce
from agents.snapping import Snapped
from agents.soft_choices import SoftChoices
from agents.soft_targets import SoftTargets

__all__ = [
    "AdvantageWeighted",
    "AllAction",
    "Differentiable",
    "EndToEndConfig",
    "Evaluation",
    "Localizer",
    "PaperPPO",
    "Reinforce",
    "Snapped",
    "SoftChoices",
    "SoftTargets",
    "baselines",
    "calibrate_exit",
    "evaluate",
    "exit_curve",
    "finetune",
    "from_pretrained",
    "load_pair",
    "load_policy",
    "paired_difference",
    "push_to_hub",
    "save_pair",
    "sb3",
    "train_end_to_end",
]
