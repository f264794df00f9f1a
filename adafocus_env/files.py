"""Atomic writing of files, and errors that name their file."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

UNFINISHED = ".unfinished"
"""Suffix of files that are being written, or that a killed process left behind."""


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file in one step, so that readers never see a part of it, even if the process is killed.

    Args:
        path: The file; missing folders are created.
        data: Its whole content.

    Raises:
        OSError: The file can't be written, for example on a full disk. An earlier file stays as it was.
    """
    with unfinished(path) as temporary:
        temporary.write_bytes(data)


def write_figure(path: str | os.PathLike[str], figure: Any, dpi: int) -> None:
    """Write a figure of Matplotlib's in one step, in the format that the file's name says.

    Raises:
        OSError: The file can't be written.
    """
    with unfinished(path) as temporary:
        figure.savefig(temporary, format=Path(path).suffix[1:], dpi=dpi)


@contextlib.contextmanager
def unfinished(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file beside ``path`` to write to, which replaces it when the block ends, and is deleted if the block fails.

    Args:
        path: The file that is to appear; missing folders are created.

    Raises:
        OSError: The file can't be written, for example on a full disk. An earlier file stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)  # mkstemp makes files that only their owner can read
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink()
            raise


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Add the file's name to every ``OSError`` raised inside; the error of a full disk has none of its own."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = os.fspath(path)
            with contextlib.suppress(AttributeError):
                del error.filename2  # of a failed renaming, whose error names two files
        raise
