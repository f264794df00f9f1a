"""The base class of recognisers: CNNs that read uint8 images, and files that hold configuration and weights."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import math
import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar, cast, get_args

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.fx.proxy import TraceError
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from adafocus_env.recognition.backbones import BackboneConfig, build_backbone, map_bounds
from adafocus_env.recognition.compute_cost import ComputeCost
from adafocus_env.weights import find_file, load_weights, read_safetensors, write_safetensors

Precision = Literal["float32", "bfloat16"]
"""Type of number in which the CNNs compute."""
CHECKPOINTS = Path(__file__).parent / "checkpoints"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class NetworkConfig:
    """Settings that determine a recogniser except for its weights, as far as all kinds share them.

    Attributes:
        num_classes: Number of classes.
        global_backbone: f_G.
        local_backbone: f_L.
        glance_size: Height and width to which a frame is resized for f_G, pixels.
        glance_interpolation: ``"nearest"`` (the reference code's) or ``"bilinear"`` (antialiased).
        patch_size: P, height and width of the patch that f_L reads, pixels of the full frame.
        mean: Mean of each colour channel, on the scale [0, 1].
        std: Standard deviation of each colour channel, on the scale [0, 1].
    """

    num_classes: int
    global_backbone: BackboneConfig = field(default_factory=BackboneConfig)
    local_backbone: BackboneConfig = field(default_factory=BackboneConfig)
    glance_size: int = 224
    glance_interpolation: str = "nearest"
    patch_size: int = 128
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.glance_interpolation not in ("nearest", "bilinear"):
            raise ValueError(f"glance_interpolation must be 'nearest' or 'bilinear', not {self.glance_interpolation!r}")
        for name, value in asdict(self).items():
            if isinstance(value, int) and value < 1 and not isinstance(value, bool):
                raise ValueError(f"{name} must be at least 1, not {value}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``dataclasses.asdict``, also for values that went through JSON."""
        values = dict(values)
        for name in ("global_backbone", "local_backbone"):
            backbone = dict(values[name])
            values[name] = BackboneConfig(backbone["name"], tuple(backbone["widths"]), tuple(backbone["strides"]))
        values["mean"], values["std"] = tuple(values["mean"]), tuple(values["std"])
        return cls(**values)


Config = TypeVar("Config", bound=NetworkConfig)


class ImageNetworks(nn.Module, Generic[Config]):
    """Two CNNs that read uint8 images, and what else a recogniser needs.

    A policy makes one decision per unit, which is a frame or a whole clip. In each unit, f_G reads the glance
    (:meth:`glance`) and f_L reads a patch (:meth:`cut`, :meth:`look`); ``classifier`` combines their outputs.

    Args:
        config: Sizes. Use :meth:`from_pretrained` for trained weights.
        backbone_weights: Name of torchvision's ImageNet weights for both CNNs to start from, downloaded once;
            ``None`` draws all weights at random.

    Attributes:
        config: The argument.
        metadata: Free text kept with the weights: how they were trained and what they reached.
        global_cnn: f_G.
        local_cnn: f_L.
        classifier: Combines the CNNs' outputs, as :class:`adafocus_env.recognition.classifier.RecurrentClassifier`.
        glance_shape: (C, h, w), shape of the map that a policy sees of a unit.
        glance_bounds: Finite bounds of the map's values.
        local_size: Length of f_L's vectors.
        frames_per_patch: Number of images that f_L reads per unit.
    """

    config_class: ClassVar[type[NetworkConfig]]
    file_format: ClassVar[str]
    classifier: Any
    glance_shape: tuple[int, int, int]
    local_size: int
    frames_per_patch: int = 1

    def __init__(self, config: Config, backbone_weights: str | None = None) -> None:
        super().__init__()
        self.config = config
        self.metadata: dict[str, str] = {}
        self._cost: ComputeCost | None = None
        self.register_buffer("mean", torch.tensor(config.mean), persistent=False)
        self.register_buffer("std", torch.tensor(config.std), persistent=False)
        self.global_cnn = build_backbone(config.global_backbone, backbone_weights)
        self.local_cnn = build_backbone(config.local_backbone, backbone_weights)
        self.glance_bounds = map_bounds(self.global_cnn)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.get_buffer("mean").device

    def batches(self, images: Tensor, side: int) -> Iterator[Tensor]:
        """Split images into equal batches of a size at which the CNNs run fast.

        On the CPU that is about 0.8 MB per colour channel (measured on MobileNet-V2, ResNet-50 and the embedded
        networks); a GPU takes a hundred times as much.

        Args:
            images: (B, 3, H, W), or clips, (B, T, 3, H, W).
            side: Height and width at which the CNN sees them, pixels.
        """
        budget = 800_000 if self.device.type == "cpu" else 80_000_000
        itemsize = next(self.local_cnn.parameters()).dtype.itemsize
        wanted = max(1, budget // (itemsize * side**2 * math.prod(images.shape[1:-3])))
        yield from images.tensor_split(max(1, round(len(images) / wanted)))

    def _check(self, images: Tensor, *more_dtypes: torch.dtype) -> None:
        """Raise ``ValueError`` unless these are uint8 images, or images of another dtype that is allowed too."""
        if images.dtype not in (torch.uint8, *more_dtypes) or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(
                f"images must be (B, 3, height, width) uint8 RGB, not {images.dtype} of shape {tuple(images.shape)}"
            )

    def resized(self, frames: Tensor) -> Tensor:
        """Resize frames, (B, 3, H, W) uint8 RGB, to the size that f_G reads; frames of that size are unchanged.

        They stay uint8, as in torchvision, which on the CPU is five times as fast as floating point.
        """
        self._check(frames)
        size = [self.config.glance_size] * 2
        return resize(frames.to(self.device), size, InterpolationMode(self.config.glance_interpolation))

    def normalize(self, images: Tensor) -> Tensor:
        """Normalise (B, 3, height, width) images to the float32 that the CNNs read.

        They are uint8, or float32 on the same scale from 0 to 255, as :func:`~adafocus_env.patches.interpolated_crop`
        cuts them; gradients flow back to these.
        """
        rows = images.to(self.device).permute(0, 2, 3, 1).flatten(2)  # whole rows: five times as fast as pixels
        mean, std = (self.get_buffer(name).repeat(images.shape[-1]) for name in ("mean", "std"))
        values = rows.to(torch.float32, copy=True)  # what follows writes into it
        values = values.div_(255).sub_(mean).div_(std)  # torchvision's order, to the last bit
        return values.unflatten(2, (-1, 3)).permute(0, 3, 1, 2)

    def _run(self, cnn: nn.Module, images: Tensor) -> Tensor:
        """Normalise images and run a CNN on them in the precision of its weights; return float32 maps."""
        maps: Tensor = cnn(self.normalize(images).to(next(cnn.parameters()).dtype))
        return maps.float()

    @abstractmethod
    def num_steps(self, num_frames: int) -> int:
        """Number of units in a video, which is the number of decisions in an episode.

        Raises:
            ValueError: The recogniser can't read videos of this many frames.
        """

    @abstractmethod
    def units(self, frames: Tensor) -> Tensor:
        """(B·units, …) uint8, the units of videos, (B, T, 3, H, W)."""

    @abstractmethod
    def glanced(self, units: Tensor) -> Tensor:
        """The frames of units that f_G reads, for :meth:`glance`: (B, …, 3, H, W)."""

    @abstractmethod
    def glance(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Run f_G on units; return maps for a policy, (B, C, h, w), and the classifier's input, (B, …)."""

    @abstractmethod
    def cut(self, units: Tensor, corners: Tensor, source: Tensor | None = None) -> Tensor:
        """Cut patches for f_L.

        Args:
            units: (M, …) uint8.
            corners: (B, 2) int64, top-left pixels.
            source: (B,) int64, the unit that each patch is cut from; ``None`` cuts one patch from every unit, B = M.

        Raises:
            IndexError: A patch leaves its frame.
        """

    @abstractmethod
    def look(self, patches: Tensor) -> Tensor:
        """Run f_L on (B, …) patches; return the classifier's input, (B, …) float32."""

    @property
    @abstractmethod
    def classifying(self) -> nn.Module:
        """The part that turns f_L's output into predictions, and which stages 1 and 3 train besides f_L."""

    @abstractmethod
    def read(self, frames: Tensor, corners: Tensor) -> Tensor:
        """Logits after every unit, in the mode (training or evaluation) of each network.

        Args:
            frames: (B, T, 3, H, W) uint8.
            corners: (B, units, 2) int64, top-left pixels of the patches.

        Returns:
            (B, units, classes) float32.
        """

    @abstractmethod
    def patch_vectors(self, patches: Tensor) -> Tensor:
        """f_L's vectors of patches, (B, local_size) float32, before any classifier."""

    @abstractmethod
    def classify(self, global_vectors: Tensor, local_vectors: Tensor, skipped: Tensor | None) -> Tensor:
        """Logits after every unit.

        Args:
            global_vectors: (B, units, …), the second result of :meth:`glance`.
            local_vectors: (B, units, local_size), as :meth:`patch_vectors` gives them.
            skipped: (B, units) bool, units that change nothing; ``None`` if there are none.

        Returns:
            (B, units, classes) float32.
        """

    @abstractmethod
    def blank_gates(self) -> Tensor:
        """The projection of an all-zero local vector, for the classifier."""

    @abstractmethod
    def measure_cost(self) -> ComputeCost:
        """Multiply-adds of each component on one unit, measured on the modules themselves, on the CPU."""

    def cost(self) -> ComputeCost:
        """Multiply-adds of each component on one unit, measured on the modules themselves, once."""
        if self._cost is None:
            self._cost = copy.deepcopy(self).eval().cpu().measure_cost()
        return self._cost

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode without gradients in a ``with`` block; afterwards the former mode is restored."""
        training = self.training
        try:
            with torch.no_grad():
                self.eval()
                yield
        finally:
            self.train(training)

    def frozen(self) -> Self:
        """An independent copy in evaluation mode that needs no gradients."""
        return copy.deepcopy(self).eval().requires_grad_(False)

    def deployed(self, precision: Precision = "float32", global_precision: Precision | None = None) -> Self:
        """A frozen copy made for speed: batch norms folded into the convolutions before them, CNNs in ``precision``.

        In float32 it is a fifth faster on the CPU, and equal up to rounding. It is not meant to be saved or trained.

        Args:
            precision: ``"float32"``, or ``"bfloat16"`` where the hardware has it. The classifier stays in float32.
            global_precision: Precision of the global CNN, as policies are sensitive to rounding of its maps; ``None``
                means ``precision``.

        Raises:
            ValueError: A precision is unknown.
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
        return _digest(asdict(self.config), self.state_dict())

    def glance_fingerprint(self) -> str:
        """Hash of what a policy's glances depend on, which stage 3 leaves as it is: f_G and how frames are prepared."""
        names = "global_backbone", "glance_size", "glance_interpolation", "mean", "std"
        settings = asdict(self.config)
        return _digest({name: settings[name] for name in names}, self.global_cnn.state_dict())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write configuration, metadata and weights, with a checksum of them, as one safetensors file, atomically.

        Args:
            path: File to write; by custom it ends in ``.safetensors``.
        """
        header = {"format": self.file_format, "config": json.dumps(asdict(self.config)), **self.metadata}
        write_safetensors(path, header, self.state_dict())

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Self:
        """Load a shipped recogniser by name, or one written by :meth:`save` by path; in evaluation mode.

        Args:
            name_or_path: As for :func:`adafocus_env.load_recognizer`.
            device: torch device.

        Raises:
            FileNotFoundError: It is neither a shipped name nor a file.
            ValueError: The file doesn't hold such a recogniser, its bytes have changed since it was written (files of
                earlier versions don't reveal that), or weights are not finite.
        """
        path = find_file("recognizer", name_or_path, CHECKPOINTS, ".safetensors")
        header, weights = read_safetensors(path)
        if header.get("format") != cls.file_format:
            raise ValueError(
                f"{path} is not a recogniser of format {cls.file_format!r}, but of {header.get('format')!r}: those of "
                f"AdaFocus-v0 are written by Recognizer.save, those of AdaFocusTSM-v0 by TSMRecognizer.save"
            )
        for name in ("format", "checksum"):
            header.pop(name, None)
        try:
            recognizer = cls(cast(Config, cls.config_class.from_dict(json.loads(header.pop("config")))))
            load_weights(recognizer, weights)
        except ValueError as error:
            raise ValueError(f"{path} can't be used as a {cls.__name__}: {error}") from error
        except (KeyError, RuntimeError, TypeError) as error:
            raise ValueError(f"{path} does not hold a {cls.__name__}'s configuration: {error!r}") from error
        recognizer.metadata = header
        return recognizer.to(device).eval()


def _digest(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of settings and of the names and bytes of tensors, in sorted order."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def read_format(name_or_path: str | os.PathLike[str]) -> str | None:
    """The ``file_format`` of the class that wrote a recogniser's file.

    Args:
        name_or_path: As for :meth:`ImageNetworks.from_pretrained`.

    Raises:
        FileNotFoundError: It is neither a shipped name nor a file.
        ValueError: The file is not a safetensors file.
    """
    path = find_file("recognizer", name_or_path, CHECKPOINTS, ".safetensors")
    return read_safetensors(path, with_tensors=False)[0].get("format")
