"""One stage for everything: f_G, f_L, f_C and the policy learn at once, without reinforcement (AdaFocusV2, CVPR 2022).

The policy learns as in :mod:`agents.differentiable`, through the pixels of its patches, from the recogniser's own loss;
so there is no need for a stage in which the recogniser is frozen. What keeps such a training from collapsing (Sec. 3.3
there):

* Auxiliary supervision: a linear classifier on f_G's vector of every frame, and one on f_L's vector of every patch, so
  both networks have a loss of their own from the start. These classifiers are dropped afterwards.
* Diversity: half of the patches are uniformly random, so f_L and f_C go on seeing all places.
* The policy's gradient stops before f_G, whose maps it would otherwise pull away from recognition.

The loss is the sum of three cross-entropies, on the predictions of f_C and on those of the two linear classifiers, each
averaged over all frames.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from adafocus_env import AdaFocusVectorEnv, FrozenFeatures, Recognizer, VideoDataset
from adafocus_env.checks import Bounds, brief, check_integer
from adafocus_env.recognition.optimization import Objective, Progress, optimize
from adafocus_env.recognition.recipes import EndToEndConfig, num_steps
from adafocus_env.recognition.training import loss_after_every_unit
from agents.differentiable import Differentiable, next_position, patches_at
from agents.networks import RecurrentPolicy


def train_end_to_end(
    recognizer: Recognizer,
    videos: VideoDataset,
    config: EndToEndConfig | None = None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    **hyperparameters: Any,
) -> tuple[Recognizer, Differentiable]:
    """Train a copy of a recogniser together with a new policy.

    Args:
        recognizer: Where to start, say after stage 0. It stays as it is.
        videos: The videos to train on.
        config: Settings of the training; ``None`` takes the defaults. The auxiliary classifiers learn at f_C's rate.
        seed: Seed of the policy's weights, the batches, the random patches and dropout.
        progress: Logs and checkpoints.
        hyperparameters: Those of :class:`agents.Differentiable` that shape the policy's network. It sees the glance
            alone.

    Returns:
        The recogniser, in evaluation mode, and the policy, for its ``recognize`` and for :func:`agents.evaluate`.

    Raises:
        ValueError: An argument has a wrong type or is out of range, or videos and recogniser don't fit.
    """
    config = config or EndToEndConfig()
    if not isinstance(recognizer, Recognizer):
        raise ValueError(f"recognizer must be a Recognizer, not {brief(recognizer)}")
    seed = check_integer("seed", seed, Bounds(at_least=0))
    trained = copy.deepcopy(recognizer).requires_grad_(True).train()
    agent = _untrained_policy(trained, videos, seed, hyperparameters)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the auxiliary classifiers' weights, and dropout
        objective = _objective(trained, agent.policy, videos, config.random_share, generator)
        rates = (
            config.global_learning_rate, config.local_learning_rate, config.classifier_learning_rate,
            config.policy_learning_rate, config.classifier_learning_rate,
        )  # fmt: skip
        optimize(
            "end_to_end", objective, rates, config, num_rows=len(videos), generator=generator, progress=progress,
            steps=num_steps(len(videos), config, config.steps),
        )  # fmt: skip
    agent.adopt_weights()
    agent.made_for |= {"recognizer": trained.fingerprint(), "glance": trained.glance_fingerprint()}
    return trained.eval(), agent


def _untrained_policy(
    recognizer: Recognizer, videos: VideoDataset, seed: int, hyperparameters: dict[str, Any]
) -> Differentiable:
    """A policy of positions for what a recogniser shows."""
    features = FrozenFeatures(recognizer, videos, device=recognizer.device)
    env = AdaFocusVectorEnv(features=features, skip=False, action="continuous", observation="glance")
    agent = Differentiable(env, seed=seed, **hyperparameters)
    agent.set_env(None)
    return agent


def _objective(
    recognizer: Recognizer, policy: RecurrentPolicy, videos: VideoDataset, random_share: float, draws: torch.Generator
) -> Objective:
    """The sum of the three cross-entropies, over f_G, f_L, f_C, the policy and the auxiliary classifiers."""
    policy.value_head.requires_grad_(False)  # nothing is asked of it
    device, sizes = recognizer.device, (recognizer.glance_shape[0], recognizer.local_size)
    auxiliary = nn.ModuleList(nn.Linear(size, videos.num_classes, device=device) for size in sizes)

    def draw(rows: int) -> tuple[Tensor, Tensor]:
        shape = rows, videos.num_frames
        places = torch.rand(*shape, 2, generator=draws)
        return places, torch.rand(*shape, 1, generator=draws) < random_share

    def loss_of(rows: Tensor, frames: Tensor, places: Tensor, random: Tensor) -> tuple[Tensor, Tensor]:
        shape, units = frames.shape[:2], recognizer.units(frames.to(device))
        maps, vectors = recognizer.glance(units)
        with torch.autocast(device.type, enabled=False):
            chosen = _positions(policy, maps.detach().unflatten(0, shape))
            positions = torch.where(random.to(device), places.to(device), chosen)
            patches = patches_at(units, positions.flatten(0, 1), recognizer.config.patch_size)
        global_vectors, local_vectors = (part.unflatten(0, shape) for part in (vectors, recognizer.look(patches)))
        labels = videos.labels[rows]
        loss, correct = loss_after_every_unit(recognizer.classify(global_vectors, local_vectors, None), labels)
        for classifier, seen in zip(auxiliary, (global_vectors, local_vectors), strict=True):
            loss = loss + loss_after_every_unit(classifier(seen), labels)[0]
        return loss, correct

    networks = recognizer.global_cnn, recognizer.local_cnn, recognizer.classifier, policy, auxiliary
    return Objective(networks, videos, loss_of, draw=draw)


def _positions(policy: RecurrentPolicy, maps: Tensor) -> Tensor:
    """(B, T, 2), where a policy looks in videos with these maps, (B, T, C, h, w)."""
    state, positions = maps.new_zeros(len(maps), policy.gru.hidden_size), []
    for glance in maps.unbind(dim=1):
        position, state = next_position(policy, {"glance": glance}, state)
        positions.append(position)
    return torch.stack(positions, dim=1)
