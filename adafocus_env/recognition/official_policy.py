"""The policies of the released checkpoints: their base class, and the policy of the ActivityNet family."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn


class ReleasedPolicy(nn.Module):
    """A released policy, which sees only the glance; its parameters have their released names.

    Args:
        channels: C of the glance.
        side: Height and width of the glance.

    Attributes:
        observation_space: The glance of one lane.
        action_space: The action of one lane.
    """

    takes_tensors = True
    action_space: spaces.Space[Any]

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.observation_space = spaces.Box(0.0, 6.0, (channels, side, side), np.float32)

    @property
    def policy(self) -> Self:
        """The network, under the name that SB3's models use."""
        return self

    @property
    def networks(self) -> list[nn.Module]:
        """The network alone, for ``Recognizer.export``."""
        return [self]

    @torch.no_grad()
    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """Choose actions, as SB3's models do.

        Args:
            observation: (B, C, h, w) glances or one without B, as array or tensor; or a mapping with them as
                ``glance``.
            state: What the last call returned; ``None`` at the start.
            episode_start: (B,) bool, lanes whose state starts anew.
            deterministic: Take the most probable action (the paper's test time) instead of sampling one with torch's
                generator.

        Returns:
            Actions, and the next state (``None`` for clips), both as arrays or tensors like the observations.
        """
        raw = observation["glance"] if isinstance(observation, Mapping) else observation
        glance = torch.as_tensor(raw, dtype=torch.float32, device=next(self.parameters()).device)
        single = glance.ndim == 3
        actions, state = self._choose(glance[None] if single else glance, state, episode_start, deterministic)
        actions = actions[0] if single else actions
        if isinstance(raw, Tensor):
            return actions, state
        return actions.cpu().numpy(), None if state is None else state.cpu().numpy()

    @abstractmethod
    def _choose(
        self, glance: Tensor, state: Any, episode_start: Any, deterministic: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Actions on glances, (B, C, h, w), and the next state; see :meth:`predict` for the arguments."""


class OfficialPolicy(ReleasedPolicy):
    """π as released: 1×1 convolution, linear, GRU, a softmax head over the candidates and a critic (paper, Sec. 3.1).

    Args:
        channels: C of the glance.
        side: Height and width of the glance.
        num_patches: N.
        hidden_size: Length of the encoded glance and of the recurrent state.
    """

    def __init__(self, channels: int = 1280, side: int = 7, num_patches: int = 49, hidden_size: int = 1024) -> None:
        super().__init__(channels, side)
        self.state_encoder = nn.Sequential(
            nn.Conv2d(channels, 32, 1, bias=False),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * side * side, hidden_size),
            nn.ReLU(),
        )
        self.gru = nn.GRU(hidden_size, hidden_size)
        self.actor = nn.Sequential(nn.Linear(hidden_size, num_patches), nn.Softmax(dim=-1))
        self.critic = nn.Sequential(nn.Linear(hidden_size, 1))
        self.action_space: spaces.Discrete = spaces.Discrete(num_patches)

    def forward(self, glance: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Action probabilities of one frame.

        Args:
            glance: (B, C, h, w) float32.
            state: (B, hidden_size), zeros before the first frame.

        Returns:
            (B, N) probabilities and the next state.
        """
        output, after = self.gru(self.state_encoder(glance)[None], state[None])
        return self.actor(output[0]), after[0]

    def _choose(self, glance: Tensor, state: Any, episode_start: Any, deterministic: bool) -> tuple[Tensor, Tensor]:
        hidden = glance.new_zeros(glance.shape[0], self.gru.hidden_size)
        if state is not None:
            hidden = torch.as_tensor(state, device=glance.device)
        if episode_start is not None:
            hidden = hidden * ~torch.as_tensor(np.atleast_1d(episode_start), device=glance.device)[:, None]
        probabilities, hidden = self(glance, hidden)
        patch = probabilities.argmax(dim=1) if deterministic else torch.multinomial(probabilities, 1)[:, 0]
        return patch, hidden
