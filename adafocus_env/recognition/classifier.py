"""The recurrent classifier f_C: a GRU over frames and a prediction after each of them."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

_MINUS_ONE = torch.tensor(-1.0)


class FrameContext(NamedTuple):
    """What :meth:`RecurrentClassifier.advance` needs to know about a frame and the frames before it.

    Attributes:
        gates: (…, 3·D), the frame's share of all gates, plus the state's share of the reset and update gates.
        new_hidden: (…, D), the state's share of the new gate, which the reset gate multiplies.
        hidden: (…, D), the state before the frame.
    """

    gates: Tensor
    new_hidden: Tensor
    hidden: Tensor


class RecurrentClassifier(nn.Module):
    """A GRU, dropout and a linear layer (paper, Sec. 3.1), with the GRU's input projection split in two.

    The projection W_ih·[global; local] + b_ih is a sum of a part that depends on the frame alone and a part that
    depends on the patch alone. Both can therefore be computed once and stored; a step is then one product W_hh·h,
    shared by all patches that are considered, and element-wise gates. The gates are in the order of ``torch.nn.GRU``:
    reset, update, new; the parameters are a ``torch.nn.GRU``'s, named as in the released checkpoints. Gates are
    overwritten, as in a large batch fresh memory would cost more than the arithmetic.

    Args:
        global_size: Length of the global vector.
        local_size: Length of the local vector.
        hidden_size: D, length of the hidden state.
        num_classes: Number of classes.
        dropout: Dropout before the last layer, while training.
    """

    def __init__(self, global_size: int, local_size: int, hidden_size: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.global_size = global_size
        self.hidden_size = hidden_size
        self.gates_size = 3 * hidden_size
        self.gru = nn.GRU(global_size + local_size, hidden_size, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(hidden_size, num_classes)

    def initial_state(self, batch_size: int) -> Tensor:
        """(B, D) zeros: the state before the first frame."""
        return self.fc.weight.new_zeros(batch_size, self.hidden_size)

    def start(self, frame_gates: Tensor) -> Tensor:
        """(B, D) zeros: the states before the first frames, given these frames' projections, (B, 3·D)."""
        return self.initial_state(len(frame_gates))

    def project_global(self, vector: Tensor) -> Tensor:
        """(…, global_size) -> (…, 3·D): a frame's share of the gates' input, with the bias."""
        weight = cast(Tensor, self.gru.weight_ih_l0)[:, : self.global_size]
        return nn.functional.linear(vector, weight, cast(Tensor, self.gru.bias_ih_l0))

    def project_local(self, vector: Tensor) -> Tensor:
        """(…, local_size) -> (…, 3·D): a patch's share of the gates' input; that of a zero vector is zero."""
        return nn.functional.linear(vector, cast(Tensor, self.gru.weight_ih_l0)[:, self.global_size :])

    def project_hidden(self, hidden: Tensor) -> Tensor:
        """(…, D) -> (…, 3·D): the state's share of the gates' input, with the bias."""
        return nn.functional.linear(hidden, cast(Tensor, self.gru.weight_hh_l0), cast(Tensor, self.gru.bias_hh_l0))

    def context(self, frame_gates: Tensor, hidden: Tensor) -> FrameContext:
        """What all patches of a frame share: the product W_hh·h is computed here, once.

        Args:
            frame_gates: (…, 3·D), :meth:`project_global` of the frame; overwritten.
            hidden: (…, D), the state before the frame.
        """
        size = 2 * self.hidden_size
        projected = self.project_hidden(hidden)
        frame_gates[..., :size].add_(projected[..., :size])
        return FrameContext(frame_gates, projected[..., size:], hidden)

    def advance(self, patch_gates: Tensor, context: FrameContext) -> Tensor:
        """Apply the GRU's gates, and return the state after a patch of a frame.

        Args:
            patch_gates: (…, 3·D), :meth:`project_local` of the patch; overwritten.
            context: :meth:`context` of its frame; broadcast against ``patch_gates``.

        Returns:
            (…, D).
        """
        size = self.hidden_size
        patch_gates += context.gates
        gates = patch_gates[..., : 2 * size].sigmoid_()
        new = tanh_(torch.addcmul(patch_gates[..., 2 * size :], gates[..., :size], context.new_hidden))
        return torch.lerp(new, context.hidden, gates[..., size:])

    def predict(self, hidden: Tensor) -> Tensor:
        """(…, D) -> (…, classes) logits."""
        return self.fc(self.dropout(hidden) if self.training else hidden)

    def probabilities(self, hidden: Tensor) -> Tensor:
        """(…, D) -> (…, classes): the softmax of :meth:`predict`, in evaluation mode.

        The classes come first in memory, so that product and softmax run along many states at once: five times as fast
        on the CPU as state by state.
        """
        logits = torch.addmm(self.fc.bias.unsqueeze(1), self.fc.weight, hidden.flatten(0, -2).t())
        return torch.softmax(logits, dim=0).t().view(*hidden.shape[:-1], -1)

    def forward(self, global_vectors: Tensor, local_vectors: Tensor, skipped: Tensor | None = None) -> Tensor:
        """Logits after every frame of a batch of videos, in float32 under autocast too.

        Args:
            global_vectors: (B, T, global_size).
            local_vectors: (B, T, local_size).
            skipped: (B, T) bool; a skipped frame leaves the state, and so the prediction, as it was.

        Returns:
            (B, T, classes).
        """
        with torch.autocast(global_vectors.device.type, enabled=False):
            frame_gates, patch_gates = self.project_global(global_vectors), self.project_local(local_vectors)
            hidden = self.initial_state(len(frame_gates))
            states = []
            for time in range(frame_gates.shape[1]):
                context = self.context(frame_gates[:, time].clone(), hidden)
                after = self.advance(patch_gates[:, time].clone(), context)
                hidden = after if skipped is None else torch.where(skipped[:, time, None], hidden, after)
                states.append(hidden)
            return self.predict(torch.stack(states, dim=1))


def tanh_(values: Tensor) -> Tensor:
    """tanh, in place. On the CPU torch's sigmoid takes a sixth of the time of its tanh, hence 2σ(2x) − 1."""
    if values.device.type != "cpu" or values.requires_grad:
        return values.tanh_()
    return torch.add(_MINUS_ONE, values.mul_(2).sigmoid_(), alpha=2, out=values)
