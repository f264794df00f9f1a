"""Memory for large results, which is reused once nobody holds them any longer.

The C library returns the memory of a large tensor to the operating system when the tensor is freed, and gets fresh
pages, which have to be zeroed, for the next one. At paper scale this costs more than filling them with a result.
"""

from __future__ import annotations

import sys
import threading

import numpy as np
import torch
from torch import Tensor

_SPARES = 3  # for a step's result, the one before it, and one for a caller who compares the two


def _references(arrays: list[np.ndarray], place: int) -> int:
    return sys.getrefcount(arrays[place])


_UNUSED = _references([np.empty(0)], 0)  # of an array that only its list holds


class RecycledMemory:
    """Hands out uninitialised float32 tensors on the CPU.

    A tensor is the caller's as long as it, a view of it or an array that shares its memory is alive. Its memory is
    reused only after that, which the reference count of the NumPy array underneath tells.
    """

    def __init__(self) -> None:
        self._arrays: list[np.ndarray] = []
        self._lock = threading.Lock()

    def empty(self, *shape: int) -> Tensor:
        """A tensor of the given shape."""
        with self._lock:
            for place in range(len(self._arrays)):
                if self._arrays[place].shape == shape and _references(self._arrays, place) == _UNUSED:
                    return torch.from_numpy(self._arrays[place])
            array = np.empty(shape, dtype=np.float32)
            self._arrays = [*self._arrays, array][-_SPARES:]
            return torch.from_numpy(array)
