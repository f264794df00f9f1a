"""What an environment hands out, as arrays or tensors, and Gymnasium's vector infos with their masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adafocus_env.checks import check_choice
from adafocus_env.environments.lane_progress import BoolArray

OUTPUTS = ("numpy", "torch")


def upload(values: np.ndarray, device: torch.device) -> Tensor:
    """One value per lane, to the device. Where all lanes agree, as they mostly do, nothing is transferred; on the CPU
    the tensor shares the array's memory."""
    tensor = torch.from_numpy(values)
    if device.type == "cpu":
        return tensor
    if (values == values[0]).all():
        return torch.full_like(tensor, values.flat[0].item(), device=device)
    return tensor.to(device)


class Outputs:
    """Turns an environment's values into what its ``output`` argument asks for.

    Args:
        kind: ``"numpy"``, or ``"torch"`` for tensors on ``device``.
        device: torch device of the environment.

    Raises:
        ValueError: An unknown kind.
    """

    def __init__(self, kind: str, device: torch.device) -> None:
        check_choice("output", kind, OUTPUTS)
        self._kind, self._device = kind, device

    def give(self, values: Tensor | np.ndarray) -> Any:
        """Values as the caller asked for them, to keep: arrays are copied; tensors are passed on, except those of
        inference mode, which autograd rejects and which are therefore cloned."""
        if isinstance(values, Tensor):
            if self._kind == "numpy":
                return values.cpu().numpy()
            return values.clone() if values.is_inference() else values
        return upload(values.copy(), self._device) if self._kind == "torch" else values.copy()

    def info(self, values: Mapping[str, Tensor], lanes: BoolArray) -> dict[str, Any]:
        """Gymnasium's vector info: each value, (B, …), with a mask of the ``lanes``, (B,) bool, that have it."""
        mask = self.give(lanes)
        info: dict[str, Any] = {}
        for key, value in values.items():
            info[key], info[f"_{key}"] = self.give(value), mask
        return info

    def restricted(self, info: Mapping[str, Any], lanes: BoolArray) -> dict[str, Any]:
        """A vector info whose masks are restricted to ``lanes``, (B,) bool."""
        mask = self.give(lanes)
        return {key: value & mask if key.startswith("_") else value for key, value in info.items()}

    def observations(self, observation: Any, lanes: BoolArray) -> np.ndarray:
        """(B,) objects, the observations of single ``lanes``, (B,) bool; ``None`` elsewhere."""
        single = np.full(len(lanes), None, dtype=object)
        for lane in np.flatnonzero(lanes).tolist():
            single[lane] = one_lane(observation, lane)
        return single


def one_lane(observation: Any, lane: int) -> Any:
    """One lane's observation out of a batch."""
    if isinstance(observation, dict):
        return {key: value[lane] for key, value in observation.items()}
    return observation[lane]


def first_lane_info(info: Mapping[str, Any]) -> dict[str, Any]:
    """The first lane's info out of a vector info: without batch axis and masks, scalars as Python's."""
    first = {key: value[0] for key, value in info.items() if not key.startswith("_")}
    return {key: value if value.ndim else value.item() for key, value in first.items()}
