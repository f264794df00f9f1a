"""The compared algorithms as data: how each is made, its environment, its starting settings and its search space."""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from adafocus_env import FeatureBank
from agents.advantage_weighted import AdvantageWeighted
from agents.all_action import AllAction
from agents.baselines import BASELINE_POLICIES
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
        more_settings: How many more settings tuning tries than for others.
    """

    title: str
    make: Maker
    env: Settings = field(default_factory=dict)
    settings: Settings = field(default_factory=dict)
    search: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    more_settings: int = 0


@dataclass(frozen=True)
class own:
    """The maker of one of this package's own agents, or of a subclass of yours.

    Attributes:
        kind: The class.
    """

    kind: type[Reinforce]

    def __call__(
        self, features: FeatureBank, seed: int, env: Settings, settings: Settings, num_envs: int = LANES
    ) -> Reinforce:
        """See :data:`Maker`.

        Raises:
            ValueError: The class has other defaults than it says, so settings that are given and those that aren't
                could be taken for the same.
        """
        env_class = vector_env_class(None, {"features": features})
        kwargs = {**patches_alone(env_class), **env}
        num_envs = min(num_envs, settings.get("episodes_per_batch", self.defaults["episodes_per_batch"]))
        agent = self.kind(env_class(num_envs, features=features, output="torch", **kwargs), seed=seed, **settings)
        if asdict(agent.config) != {**self.defaults, **settings}:
            raise ValueError(
                f"{self.kind.__name__}'s defaults are not those of its hyperparameters_class: write them there"
            )
        return agent

    @property
    def defaults(self) -> dict[str, Any]:
        """The class's hyper-parameters where none are given."""
        return asdict(self.kind.hyperparameters_class())


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
        "all-action (ours)", own(AllAction), {"baseline": "exact"}, ALL_ACTION_HYPERPARAMETERS, _OWN_SEARCH
    ),
    "soft_targets": Algorithm(
        "soft targets (ours)", own(SoftTargets), {"baseline": "exact"}, SOFT_TARGET_HYPERPARAMETERS,
        {"learning_rate": _RATES, "temperature": (0.01, 0.02, 0.05), "gamma": (0.0, 0.3), "score_map": (False, True)},
    ),
    "differentiable": Algorithm(
        "gradients through the vectors (ours)", own(Differentiable), {"action": "continuous"},
        DIFFERENTIABLE_HYPERPARAMETERS,
        {"learning_rate": (*_RATES, 6e-3), "gamma": (0.0, 0.3, 1.0), "random_share": (0.0, 0.5)},
    ),
    "advantage_weighted": Algorithm(
        "advantage-weighted regression (ours)", own(AdvantageWeighted), {}, PATCH_HYPERPARAMETERS,
        {**_OWN_SEARCH, "temperature": (0.3, 1.0, 3.0)},
    ),
    "reinforce": Algorithm("REINFORCE (ours)", own(Reinforce), {}, PATCH_HYPERPARAMETERS, _OWN_SEARCH),
    "paper": Algorithm("paper's PPO, as published", own(PaperPPO), {"observation": "glance"}),
    "paper_tuned": Algorithm(
        "paper's PPO, tuned", own(PaperPPO), {"observation": "glance"}, {},
        _OWN_SEARCH,
    ),
    "ppo": Algorithm("SB3 PPO", _sb3("ppo"), {}, PPO_HYPERPARAMETERS, _SB3_SEARCH),
    "ppo_glance": Algorithm("SB3 PPO on the glance", _sb3("ppo"), {"observation": "glance"}, PPO_HYPERPARAMETERS,
                            _SB3_SEARCH),
    "a2c": Algorithm(
        "SB3 A2C", _sb3("a2c"), {}, {"n_steps": 2, "gamma": 0.7, "ent_coef": 0.01, "normalize_advantage": True},
        {**_SB3_SEARCH, "n_steps": (2, 4, 8)}, more_settings=6,
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
        "supervised localiser", own(Localizer), {}, {"learning_rate": 1e-3, "use_belief": True, "score_map": True},
        {"learning_rate": (1e-4, 3e-4, 1e-3, 2e-3, 3e-3, 6e-3)},
    ),
}  # fmt: skip


def starting_settings(algorithm: Algorithm) -> dict[str, Any]:
    """The hyper-parameters that an algorithm starts from, with the defaults of our agents filled in."""
    defaults = algorithm.make.defaults if isinstance(algorithm.make, own) else {}
    return {**defaults, **algorithm.settings}


OWN = "module:name of one of your own, which is an Algorithm or a subclass of agents.Reinforce"
"""What may be given in place of a key of :data:`ALGORITHMS`."""


def get_algorithm(name: str) -> Algorithm:
    """An entry of :data:`ALGORITHMS`, or an algorithm of the user's.

    Args:
        name: A key of :data:`ALGORITHMS`; or ``"module:name"`` of an :class:`Algorithm` or of a subclass of
            :class:`agents.Reinforce`, in a module that can be imported, from the working directory too. A subclass
            keeps its own hyper-parameters and the environment's defaults; an :class:`Algorithm` sets them.

    Raises:
        ImportError: There is no such module, or it can't be imported.
        ValueError: The name is unknown, or it is of something else.
    """
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ValueError(f"unknown {name}; there are {', '.join(sorted(ALGORITHMS))}, and {OWN}")
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # last, so that a file here can't take the place of an installed module
    found = getattr(importlib.import_module(module_name), attribute, None)
    if isinstance(found, Algorithm):
        return found
    if isinstance(found, type) and issubclass(found, Reinforce):
        return Algorithm(name, own(found))
    raise ValueError(f"{name} must be the {OWN}, not {found!r}")


def get_algorithms(option: str, names: Iterable[str]) -> dict[str, Algorithm]:
    """Several algorithms by name, as :func:`get_algorithm` finds them.

    Raises:
        ImportError: The module of one of the user's can't be imported.
        ValueError: A name is unknown, or two algorithms have the same title. The message begins with the option.
    """
    try:
        found = {name: get_algorithm(name) for name in names}
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None
    titles = [algorithm.title for algorithm in found.values()]
    if twice := sorted({title for title in titles if titles.count(title) > 1}):
        raise ValueError(f"{option}: several algorithms have the title {', '.join(twice)}, which names their row")
    return found


def source_of(name: str) -> str | None:
    """SHA-256 of the file that defines an algorithm of the user's; ``None`` for a key of :data:`ALGORITHMS`."""
    if name in ALGORITHMS:
        return None
    get_algorithm(name)
    file = sys.modules[name.partition(":")[0]].__file__
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None


TUNED = Path(__file__).parent / "tuned.json"
"""The settings that ``scripts/tune.py`` chose for the published comparison, by algorithm."""

TITLES = {"center": "centre", "gaussian": "Gaussian", "oracle": "true location"}
REFERENCES: dict[str, tuple[str, Any]] = {
    name: (TITLES.get(name, name), policy) for name, policy in BASELINE_POLICIES.items()
}
"""Policies that learn nothing: the title and the class of each, by name."""

NEED_LOCATIONS = frozenset({"oracle", "localizer"})
"""Names in both tables that need videos with known locations of the item."""
