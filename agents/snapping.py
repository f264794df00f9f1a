"""``Snapped``: a policy that acts in continuous positions, on the grid of candidates."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces

from adafocus_env.patches import real_corners
from agents.environments import acts_in_positions


class Snapped:
    """Takes the candidate whose corner is nearest to each position that a policy chooses.

    So a policy of positions acts where patch indices are asked for, and a feature bank remembers what it looks at.

    Args:
        position_policy: Any policy with ``Box(-1, 1, (2,))`` as action space.
        env: A single or vector environment, whose candidates these are.

    Attributes:
        policy: The position policy's network, whose compute counts; ``None`` if it has none.

    Raises:
        ValueError: The policy acts in patch indices already.
    """

    def __init__(self, position_policy: Any, env: Any) -> None:
        if not acts_in_positions(position_policy):
            raise ValueError(
                f"Snapped needs a policy of positions, not one that acts in {position_policy.action_space}"
            )
        world = env.unwrapped
        self.position_policy = position_policy
        self.observation_space = position_policy.observation_space
        self.action_space = spaces.Discrete(world.num_patches)
        self.policy = getattr(position_policy, "policy", None)
        self.takes_tensors = getattr(position_policy, "takes_tensors", False)
        self._corners, self._sizes = world.corners, (world.frame_size, world.patch_size)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """As the position policy's, with patch indices, () or (B,) int64, as actions."""
        positions, state = self.position_policy.predict(
            observation, state=state, episode_start=episode_start, deterministic=deterministic
        )
        corners = real_corners(torch.as_tensor(positions), *self._sizes)
        distance = (corners.unsqueeze(-2) - self._corners.to(corners.device)).square().sum(dim=-1)
        nearest = distance.argmin(dim=-1)
        return (nearest if isinstance(positions, torch.Tensor) else nearest.cpu().numpy()), state
