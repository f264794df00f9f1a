"""Environment steps per second, beside the procedure that the environment replaces and the least work of a step."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from adafocus_env import AdaFocusVectorEnv, FeatureBank, FrozenFeatures
from agents.experiments.speed.measuring import STEPS, Ratio, Results, Timing
from agents.experiments.speed.scales import GRID, Scale
from agents.experiments.speed.yardsticks import Floor, ReferenceProcedure

MEMOISED, LAZY, ONLINE = "memoised, sample, torch", "memoised, sample, torch, lazy table", "online, torch"
ENVIRONMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    MEMOISED: ("table", {}),
    "memoised, sample, numpy": ("table", {"output": "numpy"}),
    "memoised, exact, torch": ("table", {"baseline": "exact"}),
    "memoised, exact, numpy": ("table", {"baseline": "exact", "output": "numpy"}),
    LAZY: ("lazy table", {}),
    "memoised, sample, torch, half of the frames skipped": ("table", {"skip": True}),
    "online, numpy": ("online", {"output": "numpy"}),
    ONLINE: ("online", {}),
    "online, bfloat16, torch": ("online, bfloat16", {}),
}
"""Environments by name: the features that they use, and the arguments that differ from :data:`COMMON`."""
COMMON = {"output": "torch", "baseline": "sample", "skip": False, "autoreset_mode": "DISABLED"}
FLOORS = {
    "floor, sample": (2, True),
    "floor without the glance, sample": (2, False),
    "floor, exact": (GRID**2, True),
    "floor without the glance, exact": (GRID**2, False),
}
"""Floors by name: the number of patches in a step, and whether global maps are gathered."""
REFERENCE = "reference procedure"
REFERENCES = {REFERENCE: True, f"{REFERENCE} without the global CNN": False}
"""Reference procedures by name: whether the global CNN runs."""
SLOW = {"online, numpy", f"{REFERENCE} without the global CNN"}
"""Timings that take minutes and say nothing new if the networks are large and there are many lanes."""
ON_TABLE = [
    *(
        Ratio(f"memoised {baseline} / {floor}", f"memoised, {baseline}, torch", f"{floor}, {baseline}", "at least 0.5")
        for baseline in ("sample", "exact")
        for floor in ("floor", "floor without the glance")
    ),
    Ratio("numpy / torch output", "memoised, sample, numpy", MEMOISED, "at least 0.6"),
]
COMPUTED = REFERENCES.keys() | {name for name, (kind, _) in ENVIRONMENTS.items() if kind.startswith("online")}
"""Timings that read no table."""
RATIOS: dict[int, list[Ratio]] = {
    1: [],
    64: [
        *(
            Ratio(f"memoised sampled / {name}", MEMOISED, name, {"embedded": "at least 50", "paper": "at least 200"})
            for name in REFERENCES
        ),
        Ratio("online / reference procedure", ONLINE, REFERENCE, {"paper": "at least 1.1"}),
        Ratio("online bfloat16 / reference procedure", "online, bfloat16, torch", REFERENCE, "at least 1.8"),
    ],
    256: ON_TABLE,
}
"""Ratios by number of lanes."""


class Stepper:
    """Steps an environment with actions that were drawn beforehand.

    Every call is one transition of every lane. The call that ends an episode includes the reset after it.
    """

    def __init__(self, env: Any, actions: list[Any]) -> None:
        self._env, self._actions = env, itertools.cycle(actions)
        env.reset(seed=0)

    def step(self) -> None:
        """Step all lanes, and reset them after the last step of their episodes."""
        _, _, terminated, _, _ = self._env.step(next(self._actions))
        if terminated if isinstance(terminated, bool) else terminated.any():
            self._env.reset()


def never_known_to_be_full(bank: FeatureBank) -> FeatureBank:
    """The same table, but searched for missing entries in every step, as a table that fills lazily is."""
    lazy = object.__new__(type(bank))  # copying a bank gives the bank itself
    vars(lazy).update(vars(bank), _full=False)
    return lazy


def measure_stepping(results: Results, scale: Scale, bank: FeatureBank, seed: int) -> dict[int, dict[str, float]]:
    """Measure environments with a full table, and online ones.

    Returns:
        Steps per second of the batched environments by number of lanes and by name.
    """
    random = torch.Generator().manual_seed(seed)
    subject = bank.recognizer, bank.videos, GRID, bank.device
    features = {"table": bank, "lazy table": never_known_to_be_full(bank), "online": FrozenFeatures(*subject)}
    if scale.bfloat16:
        features["online, bfloat16"] = FrozenFeatures(*subject, precision="bfloat16")
    found = {}
    for num_envs, ratios in {**RATIOS, **dict.fromkeys(scale.many_envs, ON_TABLE)}.items():
        left_out = set() if num_envs in scale.online_envs else COMPUTED if num_envs in scale.many_envs else SLOW
        found[num_envs] = results.compare(
            scale.name,
            STEPS,
            _batched_timings(bank, features, num_envs, left_out, random),
            [replace(ratio, name=f"{ratio.name}, {num_envs} envs") for ratio in ratios],
        )
    make = functools.partial(gym.make, "AdaFocus-v0", features=bank, skip=False)
    single = Stepper(make(), torch.randint(GRID**2, (97,), generator=random).tolist())
    sync = gym.vector.SyncVectorEnv([make] * 16, autoreset_mode=gym.vector.AutoresetMode.DISABLED)
    several = Stepper(sync, list(torch.randint(GRID**2, (32, 16), generator=random).numpy()))
    timings = {
        "gym.make, sample": Timing(single.step, 1, num_envs=1),
        "SyncVectorEnv, sample": Timing(several.step, 16, num_envs=16),
    }
    results.compare(scale.name, STEPS, timings)
    return found


def _batched_timings(
    bank: FeatureBank, features: dict[str, FrozenFeatures], num_envs: int, left_out: set[str], random: torch.Generator
) -> dict[str, Timing]:
    """Timings of all environments, floors and reference procedures at one number of lanes, except those left out."""
    draws = torch.randint(GRID**2, (32, 2, num_envs), generator=random)
    with_skips = torch.stack((draws[:, 0], draws[:, 1] % 2), dim=-1)
    floors = {patches: Floor(bank, num_envs, patches) for patches in (2, GRID**2)}
    device = bank.device
    references = {} if REFERENCE in left_out else _references(bank, num_envs, draws)

    def stepped(kind: str, **changes: Any) -> Stepper:
        arguments = {**COMMON, **changes}
        env = AdaFocusVectorEnv(num_envs, features=features[kind], **arguments)
        actions = with_skips if arguments["skip"] else draws[:, 0]
        return Stepper(env, list(actions.to(device) if arguments["output"] == "torch" else actions.numpy()))

    calls: dict[str, Any] = {
        **{
            name: stepped(kind, **changes).step
            for name, (kind, changes) in ENVIRONMENTS.items()
            if kind in features and name not in left_out
        },
        **{name: functools.partial(floors[patches].step, glance=glance) for name, (patches, glance) in FLOORS.items()},
        **{name: call for name, call in references.items() if name not in left_out},
    }
    return {name: Timing(call, num_envs, num_envs) for name, call in calls.items()}


def _references(bank: FeatureBank, num_envs: int, draws: Tensor) -> dict[str, Callable[[], None]]:
    """The reference procedures by name, given chosen and random patches, (…, 2, num_envs)."""
    index = torch.arange(num_envs) % len(bank.videos)
    frames, labels = (each.to(bank.device) for each in (bank.videos.frames(index), bank.videos.labels[index]))
    reference, draw = ReferenceProcedure(bank.recognizer, frames, labels, bank.corners), itertools.cycle(draws)

    def refer(glance: bool) -> None:
        reference.step(*next(draw), glance=glance)

    return {name: functools.partial(refer, glance) for name, glance in REFERENCES.items()}
