"""The training loop of all stages: batches, optimiser, schedule, precision, checkpoints and several processes."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from adafocus_env.files import write_atomically
from adafocus_env.processes import gather, num_processes, process_number, share
from adafocus_env.progress import tqdm
from adafocus_env.recognition.recipes import Optimization
from adafocus_env.videos.dataset import VideoDataset
from adafocus_env.weights import load_weights, read_torch_file

Log = Callable[[str, int, dict[str, float]], None]
"""Receives the metrics of a stage: the stage's name, its step, and the metrics by name."""
MAX_GRADIENT_NORM = 5.0
MOMENTUM = 0.9
SECONDS_BETWEEN_CHECKPOINTS = 60.0
STEPS_BETWEEN_CHECKS = 20
"""Steps after which it is seen whether a checkpoint is due. The next batch is not read ahead there."""


@dataclass(frozen=True)
class Progress:
    """How a stage of training shows and keeps its progress; none of it changes what is learnt.

    Attributes:
        log: Receives the metrics.
        bar: Show a progress bar.
        folder: Folder of checkpoints, one file per stage, written after every pass over the videos, and about
            once a minute. Training resumes from the one that it finds, and ends with the weights of an uninterrupted
            run. ``None`` writes none.
    """

    log: Log | None = None
    bar: bool = False
    folder: Path | None = None


class Objective(nn.Module):
    """A loss over videos, with the networks that it trains.

    Args:
        networks: The networks to train.
        videos: The data set.
        loss_of: Takes the rows of a batch, what ``read`` read for them and what ``draw`` drew for them. Returns the
            mean loss, and a bool per prediction that says whether it is right.
        read: Reads what rows need, ahead of time in a thread of its own; by default the videos' frames.
        draw: Takes the number of rows of a batch, and returns the random tensors for it, with one row for each.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        videos: VideoDataset,
        loss_of: Callable[..., tuple[Tensor, Tensor]],
        *,
        read: Callable[[Tensor], Any] | None = None,
        draw: Callable[[int], tuple[Tensor, ...]] = lambda rows: (),
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.videos, self.loss_of, self.draw = videos, loss_of, draw
        self.read = videos.frames if read is None else read

    def forward(self, rows: Tensor, *inputs: Any) -> tuple[Tensor, Tensor]:
        """The loss of a batch and whether its predictions are right."""
        return self.loss_of(rows, *inputs)


def optimize(
    name: str,
    objective: Objective,
    learning_rates: Sequence[float],
    config: Optimization,
    *,
    num_rows: int,
    steps: int,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> None:
    """Minimise an objective, in place.

    Every batch is drawn as a whole and then divided, so several processes take the same steps as a single one, except
    for dropout, which each draws for itself, and the statistics of batch norms. Gradients are clipped to a norm of 5.

    Args:
        name: Name of the stage, for logs and files.
        objective: The loss and its networks.
        learning_rates: Peak learning rates, one per network.
        config: Settings of the optimisation.
        num_rows: Number of rows of the data, shuffled for every pass. A pass leaves out rows that don't fill a batch.
        steps: Number of optimiser steps.
        generator: Draws the order of the rows, and is used by the objective's draws.
        progress: Logs and checkpoints.

    Raises:
        FloatingPointError: Gradients, or what a network says, are not finite.
        ValueError: The checkpoint is from another run; there are more processes than rows in a batch; or a learning
            rate is negative or not finite.
    """
    if steps == 0:
        return
    progress = progress or Progress()
    device = next(objective.parameters()).device
    rows_per_step = min(config.videos_per_step, num_rows)
    _check(name, learning_rates, rows_per_step)
    optimizer = _optimizer(objective, learning_rates, config)
    schedule = _schedule(optimizer, learning_rates, config, steps)
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16")
    meter = _Meter()
    others = (optimizer, schedule, scaler, meter)
    checkpoint = _Checkpoint(name, config, steps, objective, others, generator, progress.folder)
    step, order = checkpoint.load()
    if step == 0 and process_number() > 0:
        torch.manual_seed(torch.initial_seed() + process_number())  # each process draws its own dropout
    model = DistributedDataParallel(objective) if num_processes() > 1 else objective
    mixed, every = config.precision != "float32", max(1, min(100, steps // 10))
    bar = tqdm(desc=name, total=steps, initial=step, disable=not progress.bar or process_number() > 0)
    with bar, ThreadPoolExecutor(1) as loader:
        while step < steps:
            if not len(order):
                order = torch.randperm(num_rows, generator=generator)[: num_rows // rows_per_step * rows_per_step]
            batches = order.split(rows_per_step)[: min(STEPS_BETWEEN_CHECKS, steps - step)]
            for batch, inputs in _read_ahead(loader, objective, batches):
                drawn = tuple(share(values) for values in objective.draw(len(batch)))
                own = share(batch)
                try:
                    with torch.autocast(device.type, getattr(torch, config.precision), enabled=mixed):
                        loss, correct = model(own, inputs, *drawn)
                    # Processes average their gradients; their shares may differ by a row.
                    _descend(objective, loss * (len(own) * num_processes() / len(batch)), optimizer, scaler)
                except FloatingPointError as error:
                    raise FloatingPointError(f"{name}, step {step + 1}: {error}") from None
                schedule.step()
                step += 1
                bar.update()
                meter.add(loss, correct)
                if step % every == 0:
                    metrics = meter.read()
                    bar.set_postfix(metrics)
                    if progress.log is not None and process_number() == 0:
                        progress.log(name, step, metrics)
            order = order[len(batches) * rows_per_step :]
            checkpoint.save_if_due(step, order, always=not len(order) or step == steps)


def _check(name: str, learning_rates: Sequence[float], rows_per_step: int) -> None:
    if not all(0 <= rate < math.inf for rate in learning_rates):
        raise ValueError(f"{name}: learning rates must be finite and at least 0, not {list(learning_rates)}")
    if rows_per_step < num_processes():
        raise ValueError(f"{name}: {num_processes()} processes can't share batches of {rows_per_step} videos")


def _optimizer(objective: Objective, learning_rates: Sequence[float], config: Optimization) -> torch.optim.Optimizer:
    groups = [
        {"params": list(network.parameters()), "lr": rate}
        for network, rate in zip(objective.networks, learning_rates, strict=True)
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    return torch.optim.SGD(groups, momentum=MOMENTUM, weight_decay=config.weight_decay)


def _schedule(
    optimizer: torch.optim.Optimizer, peaks: Sequence[float], config: Optimization, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if config.schedule == "one_cycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, list(peaks), total_steps=steps, pct_start=0.15)
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)


def _descend(
    objective: Objective, loss: Tensor, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> None:
    """One step of the optimiser, on clipped gradients.

    Raises:
        FloatingPointError: They are not finite, and no scaler of losses is there to leave the step out.
    """
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(objective.parameters(), MAX_GRADIENT_NORM)
    if not scaler.is_enabled() and not math.isfinite(norm):
        raise FloatingPointError("gradients are not finite: lower the learning rates")
    scaler.step(optimizer)
    scaler.update()


def _read_ahead(
    loader: ThreadPoolExecutor, objective: Objective, batches: Sequence[Tensor]
) -> Iterator[tuple[Tensor, Any]]:
    """Batches with what was read for this process's share, each read while the one before it is trained on."""

    def read(batch: Tensor) -> Any:
        inputs = objective.read(share(batch))
        if (visits := getattr(objective.videos, "visits", None)) is not None:
            for number, rows in enumerate(batch.tensor_split(num_processes())):
                if number != process_number():  # other processes read these
                    visits[rows.numpy()] += 1
        return inputs

    following = loader.submit(read, batches[0])
    for number, batch in enumerate(batches):
        inputs = following.result()
        if number + 1 < len(batches):
            following = loader.submit(read, batches[number + 1])
        yield batch, inputs


class _Meter:
    """Mean loss and accuracy since they were last read."""

    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._correct: list[Tensor] = []

    def add(self, loss: Tensor, correct: Tensor) -> None:
        self._losses.append(loss.detach())
        self._correct.append(correct.flatten())

    def read(self) -> dict[str, float]:
        correct = torch.cat(self._correct)
        metrics = {
            "loss": float(torch.stack(self._losses).mean()),
            "accuracy": float(correct.sum()) / max(len(correct), 1),
        }
        self._losses, self._correct = [], []
        return metrics

    def state_dict(self) -> dict[str, list[Tensor]]:
        return {"losses": self._losses, "correct": self._correct}

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        self._losses, self._correct = state["losses"], state["correct"]


class _Checkpoint:
    """A file with all that a stage of training needs to continue as if it had not been interrupted."""

    def __init__(
        self,
        name: str,
        config: Optimization,
        steps: int,
        objective: Objective,
        others: tuple[Any, ...],
        generator: torch.Generator,
        folder: Path | None,
    ) -> None:
        self._path = None if folder is None else folder / f"{name.replace('/', '-').replace(' ', '-')}.checkpoint"
        self._objective, self._others, self._generator = objective, others, generator
        self._device = next(objective.parameters()).device
        self._saved_at = time.monotonic()
        settings = {"stage": name, "steps": steps, "processes": num_processes(), **asdict(config)}
        self._settings = json.dumps({**settings, "videos": objective.videos.fingerprint}, sort_keys=True)

    def save_if_due(self, step: int, order: Tensor, *, always: bool = False) -> None:
        """Write the checkpoint if the last one is a minute old; all processes do as process 0 says.

        Args:
            step: The number of steps that were taken.
            order: The rows that are left of this pass over the data, int64.
            always: Write it in any case.
        """
        if self._path is None:
            return
        due = always or time.monotonic() - self._saved_at >= SECONDS_BETWEEN_CHECKPOINTS
        if gather(due)[0]:
            self._save(step, order)
            self._saved_at = time.monotonic()

    def _save(self, step: int, order: Tensor) -> None:
        """Write the checkpoint atomically, in process 0 only."""
        assert self._path is not None
        on_gpu = self._device.type == "cuda"
        random = gather((torch.get_rng_state(), torch.cuda.get_rng_state(self._device) if on_gpu else None))
        if process_number() > 0:
            return
        visits = getattr(self._objective.videos, "visits", None)
        state = {
            "settings": self._settings,
            "step": step,
            "order": order,
            "networks": self._objective.networks.state_dict(),
            "others": [other.state_dict() for other in self._others],
            "generator": self._generator.get_state(),
            "random": random,
            "visits": None if visits is None else torch.from_numpy(visits),
        }
        data = io.BytesIO()
        torch.save(state, data)
        write_atomically(self._path, data.getvalue())

    def load(self) -> tuple[int, Tensor]:
        """Restore the checkpoint, if there is one; return the number of steps that were taken, and the rows that are
        left of the pass.

        Raises:
            ValueError: The file is from another run, or is not a checkpoint.
        """
        nothing = torch.empty(0, dtype=torch.int64)
        if self._path is None or not self._path.exists():
            return 0, nothing
        try:
            state = read_torch_file(self._path, "a checkpoint")
            if not isinstance(state, dict) or "settings" not in state:
                raise ValueError("it has no settings")
        except ValueError as error:
            raise ValueError(f"{self._path} is no checkpoint of a training run: delete it ({error})") from error
        if state["settings"] != self._settings:
            there, here = (json.loads(settings) for settings in (state["settings"], self._settings))
            differing = sorted(key for key in {**there, **here} if there.get(key) != here.get(key))
            raise ValueError(
                f"{self._path} was written by a run with other settings or videos ({', '.join(differing)}): resume "
                "with the same ones, or take another folder"
            )
        try:
            load_weights(self._objective.networks, state["networks"])
        except ValueError as error:
            raise ValueError(f"{self._path}: {error}") from error
        for other, values in zip(self._others, state["others"], strict=False):  # earlier versions kept no meter
            other.load_state_dict(values)
        self._generator.set_state(state["generator"])
        random, random_gpu = state["random"][process_number()]
        torch.set_rng_state(random)
        if random_gpu is not None and self._device.type == "cuda":
            torch.cuda.set_rng_state(random_gpu, self._device)
        if state["visits"] is not None:
            self._objective.videos.visits[:] = state["visits"].numpy()  # type: ignore[attr-defined]
        return int(state["step"]), state.get("order", nothing)  # earlier versions left them after whole passes alone


def clear_checkpoints(folder: Path) -> None:
    """Remove the checkpoints in a folder, so that training starts anew; all processes wait for process 0 to do it."""
    if process_number() == 0:
        for path in folder.glob("*.checkpoint"):
            path.unlink()
    gather(None)
