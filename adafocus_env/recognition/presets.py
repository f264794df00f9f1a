"""Recogniser configurations by name."""

from __future__ import annotations

from typing import Any

from adafocus_env.recognition.backbones import BackboneConfig
from adafocus_env.recognition.recognizer import RecognizerConfig
from adafocus_env.recognition.tsm_recognizer import TSMConfig


def paper_config(num_classes: int, patch_size: int) -> RecognizerConfig:
    """The paper's recogniser: MobileNet-V2, ResNet-50, a GRU of 1024 (Sec. 4.1)."""
    return RecognizerConfig(
        num_classes=num_classes,
        global_backbone=BackboneConfig("mobilenet_v2"),
        local_backbone=BackboneConfig("resnet50"),
        patch_size=patch_size,
    )


def tsm_config(num_classes: int, patch_size: int) -> TSMConfig:
    """The paper's recogniser for Something-Something: MobileNet-V2-TSM, ResNet-50-TSM (Sec. 4.2)."""
    return TSMConfig(num_classes=num_classes, patch_size=patch_size)


NUM_CLASSES = {"activitynet": 200, "fcvid": 239, "mini-kinetics": 200}
"""Classes of the data sets that the paper reports on."""
PATCH_SIZES = (96, 128, 160, 192)

_EMBEDDED: dict[str, Any] = {
    "num_classes": 10,
    "global_backbone": BackboneConfig("tiny_resnet", widths=(16, 16, 32, 64), strides=(2, 2, 2, 1)),
    "glance_size": 56,
    "glance_interpolation": "bilinear",
    "dropout": 0.3,
    "mean": (0.43, 0.43, 0.43),
    "std": (0.21, 0.21, 0.21),
}
"""What the recognisers of all embedded benchmarks share, as their videos and pictures share the scenery."""

_EMBEDDED_CONFIG = RecognizerConfig(
    **_EMBEDDED,
    local_backbone=BackboneConfig("tiny_resnet", widths=(32, 32, 64, 128), strides=(2, 1, 2, 2)),
    patch_size=32,
    hidden_size=128,
)

PRESETS: dict[str, RecognizerConfig] = {
    "roaming-fashion": _EMBEDDED_CONFIG,
    "still-fashion": _EMBEDDED_CONFIG,
    **{
        f"{name}-{patch_size}": paper_config(num_classes, patch_size)
        for name, num_classes in NUM_CLASSES.items()
        for patch_size in PATCH_SIZES
    },
}
"""Configurations by name: ``"roaming-fashion"`` and ``"still-fashion"``, and the paper's by data set and patch size,
such as ``"activitynet-96"``, ``"fcvid-128"``, ``"mini-kinetics-160"``."""

TSM_PATCH_SIZES = (144, 160, 176)
TSM_PRESETS: dict[str, TSMConfig] = {
    "roaming-motion": TSMConfig(
        **_EMBEDDED,
        local_backbone=BackboneConfig("tiny_resnet", widths=(32, 32, 64, 128), strides=(2, 2, 2, 2)),
        patch_size=40,
        global_frames=4,
        local_frames=6,
    ),
    **{
        f"something-{version}-{patch_size}": tsm_config(174, patch_size)
        for version in ("v1", "v2")
        for patch_size in TSM_PATCH_SIZES
    },
}
"""Configurations by name: ``"roaming-motion"``, and AdaFocus-TSM's, such as ``"something-v1-144"``."""
