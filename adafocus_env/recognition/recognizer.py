"""The recogniser: f_G, f_L and f_C with their own normalisation, glance size and patch size."""

from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.fx.experimental.optimization import fuse
from torch.fx.proxy import TraceError
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from adafocus_env.patches import crop
from adafocus_env.recognition.backbones import build_backbone, map_bounds, map_shape
from adafocus_env.recognition.classifier import RecurrentClassifier
from adafocus_env.recognition.compute_cost import ComputeCost, multiply_adds
from adafocus_env.recognition.image_networks import ImageNetworks, NetworkConfig

Precision = Literal["float32", "bfloat16"]
"""What the CNNs compute in."""


@dataclass(frozen=True)
class RecognizerConfig(NetworkConfig):
    """Everything that determines a recogniser but its weights.

    Attributes:
        hidden_size: D, length of f_C's hidden state.
        dropout: Dropout before f_C's last layer, in training.
    """

    hidden_size: int = 1024
    dropout: float = 0.8


@dataclass(frozen=True)
class Recognition:
    """What :meth:`Recognizer.recognize` found.

    Attributes:
        logits: (B, T, classes) float32, the prediction after every frame.
        corners: (B, T, 2) int64, top and left of every patch, pixels; meaningful where not skipped.
        skipped: (B, T) bool, frames on which the local CNN did not run.
        gflops: (B,) float64, multiply-adds / 1e9 of every video, the policy's own included.
    """

    logits: Tensor
    corners: Tensor
    skipped: Tensor
    gflops: Tensor


class Recognizer(ImageNetworks[RecognizerConfig]):
    """f_G, f_L and f_C (paper, Sec. 3.1).

    Args:
        config: Sizes. Use :meth:`from_pretrained` for trained weights.
        backbone_weights: Name of torchvision's ImageNet weights for both CNNs to start from, downloaded once;
            ``None`` draws all weights at random.
    """

    config_class = RecognizerConfig
    file_format = "adafocus-recognizer-1"

    def __init__(self, config: RecognizerConfig, *, backbone_weights: str | None = None) -> None:
        super().__init__(config)
        self._cost: ComputeCost | None = None
        self.global_cnn = build_backbone(config.global_backbone, backbone_weights)
        self.local_cnn = build_backbone(config.local_backbone, backbone_weights)
        self.glance_shape = map_shape(self.global_cnn, config.glance_size)
        self.glance_bounds = map_bounds(self.global_cnn)
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
        self._check(frames)
        size = [self.config.glance_size] * 2
        # Resized as bytes, as torchvision resizes images: on the CPU five times as fast as in floating point.
        images = resize(frames.to(self.device), size, InterpolationMode(self.config.glance_interpolation))
        maps = self._run(self.global_cnn, images)
        return maps, maps.mean(dim=(2, 3))

    def look(self, patches: Tensor) -> Tensor:
        """Run f_L on patches, (B, 3, P, P) uint8 RGB, for their local vectors e^L, (B, local_size) float32."""
        self._check(patches)
        return self._run(self.local_cnn, patches.to(self.device)).mean(dim=(2, 3))

    def forward(self, frames: Tensor, corners: Tensor, skipped: Tensor | None = None) -> Tensor:
        """Recognise videos from given patches, in the mode (training or evaluation) of each of the three networks.

        Args:
            frames: (B, T, 3, H, W) uint8 RGB at full resolution.
            corners: (B, T, 2) int64, top-left pixels of the patches.
            skipped: (B, T) bool; the local CNN's vector of a skipped frame is not used, nor does the frame change the
                classifier's state.

        Returns:
            (B, T, classes) float32 logits.

        Raises:
            ValueError: A shape or dtype is wrong.
            IndexError: A patch leaves its frame.
        """
        if frames.ndim != 5 or corners.shape != (*frames.shape[:2], 2):
            raise ValueError(
                f"frames must be (B, T, 3, H, W) and corners (B, T, 2), not {tuple(frames.shape)} and "
                f"{tuple(corners.shape)}"
            )
        videos, times = frames.shape[:2]
        flat = frames.flatten(0, 1)
        _, global_vectors = self.glance(flat)
        patches = crop(flat, corners.flatten(0, 1), self.config.patch_size)
        if skipped is None:
            local_vectors = self.look(patches)
        else:
            focused = ~skipped.flatten().to(flat.device)
            local_vectors = global_vectors.new_zeros(videos * times, self.local_size)
            if bool(focused.any()):
                local_vectors[focused.to(self.device)] = self.look(patches[focused])
            skipped = skipped.to(self.device)
        return self.classifier(
            global_vectors.unflatten(0, (videos, times)), local_vectors.unflatten(0, (videos, times)), skipped
        )

    def recognize(self, frames: Tensor, policy: Any, *, grid: int | None = None) -> Recognition:
        """Recognise videos with a policy, by the cheapest route that the policy allows.

        A policy that sees only the ``glance`` is rolled over all frames first, so that all patches go through the local
        CNN in one batch. A policy that sees the ``belief`` needs the frames one after the other.

        Args:
            frames: (B, T, 3, H, W) uint8 RGB at full resolution.
            policy: Anything with SB3's ``predict`` on batched observations and an ``action_space``.
            grid: g, the candidate grid of the policy's patch indices; ``None`` takes it from its action space.

        Raises:
            ValueError: The policy's action space doesn't fit the grid, or ``frames`` has the wrong shape.
        """
        from adafocus_env.recognition.deployment import recognize

        training = self.training
        try:
            return recognize(self.eval(), frames, policy, grid)
        finally:
            self.train(training)

    def cost(self) -> ComputeCost:
        """Multiply-adds of each component on one frame, measured on the modules themselves, once."""
        if self._cost is not None:
            return self._cost
        size, patch = self.config.glance_size, self.config.patch_size
        model = copy.deepcopy(self).eval().cpu()

        def classify() -> None:
            hidden = model.classifier.initial_state(1)
            context = model.classifier.context(
                model.classifier.project_global(torch.zeros(1, self.glance_shape[0])), hidden
            )
            patch_gates = model.classifier.project_local(torch.zeros(1, self.local_size))
            model.classifier.predict(model.classifier.advance(patch_gates, context))

        self._cost = ComputeCost(
            glance=multiply_adds(lambda: model.glance(torch.zeros(1, 3, size, size, dtype=torch.uint8))) / 1e9,
            local=multiply_adds(lambda: model.look(torch.zeros(1, 3, patch, patch, dtype=torch.uint8))) / 1e9,
            classifier=multiply_adds(classify) / 1e9,
        )
        return self._cost

    def frozen(self) -> Recognizer:
        """An independent copy in evaluation mode that needs no gradients."""
        return copy.deepcopy(self).eval().requires_grad_(False)

    def deployed(self, precision: Precision = "float32", global_precision: Precision | None = None) -> Recognizer:
        """A frozen copy made for speed: batch norms folded into the convolutions before them, CNNs in ``precision``.

        In float32 it is a fifth faster on the CPU and equal but for rounding. It is no longer a recogniser to save or
        to train.

        Args:
            precision: ``"float32"``, or ``"bfloat16"`` where the hardware has it. The classifier stays in float32.
            global_precision: The same for the global CNN alone, on whose maps policies are sensitive to rounding;
                ``None`` means ``precision``.

        Raises:
            ValueError: Another precision.
        """
        precisions = {"global_cnn": global_precision or precision, "local_cnn": precision}
        for wanted in precisions.values():
            if wanted not in get_args(Precision):
                raise ValueError(f"precision must be one of {get_args(Precision)}, not {wanted!r}")
        self.cost()  # measured on the original; the copy keeps it
        twin = self.frozen()
        for name, wanted in precisions.items():
            with contextlib.suppress(TraceError):  # a network that branches on its input stays as it is
                setattr(twin, name, fuse(getattr(twin, name), inplace=True))
            getattr(twin, name).to(getattr(torch, wanted), memory_format=torch.channels_last)
        return twin
