"""One folder per run: its configuration, its metrics as CSV, its TensorBoard log, and whatever else it writes."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from adafocus_env.files import write_atomically
from adafocus_env.processes import process_number


class RunFolder:
    """Where a script writes; of several processes on one job, the first.

    Args:
        folder: Made if it is not there.
        config: A dataclass; written to ``config.json``.
        append: Go on with the ``metrics.csv`` of an earlier run.

    Attributes:
        path: The folder.
    """

    def __init__(self, folder: Path, config: Any, *, append: bool = False) -> None:
        self.path = folder
        self._writes = process_number() == 0
        if not self._writes:
            return
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(dataclasses.asdict(config), indent=2, default=str)
        write_atomically(folder / "config.json", text.encode())
        append = append and (folder / "metrics.csv").exists()
        self._metrics = open(folder / "metrics.csv", "a" if append else "w", newline="")  # noqa: SIM115 (as the run)
        self._rows = csv.writer(self._metrics)
        if not append:
            self._rows.writerow(("stage", "step", "metric", "value"))
        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Add metrics of one step of one stage to ``metrics.csv`` and to the TensorBoard log."""
        if not self._writes:
            return
        for name, value in metrics.items():
            self._rows.writerow((stage, step, name, value))
            self._writer.add_scalar(f"{stage}/{name}", value, step)
        self._metrics.flush()

    def write_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
        """Write rows with equal keys as ``<name>.csv`` and return its path."""
        path = self.path / f"{name}.csv"
        write_csv(path, rows)
        return path

    def close(self) -> None:
        """Flush and close the logs."""
        if not self._writes:
            return
        self._metrics.close()
        self._writer.close()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Refuse to go on with a folder of results that were found under other settings; keeps those of a new one.

    Args:
        path: The JSON file in the folder that holds the settings.
        settings: All that determines the results.

    Raises:
        SystemExit: The file holds others.
    """
    text = json.dumps(settings, indent=2, default=str)
    if path.exists() and path.read_text() != text:
        raise SystemExit(f"{path} holds other settings than these: take another --out, or delete {path.parent}")
    write_atomically(path, text.encode())


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with equal keys as a CSV file, atomically; no rows give an empty file."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())
