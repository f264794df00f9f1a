"""Functions that divide work among the processes that ``torchrun`` starts; they work in a single process too."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from adafocus_env.checks import as_device


@contextlib.contextmanager
def process_group(device: str | torch.device = "cpu") -> Iterator[torch.device]:
    """Join the other processes, if ``torchrun`` started this one, for as long as the context lasts.

    Args:
        device: ``"cpu"`` communicates by gloo. ``"cuda"`` communicates by nccl, and each process takes its own GPU.

    Yields:
        This process's device.

    Raises:
        ValueError: This machine has no such device.
    """
    if not dist.is_torchelastic_launched():
        yield as_device(device)
        return
    device = torch.device(device)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def num_processes() -> int:
    """Number of processes in this job."""
    return dist.get_world_size() if dist.is_initialized() else 1


def process_number() -> int:
    """Number of this process, from 0; process 0 writes files and logs."""
    return dist.get_rank() if dist.is_initialized() else 0


def share(values: Tensor) -> Tensor:
    """This process's part of a tensor's rows, which are split in order and as evenly as possible."""
    return values.tensor_split(num_processes())[process_number()]


def gather(value: Any) -> list[Any]:
    """The values that all processes passed, in their order; a value is any object that pickles."""
    values: list[Any] = [value] * num_processes()
    if dist.is_initialized():
        dist.all_gather_object(values, value)
    return values


def gather_first(value: Any) -> list[Any]:
    """Like :func:`gather`, but only the first process gets the values; the others get an empty list."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * num_processes() if process_number() == 0 else []
    dist.gather_object(value, values if process_number() == 0 else None)
    return values
