"""Reproduce the main figures of docs/results, with several seeds and paired intervals, on the whole test split.

For every seed, soft targets, REINFORCE, Stable-Baselines3 PPO and gradients through the patches learn where to look
(stage 2), skip policies are trained at several prices, and stage 3 follows the policies of soft targets. As
a control, stage 3 also runs equally long on random patches. At last, videos are left as soon as the answer is certain.
Hyper-parameters and that threshold are chosen on the validation split. What a killed run has finished is not done
again.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import print

from adafocus_env.command_line import SAME_COMMAND, check_known, run_script
from agents.presets import (
    DIFFERENTIABLE_EPISODES,
    DIFFERENTIABLE_HYPERPARAMETERS,
    PATCH_EPISODES,
    PATCH_HYPERPARAMETERS,
    SKIP_EPISODES,
    SKIP_HYPERPARAMETERS,
    SOFT_TARGET_EPISODES,
    SOFT_TARGET_HYPERPARAMETERS,
    STAGE3,
    STAGE3_SKIP_COST,
)

if TYPE_CHECKING:
    from stable_baselines3 import PPO

    from adafocus_env import FeatureBank, Recognizer
    from agents import Evaluation, Reinforce
    from agents.experiments.record import Record


TUNED = "learned + skip + stage 3"
EXIT = f"{TUNED} + exit"
POSITIONS = "learned by gradients, any position"
GAPS = ("learned", POSITIONS, "REINFORCE", "SB3 PPO")
DIFFERENCES = (
    ("learned", "random"),
    ("learned", "REINFORCE"),
    (POSITIONS, "learned"),
    ("SB3 PPO", "random"),
    ("learned + stage 3", "learned"),
    ("learned + stage 3", "learned + stage 3 on random patches"),
    ("learned + stage 3", "learned + stage 3 on fresh random patches"),
    (TUNED, "learned"),
    (EXIT, TUNED),
    (EXIT, "learned"),
)
SAVINGS = ((TUNED, "learned"), (EXIT, TUNED))
POINTS = ("random", "centre", "Gaussian", "learned", TUNED, EXIT, "true location")
CURVE = "learned + skip, cost "


@dataclass
class Config:
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Training seeds."""
    skip_costs: tuple[float, ...] = (0.005, 0.01, 0.025, 0.05, 0.1)
    """Prices of a focused frame at which the first seed trains skip policies, besides the default price."""
    names: tuple[str, ...] = ()
    """Rows of the table to make, besides the policies that learn nothing; by default all."""
    banks: Path | None = None
    """Folder of feature banks, as compare_algorithms.py fills them; by default, tables are kept in memory."""
    split: str = "test"
    """Split of the figures; rehearse on "val"."""
    seed: int = 0
    """Seed of the random patches in evaluations."""
    out: Path = Path("runs/reproduce_results")
    """Folder for the tables, the figure, the policies and the evaluations."""


def trainings(
    record: Record, bank: FeatureBank, seed: int, skip_costs: Iterable[float]
) -> dict[str, Callable[[], tuple[Any, Recognizer]]]:
    """Functions by name that train with one seed and return a policy and the recogniser to evaluate it with."""

    from adafocus_env.environments.arguments import DEFAULT_SKIP_COST
    from agents import Differentiable, SoftTargets, finetune
    from agents.baselines import RandomPolicy
    from agents.sb3 import PPO_EPISODES, PPO_HYPERPARAMETERS, make_model, make_vec_env

    recognizer = record.recognizer

    def patches() -> Reinforce:
        settings, env = SOFT_TARGET_HYPERPARAMETERS, {"skip": False, "baseline": "exact"}
        return record.learn("patch", seed, SOFT_TARGET_EPISODES, settings, kind=SoftTargets, **env)

    def positions() -> Reinforce:
        settings, env = DIFFERENTIABLE_HYPERPARAMETERS, {"skip": False, "action": "continuous"}
        return record.learn("position", seed, DIFFERENTIABLE_EPISODES, settings, kind=Differentiable, **env)

    def reinforce() -> Reinforce:
        return record.learn("reinforce", seed, PATCH_EPISODES, PATCH_HYPERPARAMETERS, skip=False)

    def skips(cost: float = DEFAULT_SKIP_COST) -> Reinforce:
        env = {"reward": "gain_over_previous", "skip_cost": cost}
        return record.learn(f"skip-{cost:g}", seed, SKIP_EPISODES, SKIP_HYPERPARAMETERS, patches(), **env)

    def ppo() -> PPO:
        env = make_vec_env(64, seed=seed, features=bank, skip=False)
        model: PPO = make_model("ppo", env, seed=seed, **PPO_HYPERPARAMETERS)
        started = time.perf_counter()
        model.learn(PPO_EPISODES * env.env.num_frames)
        record.log_training("ppo", seed, time.perf_counter() - started)
        return model

    def with_stage3(policy: Reinforce) -> tuple[Reinforce, Recognizer]:
        return policy, finetune(recognizer, policy, STAGE3, features=bank, seed=seed)

    @functools.cache
    def skips_with_stage3() -> tuple[Reinforce, Recognizer]:
        return with_stage3(skips(STAGE3_SKIP_COST))

    def with_control(epochs: int, rollouts: int) -> tuple[Reinforce, Recognizer]:
        settings = replace(STAGE3, epochs=epochs)
        found = finetune(recognizer, RandomPolicy, settings, features=bank, seed=seed, rollouts=rollouts, skip=False)
        return patches(), found

    return {
        "learned": lambda: (patches(), recognizer),
        **{f"{CURVE}{cost:g}": lambda cost=cost: (skips(cost), recognizer) for cost in sorted(skip_costs)},
        TUNED: skips_with_stage3,
        EXIT: skips_with_stage3,
        "learned + stage 3": lambda: with_stage3(patches()),
        # Two controls with the same number of steps: stage 3 on one set of random patches, and, stronger, on fresh
        # random patches in every pass.
        "learned + stage 3 on random patches": lambda: with_control(STAGE3.epochs, 1),
        "learned + stage 3 on fresh random patches": lambda: with_control(1, STAGE3.epochs),
        POSITIONS: lambda: (positions(), recognizer),
        "REINFORCE": lambda: (reinforce(), recognizer),
        "SB3 PPO": lambda: (ppo(), recognizer),
    }


def chosen_threshold(path: Path, make: Callable[[], tuple[Any, Recognizer]]) -> float:
    """The threshold of conditional exit for an allowed loss of accuracy on validation videos.

    Args:
        path: File of the evaluation on these videos; if there is none, it is made.
        make: Gives the policy and the recogniser to evaluate.
    """
    from agents import calibrate_exit, evaluate
    from agents.experiments.kept import kept_evaluation
    from agents.experiments.pipelines import ALLOWED_LOSS

    def evaluated() -> Evaluation:
        policy, recognizer = make()
        return evaluate(policy, "val", recognizer=recognizer, reward="confidence")

    return calibrate_exit(kept_evaluation(path, evaluated), loss=ALLOWED_LOSS)


def determining_settings(config: Config, recognizer: Recognizer) -> dict[str, Any]:
    """Everything that determines the policies and the evaluations in a folder."""
    from adafocus_env import RoamingFashion
    from adafocus_env.environments.arguments import DEFAULT_SKIP_COST
    from agents.experiments.pipelines import ALLOWED_LOSS
    from agents.experiments.provenance import code_of
    from agents.sb3 import PPO_EPISODES, PPO_HYPERPARAMETERS

    return {
        "code": code_of(__file__),
        "evaluation": [config.split, config.seed, RoamingFashion(config.split).fingerprint],
        "patch": [SOFT_TARGET_EPISODES, SOFT_TARGET_HYPERPARAMETERS],
        "position": [DIFFERENTIABLE_EPISODES, DIFFERENTIABLE_HYPERPARAMETERS],
        "reinforce": [PATCH_EPISODES, PATCH_HYPERPARAMETERS],
        "skip": [SKIP_EPISODES, SKIP_HYPERPARAMETERS, DEFAULT_SKIP_COST],
        "ppo": [PPO_EPISODES, PPO_HYPERPARAMETERS],
        "allowed loss": ALLOWED_LOSS,
        "stage 3": [dataclasses.asdict(STAGE3), STAGE3_SKIP_COST],
        "recognizer": recognizer.fingerprint(),
    }


def main(config: Config) -> None:
    from adafocus_env import FeatureBank, Recognizer, RoamingFashion
    from adafocus_env.environments.arguments import DEFAULT_SKIP_COST
    from adafocus_env.run_folder import RunFolder, check_settings
    from agents.experiments.bench import Bench
    from agents.experiments.record import Record
    from agents.figures import accuracy_against_compute

    recognizer = Recognizer.from_pretrained("roaming-fashion")
    if config.banks is None:
        bank = FeatureBank.shared(recognizer, RoamingFashion("train"))
    else:
        bench = Bench(folder=str(config.banks))
        bench.build(("train",))
        bank = bench.features("train")
    tested = FeatureBank.shared(recognizer, RoamingFashion(config.split))  # held here, so that all evaluations share it
    check_settings(config.out / "settings.json", determining_settings(config, recognizer))
    with RunFolder(config.out, config, append=True) as run:
        record = Record(run, recognizer, config.split, config.seed, features=bank)
        record.add_references(skip=False)
        for seed in config.seeds:
            # Only the first seed gets the curve over prices; all seeds get the default price.
            further_costs = config.skip_costs if seed == config.seeds[0] else ()
            made = trainings(record, bank, seed, {DEFAULT_SKIP_COST, *further_costs})
            check_known("--names", config.names, made)
            for name in config.names or made:
                leave: dict[str, Any] = {}
                if name == EXIT:
                    path = run.path / "evaluations" / f"{TUNED} on val-{seed}.npz".replace(" ", "_")
                    leave["exit_threshold"] = chosen_threshold(path, made[name])
                record.add(name, seed, made[name], **leave)
        record.write_results(("map", "gflops", "focused", "mean_return"))
        record.write_claims(GAPS, DIFFERENCES, SAVINGS)
        places = {name: (record.mean(name, "gflops_per_video"), 100 * record.mean(name)) for name in record.found}
        curve = [place for name, place in places.items() if name.startswith(CURVE) or name == "learned"]
        accuracy_against_compute(
            config.out / "accuracy_compute.png",
            {name: places[name] for name in POINTS if name in places},
            {"learned + skip, falling cost": curve} if curve else None,
        )
    del tested
    print(f"Everything is in {config.out}.")


if __name__ == "__main__":
    run_script(main, Config, __doc__, resume=SAME_COMMAND)
