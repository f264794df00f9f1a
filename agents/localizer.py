"""A supervised localiser: π's network, taught by ground truth where the item is.

It answers what reinforcement costs: the same network, the same episodes, but the right patch is told, not found.
"""

from __future__ import annotations

from typing import Any, ClassVar

from gymnasium import spaces
from torch import Tensor, nn

from adafocus_env.patches import best_candidate
from agents.reinforce import Reinforce
from agents.rollout import Rollout


class Localizer(Reinforce):
    """Cross-entropy between π and the candidate that shows most of the item, on frames that show it.

    Its episodes are its own, so that its recurrent state is trained on what it will see; rewards are not used.
    Arguments and everything else as :class:`Reinforce`; the environment needs ``skip=False`` and videos with
    ``locations``.

    Raises:
        ValueError: The videos have no ground truth, the actions are not patch indices alone, or this is a single
            environment.
    """

    info_keys: ClassVar[tuple[str, ...]] = ("video",)

    def __init__(self, env: Any, **kwargs: Any) -> None:
        super().__init__(env, **kwargs)
        if not isinstance(self.action_space, spaces.Discrete):
            raise ValueError("Localizer learns patches alone: make the environment with skip=False (or action='grid')")
        if not hasattr(getattr(self._env, "unwrapped", None), "videos"):
            raise ValueError("Localizer needs a vector environment made by gym.make_vec")
        if not hasattr(env.unwrapped.videos, "locations"):
            raise ValueError("Localizer needs a data set with `locations(indices)`: these videos have no ground truth")

    def loss(self, rollout: Rollout) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Cross-entropy with the best candidate where the item is in the picture."""
        assert self._env is not None
        env: Any = self._env.unwrapped
        frames, looks = env.num_steps // env.looks, env.looks
        found = env.videos.locations(rollout.infos["video"][0].cpu())
        boxes, visible = (part[:, :frames].repeat_interleave(looks, dim=1) for part in found)
        target = best_candidate(env.corners, env.patch_size, boxes).T.to(self.device)
        seen = visible.T.to(self.device)
        loss = nn.functional.nll_loss(rollout.patch_log_probs[seen], target[seen])
        right = rollout.patch_log_probs[seen].argmax(dim=-1) == target[seen]
        return loss, {"policy_loss": loss.detach(), "localized": right.float().mean()}
