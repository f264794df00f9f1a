"""Networks that read whole frames of whole videos: what they read, and what it costs, as published and as measured.

The published figures, all of them multiply-adds:

- ResNet-50 and torchvision's video networks: the GFLOPs in the metadata of torchvision's weights, and the clips and
  frames of their documentation. The metadata are of 16 frames whatever the clip; the cost of S3D, which reads 128, is
  proportional to the frames, so its figure is eight times that.
- TSM: Wang et al. 2021 (AdaFocus), Table 4; Lin et al. 2019 round it to 33.
- I3D: Lin et al. 2019 (TSM), who take two clips of the network of Wang and Gupta 2018, whose last stage has no stride.
- SlowFast 4×16: Feichtenhofer et al. 2019, with crops of 256² in ten clips and three places.
- Swin3D-T: the repository of Liu et al. 2021 (Video Swin Transformer), with four clips in three places.

I3D and SlowFast come from PyTorchVideo, which the extra ``costs`` installs. Without it, they have their published
figure alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torchvision.models import resnet50
from torchvision.models.video import mvit_v1_b, mvit_v2_s, r2plus1d_18, s3d, swin3d_t

from adafocus_env.recognition.compute_cost import multiply_adds
from adafocus_env.recognition.temporal_shift import insert_temporal_shift

TORCHVISION = "torchvision's weights"
Shape = tuple[int, ...]


def tsm_resnet50() -> nn.Module:
    """TSM-ResNet-50 for Something-Something's 174 classes; it takes the 8 frames of a clip as a batch."""
    return insert_temporal_shift(resnet50(num_classes=174), 8)


def i3d_resnet50() -> nn.Module:
    """I3D-ResNet-50 for 32 frames, with every second block inflated and a last stage without stride.

    Raises:
        ImportError: PyTorchVideo is not installed.
    """
    from pytorchvideo.models.hub import i3d_r50

    strides = (1, 2, 2, 1)
    return i3d_r50(stage_spatial_h_stride=strides, stage_spatial_w_stride=strides, head_pool_kernel_size=(16, 14, 14))


def slowfast_resnet50() -> nn.Module:
    """SlowFast-ResNet-50 4×16: 4 slow and 32 fast frames, an eighth of the channels, lateral kernels of 5 frames.

    Raises:
        ImportError: PyTorchVideo is not installed.
    """
    from pytorchvideo.models.slowfast import create_slowfast

    return create_slowfast(
        slowfast_fusion_conv_kernel_size=(5, 1, 1),
        slowfast_fusion_conv_stride=(8, 1, 1),
        head_pool_kernel_sizes=((4, 8, 8), (32, 8, 8)),
    )


@dataclass(frozen=True)
class WholeVideoNetwork:
    """A network, and what it reads of a video.

    Attributes:
        name: For tables.
        make: Makes the network with random weights, on the device of the context; raises ``ImportError`` if the library
            that it comes from is missing.
        inputs: Shape of every input of one view: (1, 3, frames, height, width), or of images (N, 3, height, width).
        views: Number of clips times crops per video.
        published: GFLOPs of one view.
        source: Where that figure is published.
    """

    name: str
    make: Callable[[], nn.Module]
    inputs: tuple[Shape, ...]
    views: int
    published: float
    source: str

    @property
    def view(self) -> str:
        """What one view is, such as ``4 + 32 × 256²``."""
        size = self.inputs[0][-1]
        return f"{' + '.join(str(math.prod(shape) // (3 * size**2)) for shape in self.inputs)} × {size}²"

    def measured(self) -> float | None:
        """GFLOPs of one view by torch's counter, on tensors without data.

        Convolutions and matrix products count, those of attention included; pooling, normalisation, activations and
        sums don't, nor do they in the publications.

        Returns:
            None if the library that the network comes from is missing.
        """
        with torch.device("meta"):
            try:
                network = self.make().eval()
            except ImportError:
                return None
            clips = [torch.zeros(shape) for shape in self.inputs]
            return multiply_adds(lambda: network(clips if len(clips) > 1 else clips[0])) / 1e9


IMAGE = WholeVideoNetwork("ResNet-50, one image", resnet50, ((1, 3, 224, 224),), 1, 4.089, TORCHVISION)
"""The unit in which networks are compared."""
NETWORKS = (
    IMAGE,
    WholeVideoNetwork("TSM-ResNet-50", tsm_resnet50, ((8, 3, 224, 224),), 1, 32.7, "AdaFocus"),
    WholeVideoNetwork("I3D-ResNet-50", i3d_resnet50, ((1, 3, 32, 224, 224),), 2, 153.0, "TSM"),
    WholeVideoNetwork(
        "SlowFast-ResNet-50 4×16", slowfast_resnet50, ((1, 3, 4, 256, 256), (1, 3, 32, 256, 256)), 30, 36.1, "SlowFast"
    ),
    WholeVideoNetwork("R(2+1)D-18", r2plus1d_18, ((1, 3, 16, 112, 112),), 5, 40.519, TORCHVISION),
    WholeVideoNetwork("S3D", s3d, ((1, 3, 128, 224, 224),), 1, 8 * 17.979, TORCHVISION),
    WholeVideoNetwork("MViT-B 16×4", mvit_v1_b, ((1, 3, 16, 224, 224),), 5, 70.599, TORCHVISION),
    WholeVideoNetwork("MViTv2-S 16×4", mvit_v2_s, ((1, 3, 16, 224, 224),), 5, 64.224, TORCHVISION),
    WholeVideoNetwork("Swin3D-T", swin3d_t, ((1, 3, 32, 224, 224),), 12, 87.9, "Video Swin"),
)


def whole_video_rows() -> list[dict[str, Any]]:
    """A row per network: GFLOPs per view as measured and as published, GFLOPs per video, and multiples of one image.

    Video and multiple are of the measured figure. Where there is none, ``basis`` says ``published`` instead of
    ``measured``, and they are of the published one.
    """
    image = IMAGE.measured()
    assert image is not None
    rows = []
    for network in NETWORKS:
        measured = network.measured()
        video = network.views * (network.published if measured is None else measured)
        rows.append(
            {
                "network": network.name,
                "view": network.view,
                "views": network.views,
                "measured": measured,
                "published": network.published,
                "source": network.source,
                "basis": "published" if measured is None else "measured",
                "video": video,
                "images": video / image,
            }
        )
    return rows
