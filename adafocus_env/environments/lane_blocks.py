"""Running a function over lanes block by block, so that intermediate results fit the processor's cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

NUMBERS_PER_BLOCK = 1 << 19  # 2 MB of gates, about a processor's second-level cache


def lanes_per_block(numbers_per_lane: int, device: torch.device) -> int:
    """How many lanes to take at once, from the size of the largest intermediate result; on a GPU, any number."""
    return max(1, NUMBERS_PER_BLOCK // numbers_per_lane) if device.type == "cpu" else 1 << 62


def in_blocks(function: Callable[..., T], block: int, *arguments: Any) -> T:
    """``function(*arguments)``, by blocks of rows.

    Args:
        function: Treats every row independently of the others.
        block: Rows at once.
        arguments: Tensors with a row per lane, named tuples of such, or what is the same for all rows.
    """
    rows = next(len(part) for part in arguments if isinstance(part, Tensor))
    if block >= rows:
        return function(*arguments)
    blocks = (slice(start, start + block) for start in range(0, rows, block))
    return _joined([function(*(_some_rows(part, chosen) for part in arguments)) for chosen in blocks])


def _some_rows(part: Any, rows: slice) -> Any:
    if isinstance(part, Tensor):
        return part[rows]
    if isinstance(part, tuple) and hasattr(part, "_fields"):
        return type(part)(*(_some_rows(each, rows) for each in part))
    return part


def _joined(parts: list[Any]) -> Any:
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    return type(parts[0])(*(_joined(list(each)) for each in zip(*parts, strict=True)))
