"""Files that are either whole or absent."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

UNFINISHED = ".unfinished"
"""How the names of files end that are being written, or that a killed process left behind."""


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file in one step: a reader, or a run that is killed half-way, never sees a part of it.

    Args:
        path: The file; missing folders are made.
        data: Its whole content.

    Raises:
        OSError: It can't be written, on a full disk say; what was there before is still there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path):
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes files that only their owner can read
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Have every OSError from within say which file it is about; a full disk's does not by itself."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = os.fspath(path)
            with contextlib.suppress(AttributeError):
                del error.filename2  # of a renaming, which names two files
        raise
