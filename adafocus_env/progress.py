"""The progress bar of everything that takes long: moving in a terminal or a notebook, a line a minute in a log."""

from __future__ import annotations

import io
import sys
import time
from typing import Any, ClassVar

from tqdm import auto
from tqdm.notebook import tqdm_notebook

SECONDS_BETWEEN_LINES = 60.0


class LineAMinute(io.TextIOBase):
    """What bars write to where nothing can move: of their states, one a minute becomes a line on standard error."""

    last: ClassVar[float] = time.monotonic()
    """When this process last wrote a line for any bar, or, before that, when it imported this module."""

    def write(self, text: str) -> int:
        """Take a state of a bar, which begins with a carriage return; write it if a minute has passed."""
        if text.strip() and time.monotonic() - LineAMinute.last >= SECONDS_BETWEEN_LINES:
            LineAMinute.last = time.monotonic()
            print(text.strip(), file=sys.stderr, flush=True)
        return len(text)


class tqdm(auto.tqdm):
    """``tqdm.auto.tqdm``, which leaves a readable log if standard error is a file."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if not sys.stderr.isatty() and not issubclass(auto.tqdm, tqdm_notebook):
            kwargs = {"file": LineAMinute(), "ncols": 100, "ascii": True, "mininterval": 1.0, **kwargs}
        super().__init__(*args, **kwargs)
