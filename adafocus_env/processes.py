"""Several processes on one job, as ``torchrun`` starts them; a single one has a share of everything."""

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
        device: ``"cpu"`` talks over gloo. ``"cuda"`` talks over nccl, and each process of a machine takes a GPU of its
            own.

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
    """Processes on this job."""
    return dist.get_world_size() if dist.is_initialized() else 1


def process_number() -> int:
    """Which of them this is, from 0; number 0 writes files and logs."""
    return dist.get_rank() if dist.is_initialized() else 0


def share(values: Tensor) -> Tensor:
    """This process's part of the rows of a tensor, in order and as even as they divide."""
    return values.tensor_split(num_processes())[process_number()]


def gather(value: Any) -> list[Any]:
    """What every process passed, in their order: any object that pickles."""
    values: list[Any] = [value] * num_processes()
    if dist.is_initialized():
        dist.all_gather_object(values, value)
    return values


def gather_first(value: Any) -> list[Any]:
    """As :func:`gather`, for the first process alone; the others get an empty list."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * num_processes() if process_number() == 0 else []
    dist.gather_object(value, values if process_number() == 0 else None)
    return values
