"""Scripts in forks of one process that has imported everything: they start in a tenth of a second, not in six.

``python -m tests.forked_scripts`` is that process; :class:`ForkedScripts` starts it and tells it, a line of JSON at a
time, what to fork. A fork is a session of its own, so that all that it starts can be killed with it.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import resource
import runpy
import signal
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import adafocus_env
import agents

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("[!_]*.py"))


class ForkedScripts:
    """The process that is forked."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.forked_scripts"],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ask(self, **question: Any) -> Any:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(question) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def start(
        self, name: str, *arguments: object, log: Path, file_limit: int | None = None, **environment: str
    ) -> Running:
        """Start a script.

        Args:
            name: Of the script.
            arguments: Of its command line.
            log: Its output; its errors are in the file of the same name and ``.err``.
            file_limit: Bytes that it may write to a file.
            environment: Added to it.
        """
        pid = self.ask(
            start=name, arguments=list(map(str, arguments)), log=str(log), file_limit=file_limit,
            environment=environment,
        )  # fmt: skip
        return Running(self, pid, log)

    def run(self, name: str, *arguments: object, log: Path, **options: Any) -> Running:
        """Run a script to its end."""
        running = self.start(name, *arguments, log=log, **options)
        running.wait()
        return running

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()


@dataclass
class Running:
    """A fork."""

    scripts: ForkedScripts
    pid: int
    log: Path
    status: int | None = None
    """As of ``subprocess``: minus the signal that killed it."""
    cpu_used: float = 0.0
    """Seconds, once it has ended."""

    def poll(self) -> int | None:
        if self.status is None:
            self.status, self.cpu_used = self.scripts.ask(wait=self.pid)
        return self.status

    def wait(self, seconds: float = 300.0) -> int | None:
        """Wait for its end, or for some time; the status, ``None`` if it still runs."""
        end = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        return self.status

    def wait_until(self, seconds: float) -> None:
        """Wait until it has computed for some time, or has ended; a busy machine's other work doesn't count."""
        while self.poll() is None and self.cpu_seconds() < seconds:
            time.sleep(0.01)

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self, number: signal.Signals = signal.SIGKILL) -> bool:
        """Send a signal to it and to all that it started, unless it has ended; whether it was sent."""
        if self.poll() is not None:
            return False
        os.killpg(self.pid, number)
        return True

    @property
    def output(self) -> str:
        return self.log.read_text()

    @property
    def errors(self) -> str:
        return Path(f"{self.log}.err").read_text()

    @property
    def message(self) -> str:
        """The last line of its errors."""
        return self.errors.rstrip("\n").split("\n")[-1]


def serve() -> None:
    """Fork as standard input says, until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for package in (adafocus_env, agents):  # all that scripts import where they use it
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    from adafocus_env.features import bank_file
    from agents.checkpointing import Checkpoints
    from agents.experiments.provenance import sources_of

    for name in SCRIPTS:  # whose sources many read to know which code a run is of
        sources_of(ROOT, f"scripts/{name}.py")
    # Jobs of a few seconds are to have been saved a few times when they are killed.
    bank_file._SECONDS_BETWEEN_SYNCS = 0.1
    Checkpoints.__init__.__defaults__ = (None, 0.1)
    gc.freeze()
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            pid, status, used = os.wait4(question["wait"], os.WNOHANG)
            answer = [os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime] if pid else [None, 0.0]
        else:
            answer = os.fork()
            if answer == 0:
                os._exit(become(**question))
            with_group(answer)
        print(json.dumps(answer), file=answers, flush=True)


def with_group(pid: int) -> None:
    """Wait until a fork leads a group of its own, so that it can be killed."""
    while os.getpgid(pid) != pid:
        time.sleep(0.001)


def become(start: str, arguments: list[str], log: str, file_limit: int | None, environment: dict[str, str]) -> int:
    """Be a script, to the end of its interpreter but for taking apart what was imported; the exit status."""
    os.setsid()
    for number, path in enumerate((os.devnull, log, f"{log}.err")):
        os.dup2(os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.update(environment)
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))
    sys.argv = [str(ROOT / "scripts" / f"{start}.py"), *arguments]
    status: Any = None
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    if isinstance(status, str):
        print(status, file=sys.stderr)
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status or 0


if __name__ == "__main__":
    serve()
