"""Prices of compute: how they are given, drawn for episodes, and shown to policies."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from torch import Tensor

from adafocus_env.checks import Bounds, as_array, brief, check_number

TYPICAL_PRICE = 0.015
"""A usual price of a focused frame, in label confidence: the middle of the scale on which prices are shown."""

PRICE_NAMES = "skip_cost", "glance_cost"
"""Arguments of environments that are prices, in the order in which policies see them: that of a focused frame, λ, and,
where the agent can stop, that of going on."""

Numbers = TypeVar("Numbers", Tensor, npt.NDArray[np.floating])


def shown_price(prices: Numbers) -> Numbers:
    """Prices of any size, 0 included, on a scale from -1 to 1: (p - 0.015) / (p + 0.015) = tanh(log(p / 0.015) / 2).

    Equal ratios of prices near the typical one, which is shown as 0, are equal steps on it.
    """
    return (prices - TYPICAL_PRICE) / (prices + TYPICAL_PRICE)


def log_price(shown: Tensor) -> Tensor:
    """log(p / 0.015) of prices as they are shown, within ±4.6, a factor of 100. Networks learn from this scale much
    faster than from the bounded one."""
    return 2 * torch.atanh(shown.clamp(-0.98, 0.98))


def drawn_prices(draws: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.float64]:
    """Prices between ``low`` and ``high`` for uniform numbers in [0, 1).

    What policies see of them is uniform. So prices are spread roughly log-uniformly near the typical one and uniformly
    well below it, and ``low`` may be 0.
    """
    least, most = shown_price(np.array([low, high], dtype=np.float64))
    shown = least + (most - least) * draws
    return np.clip(TYPICAL_PRICE * (1 + shown) / (1 - shown), low, high)


def check_price(name: str, price: object) -> float | tuple[float, float]:
    """A price as an environment's argument: a number, or (low, high) for prices that are drawn.

    Raises:
        ValueError: It is neither, negative or not finite, or ``low`` is above ``high``.
    """
    if not isinstance(price, (list, tuple)) or len(price) != 2:
        try:
            return check_number(name, price, Bounds(at_least=0))
        except ValueError as error:
            wanted = "a finite number of at least 0, or two of them, (low, high), for prices drawn anew in each episode"
            raise ValueError(f"{name} must be {wanted}, not {brief(price)}") from error
    low, high = (check_number(f"{name}, (low, high),", each, Bounds(at_least=0)) for each in price)
    if low > high:
        raise ValueError(f"{name} must be (low, high), and {low:g} is above {high:g}")
    return low, high


def num_prices(policy: Any) -> int:
    """How many prices a policy sees: 0 if it sees none, 1, or 2 if it can stop."""
    space = getattr(policy, "observation_space", None)
    if not isinstance(space, spaces.Dict) or "price" not in space.spaces:
        return 0
    return int(np.prod(space["price"].shape or ()))


def as_policy_price(policy: Any, price: object) -> npt.NDArray[np.float32] | None:
    """The ``price`` argument of ``recognize`` as what the policy is shown, (1, k); ``None`` if it sees none.

    Args:
        policy: The policy.
        price: k numbers, in the order of :data:`PRICE_NAMES`, or the number alone if k is 1; or ``None``.

    Raises:
        ValueError: The policy sees prices and is given none, or other than so many numbers of at least 0, or sees none.
    """
    count = num_prices(policy)
    if count == 0:
        if price is not None:
            raise ValueError("price: this policy sees none, since its environment's prices were fixed: leave it out")
        return None
    found = as_array(price)
    number = np.issubdtype(found.dtype, np.integer) or np.issubdtype(found.dtype, np.floating)
    if not number or found.size != count or not bool((np.isfinite(found) & (found >= 0)).all()):
        given = "" if price is None else f", not {brief(price)}"
        raise ValueError(
            f"the policy acts by the price of compute: price must be {', '.join(PRICE_NAMES[:count])} "
            f"({count} number{'s' * (count > 1)} of at least 0, as in its environment){given}"
        )
    return shown_price(found.reshape(1, count).astype(np.float32))
