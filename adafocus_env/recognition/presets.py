"""Recogniser configurations by name."""

from __future__ import annotations

from adafocus_env.recognition.backbones import BackboneConfig
from adafocus_env.recognition.recognizer import RecognizerConfig

PRESETS: dict[str, RecognizerConfig] = {
    "roaming-fashion": RecognizerConfig(
        num_classes=10,
        global_backbone=BackboneConfig("tiny_resnet", widths=(16, 16, 32, 64), strides=(2, 2, 2, 1)),
        local_backbone=BackboneConfig("tiny_resnet", widths=(32, 32, 64, 128), strides=(2, 1, 2, 2)),
        glance_size=56,
        glance_interpolation="bilinear",
        patch_size=32,
        hidden_size=128,
        dropout=0.3,
        mean=(0.43, 0.43, 0.43),
        std=(0.21, 0.21, 0.21),
    )
}
