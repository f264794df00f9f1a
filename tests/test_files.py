"""Files that are whole or absent, whatever happens to whoever writes them."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from adafocus_env.features.bank_file import BankFile
from adafocus_env.files import write_atomically

FULL_DISK = 17


def in_a_child_that_may_write(limit: int, killed: bool, work: Callable[[], object]) -> int:
    """Do something in a fork whose files may have ``limit`` bytes; its exit status. The write that would exceed them
    fails (:data:`FULL_DISK`), or kills the process in its middle."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL if killed else signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            work()
            status = 0
        except OSError:
            status = FULL_DISK
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("killed", [False, True])
def test_a_write_that_ends_half_way_leaves_the_old_content(killed: bool, tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    status = in_a_child_that_may_write(5_000, killed, lambda: write_atomically(path, b"new" * 10_000))
    assert status == (-signal.SIGXFSZ if killed else FULL_DISK)
    assert path.read_bytes() == b"old"
    assert killed or list(tmp_path.iterdir()) == [path]  # a killed process can't clean up
    write_atomically(path, b"newer")
    assert path.read_bytes() == b"newer"


def test_a_reader_keeps_the_content_that_it_opened(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old" * 10_000)
    with open(path, "rb", buffering=0) as reader:
        assert reader.read(3) == b"old"
        write_atomically(path, b"new")
        assert reader.read() == b"old" * 9_999
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("killed", [False, True])
def test_a_bank_file_is_made_whole_or_not_at_all(killed: bool, tmp_path: Path) -> None:
    def make() -> BankFile:
        return BankFile(tmp_path / "bank", {"grid": 7}, ARRAYS, total=(4, 0))

    status = in_a_child_that_may_write(6_000, killed, make)
    assert status == (-signal.SIGXFSZ if killed else FULL_DISK)
    assert not (tmp_path / "bank").exists()
    made = make()
    assert made.writable
    made.close()


ARRAYS = {"filled": ((2,), torch.int64), "rows": ((4, 1000), torch.float32)}
