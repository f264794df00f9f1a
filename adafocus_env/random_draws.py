"""Counter-based random numbers: every draw is a pure function of its counters.

An environment lane that draws with ``(lane seed, episode, step)`` gets the same numbers alone or in a batch of any
size, on any device and in any process. A stateful generator could not promise that. The mixing function is the
finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_INCREMENT = np.uint64(0x9E3779B97F4A7C15)
_FIRST_MULTIPLIER = np.uint64(0xBF58476D1CE4E5B9)
_SECOND_MULTIPLIER = np.uint64(0x94D049BB133111EB)
_THIRTY, _TWENTY_SEVEN, _THIRTY_ONE, _ELEVEN = (np.uint64(count) for count in (30, 27, 31, 11))


def _mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = (bits ^ (bits >> _THIRTY)) * _FIRST_MULTIPLIER
    bits = (bits ^ (bits >> _TWENTY_SEVEN)) * _SECOND_MULTIPLIER
    return bits ^ (bits >> _THIRTY_ONE)


def uniform(*counters: ArrayLike) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), one for each element of the broadcast counters.

    Args:
        counters: Integers, or arrays or CPU tensors of integers, that broadcast against each other. Their order
            matters: ``uniform(1, x)`` and ``uniform(x, 1)`` are different streams.

    Returns:
        Array of the broadcast shape.

    Raises:
        ValueError: There is no counter.
    """
    if not counters:
        raise ValueError("uniform needs at least one counter")
    with np.errstate(over="ignore"):  # all arithmetic is modulo 2**64
        bits: NDArray[np.uint64] | None = None
        for counter in counters:
            mixed = _mix(np.asarray(counter).astype(np.uint64) + _INCREMENT)
            bits = mixed if bits is None else _mix(bits + (mixed + _INCREMENT))
        assert bits is not None
        return (bits >> _ELEVEN).astype(np.float64) * 2.0**-53


def integers(high: ArrayLike, *counters: ArrayLike) -> NDArray[np.int64]:
    """Uniform integers in {0, …, high − 1}, one for each element of the broadcast counters.

    Args:
        high: Exclusive upper bound(s), at least 1, below 2**53.
        counters: As in :func:`uniform`.
    """
    return as_integers(uniform(*counters), high)


def as_integers(draws: NDArray[np.float64], high: ArrayLike) -> NDArray[np.int64]:
    """Turn uniform numbers in [0, 1) into uniform integers in {0, …, high − 1}; ``high`` as in :func:`integers`."""
    return (draws * np.asarray(high)).astype(np.int64)
