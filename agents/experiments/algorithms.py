"""The compared algorithms as data: how each is made, its environment, its starting settings and its search space."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from adafocus_env import FeatureBank
from agents.advantage_weighted import AdvantageWeighted
from agents.all_action import AllAction
from agents.baselines import CenterPolicy, GaussianPolicy, OraclePolicy, RandomPolicy
from agents.differentiable import Differentiable
from agents.environments import patches_alone, vector_env_class
from agents.localizer import Localizer
from agents.paper_ppo import PaperPPO
from agents.presets import (
    ALL_ACTION_HYPERPARAMETERS,
    DIFFERENTIABLE_HYPERPARAMETERS,
    PATCH_HYPERPARAMETERS,
    SOFT_TARGET_HYPERPARAMETERS,
)
from agents.reinforce import Reinforce
from agents.sb3 import PPO_HYPERPARAMETERS, make_model, make_vec_env
from agents.soft_targets import SoftTargets

LANES = 64
Settings = Mapping[str, Any]
Maker = Callable[..., Any]
"""Takes a feature bank, a seed, environment arguments, hyper-parameters and a number of lanes. Returns a model with
SB3's ``learn`` and ``predict``."""


@dataclass(frozen=True)
class Algorithm:
    """One entry of :data:`ALGORITHMS`.

    Attributes:
        title: Its name in tables and figures.
        make: Function that makes the model.
        env: Arguments of the environment besides, or instead of, those that make its actions patch indices.
        settings: Hyper-parameters to start from, under the names that the algorithm's own library gives them.
        search: Values that tuning tries for some hyper-parameters; empty if all are to stay as published.
    """

    title: str
    make: Maker
    env: Settings = field(default_factory=dict)
    settings: Settings = field(default_factory=dict)
    search: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


def _own(kind: type[Reinforce]) -> Maker:
    def make(features: FeatureBank, seed: int, env: Settings, settings: Settings, num_envs: int = LANES) -> Reinforce:
        env_class = vector_env_class(None, {"features": features})
        kwargs = {**patches_alone(env_class), **env}
        num_envs = min(num_envs, settings.get("episodes_per_batch", kind.hyperparameters_class.episodes_per_batch))
        return kind(env_class(num_envs, features=features, output="torch", **kwargs), seed=seed, **settings)

    return make


def _sb3(name: str) -> Maker:
    def make(features: FeatureBank, seed: int, env: Settings, settings: Settings, num_envs: int = LANES) -> Any:
        kwargs = {**patches_alone(vector_env_class(None, {"features": features})), **env}
        return make_model(name, make_vec_env(num_envs, seed=seed, features=features, **kwargs), seed=seed, **settings)

    return make


_RATES = (3e-4, 1e-3, 3e-3)
_OWN_SEARCH = {
    "learning_rate": (*_RATES, 6e-3),
    "gamma": (0.0, 0.3, 0.7),
    "entropy_coefficient": (0.003, 0.01, 0.03),
}
_SB3_SEARCH = {"learning_rate": (1e-4, *_RATES), "gamma": (0.0, 0.3, 0.7), "ent_coef": (0.0, 0.003, 0.01, 0.03)}

ALGORITHMS: dict[str, Algorithm] = {
    "all_action": Algorithm(
        "all-action (ours)", _own(AllAction), {"baseline": "exact"}, ALL_ACTION_HYPERPARAMETERS, _OWN_SEARCH
    ),
    "soft_targets": Algorithm(
        "soft targets (ours)", _own(SoftTargets), {"baseline": "exact"}, SOFT_TARGET_HYPERPARAMETERS,
        {"learning_rate": _RATES, "temperature": (0.01, 0.02, 0.05), "gamma": (0.0, 0.3), "score_map": (False, True)},
    ),
    "differentiable": Algorithm(
        "gradients through the vectors (ours)", _own(Differentiable), {"action": "continuous"},
        DIFFERENTIABLE_HYPERPARAMETERS,
        {"learning_rate": (*_RATES, 6e-3), "gamma": (0.0, 0.3, 1.0), "random_share": (0.0, 0.5)},
    ),
    "advantage_weighted": Algorithm(
        "advantage-weighted regression (ours)", _own(AdvantageWeighted), {}, PATCH_HYPERPARAMETERS,
        {**_OWN_SEARCH, "temperature": (0.3, 1.0, 3.0)},
    ),
    "reinforce": Algorithm("REINFORCE (ours)", _own(Reinforce), {}, PATCH_HYPERPARAMETERS, _OWN_SEARCH),
    "paper": Algorithm("paper's PPO, as published", _own(PaperPPO), {"observation": "glance"}),
    "paper_tuned": Algorithm(
        "paper's PPO, tuned", _own(PaperPPO), {"observation": "glance"}, {},
        _OWN_SEARCH,
    ),
    "ppo": Algorithm("SB3 PPO", _sb3("ppo"), {}, PPO_HYPERPARAMETERS, _SB3_SEARCH),
    "ppo_glance": Algorithm("SB3 PPO on the glance", _sb3("ppo"), {"observation": "glance"}, PPO_HYPERPARAMETERS,
                            _SB3_SEARCH),
    "a2c": Algorithm(
        "SB3 A2C", _sb3("a2c"), {}, {"n_steps": 2, "gamma": 0.7, "ent_coef": 0.01, "normalize_advantage": True},
        _SB3_SEARCH,
    ),
    "dqn": Algorithm(
        "SB3 DQN", _sb3("dqn"), {},
        {"buffer_size": 20_000, "learning_starts": 2_000, "train_freq": 1, "gradient_steps": 2, "batch_size": 128,
         "target_update_interval": 2_000, "exploration_fraction": 0.5, "exploration_final_eps": 0.02, "gamma": 0.3},
        {"learning_rate": (1e-4, *_RATES), "gamma": (0.0, 0.3, 0.7), "exploration_fraction": (0.2, 0.5, 0.8)},
    ),
    "recurrent_ppo": Algorithm(
        "sb3-contrib RecurrentPPO", _sb3("recurrent_ppo"), {},
        {"n_steps": 16, "batch_size": 256, "n_epochs": 4, "gamma": 0.7, "ent_coef": 0.01}, _SB3_SEARCH,
    ),
    "localizer": Algorithm(
        "supervised localiser", _own(Localizer), {}, {"learning_rate": 1e-3, "use_belief": True},
        {"learning_rate": _RATES},
    ),
}  # fmt: skip

REFERENCES: dict[str, tuple[str, Any]] = {
    "random": ("random", RandomPolicy),
    "center": ("centre", CenterPolicy),
    "gaussian": ("Gaussian", GaussianPolicy),
    "oracle": ("true location", OraclePolicy),
}
"""Policies that learn nothing: the title and the class of each, by name."""

NEED_LOCATIONS = frozenset({"oracle", "localizer"})
"""Names in both tables that need videos with known locations of the item."""
