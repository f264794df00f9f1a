"""Memory for large results, taken back once nobody holds them any longer.

The C library hands every tensor of many megabytes to the operating system when it is freed, and fresh pages, which have
to be zeroed, for the next one: at paper scale that costs more than filling them with what was gathered.
"""

from __future__ import annotations

import sys
import threading

import numpy as np
import torch
from torch import Tensor

_SPARES = 3  # a step's result, the one before it, and one for whoever compares the two


def _references(arrays: list[np.ndarray], place: int) -> int:
    return sys.getrefcount(arrays[place])


_UNUSED = _references([np.empty(0)], 0)  # of an array that nobody but its list has


class RecycledMemory:
    """Hands out uninitialised float32 tensors on the CPU.

    A tensor is the caller's for as long as it, a view of it or an array that shares its memory is alive. Its memory
    serves another one only after that, which is known from the reference count of the NumPy array underneath.
    """

    def __init__(self) -> None:
        self._arrays: list[np.ndarray] = []
        self._lock = threading.Lock()

    def empty(self, *shape: int) -> Tensor:
        """A tensor of a shape."""
        with self._lock:
            for place in range(len(self._arrays)):
                if self._arrays[place].shape == shape and _references(self._arrays, place) == _UNUSED:
                    return torch.from_numpy(self._arrays[place])
            array = np.empty(shape, dtype=np.float32)
            self._arrays = [*self._arrays, array][-_SPARES:]
            return torch.from_numpy(array)
