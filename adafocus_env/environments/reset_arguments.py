"""What ``reset`` of an environment takes, checked: seeds, and the options ``reset_mask``, ``video`` and prices."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from adafocus_env.checks import as_array, brief
from adafocus_env.environments.lane_progress import BoolArray
from adafocus_env.prices import PRICE_NAMES


def read_seeds(seed: object, num_envs: int, *, alone: bool) -> list[int | None] | None:
    """The ``seed`` argument of ``reset`` as one seed per lane; ``None`` keeps the lanes' seeds.

    Args:
        seed: An integer, lane i gets ``seed + i``; or one for each lane.
        num_envs: Lanes.
        alone: The only lane is that of a single environment, which takes an integer alone.

    Raises:
        ValueError: It is neither.
    """
    if seed is None:
        return None
    if _is_seed(seed):
        return [int(cast(int, seed)) + lane for lane in range(num_envs)]
    if not isinstance(seed, (list, tuple)) or alone or not all(one is None or _is_seed(one) for one in seed):
        several = "" if alone else ", or one of them (or None) per lane"
        raise ValueError(f"seed must be an integer of at least 0 and below 2**62{several}, not {brief(seed)}")
    if len(seed) != num_envs:
        raise ValueError(f"seed must be an integer or {_count(num_envs, 'integer')}, not {len(seed)} of them")
    return list(seed)


def read_reset_mask(mask: Any, num_envs: int) -> BoolArray:
    """``options["reset_mask"]`` of ``reset``: (num_envs,) bool, the lanes to reset; all for ``None``.

    Raises:
        ValueError: It is something else, or chooses no lane.
    """
    if mask is None:
        return np.ones(num_envs, dtype=np.bool_)
    found = as_array(mask)
    if found.dtype != np.bool_ or found.shape != (num_envs,) or not found.any():
        count = _count(num_envs, "boolean")
        raise ValueError(f"options['reset_mask'] must be {count} with at least one True, not {brief(mask)}")
    return found.copy()


def read_videos(video: Any, mask: BoolArray, num_videos: int, *, alone: bool) -> NDArray[np.int64] | None:
    """``options["video"]`` of ``reset``: (num_envs,) the video of every lane; ``None`` where it is left out.

    Args:
        video: An integer, or one for each lane.
        mask: (num_envs,) bool, the lanes whose videos count.
        num_videos: How many there are.
        alone: The only lane is that of a single environment, so messages speak of one video.

    Raises:
        ValueError: It is something else, or there is no such video.
    """
    if video is None:
        return None
    found = as_array(video)
    if not np.issubdtype(found.dtype, np.integer) or found.shape not in ((), mask.shape):
        several = "" if alone else f" or {_count(len(mask), 'integer')}"
        raise ValueError(f"options['video'] must be an integer{several}, not {brief(video)}")
    if ((found < 0) | (found >= num_videos))[mask if found.shape else ...].any():
        raise ValueError(f"options['video'] must be between 0 and {num_videos - 1}, not {brief(video)}")
    return np.broadcast_to(found.astype(np.int64), mask.shape).copy()


def read_prices(
    options: dict[str, Any], names: tuple[str, ...], num_envs: int, *, alone: bool
) -> dict[str, NDArray[np.float64] | None]:
    """Take prices by name out of ``options`` of ``reset``: (num_envs,) each; ``None`` where one is left out.

    Args:
        options: Those that are left to read.
        names: The prices that the environment draws.
        num_envs: Lanes.
        alone: The only lane is that of a single environment, so messages speak of one price.

    Raises:
        ValueError: A price is not a number of at least 0, nor one for each lane; or the environment's prices are fixed.
    """
    if not names and (given := [name for name in PRICE_NAMES if name in options]):
        raise ValueError(
            f"options[{given[0]!r}]: this environment's prices are fixed; make it with skip_cost=(low, high) to have "
            "prices that episodes can differ in"
        )
    return {name: _read_price(name, options.pop(name, None), num_envs, alone=alone) for name in names}


def _read_price(name: str, price: Any, num_envs: int, *, alone: bool) -> NDArray[np.float64] | None:
    if price is None:
        return None
    found = as_array(price)
    number = np.issubdtype(found.dtype, np.integer) or np.issubdtype(found.dtype, np.floating)
    if not number or found.shape not in ((), (num_envs,)) or not bool((np.isfinite(found) & (found >= 0)).all()):
        several = "" if alone else f" or {_count(num_envs, 'such number')}"
        raise ValueError(f"options[{name!r}] must be a finite number of at least 0{several}, not {brief(price)}")
    return np.broadcast_to(found.astype(np.float64), num_envs)


def _is_seed(seed: object) -> bool:
    return isinstance(seed, (int, np.integer)) and not isinstance(seed, bool) and bool(0 <= seed < 2**62)


def _count(count: int, thing: str) -> str:
    """So many things, in words."""
    return f"{count} {thing}{'s' if count > 1 else ''}"
