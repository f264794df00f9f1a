"""The networks of this package's own policies, and the hyper-parameters that shape them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from adafocus_env.checks import Bounds, check_fields
from agents.candidate_scores import CandidateScores, MeanPlace
from agents.distributions import (
    ActionDistribution,
    Frozen,
    PatchDistribution,
    PositionDistribution,
    SkipDistribution,
    StopDistribution,
)
from agents.policy_spaces import read_beside

ENCODED = "encoded"
"""Name under which a network that shares another's encoder is given that other's recurrent state."""


@dataclass(frozen=True)
class NetworkHyperparameters:
    """What shapes a policy's network.

    Attributes:
        encoder_size: Length of the encoded glance.
        hidden_size: Length of the policy's own recurrent state.
        recurrent: Keep that state from frame to frame; ``False`` starts it anew on each (an ablation).
        score_map: Also score every candidate by a convolution of the glance's map where the candidate lies (see
            :class:`~agents.candidate_scores.CandidateScores`); continuous positions are the mean place under such
            scores.
        use_belief: Let the policy see ``belief`` and ``time`` as well, which the environment must then
            show (``observation="full"``); ``False`` is the glance alone (the paper's state). A ``price`` is always
            seen where it is shown.
        share_encoder: Over a frozen ``patch_policy`` of this package: read its recurrent state, and the belief and the
            price as ``use_belief`` says, through one layer of ``hidden_size``, instead of encoding the glance a second
            time with an encoder and a GRU of one's own.
        position_std: Of continuous positions: standard deviation around their mean, on the scale [0, 1] (the paper's
            0.25).
        learn_position_std: Learn the standard deviation, starting from ``position_std``.
    """

    encoder_size: Annotated[int, Bounds(at_least=1)] = 256
    hidden_size: Annotated[int, Bounds(at_least=1)] = 128
    recurrent: bool = True
    score_map: bool = False
    use_belief: bool = False
    share_encoder: bool = False
    position_std: Annotated[float, Bounds(above=0)] = 0.25
    learn_position_std: bool = False

    def __post_init__(self) -> None:
        check_fields(self)


class PolicyNetwork(nn.Module):
    """Linear heads for patch, skip bit, stop bit and value on a state, (B, hidden_size), that subclasses compute.

    Where actions are continuous positions, the patch head is a position head: the mean in [0, 1]² of a Gaussian.

    Args:
        beside: Lengths of what is seen beside the glance, by name: ``belief`` and ``time``, ``price``.
    """

    patch_head: nn.Linear | None
    candidate_scores: CandidateScores | None
    skip_head: nn.Linear | None
    stop_head: nn.Linear | None
    position_head: nn.Linear | MeanPlace | None
    position_log_std: nn.Parameter
    value_head: nn.Linear

    def __init__(self, beside: Mapping[str, int]) -> None:
        super().__init__()
        self.beside = tuple(beside)

    def _make_heads(
        self,
        glance_shape: tuple[int, ...],
        config: NetworkHyperparameters,
        *,
        num_patches: int | None,
        has_skip: bool,
        has_stop: bool,
        continuous: bool,
    ) -> None:
        """Make the heads, after all other layers: the order decides which weights a seed draws."""
        channels, height, width = glance_shape
        self.patch_head = nn.Linear(config.hidden_size, num_patches) if num_patches else None
        self.candidate_scores = None
        if config.score_map and num_patches:
            self.candidate_scores = CandidateScores(channels, config.hidden_size, math.isqrt(num_patches))
        self.skip_head = nn.Linear(config.hidden_size, 1) if has_skip else None
        self.stop_head = nn.Linear(config.hidden_size, 1) if has_stop else None
        self.position_head = None
        if continuous:
            of_map = channels, config.hidden_size, max(height, width)
            self.position_head = MeanPlace(*of_map) if config.score_map else nn.Linear(config.hidden_size, 2)
            log_std = torch.tensor(config.position_std).log()
            self.position_log_std = nn.Parameter(log_std, requires_grad=config.learn_position_std)
        self.value_head = nn.Linear(config.hidden_size, 1)
        for head in (self.patch_head, self.skip_head, self.stop_head, self.position_head, self.value_head):
            if isinstance(head, nn.Linear):  # start undecided
                nn.init.orthogonal_(head.weight, gain=0.01)
                nn.init.zeros_(head.bias)

    def forward(self, observation: dict[str, Tensor], hidden: Tensor) -> Tensor:
        """The next state, (B, hidden_size), after seeing a batch of observations."""
        raise NotImplementedError

    def value(self, hidden: Tensor) -> Tensor:
        """What the critic says of states, (B,); (B, K) if it says something of each choice."""
        values = self.value_head(hidden)
        return values[:, 0] if values.shape[1] == 1 else values

    def distribution(self, observation: dict[str, Tensor], hidden: Tensor, frozen: Tensor | None) -> ActionDistribution:
        """The distribution over actions.

        Args:
            observation: A batch of observations.
            hidden: (B, hidden_size), the states after seeing them.
            frozen: (B,) int64 patches, or (B, 2) with skip bits, that another policy has chosen, for a network without
                these heads.
        """
        if self.position_head is not None:
            mean = (
                self.position_head(observation["glance"], hidden)
                if isinstance(self.position_head, MeanPlace)
                else self.position_head(hidden).sigmoid()
            )
            return PositionDistribution(mean, self.position_log_std.exp())
        skip_logits = None if self.skip_head is None else self.skip_head(hidden)[:, 0]
        stop_logits = None if self.stop_head is None else self.stop_head(hidden)[:, 0]
        distribution: ActionDistribution
        if self.patch_head is not None:
            logits = self.patch_head(hidden)
            if self.candidate_scores is not None:
                logits = logits + self.candidate_scores(observation["glance"], hidden)
            distribution = PatchDistribution(logits)
        else:
            assert frozen is not None
            distribution = Frozen(frozen)
        if skip_logits is not None:
            distribution = SkipDistribution(distribution, skip_logits)
        if stop_logits is not None:
            distribution = StopDistribution(distribution, stop_logits)
        return distribution


class RecurrentPolicy(PolicyNetwork):
    """1×1 convolution, flatten, linear, GRU, and the heads (paper, Sec. 3.1).

    Args:
        glance_shape: (C, h, w).
        beside: As of :class:`PolicyNetwork`.
        config: Sizes.
        heads: Which heads there are: keyword arguments of ``_make_heads``.
    """

    def __init__(
        self,
        glance_shape: tuple[int, ...],
        beside: Mapping[str, int],
        config: NetworkHyperparameters,
        **heads: Any,
    ) -> None:
        super().__init__(beside)
        channels, height, width = glance_shape
        self.encode_glance = nn.Sequential(
            nn.Conv2d(channels, 32, 1, bias=False),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * height * width, config.encoder_size),
            nn.ReLU(),
        )
        self.encode_belief = nn.Sequential(nn.Linear(sum(beside.values()), 64), nn.ReLU()) if beside else None
        self.recurrent = config.recurrent
        self.gru = nn.GRUCell(config.encoder_size + (64 if beside else 0), config.hidden_size)
        self._make_heads(glance_shape, config, **heads)

    def forward(self, observation: dict[str, Tensor], hidden: Tensor) -> Tensor:
        """The next recurrent state, (B, hidden_size), after seeing a batch of observations."""
        features = self.encode_glance(observation["glance"])
        if self.encode_belief is not None:
            beside = torch.cat(read_beside(observation, self.beside), dim=1)
            features = torch.cat((features, self.encode_belief(beside)), dim=1)
        return self.gru(features, hidden if self.recurrent else torch.zeros_like(hidden))


class SharedEncoderPolicy(PolicyNetwork):
    """One layer on another policy's recurrent state, and the heads.

    Args:
        encoded_size: Length of that state.
        glance_shape: (C, h, w).
        beside: As of :class:`PolicyNetwork`.
        config: Sizes.
        heads: Which heads there are: keyword arguments of ``_make_heads``.
    """

    def __init__(
        self,
        encoded_size: int,
        glance_shape: tuple[int, ...],
        beside: Mapping[str, int],
        config: NetworkHyperparameters,
        **heads: Any,
    ) -> None:
        super().__init__(beside)
        self.read = nn.Sequential(nn.Linear(encoded_size + sum(beside.values()), config.hidden_size), nn.ReLU())
        self._make_heads(glance_shape, config, **heads)

    def forward(self, observation: dict[str, Tensor], hidden: Tensor) -> Tensor:
        """The state, (B, hidden_size), of this frame; it remembers nothing of its own."""
        return self.read(torch.cat((observation[ENCODED], *read_beside(observation, self.beside)), dim=1))
