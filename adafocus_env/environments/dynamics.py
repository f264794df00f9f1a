"""The Markov decision process of AdaFocus (paper, Sec. 3.3), as pure functions on tensors.

One decision is about one frame (in AdaFocus-TSM, about the whole clip). The frozen recogniser takes part only by what
its CNNs say: projected vectors of the frame and of patches of it. The course of a video is::

    state = start(classifier, frame_gates, label)                    # before the first frame
    looks = patches_to_read(place, reward.reference, drawn)           # for each frame: the patches that f_L reads,
    context = classifier.context(frame_gates, state.hidden)           # what f_C knows before it sees any of them,
    after = consider(classifier, context, patch_gates, looks, label)  # what f_C would say after each of them,
    outcome = decide(state, after, focused, reward, price)            # what happens, and what it earns

Every tensor has one row per lane. B is the number of lanes, D the length of the classifier's hidden state, G that of
the projected vectors, N the number of candidate patches, k the number of patches considered in a decision.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from adafocus_env.environments.rewards import Reference, Reward, earned
from adafocus_env.recognition.classifier import FrameContext


class State(NamedTuple):
    """What the classifier has made of the video so far."""

    hidden: Tensor
    """(B, D) float32, f_C's hidden state."""
    confidence: Tensor
    """(B,) float32, softmax confidence on the true label."""
    prediction: Tensor
    """(B,) int64, the most probable class."""


class Looks(NamedTuple):
    """The k patches considered in one decision, in this order: k₁ candidates, k₂ patches off the grid, and, for the
    ``"blank"`` reference, an all-zero local vector.
    """

    candidates: Tensor
    """(B, k₁) int64, patch indices."""
    anywhere: Tensor | None
    """(B, k₂, 2) int64, top-left corners off the grid, pixels; ``None`` where there are none."""
    chosen: Tensor | int
    """Which of the k is the agent's choice: (B,) int64, or the same in all lanes."""
    references: slice
    """Which of the k the choice is compared with."""


class Consequences(NamedTuple):
    """What the classifier would say if f_L read the frame: ``state`` is after the chosen patch."""

    state: State
    alternatives: Tensor
    """(B, k′) float32, the confidences after the patches that the choice is compared with."""


class Outcome(NamedTuple):
    """What a decision led to."""

    state: State
    reward: Tensor
    """(B,) float32."""
    reference: Tensor
    """(B,) float32, the reference's confidence; 0 on skipped frames."""


def start(classifier: Any, frame_gates: Tensor, label: Tensor) -> State:
    """The state before the first frame: f_C's zero state, and what it predicts from it.

    ``frame_gates`` (B, G) are the first frames' projected global vectors, ``label`` (B,) int64 the true classes.
    """
    hidden = classifier.start(frame_gates)
    probabilities = classifier.probabilities(hidden)
    return State(hidden, probabilities.gather(1, label[:, None])[:, 0], probabilities.max(dim=1).indices)


def patches_to_read(place: Tensor, reference: Reference, drawn: Tensor | None, *, exact: bool = False) -> Looks:
    """The patches that f_L reads: the choice, and what the reward compares it with.

    ``place`` is the choice: (B,) int64 patch indices, or (B, 2) int64 corners. ``drawn`` are the random patches that a
    ``"random"`` reference needs: (B, m) int64 patch indices, or (B, m, 2) int64 corners. With ``exact`` they are all N
    candidates in their order, and their mean is the expectation over a random one.
    """
    on_grid = place.ndim == 1
    candidates, anywhere = (place[:, None], None) if on_grid else (place[:, :0], place[:, None])
    if reference != "random" or drawn is None:
        return Looks(candidates, anywhere, 0, slice(1, 2) if reference == "blank" else slice(0, 0))
    count = drawn.shape[1]
    if drawn.ndim == 3:
        return Looks(candidates, drawn if on_grid else torch.cat((place[:, None], drawn), 1), 0, slice(1, 1 + count))
    if not on_grid:
        return Looks(drawn, anywhere, count, slice(0, count))
    if exact:  # the choice has its place among them
        return Looks(drawn, None, place, slice(0, count))
    return Looks(torch.cat((candidates, drawn), dim=1), None, 0, slice(1, 1 + count))


def consider(classifier: Any, context: FrameContext, patch_gates: Tensor, looks: Looks, label: Tensor) -> Consequences:
    """What f_C would say after each of the k patches, from one and the same state.

    ``context`` is what f_C knows of the frame and of the state, ``patch_gates`` (B, k, G) the patches' projected local
    vectors, which are overwritten.
    """
    hidden = classifier.advance(patch_gates, FrameContext(*(part.unsqueeze(1) for part in context)))
    probabilities = classifier.probabilities(hidden)
    confidence = probabilities.gather(2, label.view(-1, 1, 1).expand(-1, hidden.shape[1], 1)).squeeze(2)
    lanes = slice(None) if isinstance(looks.chosen, int) else torch.arange(len(label), device=label.device)
    after, confident, probable = (part[lanes, looks.chosen] for part in (hidden, confidence, probabilities))
    return Consequences(State(after, confident, probable.max(dim=1).indices), confidence[:, looks.references])


def decide(
    state: State, after: Consequences, focused: Tensor, reward: Reward, price: float | Tensor, *, everyone: bool = False
) -> Outcome:
    """The rule of a step: a focused frame advances the state; a skipped one leaves it as it was and earns nothing.

    ``state`` is before the frame and ``after`` what reading it would lead to, which happens where ``focused``, (B,)
    bool (with ``everyone``, everywhere). ``price`` is λ in confidence, (B,) where lanes or candidates differ in it.
    """
    match reward.reference:
        case "previous":
            reference = state.confidence
        case None:
            reference = torch.zeros_like(state.confidence)
        case _:  # of a single one, the mean would cost a fortieth of a step
            single = after.alternatives.shape[1] == 1
            reference = after.alternatives[:, 0] if single else after.alternatives.mean(dim=1)
    following = after.state
    if not everyone:
        reference = reference.where(focused, 0.0)
        hidden = torch.where(focused[:, None], following.hidden, state.hidden)
        following = State(hidden, *(torch.where(focused, *pair) for pair in zip(following[1:], state[1:], strict=True)))
    return Outcome(following, earned(reward, following.confidence, reference, focused, price), reference)


def counterfactual_rewards(
    after: Consequences, outcome: Outcome, focused: Tensor, reward: Reward, price: float | Tensor
) -> Tensor:
    """(B, k′) float32: what each alternative would have earned in place of the choice; 0 on skipped frames.
    ``price`` is λ, (B, 1) where lanes differ in it, (B, k′) where candidates do."""
    lanes, count = after.alternatives.shape
    references, looked = (part[:, None].expand(-1, count).flatten() for part in (outcome.reference, focused))
    prices = price.expand(lanes, count).flatten() if isinstance(price, Tensor) else price
    rewards = earned(reward, after.alternatives.flatten(), references, looked, prices).view(lanes, count)
    return rewards.where(focused[:, None], 0.0)
