"""The recogniser: f_G, f_L and f_C with their own normalisation, glance size and patch size."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adafocus_env.patches import crop
from adafocus_env.recognition.backbones import map_shape
from adafocus_env.recognition.classifier import RecurrentClassifier
from adafocus_env.recognition.compute_cost import ComputeCost, multiply_adds
from adafocus_env.recognition.deployment import Recognition, recognize_frames
from adafocus_env.recognition.exporting import Graphs, export_graphs
from adafocus_env.recognition.image_networks import ImageNetworks, NetworkConfig


@dataclass(frozen=True)
class RecognizerConfig(NetworkConfig):
    """Everything that determines a recogniser except for its weights: the fields of
    :class:`~adafocus_env.recognition.image_networks.NetworkConfig`, and these.

    Attributes:
        hidden_size: D, length of f_C's hidden state.
        dropout: Dropout before f_C's last layer, in training.
    """

    hidden_size: int = 1024
    dropout: float = 0.8


class Recognizer(ImageNetworks[RecognizerConfig]):
    """f_G, f_L and f_C (paper, Sec. 3.1).

    Args:
        config: Sizes. Use :meth:`from_pretrained` for trained weights.
        backbone_weights: As for :class:`ImageNetworks`.
    """

    config_class = RecognizerConfig
    file_format = "adafocus-recognizer-1"

    def __init__(self, config: RecognizerConfig, *, backbone_weights: str | None = None) -> None:
        super().__init__(config, backbone_weights)
        self.glance_shape = map_shape(self.global_cnn, config.glance_size)
        self.local_size = map_shape(self.local_cnn, config.patch_size)[0]
        self.classifier = RecurrentClassifier(
            self.glance_shape[0], self.local_size, config.hidden_size, config.num_classes, config.dropout
        )
        self.to(memory_format=torch.channels_last)  # faster convolutions on CPU and GPU alike

    def glance(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Run f_G on whole frames.

        Args:
            frames: (B, 3, H, W) uint8 RGB.

        Returns:
            The map e^G, (B, C, h, w) float32, and its spatial mean, (B, C).
        """
        maps = self._run(self.global_cnn, self.resized(frames))
        return maps, maps.mean(dim=(2, 3))

    def look(self, patches: Tensor) -> Tensor:
        """Run f_L on patches.

        Args:
            patches: (B, 3, P, P) RGB, uint8, or float32 from 0 to 255, as
                :func:`~adafocus_env.patches.interpolated_crop` cuts them; gradients flow back to these.

        Returns:
            Their local vectors e^L, (B, local_size) float32.
        """
        self._check(patches, torch.float32)
        return self._run(self.local_cnn, patches.to(self.device)).mean(dim=(2, 3))

    def forward(self, frames: Tensor, corners: Tensor, skipped: Tensor | None = None) -> Tensor:
        """Recognise videos from given patches, in the mode (training or evaluation) of each of the three networks.

        Args:
            frames: (B, T, 3, H, W) uint8 RGB at full resolution.
            corners: (B, T·k, 2) int64, top-left pixels of the patches of k ≥ 1 looks at each frame.
            skipped: (B, T·k) bool; the local CNN doesn't run on a skipped look, which doesn't change the classifier's
                state.

        Returns:
            (B, T·k, classes) float32 logits.

        Raises:
            ValueError: A type, shape or dtype is wrong.
            IndexError: A patch leaves its frame.
        """
        if not (isinstance(frames, Tensor) and isinstance(corners, Tensor)):
            raise ValueError(f"frames and corners must be tensors, not {type(frames)} and {type(corners)}")
        looks = corners.shape[1] // max(1, frames.shape[1]) if frames.ndim == 5 and corners.ndim == 3 else 0
        if not looks or corners.shape != (frames.shape[0], looks * frames.shape[1], 2):
            raise ValueError(
                f"frames must be (B, T, 3, H, W) and corners (B, T, 2), or (B, T·k, 2) for k looks at each frame, not "
                f"{tuple(frames.shape)} and {tuple(corners.shape)}"
            )
        flat, steps = frames.flatten(0, 1), corners.shape[:2]
        global_vectors = self.glance(flat)[1].repeat_interleave(looks, dim=0)
        source = torch.arange(len(flat), device=flat.device).repeat_interleave(looks)
        patches = crop(flat, corners.flatten(0, 1), self.config.patch_size, source)
        if skipped is None:
            local_vectors = self.look(patches)
        else:
            focused = ~skipped.flatten().to(flat.device)
            local_vectors = global_vectors.new_zeros(len(patches), self.local_size)
            if bool(focused.any()):
                local_vectors[focused.to(self.device)] = self.look(patches[focused])
            skipped = skipped.to(self.device)
        return self.classifier(global_vectors.unflatten(0, steps), local_vectors.unflatten(0, steps), skipped)

    def recognize(
        self,
        frames: Tensor,
        policy: Any,
        *,
        grid: int | None = None,
        exit_threshold: float | Sequence[float] | None = None,
        looks: int = 1,
        price: float | Sequence[float] | None = None,
    ) -> Recognition:
        """Recognise videos with a policy, in the cheapest way that the policy allows.

        A policy that sees only the ``glance`` is run over all frames first, so that all patches go through the local
        CNN in one batch. A policy that sees the ``belief`` needs the frames one after the other. With
        ``exit_threshold`` (conditional exit: AdaFocusV2, Sec. 3.4) a video is left after the first frame whose highest
        class probability reaches it. Nothing more is computed for it: no glance, no step of the policy, no patch.

        Args:
            frames: (B, T, 3, H, W) uint8 RGB at full resolution.
            policy: Anything with SB3's ``predict`` on batched observations and an ``action_space``. It is given NumPy
                arrays, or tensors if it says ``takes_tensors`` (:func:`adafocus_env.policies.decide`).
            grid: g, the candidate grid of the policy's patch indices; ``None`` takes it from its action space.
            exit_threshold: A probability, or one for each frame; ``None``, or one above 1, never leaves a video. After
                the frame on which a video is left, its logits repeat, its frames count as skipped, and its corners mean
                nothing.
            looks: Looks at each frame, as in ``GlanceFocus-v0``; the T of results is then that of looks.
            price: The price of compute that a policy is to act by, if it was trained to see prices: that of a focused
                frame, as ``skip_cost`` in its environment, or, for one that can stop, a pair with ``glance_cost``.

        Returns:
            A :class:`~adafocus_env.recognition.deployment.Recognition`: ``logits`` (B, T, classes) float32, ``corners``
            (B, T, 2) int64 in pixels, ``skipped`` (B, T) bool, ``gflops`` (B,) and ``step_gflops`` (B, T) float64, and
            ``frames`` (B,) int64.

        Raises:
            ValueError: The policy's action space doesn't fit the grid; ``exit_threshold`` is neither a positive number
                nor one for each frame; the policy sees prices and ``price`` is left out, or the other way about; or
                ``frames`` has the wrong dtype or shape, or is empty.
        """
        with self.evaluating():
            return recognize_frames(self, frames, policy, grid, exit_threshold, looks, price)

    def export(self, folder: str | os.PathLike[str], policy: Any, *, looks: int = 1, graphs: Graphs = "pt2") -> Path:
        """Write the recogniser and a policy as graphs that recognise videos without this package.

        :mod:`adafocus_env.recognition.exported` describes the folder, and is the program that runs it; the folder gets
        a copy. ``recognizer.deployed().export(…)`` folds the batch norms first.

        Args:
            folder: Gets the graphs, ``settings.json`` and ``exported.py``.
            policy: One of this package's agents, or a released policy. It must be on the CPU, as the recogniser.
            looks: Looks at each frame, as in :meth:`recognize`.
            graphs: ``"pt2"``, those of torch.export, or ``"onnx"``, for which the extra of that name must be installed.

        Returns:
            The folder.

        Raises:
            ImportError: ``graphs="onnx"``, and a package for it isn't installed.
            ValueError: The policy computes by something else than torch networks, or an argument is not allowed.
        """
        with self.evaluating():
            return export_graphs(self, folder, policy, looks, graphs)

    def measure_cost(self) -> ComputeCost:
        """See :meth:`ImageNetworks.cost`: per frame."""
        size, patch = self.config.glance_size, self.config.patch_size

        def classify() -> None:
            hidden = self.classifier.initial_state(1)
            context = self.classifier.context(
                self.classifier.project_global(torch.zeros(1, self.glance_shape[0])), hidden
            )
            patch_gates = self.classifier.project_local(torch.zeros(1, self.local_size))
            self.classifier.predict(self.classifier.advance(patch_gates, context))

        return ComputeCost(
            glance=multiply_adds(lambda: self.glance(torch.zeros(1, 3, size, size, dtype=torch.uint8))) / 1e9,
            local=multiply_adds(lambda: self.look(torch.zeros(1, 3, patch, patch, dtype=torch.uint8))) / 1e9,
            classifier=multiply_adds(classify) / 1e9,
        )

    def num_steps(self, num_frames: int) -> int:
        """See :meth:`ImageNetworks.num_steps`: one per frame."""
        return num_frames

    def units(self, frames: Tensor) -> Tensor:
        """See :meth:`ImageNetworks.units`: single frames, (B·T, 3, H, W)."""
        return frames.flatten(0, 1)

    def glanced(self, units: Tensor) -> Tensor:
        """See :meth:`ImageNetworks.glanced`: the frames themselves."""
        return units

    def cut(self, units: Tensor, corners: Tensor, source: Tensor | None = None) -> Tensor:
        """See :meth:`ImageNetworks.cut`: (B, 3, P, P) patches."""
        return crop(units, corners, self.config.patch_size, source)

    @property
    def classifying(self) -> nn.Module:
        """See :meth:`ImageNetworks.classifying`: f_C."""
        return self.classifier

    def read(self, frames: Tensor, corners: Tensor) -> Tensor:
        """See :meth:`ImageNetworks.read`: the forward pass."""
        return self(frames, corners)

    def patch_vectors(self, patches: Tensor) -> Tensor:
        """See :meth:`ImageNetworks.patch_vectors`: what :meth:`look` gives."""
        return self.look(patches)

    def classify(self, global_vectors: Tensor, local_vectors: Tensor, skipped: Tensor | None) -> Tensor:
        """See :meth:`ImageNetworks.classify`: f_C."""
        return self.classifier(global_vectors, local_vectors, skipped)

    def blank_gates(self) -> Tensor:
        """See :meth:`ImageNetworks.blank_gates`: zeros, as the projection has no bias."""
        return torch.zeros(self.classifier.gates_size, device=self.device)
