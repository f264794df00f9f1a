"""Heads of a policy's network that score the places of the glance's map one by one."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CandidateScores(nn.Module):
    """Logits of all candidates, (B, N), from the glance's map, scored cell by cell and resampled to the g×g grid.

    The linear path through the encoder has to learn for every place anew what an item looks like; a convolution learns
    it once. The policy's recurrent state determines what to look for. Candidates near the border lie up to half a cell
    further in than the cells that they are resampled from; the 3×3 window covers that.

    Args:
        channels: C, of the glance.
        hidden_size: Length of the recurrent state.
        grid: g, N = g².
        width: Channels in between.
    """

    def __init__(self, channels: int, hidden_size: int, grid: int, width: int = 32) -> None:
        super().__init__()
        self.grid = grid
        self.read = nn.Conv2d(channels, width, 3, padding=1)
        self.seek = nn.Linear(hidden_size, width)
        self.score = nn.Conv2d(width, 1, 1)

    def forward(self, glance: Tensor, hidden: Tensor) -> Tensor:
        """(B, N) logits from glances (B, C, h, w) and recurrent states (B, hidden_size)."""
        features = nn.functional.relu(self.read(glance) + self.seek(hidden)[:, :, None, None])
        size = (self.grid, self.grid)
        return nn.functional.interpolate(self.score(features), size, mode="bilinear", align_corners=True).flatten(1)


class MeanPlace(CandidateScores):
    """The mean place under the softmax of the scores, (B, 2) from top left, 0, to bottom right, 1.

    It starts near the centre, and moves to wherever scores rise. Arguments as of :class:`CandidateScores`.
    """

    def __init__(self, channels: int, hidden_size: int, grid: int, width: int = 32) -> None:
        super().__init__(channels, hidden_size, grid, width)
        places = torch.linspace(0, 1, grid)
        self.register_buffer("places", torch.cartesian_prod(places, places), persistent=False)

    def forward(self, glance: Tensor, hidden: Tensor) -> Tensor:
        """(B, 2) positions from glances (B, C, h, w) and recurrent states (B, hidden_size)."""
        return super().forward(glance, hidden).softmax(dim=1) @ self.get_buffer("places")
