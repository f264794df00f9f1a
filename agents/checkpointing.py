"""Checkpoints of an agent in training, from which a killed training goes on."""

from __future__ import annotations

import time
from pathlib import Path

from stable_baselines3.common.callbacks import BaseCallback

from adafocus_env.recognition.optimization import Log
from agents.reinforce import Reinforce


class Checkpoints(BaseCallback):
    """Saves a :class:`Reinforce` agent now and then, between two updates: ``Reinforce.load`` goes on from there as if
    nothing had happened.

    Args:
        path: The file, replaced every time.
        log: Receives what the updates before a saving measured.
        seconds: At least so long between two savings; 0 saves before every update.
    """

    def __init__(self, path: Path, log: Log | None = None, seconds: float = 60.0) -> None:
        super().__init__()
        self._path, self._log, self._seconds = path, log, seconds
        self._saved_at = time.monotonic()
        self._logged = 0

    def save(self) -> None:
        """Save the agent as it is now."""
        agent: Reinforce = self.model  # type: ignore[assignment]
        if self._log is not None:  # first: a log may know more than the file, which a resumed run measures again
            for metrics in agent.history[self._logged :]:
                self._log("train", int(metrics["episodes"]), metrics)
        agent.save(self._path)
        self._logged, self._saved_at = len(agent.history), time.monotonic()

    def _on_rollout_start(self) -> None:
        if time.monotonic() - self._saved_at >= self._seconds:
            self.save()

    def _on_step(self) -> bool:
        return True
