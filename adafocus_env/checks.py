"""Checks of arguments, which refuse a wrong value with one clear sentence."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import reprlib
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import numpy as np

if TYPE_CHECKING:  # torch takes seconds to import, and --help needs this module
    import torch


class Bounds(NamedTuple):
    """The range of numbers that are allowed; ``None`` stands for no bound.

    A dataclass sets the bounds of a field by ``Annotated[float, Bounds(above=0)]``, which :func:`check_fields` reads.
    NaN is never allowed, and infinity only if ``finite`` is false.
    """

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    finite: bool = True

    def hold(self, value: float) -> bool:
        """Whether a number is within these bounds."""
        return (
            (isinstance(value, int) or math.isfinite(value) or (not self.finite and not math.isnan(value)))
            and (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
        )

    def __str__(self) -> str:
        parts = {"above": self.above, "of at least": self.at_least, "below": self.below, "of at most": self.at_most}
        return " and ".join(f"{word} {bound}" for word, bound in parts.items() if bound is not None)


def check_integer(name: str, value: object, bounds: Bounds) -> int:
    """Return the value as a Python ``int``.

    Raises:
        ValueError: The value is not an integer (neither ``bool`` nor ``float`` counts as one), or is out of bounds.
    """
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or not bounds.hold(int(value)):
        raise ValueError(f"{name} must be {f'an integer {bounds}'.strip()}, not {brief(value)}")
    return int(value)


def check_number(name: str, value: object, bounds: Bounds) -> float:
    """Return the value as a Python ``float``.

    Raises:
        ValueError: The value is not a real number (``bool`` doesn't count as one), is NaN, or is out of bounds.
    """
    number = math.nan
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # an integer that is too large for a float
            number = float(value)
    if not bounds.hold(number):
        kind = "a finite number" if bounds.finite else "a number"
        raise ValueError(f"{name} must be {f'{kind} {bounds}'.strip()}, not {brief(value)}")
    return number


def check_flag(name: str, value: object) -> bool:
    """Return the value as a Python ``bool``.

    Raises:
        ValueError: The value is neither ``True`` nor ``False``.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} must be True or False, not {brief(value)}")
    return bool(value)


def check_choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    """Raise ``ValueError`` unless an argument is one of its allowed values, which are strings or ``None``."""
    if not (value is None or isinstance(value, str)) or value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}, not {brief(value)}")


def as_device(device: Any) -> torch.device:
    """Return the torch device; ``"cuda"`` becomes the current GPU, with its number.

    Raises:
        ValueError: This machine has no such device.
    """
    import torch

    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, TypeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device must be a torch device of this machine, not {brief(device)}: {reason}") from error


def check_fields(config: Any) -> None:
    """Check all numbers and flags of a dataclass, and turn NumPy's scalars into Python's.

    Raises:
        ValueError: A field annotated ``int``, ``float`` or ``bool`` holds something else, or is outside
            the :class:`Bounds` that it is annotated with.
    """
    hints = get_type_hints(type(config), include_extras=True)
    for name in (field.name for field in dataclasses.fields(config)):
        kind, bounds = get_args(hints[name])[:2] if get_origin(hints[name]) is Annotated else (hints[name], Bounds())
        value = getattr(config, name)
        if kind is bool:
            object.__setattr__(config, name, check_flag(name, value))
        elif kind is int:
            object.__setattr__(config, name, check_integer(name, value, bounds))
        elif kind is float:
            object.__setattr__(config, name, check_number(name, value, bounds))


def as_array(value: Any) -> np.ndarray:
    """Convert anything to a NumPy array; what can't be converted becomes an array that holds ``None``."""
    from torch import Tensor

    try:
        return np.asarray(value.cpu() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError):
        return np.array(None)


def brief(value: object) -> str:
    """A text for a value in a message, no longer than a line."""
    from torch import Tensor

    if isinstance(value, (Tensor, np.ndarray)):
        size = value.numel() if isinstance(value, Tensor) else value.size
        return f"{value.dtype} of shape {tuple(value.shape)}" if size > 8 else f"{value.dtype} {value.tolist()}"
    return reprlib.repr(value)
