"""Counter-based random numbers: every draw is a pure function of its counters.

An environment lane that draws with ``(lane seed, episode, step)`` gets the same numbers alone or in a batch of any
size, on any device and in any process. A stateful generator could not promise that. The mixing function is the
finaliser of SplitMix64 (Steele, Lea and Flood, 2014), applied once per counter.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

# SplitMix64's constants, as the signed 64-bit integers that torch computes with.
_INCREMENT = 0x9E3779B97F4A7C15 - 2**64
_FIRST_MULTIPLIER = 0xBF58476D1CE4E5B9 - 2**64
_SECOND_MULTIPLIER = 0x94D049BB133111EB - 2**64

Bits = Tensor | int


def _wrap(bits: Bits) -> Bits:
    """Python's integers to signed 64 bits, as int64 tensors wrap by themselves."""
    return bits if isinstance(bits, Tensor) else (bits + 2**63) % 2**64 - 2**63


def _shift_right(bits: Bits, count: int) -> Bits:
    """Logical (zero-filling) right shift of int64."""
    return (bits >> count) & ((1 << (64 - count)) - 1)


def _mix(bits: Bits) -> Bits:
    bits = _wrap(bits)
    bits = _wrap((bits ^ _shift_right(bits, 30)) * _FIRST_MULTIPLIER)
    bits = _wrap((bits ^ _shift_right(bits, 27)) * _SECOND_MULTIPLIER)
    return bits ^ _shift_right(bits, 31)


def uniform(*counters: Tensor | int) -> Tensor:
    """Uniform numbers in [0, 1), one for each element of the broadcast counters.

    Args:
        counters: Integers or int64 tensors that broadcast against each other; at least one must be a tensor. Their
            order matters: ``uniform(1, x)`` and ``uniform(x, 1)`` are different streams.

    Returns:
        float64 tensor of the broadcast shape.
    """
    bits: Bits | None = None
    for counter in counters:
        mixed = _mix(counter + _INCREMENT)
        bits = mixed if bits is None else _mix(bits + _wrap(mixed + _INCREMENT))
    if not isinstance(bits, Tensor):
        raise ValueError("uniform needs at least one counter that is a tensor")
    return cast(Tensor, _shift_right(bits, 11)).to(torch.float64) * 2.0**-53


def integers(high: int | Tensor, *counters: Tensor | int) -> Tensor:
    """Uniform int64 numbers in {0, …, high − 1}, one for each element of the broadcast counters.

    Args:
        high: Exclusive upper bound(s), at least 1, below 2**53.
        counters: As in :func:`uniform`.
    """
    return (uniform(*counters) * high).to(torch.int64)
