"""A memory-mapped file of named arrays, which one process fills and any number of processes read.

| bytes | what |
|---|---|
| 0 | the magic number, ``adafocus feature bank 1`` and a line feed |
| 24 | JSON, padded with spaces: ``identity``, and name, shape and dtype of all ``arrays`` in their order in the file |
| 4096 | two native int64 counters of filled rows: in a feature bank, of videos and of patches |
| 8192 | the arrays, each padded to a multiple of 4096 bytes; ``feature_bank.table_arrays`` says which a bank has |

The counters are written to disk only after the rows that they count, so a file never claims more than it holds, even if
the writer is killed. They are written after the first batch of rows that ends three seconds or more after the last
time, so a killed writer loses less than five seconds of its work, or one batch if that takes longer.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import time
import warnings
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from adafocus_env.files import UNFINISHED, naming

MAGIC = b"adafocus feature bank 1\n"
_COUNTERS_AT = 4096  # after magic number and header
_ARRAYS_AT = 8192
_PAGE = 4096
_SECONDS_BETWEEN_SYNCS = 3.0


class BankFile:
    """A file of arrays, opened for filling or, once it is full, for reading.

    Args:
        path: The file, which is created with all arrays zero if it is missing.
        identity: What the file's content depends on; a file with another identity is refused.
        arrays: Shape and dtype of every array by name. One is called ``filled``: the (2,) int64 counters.
        total: Values of the counters in a full file.
        private: Open the file even while another process is filling it. What is written to the arrays then stays in
            this process's memory.

    Attributes:
        arrays: The arrays as tensors. ``filled`` is an ordinary tensor, in which the writer counts rows. The arrays of
            a full file must not be written to.
        writable: Whether this process may fill the arrays.
        private: Whether what this process fills stays in its memory.

    Raises:
        ValueError: The file is not of this format, or its identity or arrays differ.
        BlockingIOError: Another process is filling it, and ``private`` is not set.
        OSError: The disk is too small for it, or it can't be read or written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        identity: Mapping[str, Any],
        arrays: Mapping[str, tuple[tuple[int, ...], torch.dtype]],
        total: tuple[int, int],
        *,
        private: bool = False,
    ) -> None:
        self.path = Path(path).resolve()  # one lock for all spellings of the path
        header = {
            "identity": dict(identity),
            "arrays": {name: [list(shape), str(dtype)] for name, (shape, dtype) in arrays.items()},
        }
        offsets, size = {}, _ARRAYS_AT
        for name, (shape, dtype) in arrays.items():
            offsets[name] = _COUNTERS_AT if name == "filled" else size
            if name != "filled":
                size += -(-math.prod(shape) * dtype.itemsize // _PAGE) * _PAGE

        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{self.path}.lock", thread_local=False)

        def read_counters() -> Tensor | None:
            return _read_counters(self.path, header, size, total) if self.path.exists() else None

        filled = read_counters()
        self.private = False
        if filled is None or tuple(filled.tolist()) != total:  # a full file needs no lock, nor a writable folder
            try:
                lock.acquire(blocking=False)
            except Timeout:
                if not private or filled is None:
                    raise self._busy() from None
                self.private = True
            else:
                try:
                    filled = read_counters()  # again, as another process may just have released the lock
                    if filled is None:
                        _create(self.path, header, size)
                        filled = torch.zeros(2, dtype=torch.int64)
                except BaseException:
                    lock.release()
                    raise
        self.writable = tuple(filled.tolist()) != total
        # A read-only mapping, unlike a private one, may be larger than the memory.
        memory = np.memmap(self.path, np.uint8, mode="c" if self.private else "r+" if self.writable else "r")

        def view(name: str) -> Tensor:
            shape, dtype = arrays[name]
            length = math.prod(shape) * dtype.itemsize
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
                flat = torch.from_numpy(memory[offsets[name] : offsets[name] + length])
            array = flat.view(dtype).view(shape)
            # While another process writes, counted rows stay as they are, but the index changes, so it is copied.
            return array.clone() if self.private and not dtype.is_floating_point else array

        self.arrays = {name: filled if name == "filled" else view(name) for name in arrays}
        self._synced_at = time.monotonic()
        self._owner = os.getpid()
        if self.writable and not self.private:
            self._finish = weakref.finalize(self, _finish, memory, filled, lock, self._owner)
            self._sync = lambda: _sync(memory, filled)
        else:
            self._sync = lambda: None
            lock.release()

    def check_writable(self) -> None:
        """Make sure that this process may fill the file.

        Raises:
            BlockingIOError: This process is a fork of the one that fills the file.
            ValueError: The file was closed.
        """
        if self.private:
            return
        if os.getpid() != self._owner:
            raise BlockingIOError(
                f"{self.path} is being filled by the process that this one was forked from: fill it beforehand (build) "
                "and open it in every process"
            )
        if not self._finish.alive:
            raise ValueError(f"{self.path} was closed: open it again to fill it")

    def wrote(self, *, full: bool) -> None:
        """Note that a batch of rows was written and counted; sync every few seconds, and at the end."""
        if full or time.monotonic() - self._synced_at >= _SECONDS_BETWEEN_SYNCS:
            self._sync()
            self._synced_at = time.monotonic()

    def sync(self) -> None:
        """Write what this process filled to disk."""
        if self.writable and not self.private and os.getpid() == self._owner and self._finish.alive:
            self._sync()

    def close(self) -> None:
        """Write everything to disk, and let other processes continue to fill the file."""
        if self.writable and not self.private:
            self._finish()

    def _busy(self) -> BlockingIOError:
        return BlockingIOError(
            f"{self.path} is being filled, by another process or by another bank of this one: wait until it is done, "
            "share that bank, or take another path for this one"
        )


def read_identity(path: str | os.PathLike[str], names: Iterable[str] = ()) -> dict[str, Any]:
    """Read a file's identity: what its content depends on.

    Args:
        path: The file.
        names: Keys that the identity must have.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not of this format, or of another kind of bank.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file of a feature bank at {path}: fill one (scripts/build_feature_bank.py)")
    with open(path, "rb") as file:
        identity: dict[str, Any] = _parse(Path(path), file.read(_ARRAYS_AT))["identity"]
    if missing := sorted({*names} - identity.keys()):
        raise ValueError(
            f"{path} is a bank of another kind, which depends on {sorted(identity)}, not on {missing}: open it with "
            "the class that filled it"
        )
    return identity


def _parse(path: Path, start: bytes) -> dict[str, Any]:
    """The header, from a file's first bytes."""
    if not start.startswith(MAGIC):
        raise ValueError(f"{path} is no feature bank of this version: delete it, or take another path")
    try:
        header: dict[str, Any] = json.loads(start[len(MAGIC) : _COUNTERS_AT])
    except ValueError as error:
        raise ValueError(f"{path} has a damaged header: it was cut short; delete it") from error
    if not isinstance(header, dict) or not all(isinstance(header.get(key), dict) for key in ("identity", "arrays")):
        raise ValueError(f"{path} has a damaged header, without identity and arrays; delete it")
    return header


def _sync(memory: np.memmap[Any, Any], filled: Tensor) -> None:
    memory.flush()  # the rows and their index first, then the counters that vouch for them
    memory[_COUNTERS_AT : _COUNTERS_AT + 16] = filled.numpy().view(np.uint8)
    memory.flush()


def _finish(memory: np.memmap[Any, Any], filled: Tensor, lock: FileLock, owner: int) -> None:
    if os.getpid() == owner:  # a fork inherits the finaliser, but must not write
        _sync(memory, filled)
        lock.release()


def _create(path: Path, header: Mapping[str, Any], size: int) -> None:
    """Create a file in one step, with the right size, all arrays zero, and its space on the disk reserved."""
    text = MAGIC + json.dumps(header).encode()
    if len(text) > _COUNTERS_AT:
        raise ValueError(f"the header of {path} would not fit into {_COUNTERS_AT} bytes")
    _check_room(path, size)
    temporary = path.with_name(f".{path.name}{UNFINISHED}")  # one name will do, as one process at a time gets here
    with naming(path):
        try:
            with open(temporary, "wb") as file:
                file.write(text.ljust(_COUNTERS_AT))
                file.truncate(size)
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)  # else a disk that fills up later would kill the process
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _read_counters(path: Path, header: Mapping[str, Any], size: int, total: tuple[int, int]) -> Tensor:
    """The counters of a file, after checking that it is whole and holds what is wanted."""
    with open(path, "rb") as file:
        start = file.read(_ARRAYS_AT)
    found = _parse(path, start)
    wanted = json.loads(json.dumps(header))
    differing = sorted(key for key in wanted["identity"] if found["identity"].get(key) != wanted["identity"][key])
    if differing or found != wanted:
        raise ValueError(
            f"{path} was filled for another {' and '.join(differing) or 'layout'}: delete it, or take another path"
        )
    if path.stat().st_size != size:
        raise ValueError(f"{path} has {path.stat().st_size} bytes instead of {size}: it was cut short; delete it")
    filled = torch.frombuffer(bytearray(start[_COUNTERS_AT : _COUNTERS_AT + 16]), dtype=torch.int64).clone()
    if not all(0 <= count <= most for count, most in zip(filled.tolist(), total, strict=True)):
        raise ValueError(f"{path} counts {filled.tolist()} rows as filled, of {list(total)}: it is damaged; delete it")
    return filled


def _check_room(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"the disk of {path} has {free / 1e9:.1f} GB free, but the whole table needs {needed / 1e9:.1f} GB: take "
            "another path, dtype='float16', a smaller grid or fewer videos",
        )
