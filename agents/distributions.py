"""Distributions over actions, in batches of B, built from what the heads of a policy's network say.

B is read as ``shape[0]``, which torch.export can leave open; ``len`` would make it part of an exported graph.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Normal


class ActionDistribution:
    """What every distribution over actions can do."""

    patch_log_probs: Tensor
    """(B, N) log-probabilities of all patches; (B, 0) where no distribution over patches is learnt."""
    choice_log_probs: Tensor
    """(B, K) log-probabilities of what can be done with the frame: look or skip or stop, those of them that are learnt.
    K is 1, and they are 0, where there is no choice."""

    def choice(self, drawn: Tensor) -> Tensor:
        """(B,) int64, which of the K choices was drawn."""
        return torch.zeros(len(drawn), dtype=torch.int64, device=drawn.device)

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw one action per row, without gradient."""
        raise NotImplementedError

    def mode(self) -> Tensor:
        """The most probable action of each row."""
        raise NotImplementedError

    def log_prob(self, drawn: Tensor) -> Tensor:
        """(B,) log-probabilities of what was drawn, of the learnt parts alone."""
        raise NotImplementedError

    def entropy(self, drawn: Tensor) -> Tensor:
        """(B,) entropies of the learnt parts that what was drawn depends on."""
        raise NotImplementedError

    def action(self, drawn: Tensor) -> Tensor:
        """What was drawn as actions of the environment."""
        return drawn


class PatchDistribution(ActionDistribution):
    """One of N patches.

    Args:
        logits: (B, N).
    """

    def __init__(self, logits: Tensor) -> None:
        self._logits, self._categorical = logits, Categorical(logits=_finite(logits), validate_args=False)
        self.patch_log_probs = self._categorical.logits
        self.choice_log_probs = logits.new_zeros(logits.shape[0], 1)

    def sample(self, generator: torch.Generator) -> Tensor:
        """(B,) int64 patch indices."""
        return torch.multinomial(self._categorical.probs.detach(), 1, generator=generator)[:, 0]

    def mode(self) -> Tensor:
        """(B,) int64 patch indices."""
        return self._logits.argmax(dim=1)

    def log_prob(self, drawn: Tensor) -> Tensor:
        """(B,) log-probabilities of patches."""
        return self._categorical.log_prob(drawn)

    def entropy(self, drawn: Tensor) -> Tensor:
        """(B,) entropies."""
        return self._categorical.entropy()


class Frozen(ActionDistribution):
    """The choices of another policy, of which nothing is learnt.

    Args:
        choice: (B,) int64 patch indices, or (B, 2) int64 patch indices and skip bits.
    """

    def __init__(self, choice: Tensor) -> None:
        self._choice = choice
        self._zero = torch.zeros(choice.shape[0], device=choice.device)
        self.patch_log_probs = torch.empty(choice.shape[0], 0, device=choice.device)
        self.choice_log_probs = torch.zeros(choice.shape[0], 1, device=choice.device)

    def sample(self, generator: torch.Generator) -> Tensor:
        """The choices."""
        return self._choice

    def mode(self) -> Tensor:
        """The choices."""
        return self._choice

    def log_prob(self, drawn: Tensor) -> Tensor:
        """(B,) zeros."""
        return self._zero

    def entropy(self, drawn: Tensor) -> Tensor:
        """(B,) zeros."""
        return self._zero


class SkipDistribution(ActionDistribution):
    """A patch, and whether the frame is skipped. A skipped frame shows no patch, so the patch then counts for nothing.

    Args:
        patches: Where to look.
        logits: (B,), of skipping.
    """

    def __init__(self, patches: ActionDistribution, logits: Tensor) -> None:
        self._patches, self._bernoulli = patches, Bernoulli(logits=_finite(logits), validate_args=False)
        self.patch_log_probs = patches.patch_log_probs
        self.choice_log_probs = torch.stack(
            (nn.functional.logsigmoid(-logits), nn.functional.logsigmoid(logits)), dim=1
        )

    def choice(self, drawn: Tensor) -> Tensor:
        """(B,) int64: 0, look, or 1, skip."""
        return drawn[:, 1]

    def sample(self, generator: torch.Generator) -> Tensor:
        """(B, 2) int64, patch index and skip bit."""
        skip = torch.bernoulli(self._bernoulli.probs.detach(), generator=generator)
        return torch.stack((self._patches.sample(generator), skip.long()), dim=1)

    def mode(self) -> Tensor:
        """(B, 2) int64, patch index and skip bit."""
        return torch.stack((self._patches.mode(), (self._bernoulli.logits > 0).long()), dim=1)

    def log_prob(self, drawn: Tensor) -> Tensor:
        """(B,) log-probabilities of skip bits and of the patches of frames that are not skipped."""
        skip = drawn[:, 1].float()
        return self._bernoulli.log_prob(skip) + (1 - skip) * self._patches.log_prob(drawn[:, 0])

    def entropy(self, drawn: Tensor) -> Tensor:
        """(B,) entropies of the skip bit, and of the patch where the frame is not skipped."""
        return self._bernoulli.entropy() + (1 - drawn[:, 1].float()) * self._patches.entropy(drawn[:, 0])


class StopDistribution(ActionDistribution):
    """A patch and a skip bit, and whether the episode ends here. Then neither of the others counts for anything.

    Args:
        frames: What to do with the frame otherwise, (B, 2).
        logits: (B,), of stopping.
    """

    def __init__(self, frames: ActionDistribution, logits: Tensor) -> None:
        self._frames, self._bernoulli = frames, Bernoulli(logits=_finite(logits), validate_args=False)
        self.patch_log_probs = frames.patch_log_probs
        going_on = nn.functional.logsigmoid(-logits)[:, None] + frames.choice_log_probs
        self.choice_log_probs = torch.cat((going_on, nn.functional.logsigmoid(logits)[:, None]), dim=1)

    def choice(self, drawn: Tensor) -> Tensor:
        """(B,) int64: what is done with the frame, or last, stop."""
        last = self.choice_log_probs.shape[1] - 1
        return torch.where(drawn[:, 2] == 1, last, self._frames.choice(drawn[:, :2]))

    def sample(self, generator: torch.Generator) -> Tensor:
        """(B, 3) int64: patch index, skip bit and stop bit."""
        stop = torch.bernoulli(self._bernoulli.probs.detach(), generator=generator)
        return torch.cat((self._frames.sample(generator), stop[:, None].long()), dim=1)

    def mode(self) -> Tensor:
        """(B, 3) int64: patch index, skip bit and stop bit."""
        return torch.cat((self._frames.mode(), (self._bernoulli.logits > 0)[:, None].long()), dim=1)

    def log_prob(self, drawn: Tensor) -> Tensor:
        """(B,) log-probabilities of the stop bits, and of the rest where the episode goes on."""
        stop = drawn[:, 2].float()
        return self._bernoulli.log_prob(stop) + (1 - stop) * self._frames.log_prob(drawn[:, :2])

    def entropy(self, drawn: Tensor) -> Tensor:
        """(B,) entropies of the stop bit, and of the rest where the episode goes on."""
        return self._bernoulli.entropy() + (1 - drawn[:, 2].float()) * self._frames.entropy(drawn[:, :2])

    def action(self, drawn: Tensor) -> Tensor:
        """(B, 2) int64: patch index, and 0, look, 1, skip, or 2, stop."""
        return torch.stack((drawn[:, 0], torch.where(drawn[:, 2] == 1, 2, drawn[:, 1])), dim=1)


class PositionDistribution(ActionDistribution):
    """Continuous positions of a patch, on the scale [0, 1]: a Gaussian for row and column each.

    Args:
        mean: (B, 2).
        std: (), the standard deviation, which rows and columns share.
    """

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self._normal = Normal(_finite(mean), std, validate_args=False)
        self.patch_log_probs = torch.empty(mean.shape[0], 0, device=mean.device)
        self.choice_log_probs = torch.zeros(mean.shape[0], 1, device=mean.device)

    def sample(self, generator: torch.Generator) -> Tensor:
        """(B, 2), from top left, 0, to bottom right, 1; some lie outside, and ``action`` clips them."""
        return torch.normal(self._normal.mean.detach(), self._normal.stddev.detach(), generator=generator)

    def mode(self) -> Tensor:
        """(B, 2), the means."""
        return self._normal.mean

    def log_prob(self, drawn: Tensor) -> Tensor:
        """(B,) log-densities."""
        return self._normal.log_prob(drawn).sum(dim=1)

    def entropy(self, drawn: Tensor) -> Tensor:
        """(B,) differential entropies."""
        return self._normal.entropy().sum(dim=1)

    def action(self, drawn: Tensor) -> Tensor:
        """(B, 2), clipped to the frame, as actions from -1 to 1."""
        return 2 * drawn.clamp(0, 1) - 1


def _finite(values: Tensor) -> Tensor:
    """What a network says, unchanged.

    Raises:
        FloatingPointError: It is not finite. (Graphs that are exported have no such check.)
    """
    if not torch.compiler.is_compiling() and not bool(torch.isfinite(values).all()):
        raise FloatingPointError("the policy's outputs are not finite: its training diverged; lower the learning rate")
    return values
