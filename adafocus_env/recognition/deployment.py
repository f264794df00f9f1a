"""The deployment path: recognise videos with a policy at the cost of the networks alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from adafocus_env.patches import crop, grid_corners, grid_of, position_corners
from adafocus_env.policies import decide
from adafocus_env.recognition.compute_cost import policy_gflops

if TYPE_CHECKING:
    from adafocus_env.recognition.recognizer import Recognition, Recognizer
    from adafocus_env.recognition.tsm_recognizer import TSMRecognizer


@torch.no_grad()
def recognize(recognizer: Recognizer, frames: Tensor, policy: Any, grid: int | None) -> Recognition:
    """See :meth:`adafocus_env.Recognizer.recognize`."""
    from adafocus_env.recognition.recognizer import Recognition

    _check(frames, policy)
    height, width = frames.shape[-2:]
    if grid is None:
        grid = grid_of(policy.action_space)
    if grid is None or grid != grid_of(policy.action_space):
        raise ValueError(f"the policy acts in {policy.action_space}, which are not the patch indices of grid {grid}")
    candidates = grid_corners(grid, (height, width), recognizer.config.patch_size).to(recognizer.device)
    videos, times = frames.shape[:2]
    frames = frames.to(recognizer.device).flatten(0, 1)
    # All videos' first frames, then all second ones, as the policy and the classifier read them: (T, B).
    order = torch.arange(len(frames), device=recognizer.device).view(videos, times).t()
    classifier = recognizer.classifier
    # All at once, as resizing takes one thread and would keep the CNN's waiting between its batches. Channels are last
    # in memory; with them last in the shape too, whole frames are moved.
    pixels = recognizer.resized(frames).permute(0, 2, 3, 1)
    small = pixels.index_select(0, order.flatten()).permute(0, 3, 1, 2)
    glances = [recognizer.glance(batch) for batch in recognizer.batches(small, recognizer.config.glance_size)]
    maps, vectors = (torch.cat(part).unflatten(0, order.shape) for part in zip(*glances, strict=True))
    frame_gates = classifier.project_global(vectors)
    sees_belief = not isinstance(getattr(policy, "observation_space", None), spaces.Box)

    patch = torch.zeros_like(order)
    skipped = torch.zeros_like(order, dtype=torch.bool)
    hidden = classifier.initial_state(videos)
    states: list[Tensor] = []
    memory: Any = None

    def local_gates(time: slice) -> Tensor:
        """(frames, videos, 3·D) of the focused patches in some frames, in one batch; zero where skipped."""
        focused = ~skipped[time]
        gates = torch.zeros_like(frame_gates[time])
        if bool(focused.any()):
            size = recognizer.config.patch_size
            patches = crop(frames, candidates[patch[time][focused]], size, order[time][focused])
            found = torch.cat([recognizer.look(batch) for batch in recognizer.batches(patches, size)])
            gates[focused] = classifier.project_local(found)
        return gates

    def advance(patch_gates: Tensor, before: Tensor, time: int) -> Tensor:
        after = classifier.advance(patch_gates, classifier.context(frame_gates[time], before))
        return torch.where(skipped[time, :, None], before, after)

    for time in range(times):
        observation: Any = maps[time]
        if sees_belief:
            share = hidden.new_full((videos, 1), time / times)
            observation = {"glance": observation, "belief": hidden, "time": share}
        actions, memory = decide(policy, observation, memory, np.full(videos, time == 0))
        chosen = _checked(actions, policy.action_space, videos).to(recognizer.device)
        patch[time] = chosen[:, 0] if chosen.ndim == 2 else chosen
        if chosen.ndim == 2:
            skipped[time] = chosen[:, 1] == 1
        if sees_belief:
            hidden = advance(local_gates(slice(time, time + 1))[0], hidden, time)
            states.append(hidden)
    if not sees_belief:
        patch_gates = local_gates(slice(None))
        for time in range(times):
            hidden = advance(patch_gates[time], hidden, time)
            states.append(hidden)

    patch, skipped = patch.t(), skipped.t()
    price, policy_cost = recognizer.cost(), policy_gflops(policy)
    focused = (~skipped).sum(dim=1).double()
    return Recognition(
        logits=classifier.predict(torch.stack(states, dim=1)),
        corners=candidates[patch],
        skipped=skipped,
        gflops=times * (price.always + policy_cost) + focused * price.local,
    )


@torch.no_grad()
def recognize_clips(recognizer: TSMRecognizer, frames: Tensor, policy: Any) -> Recognition:
    """See :meth:`adafocus_env.TSMRecognizer.recognize`."""
    from adafocus_env.recognition.recognizer import Recognition

    _check(frames, policy)
    frames = frames.to(recognizer.device)
    size, patch_size = (frames.shape[-2], frames.shape[-1]), recognizer.config.patch_size
    glanced = recognizer.batches(recognizer.glanced(frames), recognizer.config.glance_size)
    maps, logits = (torch.cat(part) for part in zip(*map(recognizer.glance, glanced), strict=True))
    sees_glance = isinstance(getattr(policy, "observation_space", None), spaces.Box)
    observation: Any = maps if sees_glance else {"glance": maps}
    actions, _ = decide(policy, observation, None, np.ones(len(frames), dtype=bool))
    if isinstance(policy.action_space, spaces.MultiDiscrete):
        raise ValueError(f"the policy acts in {policy.action_space}, but clips have no skip bit")
    chosen = _checked(actions, policy.action_space, len(frames)).to(recognizer.device)
    if (grid := grid_of(policy.action_space)) is None:
        corners = position_corners(chosen, size, patch_size)
    else:
        corners = grid_corners(grid, size, patch_size).to(recognizer.device)[chosen]
    patches = recognizer.batches(recognizer.cut(frames, corners), patch_size)
    cost = recognizer.cost()
    return Recognition(
        logits=(logits + torch.cat([recognizer.look(batch) for batch in patches]))[:, None],
        corners=corners[:, None],
        skipped=torch.zeros(len(frames), 1, dtype=torch.bool, device=recognizer.device),
        gflops=torch.full(
            (len(frames),), cost.always + cost.local + policy_gflops(policy), dtype=torch.float64,
            device=recognizer.device,
        ),
    )  # fmt: skip


def _check(frames: Any, policy: Any) -> None:
    """Raise ``ValueError`` unless these are a batch of videos and a policy."""
    if isinstance(policy, type) or not hasattr(policy, "predict") or not hasattr(policy, "action_space"):
        raise ValueError(
            f"policy must have SB3's predict and an action_space, not be {policy!r}: a class has to be made first"
        )
    wanted = "frames must be a (B, T, 3, H, W) tensor of uint8"
    if not isinstance(frames, Tensor):
        raise ValueError(f"{wanted}, not {type(frames).__name__}")
    shape = tuple(frames.shape)
    if frames.ndim != 5 or frames.dtype != torch.uint8 or shape[2] != 3:
        last = frames.ndim == 5 and shape[2] != 3 and shape[4] == 3
        remedy = ": the channels are last, so pass frames.permute(0, 1, 4, 2, 3)" if last else ""
        raise ValueError(f"{wanted}, not {frames.dtype} of shape {shape}{remedy}")
    if not frames.numel():
        raise ValueError(f"frames must hold at least one video of at least one frame, not be of shape {shape}")


def _checked(actions: Any, space: spaces.Space[Any], videos: int) -> Tensor:
    """A policy's actions on some videos, after checking that all of them are in its action space."""
    chosen = torch.as_tensor(actions)
    shape = (videos, *(space.shape or ()))
    if isinstance(space, spaces.Box):
        low, high = torch.from_numpy(space.low), torch.from_numpy(space.high)
    else:
        count = space.nvec if isinstance(space, spaces.MultiDiscrete) else space.n  # type: ignore[attr-defined]
        low, high = torch.tensor(0), torch.as_tensor(count) - 1
    low, high = low.to(chosen.device), high.to(chosen.device)
    if tuple(chosen.shape) != shape or not bool(((chosen >= low) & (chosen <= high)).all()):
        raise ValueError(f"the policy's actions must be {shape}, each in {space}, not {chosen.tolist()}")
    return chosen
