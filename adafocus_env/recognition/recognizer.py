"""The recogniser: f_G, f_L and f_C with their own normalisation, glance size and patch size."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.fx.proxy import TraceError
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from adafocus_env.files import write_atomically
from adafocus_env.patches import crop
from adafocus_env.recognition.backbones import BackboneConfig, build_backbone, map_bounds, map_shape
from adafocus_env.recognition.classifier import RecurrentClassifier
from adafocus_env.recognition.compute_cost import ComputeCost, multiply_adds

CHECKPOINTS = Path(__file__).parent / "checkpoints"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FORMAT = "adafocus-recognizer-1"

Precision = Literal["float32", "bfloat16"]
"""What the CNNs compute in."""


@dataclass(frozen=True)
class RecognizerConfig:
    """Everything that determines a recogniser but its weights.

    Attributes:
        num_classes: Number of classes.
        global_backbone: f_G.
        local_backbone: f_L.
        glance_size: Height and width to which a frame is resized for f_G, pixels.
        glance_interpolation: ``"nearest"`` (the reference code's) or ``"bilinear"`` (antialiased).
        patch_size: P, height and width of the patch that f_L reads, pixels of the full frame.
        hidden_size: D, length of f_C's hidden state.
        dropout: Dropout before f_C's last layer, in training.
        mean: Mean of each colour channel, on the scale [0, 1].
        std: Standard deviation of each colour channel, on the scale [0, 1].
    """

    num_classes: int
    global_backbone: BackboneConfig = field(default_factory=BackboneConfig)
    local_backbone: BackboneConfig = field(default_factory=BackboneConfig)
    glance_size: int = 224
    glance_interpolation: str = "nearest"
    patch_size: int = 128
    hidden_size: int = 1024
    dropout: float = 0.8
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.glance_interpolation not in ("nearest", "bilinear"):
            raise ValueError(f"glance_interpolation must be 'nearest' or 'bilinear', not {self.glance_interpolation!r}")
        for name in ("num_classes", "glance_size", "patch_size", "hidden_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RecognizerConfig:
        """The inverse of ``dataclasses.asdict``, also after a passage through JSON."""
        values = dict(values)
        for name in ("global_backbone", "local_backbone"):
            backbone = dict(values[name])
            values[name] = BackboneConfig(backbone["name"], tuple(backbone["widths"]), tuple(backbone["strides"]))
        values["mean"], values["std"] = tuple(values["mean"]), tuple(values["std"])
        return cls(**values)


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


class Recognizer(nn.Module):
    """f_G, f_L and f_C (paper, Sec. 3.1).

    Args:
        config: Sizes. Use :meth:`from_pretrained` for trained weights.
        backbone_weights: Name of torchvision's ImageNet weights for both CNNs to start from, downloaded once;
            ``None`` draws all weights at random.

    Attributes:
        config: The :class:`RecognizerConfig`.
        metadata: Free text kept with the weights: how they were trained and what they reached.
    """

    def __init__(self, config: RecognizerConfig, *, backbone_weights: str | None = None) -> None:
        super().__init__()
        self.config = config
        self.metadata: dict[str, str] = {}
        self._cost: ComputeCost | None = None
        self.global_cnn = build_backbone(config.global_backbone, backbone_weights)
        self.local_cnn = build_backbone(config.local_backbone, backbone_weights)
        self.glance_shape = map_shape(self.global_cnn, config.glance_size)
        self.glance_bounds = map_bounds(self.global_cnn)
        self.local_size = map_shape(self.local_cnn, config.patch_size)[0]
        self.classifier = RecurrentClassifier(
            self.glance_shape[0], self.local_size, config.hidden_size, config.num_classes, config.dropout
        )
        self.register_buffer("mean", torch.tensor(config.mean), persistent=False)
        self.register_buffer("std", torch.tensor(config.std), persistent=False)
        self.to(memory_format=torch.channels_last)  # faster convolutions on CPU and GPU alike

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.classifier.fc.weight.device

    def batches(self, images: Tensor, side: int) -> Iterator[Tensor]:
        """Split images into equal batches of a size at which the CNNs run fast.

        On the CPU that is about 0.8 MB per colour channel (measured on MobileNet-V2, ResNet-50 and the embedded
        networks); a GPU takes a hundred times as much.

        Args:
            images: (B, …).
            side: Height and width at which the CNN sees them, pixels.
        """
        budget = 800_000 if self.device.type == "cpu" else 80_000_000
        itemsize = next(self.local_cnn.parameters()).dtype.itemsize
        wanted = max(1, budget // (itemsize * side**2))
        yield from images.tensor_split(max(1, round(len(images) / wanted)))

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

    def _check(self, images: Tensor) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(
                f"images must be (B, 3, height, width) uint8 RGB, not {images.dtype} of shape {tuple(images.shape)}"
            )

    def _run(self, cnn: nn.Module, images: Tensor) -> Tensor:
        """Normalise uint8 images and run a CNN on them in the precision of its weights; float32 maps."""
        values = images.to(torch.float32, memory_format=torch.channels_last)
        rows = values.permute(0, 2, 3, 1).flatten(2)  # whole rows at once: five times as fast as three by three
        mean, std = (self.get_buffer(name).repeat(images.shape[-1]) for name in ("mean", "std"))
        rows.div_(255).sub_(mean).div_(std)  # torchvision's order, to the last bit
        maps: Tensor = cnn(values.to(next(cnn.parameters()).dtype))
        return maps.float()

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

    def fingerprint(self) -> str:
        """Hash of configuration and weights: the key of everything computed with this recogniser."""
        digest = hashlib.sha256(json.dumps(asdict(self.config), sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write configuration, metadata and weights as one safetensors file, atomically.

        Args:
            path: File to write; by custom it ends in ``.safetensors``.
        """
        header = {"format": FORMAT, "config": json.dumps(asdict(self.config)), **self.metadata}
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        write_atomically(path, save(weights, metadata=header))

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Recognizer:
        """Load a shipped recogniser by name, or one written by :meth:`save` by path; in evaluation mode.

        Raises:
            FileNotFoundError: Neither a shipped name nor a file.
            ValueError: The file is not a recogniser's.
        """
        path = CHECKPOINTS / f"{name_or_path}.safetensors"
        if not path.is_file():
            path = Path(name_or_path)
        if not path.is_file():
            shipped = sorted(file.stem for file in CHECKPOINTS.glob("*.safetensors"))
            raise FileNotFoundError(
                f"recognizer {str(name_or_path)!r} is neither a file nor one of the shipped ones: {shipped}"
            )
        try:
            with safe_open(path, framework="pt") as file:
                header = dict(file.metadata() or {})
                weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file: {error}") from error
        if header.pop("format", None) != FORMAT:
            raise ValueError(f"{path} is not a recogniser of format {FORMAT!r}; write one with Recognizer.save")
        recognizer = cls(RecognizerConfig.from_dict(json.loads(header.pop("config"))))
        try:
            recognizer.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(f"{path} does not hold the weights its configuration asks for: {error}") from error
        recognizer.metadata = header
        return recognizer.to(device).eval()
