"""Runs a script: reads its arguments, and turns errors and signals into short messages and exit statuses.

An error that the user can fix (a missing file, a refused value, a full disk, a package that is not installed) prints
one line to standard error and exits with status 1. Wrong arguments exit with status 2, as with argparse. SIGINT
(Ctrl-C) and SIGTERM clean up files, print one sentence on how to continue, and exit with status 130 or 143. Any other
error is a bug and keeps its traceback, as all errors and signals do with ``ADAFOCUS_TRACEBACK=1`` in the environment.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import BrokenExecutor
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import tyro

Config = TypeVar("Config")

EXPECTED_ERRORS = (
    ValueError,
    OSError,
    ImportError,
    IndexError,
    FloatingPointError,
    MemoryError,
    BrokenExecutor,
)
"""Exceptions that the package raises when the input or the machine is at fault; so is torch.OutOfMemoryError."""
COMMAND = "adafocus"
"""The console command; one of its programs, such as quickstart, has ``adafocus quickstart`` for ``sys.argv[0]``."""
TRACEBACK = "ADAFOCUS_TRACEBACK"
SAME_COMMAND = "the same command goes on with what is missing in {out}"
"""How to continue scripts that keep what they have finished."""
SAME_TRIALS = "the same command goes on with the trials that are missing in {trials}"
"""How to continue scripts that run trials."""
WITH_RESUME = "the same command with --resume goes on from the last checkpoint in {out}"
"""How to continue scripts that write checkpoints."""


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
        description: Text for ``--help``. Indented lines, such as examples, keep their line breaks.
        default: Values that the command line changes.
        resume: How to continue after SIGINT or SIGTERM; ``{out}`` stands for the argument of that name.

    Raises:
        SystemExit: The arguments are wrong, a signal arrived, or the script failed with an expected error.
    """
    defaults: dict[str, Any] = {} if default is None else {"default": default}
    arguments = tyro.cli(config, description=as_called(description or ""), **defaults)
    received: list[signal.Signals] = []

    def stop(number: int, _: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)  # torchrun sends several, and none may interrupt the clean-up
        received.append(signal.Signals(number))
        raise KeyboardInterrupt

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, stop)
    try:
        main(arguments)
    except SystemExit:
        raise
    except BaseException as error:
        # After a signal, any other failure (such as a lost connection to another process) is a consequence of it.
        if not received and not _is_expected(error):
            raise
        if os.environ.get(TRACEBACK):
            traceback.print_exc()
        if received:
            if os.environ.get("RANK", "0") == "0":  # only one of torchrun's processes prints
                _say(f"stopped by {received[0].name}: {resume.format(**vars(arguments))}")
            raise SystemExit(128 + received[0]) from None
        _say(_one_line(error))
        raise SystemExit(1) from None


def option_in_advance(option: str, default: str) -> str:
    """The value of an option that decides the defaults of others, before all are parsed; the default if it is absent
    or has no value."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(option, dest="value", nargs="?", default=default, const=default)
    return str(parser.parse_known_args()[0].value)


def as_called(text: str) -> str:
    """The text of a script with its examples, ``python scripts/train_policy.py``, as this script was called.

    Called by the command, they read ``adafocus train-policy``.
    """
    if not sys.argv[0].startswith(f"{COMMAND} "):
        return text
    return re.sub(r"python scripts/(\w+)\.py", lambda found: f"{COMMAND} {found[1].replace('_', '-')}", text)


def check_known(option: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse names that are not known.

    Raises:
        ValueError: Some of ``given`` are not in ``known``. The message names the option and the known names.
    """
    if unknown := sorted({*given} - {*known}):
        raise ValueError(f"{option}: unknown {', '.join(unknown)}; there are {', '.join(sorted(known))}")


def check_positive(**options: int | None) -> None:
    """Refuse counts below 1; ``None`` stands for a default.

    Raises:
        ValueError: A count is below 1. The message names its option.
    """
    for name, value in options.items():
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, not {value}")


def _is_expected(error: BaseException) -> bool:
    torch = sys.modules.get("torch")  # a script that hasn't imported it can't have filled the GPU
    return isinstance(error, EXPECTED_ERRORS) or (torch is not None and isinstance(error, torch.OutOfMemoryError))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split("\n")) or type(error).__name__


def _say(message: str) -> None:
    from adafocus_env.progress import tqdm

    tqdm.write(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)  # keeps it out of progress bars
