"""AdaFocus-TSM's recogniser: two networks with temporal shift, and one patch position per clip (paper, Sec. 4.2)."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adafocus_env.patches import crop
from adafocus_env.recognition.backbones import BackboneConfig, map_shape
from adafocus_env.recognition.classifier import FrameContext
from adafocus_env.recognition.compute_cost import ComputeCost, multiply_adds
from adafocus_env.recognition.deployment import Recognition, recognize_clips, refuse_exit
from adafocus_env.recognition.exporting import Graphs, export_graphs
from adafocus_env.recognition.image_networks import ImageNetworks, NetworkConfig
from adafocus_env.recognition.temporal_shift import insert_temporal_shift


@dataclass(frozen=True)
class TSMConfig(NetworkConfig):
    """Everything that determines a TSM recogniser except for its weights: the fields of
    :class:`~adafocus_env.recognition.image_networks.NetworkConfig`, and these.

    Attributes:
        global_frames: Frames that f_G glances at.
        local_frames: Frames from which f_L reads a patch.
        shift: Shift channels in time; without it, networks are blind to the order of frames (an ablation).
        dropout: Dropout before f_L's linear classifier, in training.
    """

    global_backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig("mobilenet_v2"))
    local_backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig("resnet50"))
    patch_size: int = 144
    global_frames: int = 8
    local_frames: int = 12
    shift: bool = True
    dropout: float = 0.5


class LogitSum:
    """f_C of AdaFocus-TSM, which has nothing to learn: the state is the sum of the logits so far.

    Its members are those of :class:`adafocus_env.recognition.classifier.RecurrentClassifier`, for one step.

    Args:
        num_classes: Length of the state, and of f_G's and f_L's logits.
    """

    def __init__(self, num_classes: int) -> None:
        self.hidden_size = self.gates_size = num_classes

    def start(self, frame_gates: Tensor) -> Tensor:
        """(B, classes), the states before the look at a patch: f_G's logits."""
        return frame_gates

    def project_global(self, logits: Tensor) -> Tensor:
        """f_G's logits as they are."""
        return logits

    def project_local(self, logits: Tensor) -> Tensor:
        """f_L's logits as they are."""
        return logits

    def context(self, frame_gates: Tensor, hidden: Tensor) -> FrameContext:
        """What all patches of a clip share: f_G's logits, (…, classes), as its ``gates``."""
        return FrameContext(frame_gates, hidden, hidden)

    def advance(self, patch_gates: Tensor, context: FrameContext) -> Tensor:
        """(…, classes), the sum of f_G's logits and f_L's logits of a patch, which are overwritten."""
        return patch_gates.add_(context.gates)

    def predict(self, hidden: Tensor) -> Tensor:
        """(…, classes) logits, the state itself."""
        return hidden

    def probabilities(self, hidden: Tensor) -> Tensor:
        """(…, classes), their softmax."""
        return torch.softmax(hidden, dim=-1)


class TSMRecognizer(ImageNetworks[TSMConfig]):
    """f_G and f_L with temporal shift, each with a linear classifier of its own.

    The prediction is the mean of f_G's logits over its frames plus the mean of f_L's over its frames.

    Args:
        config: Sizes. Use :meth:`from_pretrained` for trained weights.
        backbone_weights: As for :class:`ImageNetworks`.

    Attributes:
        glance_shape: (global_frames·C, h, w), the maps of all frames stacked: what the policy sees.
    """

    config_class = TSMConfig
    file_format = "adafocus-tsm-recognizer-1"

    def __init__(self, config: TSMConfig, *, backbone_weights: str | None = None) -> None:
        super().__init__(config, backbone_weights)
        if config.shift:
            insert_temporal_shift(self.global_cnn, config.global_frames)
            insert_temporal_shift(self.local_cnn, config.local_frames)
        channels, height, width = map_shape(self.global_cnn, config.glance_size, config.global_frames)
        self.glance_shape = (config.global_frames * channels, height, width)
        self.local_size = map_shape(self.local_cnn, config.patch_size, config.local_frames)[0]
        self.global_head = nn.Linear(channels, config.num_classes)
        self.dropout = nn.Dropout(config.dropout)
        self.local_head = nn.Linear(self.local_size, config.num_classes)
        self.classifier = LogitSum(config.num_classes)
        self.frames_per_patch = config.local_frames
        self.to(memory_format=torch.channels_last)

    def glance(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Run f_G on whole frames.

        Args:
            frames: (B, global_frames, 3, H, W) uint8 RGB.

        Returns:
            The stacked maps, (B, global_frames·C, h, w) float32, and f_G's logits, (B, classes).
        """
        flat = self._flat(frames, self.config.global_frames)
        maps = self._run(self.global_cnn, self.resized(flat)).unflatten(0, frames.shape[:2])
        return maps.flatten(1, 2), self.global_head(maps.mean(dim=(1, 3, 4)))

    def local_vectors(self, patches: Tensor) -> Tensor:
        """f_L's vectors, (B, local_frames, local_size), of patches, (B, local_frames, 3, P, P) uint8 RGB."""
        flat = self._flat(patches, self.config.local_frames)
        return self._run(self.local_cnn, flat.to(self.device)).mean(dim=(2, 3)).unflatten(0, patches.shape[:2])

    def look(self, patches: Tensor) -> Tensor:
        """f_L's logits, (B, classes), of patches, (B, local_frames, 3, P, P) uint8 RGB."""
        return self.local_head(self.dropout(self.local_vectors(patches))).mean(dim=1)

    def samplings(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Split frames, (B, global_frames + local_frames, 3, H, W), into those for f_G and those for f_L.

        Raises:
            ValueError: The number of frames is different.
        """
        sizes = [self.config.global_frames, self.config.local_frames]
        if frames.ndim != 5 or frames.shape[1] != sum(sizes):
            raise ValueError(
                f"frames must be (B, {sizes[0]} + {sizes[1]}, 3, H, W), those for f_G first, not {tuple(frames.shape)}"
            )
        global_frames, local_frames = frames.split(sizes, dim=1)
        return global_frames, local_frames

    def cut(self, frames: Tensor, corners: Tensor, source: Tensor | None = None) -> Tensor:
        """Cut patches for f_L, (B, local_frames, 3, P, P), out of frames as :meth:`samplings` takes them.

        Args:
            frames: (M, global_frames + local_frames, 3, H, W).
            corners: (B, 2) int64, top-left pixels.
            source: (B,) int64, the clip that each patch is cut from; ``None`` cuts one from every clip, B = M.

        Raises:
            IndexError: A patch leaves its frame.
        """
        first, times = self.config.global_frames, self.config.local_frames
        if source is None:
            source = torch.arange(len(frames), device=frames.device)
        chosen = source[:, None] * frames.shape[1] + torch.arange(first, first + times, device=frames.device)
        corners = corners.repeat_interleave(times, dim=0)
        patches = crop(frames.flatten(0, 1), corners, self.config.patch_size, chosen.flatten())
        return patches.unflatten(0, (-1, times))

    def forward(self, global_frames: Tensor, local_frames: Tensor, corners: Tensor) -> Tensor:
        """Recognise clips from one patch position each.

        Args:
            global_frames: (B, config.global_frames, 3, H, W) uint8 RGB, one sampling of the clips.
            local_frames: (B, config.local_frames, 3, H, W) uint8 RGB, another.
            corners: (B, 2) int64, top-left pixels of the patches.

        Returns:
            (B, classes) float32 logits.

        Raises:
            ValueError: A shape or dtype is wrong.
            IndexError: A patch leaves its frame.
        """
        times = self.config.local_frames
        flat = self._flat(local_frames, times)
        patches = crop(flat, corners.repeat_interleave(times, dim=0), self.config.patch_size)
        return self.glance(global_frames)[1] + self.look(patches.unflatten(0, (-1, times)))

    def recognize(self, frames: Tensor, policy: Any, *, exit_threshold: None = None) -> Recognition:
        """Recognise clips with a policy, in evaluation mode: a glance, one decision and a patch position for each clip.

        Args:
            frames: (B, global_frames + local_frames, 3, H, W) uint8 RGB, one sampling after the other.
            policy: Anything with SB3's ``predict`` on batched observations and an ``action_space``, of positions or
                patch indices. It is given NumPy arrays, or tensors if it says ``takes_tensors``
                (:func:`adafocus_env.policies.decide`).
            exit_threshold: Must be ``None``, as a clip can't be left early.

        Returns:
            As for :meth:`adafocus_env.Recognizer.recognize`, with T = 1.

        Raises:
            ValueError: ``exit_threshold`` is given; ``frames`` has the wrong dtype or shape or is empty; or
                ``policy`` doesn't fit clips.
        """
        refuse_exit(exit_threshold)
        with self.evaluating():
            return recognize_clips(self, frames, policy)

    def export(self, folder: str | os.PathLike[str], policy: Any, *, graphs: Graphs = "pt2") -> Path:
        """Write the recogniser and a policy as graphs that recognise clips without this package.

        Arguments and result are those of :meth:`adafocus_env.Recognizer.export`.

        Raises:
            ImportError: As there.
            ValueError: As there, or the policy has a skip bit.
        """
        with self.evaluating():
            clip = self.config.global_frames, self.config.local_frames
            return export_graphs(self, folder, policy, looks=1, graphs=graphs, clip=clip)

    def num_steps(self, num_frames: int) -> int:
        """See :meth:`ImageNetworks.num_steps`: one, for the whole clip."""
        wanted = self.config.global_frames + self.config.local_frames
        if num_frames != wanted:
            raise ValueError(
                f"the recogniser reads {self.config.global_frames} + {self.config.local_frames} frames of a clip, but "
                f"videos have {num_frames}: pass videos with both samplings"
            )
        return 1

    def units(self, frames: Tensor) -> Tensor:
        """See :meth:`ImageNetworks.units`: the clips as they are, with both samplings."""
        return frames

    def glanced(self, units: Tensor) -> Tensor:
        """See :meth:`ImageNetworks.glanced`: the first of the two samplings."""
        return self.samplings(units)[0]

    @property
    def classifying(self) -> nn.Module:
        """See :meth:`ImageNetworks.classifying`: f_L's linear classifier."""
        return self.local_head

    def read(self, frames: Tensor, corners: Tensor) -> Tensor:
        """See :meth:`ImageNetworks.read`: of one unit, the clip."""
        return (self.glance(self.glanced(frames))[1] + self.look(self.cut(frames, corners[:, 0])))[:, None]

    def patch_vectors(self, patches: Tensor) -> Tensor:
        """See :meth:`ImageNetworks.patch_vectors`: the mean over frames."""
        return self.local_vectors(patches).mean(dim=1)

    def classify(self, global_vectors: Tensor, local_vectors: Tensor, skipped: Tensor | None) -> Tensor:
        """See :meth:`ImageNetworks.classify`: f_G's logits and those of f_L's vectors, without dropout (the paper's
        stage 3)."""
        return self.local_head(local_vectors) + global_vectors

    def blank_gates(self) -> Tensor:
        """See :meth:`ImageNetworks.blank_gates`: the head on a zero vector, its bias."""
        return self.local_head.bias

    def measure_cost(self) -> ComputeCost:
        """See :meth:`ImageNetworks.cost`: per clip."""
        size, patch = self.config.glance_size, self.config.patch_size
        clip = torch.zeros(1, self.config.global_frames, 3, size, size, dtype=torch.uint8)
        patches = torch.zeros(1, self.config.local_frames, 3, patch, patch, dtype=torch.uint8)
        return ComputeCost(
            glance=multiply_adds(lambda: self.glance(clip)) / 1e9,
            local=multiply_adds(lambda: self.look(patches)) / 1e9,
            classifier=0.0,
        )

    def _flat(self, frames: Tensor, wanted: int) -> Tensor:
        if frames.ndim != 5 or frames.shape[1] != wanted:
            raise ValueError(f"clips must be (B, {wanted}, 3, height, width), not {tuple(frames.shape)}")
        flat = frames.flatten(0, 1)
        self._check(flat)
        return flat
