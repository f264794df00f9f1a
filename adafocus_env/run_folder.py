"""The folder of a run, with its configuration, its metrics as CSV, its TensorBoard log and its tables."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch.utils.tensorboard import SummaryWriter

from adafocus_env.files import UNFINISHED, naming, write_atomically
from adafocus_env.processes import process_number

_HEADER = ("stage", "step", "metric", "value")


class RunFolder:
    """The folder that a script writes to; of several processes, only the first one writes. It gets logs with the first
    metric.

    Args:
        folder: Path of the folder, which is created if it is missing.
        config: A dataclass, which is written to ``config.json``.
        append: Continue the ``metrics.csv`` of an earlier run. If that run was killed after its last checkpoint, the
            first metric that is measured again replaces the old one and all that came after it.
        may_change: Fields of ``config`` in which a run that is continued may differ; ``None``: in all.

    Attributes:
        path: The folder.

    Raises:
        BlockingIOError: Another run is writing to the folder.
        ValueError: The run that is to be continued had another configuration.
    """

    def __init__(
        self, folder: Path, config: Any, *, append: bool = False, may_change: Collection[str] | None = None
    ) -> None:
        self.path = folder
        self._writes = process_number() == 0
        self._writer: SummaryWriter | None = None
        if not self._writes:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / ".lock", thread_local=False)
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise BlockingIOError(
                f"another run is writing to {folder}: wait until it is done, or take another folder (--out)"
            ) from None
        try:
            for left in folder.glob(f".*{UNFINISHED}"):  # left by a run that was killed
                left.unlink()
            settings, kept = dataclasses.asdict(config), folder / "config.json"
            continued = append and may_change is not None
            changed = [name for name in _differing(kept, settings) if continued and name not in (may_change or ())]
            if changed:
                raise ValueError(
                    f"--resume: {kept} has another {' and '.join(changed)}: leave out --resume, or set it so"
                )
            write_atomically(kept, _as_json(settings).encode())
            self._file = folder / "metrics.csv"
            self._earlier = read_metrics(folder) if append else []
            self._rows: list[tuple[str, ...]] = []
            if self._file.exists():
                self._rewrite()
        except BaseException:
            self._lock.release()
            raise

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Add metrics of one step of one stage to ``metrics.csv`` and to the TensorBoard log."""
        if not self._writes:
            return
        rows = [(stage, str(step), name, str(value)) for name, value in metrics.items()]
        known = {row[:3] for row in rows}
        self._rows += rows
        again = next((place for place, row in enumerate(self._earlier) if row[:3] in known), None)
        if again is None and self._file.exists():
            with naming(self._file), open(self._file, "a", newline="") as file:
                file.write(_as_csv(rows))
        else:
            del self._earlier[len(self._earlier) if again is None else again :]
            self._rewrite()
        if self._writer is None:
            self._writer = SummaryWriter(str(self.path / "tensorboard"))
        for name, value in metrics.items():
            self._writer.add_scalar(f"{stage}/{name}", value, step)

    def _rewrite(self) -> None:
        write_atomically(self._file, _as_csv([_HEADER, *self._earlier, *self._rows]).encode())

    def write_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
        """Write rows with equal keys as ``<name>.csv`` and return its path."""
        path = self.path / f"{name}.csv"
        write_csv(path, rows)
        return path

    def close(self) -> None:
        """Close the logs and let other runs write to the folder."""
        if not self._writes:
            return
        if self._writer is not None:
            self._writer.close()
        self._lock.release()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def read_metrics(folder: Path) -> list[tuple[str, ...]]:
    """Stage, step, name and value of all metrics in a run's folder, without a last one that a killed run left
    half-written."""
    path = folder / "metrics.csv"
    if not path.exists():
        return []
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    return [tuple(row) for row in csv.reader(io.StringIO(whole)) if len(row) == len(_HEADER)][1:]


def _as_csv(rows: Sequence[tuple[str, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _differing(path: Path, settings: Mapping[str, Any]) -> list[str]:
    """Names of the settings that are others in a JSON file; none if there is no file."""
    if not path.exists():
        return []
    before, now = json.loads(path.read_text()), json.loads(_as_json(settings))
    same = {key for key in now.keys() & before.keys() if now[key] == before[key]}
    return sorted((now.keys() | before.keys()) - same)


def _as_json(settings: Any) -> str:
    return json.dumps(settings, indent=2, default=str)


def check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of a new folder of results; refuse a folder whose results have other settings.

    Args:
        path: The JSON file in the folder that holds the settings.
        settings: Everything that determines the results.

    Raises:
        SystemExit: The file holds other settings.
    """
    if changed := _differing(path, settings):
        raise SystemExit(f"{path} has another {' and '.join(changed)}: take another --out, or delete {path.parent}")
    write_atomically(path, _as_json(settings).encode())


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with equal keys as a CSV file, atomically; no rows give an empty file."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())
