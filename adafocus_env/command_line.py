"""How a script runs: its arguments, its errors and the signals that stop it, one rule for all of them.

What a user can put right ends as one line on standard error and exit status 1: a file that is not there, a value that
is refused, a full disk, a package that is not installed. Wrong arguments end with status 2, as argparse's do. SIGINT
(Ctrl-C) and SIGTERM end with one sentence that says how to go on and status 130 or 143, after files were brought in
order. Anything else is a fault of the code and keeps its traceback; with ``ADAFOCUS_TRACEBACK=1`` in the environment
everything does.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import BrokenExecutor
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import torch
import tyro
from tqdm.auto import tqdm

Config = TypeVar("Config")

EXPECTED_ERRORS = (
    ValueError,
    OSError,
    ImportError,
    IndexError,
    FloatingPointError,
    MemoryError,
    torch.OutOfMemoryError,
    BrokenExecutor,
)
"""What the package raises where the input or the machine is to blame."""
TRACEBACK = "ADAFOCUS_TRACEBACK"
SAME_COMMAND = "the same command goes on with what is missing in {out}"
"""How scripts go on that keep what is finished."""
WITH_RESUME = "the same command with --resume goes on from the last checkpoint in {out}"
"""How scripts go on that leave checkpoints."""


def run_script(
    main: Callable[[Config], None],
    config: type[Config],
    description: str | None,
    *,
    default: Config | None = None,
    resume: str = "start it again",
) -> None:
    """Run a script with the arguments of its command line.

    Args:
        main: The script.
        config: Dataclass of its arguments.
        description: For ``--help``.
        default: What the arguments start from.
        resume: How to go on after SIGINT or SIGTERM; ``{out}`` stands for the folder of that name.

    Raises:
        SystemExit: Whenever the script does not end by itself.
    """
    defaults: dict[str, Any] = {} if default is None else {"default": default}
    arguments = tyro.cli(config, description=description, **defaults)
    received: list[signal.Signals] = []

    def stop(number: int, _: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)  # torchrun sends several; what follows takes care of the files
        received.append(signal.Signals(number))
        raise KeyboardInterrupt

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, stop)
    try:
        main(arguments)
    except SystemExit:
        raise
    except BaseException as error:
        # Once a signal is there, whatever else fails (the connection to another process, say) fails because of it.
        if not received and not isinstance(error, EXPECTED_ERRORS):
            raise
        if os.environ.get(TRACEBACK):
            traceback.print_exc()
        if received:
            out = getattr(arguments, "out", None)
            if os.environ.get("RANK", "0") == "0":  # of torchrun's processes, one speaks
                _say(f"stopped by {received[0].name}: {resume.format(out=out)}")
            raise SystemExit(128 + received[0]) from None
        _say(_one_line(error))
        raise SystemExit(1) from None


def check_known(option: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse names that mean nothing.

    Raises:
        ValueError: Some of ``given`` are not among ``known``; it names the option, and what there is.
    """
    if unknown := sorted({*given} - {*known}):
        raise ValueError(f"{option}: unknown {', '.join(unknown)}; there are {', '.join(sorted(known))}")


def check_positive(**options: int | None) -> None:
    """Refuse counts below 1; ``None`` stands for a default.

    Raises:
        ValueError: It names the option.
    """
    for name, value in options.items():
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, not {value}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split("\n")) or type(error).__name__


def _say(message: str) -> None:
    tqdm.write(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)  # not into the middle of a progress bar
