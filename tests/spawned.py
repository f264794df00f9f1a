"""What spawned processes of the tests run: a module of its own, so that they import little."""

from __future__ import annotations

import pickle
from typing import Any

import torch


def play(env: Any, actions: list[Any]) -> list[Any]:
    """What an environment says to actions."""
    return [env.step(action) for action in actions]


def go_on(pickled: bytes, actions: list[Any], answers: Any) -> None:
    """Send what a pickled environment says to actions, and how much its table then holds."""
    torch.set_num_threads(1)
    env = pickle.loads(pickled)
    answers.send((play(env, actions), env.unwrapped.features.filled_bytes()))
