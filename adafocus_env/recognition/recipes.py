"""Settings of the stages of training, and the recipes of the paper and of this package."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from adafocus_env.checks import Bounds, check_choice, check_fields, check_integer


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """Settings for optimising a stage, except for its length and its learning rates.

    Subclasses add those. A setting that is not allowed raises a ``ValueError`` that names it.

    Attributes:
        videos_per_step: Videos in a batch, of all processes together.
        optimizer: ``"adamw"``, or ``"sgd"`` with a momentum of 0.9 (the paper's).
        schedule: Schedule of learning rates: ``"one_cycle"``, or ``"cosine"`` from the full rate to 0 (the paper's).
        weight_decay: Weight decay of the optimiser.
        precision: Precision of the CNNs; ``"float16"`` (with loss scaling) and ``"bfloat16"`` are mixed precision.
    """

    videos_per_step: Annotated[int, Bounds(at_least=1)] = 32
    optimizer: Literal["adamw", "sgd"] = "adamw"
    schedule: Literal["one_cycle", "cosine"] = "one_cycle"
    weight_decay: Annotated[float, Bounds(at_least=0)] = 0.02
    precision: Literal["float32", "bfloat16", "float16"] = "float32"

    def __post_init__(self) -> None:
        check_fields(self)
        for name, hint in get_type_hints(type(self)).items():
            if get_origin(hint) is Literal:
                check_choice(name, getattr(self, name), get_args(hint))
        if (epochs := getattr(self, "epochs", None)) is not None:
            check_integer("epochs", epochs, Bounds(at_least=0))


@dataclass(frozen=True, kw_only=True)
class Stage0Config(Optimization):
    """Stage 0: both CNNs learn to tell classes apart.

    Attributes:
        global_steps: Optimiser steps of f_G, on whole frames.
        local_steps: Optimiser steps of f_L, on patches.
        epochs: Passes of each CNN over the videos, which replace both numbers of steps.
        learning_rate: Peak learning rate.
        covered: On the embedded benchmark, the share of the item that a patch must show to be of its class.
    """

    global_steps: Annotated[int, Bounds(at_least=0)] = 4000
    local_steps: Annotated[int, Bounds(at_least=0)] = 4000
    epochs: int | None = None
    videos_per_step: Annotated[int, Bounds(at_least=1)] = 16
    learning_rate: Annotated[float, Bounds(at_least=0)] = 4e-3
    covered: Annotated[float, Bounds(above=0, at_most=1)] = 0.5


@dataclass(frozen=True, kw_only=True)
class Stage1Config(Optimization):
    """Stage 1: one uniformly random patch per frame, cross-entropy after every frame, f_G frozen.

    Attributes:
        steps: Optimiser steps.
        epochs: Passes over the videos, which replace ``steps``.
        local_learning_rate: Peak learning rate of f_L.
        classifier_learning_rate: Peak learning rate of f_C.
    """

    steps: Annotated[int, Bounds(at_least=0)] = 3000
    epochs: int | None = None
    local_learning_rate: Annotated[float, Bounds(at_least=0)] = 3e-4
    classifier_learning_rate: Annotated[float, Bounds(at_least=0)] = 3e-3


@dataclass(frozen=True, kw_only=True)
class Stage3Config(Optimization):
    """Stage 3: fine-tune on the patches that a policy picked.

    Attributes:
        epochs: Passes over the videos.
        classifier_learning_rate: Peak learning rate of f_C.
        local_learning_rate: Peak learning rate of f_L; 0 keeps f_L as it is (the reference code's choice).
    """

    epochs: Annotated[int, Bounds(at_least=0)] = 10
    videos_per_step: Annotated[int, Bounds(at_least=1)] = 64
    classifier_learning_rate: Annotated[float, Bounds(at_least=0)] = 3e-3
    local_learning_rate: Annotated[float, Bounds(at_least=0)] = 0.0


@dataclass(frozen=True, kw_only=True)
class EndToEndConfig(Stage1Config):
    """The one stage of AdaFocusV2 (:func:`agents.train_end_to_end`): the settings of stage 1, and these.

    Attributes:
        global_learning_rate: Peak learning rate of f_G.
        policy_learning_rate: Peak learning rate of the policy.
        random_share: Share of the patches that are uniformly random.
    """

    global_learning_rate: Annotated[float, Bounds(at_least=0)] = 3e-4
    policy_learning_rate: Annotated[float, Bounds(at_least=0)] = 1e-3
    random_share: Annotated[float, Bounds(at_least=0, at_most=1)] = 0.5


def num_steps(num_videos: int, config: Stage0Config | Stage1Config, steps: int) -> int:
    """Optimiser steps of a stage, whose length is given in steps or in epochs."""
    return steps if config.epochs is None else config.epochs * max(1, num_videos // config.videos_per_step)


_PAPER: dict[str, Any] = {"videos_per_step": 64, "optimizer": "sgd", "schedule": "cosine", "weight_decay": 1e-4}

PAPER_STAGE0 = Stage0Config(**_PAPER, epochs=15, learning_rate=0.01)
PAPER_STAGE1 = Stage1Config(**_PAPER, epochs=50, local_learning_rate=5e-4, classifier_learning_rate=0.05)
PAPER_STAGE3 = Stage3Config(**_PAPER, epochs=10, classifier_learning_rate=5e-3)
"""The recipes of the released code for ActivityNet, FCVID and Mini-Kinetics."""

PAPER_TSM_STAGE1 = replace(PAPER_STAGE1, epochs=10, local_learning_rate=1e-5, classifier_learning_rate=0.01)
PAPER_TSM_STAGE3 = Stage3Config(**_PAPER, epochs=10, classifier_learning_rate=5e-4)
"""The recipes of the released code for Something-Something."""

EMBEDDED_TSM_STAGE0 = Stage0Config(global_steps=900, local_steps=800, videos_per_step=32, learning_rate=2e-3)
EMBEDDED_TSM_STAGE1 = Stage1Config(
    steps=400, videos_per_step=32, local_learning_rate=5e-4, classifier_learning_rate=1e-3
)
"""The recipes of the embedded benchmark of AdaFocus-TSM; the defaults are those of ``RoamingFashion``."""

STILL_STAGE0 = Stage0Config(global_steps=0, local_steps=0)
STILL_STAGE1 = Stage1Config(steps=2000, videos_per_step=32)
"""The recipes of the embedded benchmark of still pictures. There is no stage 0, as the CNNs start from those that were
trained on ``RoamingFashion``."""
