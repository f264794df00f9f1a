"""The model card of a recogniser and its policy, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gymnasium import spaces

from adafocus_env import Recognizer, TSMRecognizer
from adafocus_env.prices import PRICE_NAMES, TYPICAL_PRICE, num_prices
from adafocus_env.recognition.compute_cost import policy_gflops
from adafocus_env.recognition.trained_on import KEY
from agents.agent import Agent

_FRONT = """---
library_name: adafocus-env
tags:
- video-classification
- reinforcement-learning
- adaptive-computation
---
"""
_LIMITS = (
    "The recogniser knows the classes that it was trained on and always names one of them, whatever the video shows. "
    "Accuracy on other videos, cameras or frame rates was not measured unless it is stated above."
)
_NOT_STATED = "Not stated by whoever saved these files."


@dataclass(frozen=True)
class CardNotes:
    """What a card says besides what the files themselves tell; arguments of :func:`agents.save_pair`."""

    title: str
    data: str | None
    command: str | None
    metrics: Mapping[str, Any]
    limits: str | None


def model_card(recognizer: Recognizer | TSMRecognizer, policy: Agent, notes: CardNotes) -> str:
    """The card.

    Args:
        recognizer: The recogniser.
        policy: The policy.
        notes: What the files don't tell.
    """
    training = [f"```bash\n{notes.command}\n```"] if notes.command else []
    training += [f"- {name}: {text}" for name, text in recognizer.metadata.items() if name != KEY]
    metrics = [f"| {name} | {_figure(value)} |" for name, value in notes.metrics.items()]
    sections = {
        "What it is": "\n".join((*_about_recognizer(recognizer), *_about_policy(recognizer, policy))),
        "Use": _use(recognizer, policy),
        "Data": notes.data or _NOT_STATED,
        "Training": "\n".join(training) or _NOT_STATED,
        "Metrics": "\n".join(("| figure | value |", "|---|---|", *metrics)) if metrics else _NOT_STATED,
        "Limits": f"{notes.limits}\n\n{_LIMITS}" if notes.limits else _LIMITS,
    }
    return f"{_FRONT}\n# {notes.title}\n" + "".join(f"\n## {name}\n\n{text}\n" for name, text in sections.items())


def _about_recognizer(recognizer: Recognizer | TSMRecognizer) -> list[str]:
    config, cost = recognizer.config, recognizer.cost()
    parameters = sum(parameter.numel() for parameter in recognizer.parameters())
    unit = "frame" if isinstance(recognizer, Recognizer) else "clip"
    glance, look = config.global_backbone.name, config.local_backbone.name
    return [
        f"- Recogniser: `{type(recognizer).__name__}` of {config.num_classes} classes, {parameters:,} parameters.",
        f"- Glance: `{glance}` on the whole {unit} at {config.glance_size}², {cost.glance:.4g} GFLOPs.",
        f"- Look: `{look}` on a patch of {config.patch_size}², {cost.local:.4g} GFLOPs.",
        f"- Fingerprint of configuration and weights: `{recognizer.fingerprint()}`.",
    ]


def _about_policy(recognizer: Recognizer | TSMRecognizer, policy: Agent) -> list[str]:
    made_for = policy.made_for
    seen = "glance and belief" if isinstance(policy.observation_space, spaces.Dict) else "glance"
    if prices := PRICE_NAMES[: num_prices(policy)]:
        seen = f"glance, belief and price ({', '.join(f'`{name}`' for name in prices)})"
    trained_on = made_for.get("recognizer")
    if trained_on is None:
        learnt = "Its file doesn't say which recogniser it was trained on."
    elif trained_on == recognizer.fingerprint():
        learnt = "It was trained on this recogniser."
    else:
        learnt = f"It was trained on another recogniser, `{trained_on}` (it would be, if stage 3 came after it)."
    settings = {name: made_for[name] for name in ("looks", "skip_cost", "glance_cost") if name in made_for}
    return [
        f"- Policy: `{policy.trained_by}`, {policy.num_timesteps:,} steps of training; it sees the {seen}, acts in "
        f"`{policy.action_space}`, and takes {policy_gflops(policy):.4g} GFLOPs for a decision. {learnt}",
        *(f"- The policy was trained with `{name}={value}`." for name, value in settings.items()),
    ]


def _use(recognizer: Recognizer | TSMRecognizer, policy: Agent) -> str:
    if isinstance(recognizer, Recognizer):
        frames = "(B, T, 3, H, W) uint8 RGB"
        looks = policy.made_for.get("looks", 1)
    else:
        frames = f"(B, {recognizer.config.global_frames} + {recognizer.config.local_frames}, 3, H, W) uint8 RGB"
        looks = 1
    more = f", looks={looks}" if looks != 1 else ""
    about = ""
    if prices := PRICE_NAMES[: num_prices(policy)]:
        more += f", price={TYPICAL_PRICE if len(prices) == 1 else (TYPICAL_PRICE,) * len(prices)}"
        about = (
            f"\n\n`price` is what the policy acts by: {' and '.join(f'`{name}`' for name in prices)}, in confidence."
        )
    return (
        "```python\nfrom agents import load_pair\n\n"
        'recognizer, policy = load_pair("path/of/this/folder")\n'
        f"result = recognizer.recognize(frames, policy{more})  # frames: {frames}\n```{about}"
    )


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
