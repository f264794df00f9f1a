from __future__ import annotations

import sys
from typing import Any

import pytest
from torchvision.models import ResNet50_Weights
from torchvision.models import video as torchvision_video

from agents.experiments.whole_video import IMAGE, NETWORKS, whole_video_rows
from scripts.cost_table import show_whole_videos

BY_NAME = {network.name: network for network in NETWORKS}
METADATA = {
    "R(2+1)D-18": torchvision_video.R2Plus1D_18_Weights,
    "S3D": torchvision_video.S3D_Weights,
    "MViT-B 16×4": torchvision_video.MViT_V1_B_Weights,
    "MViTv2-S 16×4": torchvision_video.MViT_V2_S_Weights,
    "Swin3D-T": torchvision_video.Swin3D_T_Weights,
}
FROM_PYTORCHVIDEO = {"I3D-ResNet-50", "SlowFast-ResNet-50 4×16"}


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    """The table where PyTorchVideo can't be imported, whether it is installed or not."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("pytorchvideo", "pytorchvideo.models.hub", "pytorchvideo.models.slowfast"):
            patch.setitem(sys.modules, module, None)
        return {row["network"]: row for row in whole_video_rows()}


def frames(name: str) -> int:
    return BY_NAME[name].inputs[0][2]


def test_one_image_and_tsm_cost_what_is_published(rows: dict[str, dict[str, Any]]) -> None:
    assert rows["ResNet-50, one image"]["measured"] == pytest.approx(4.1, rel=0.01)
    assert rows["ResNet-50, one image"]["published"] == ResNet50_Weights.DEFAULT.meta["_ops"]
    assert rows["TSM-ResNet-50"]["measured"] == pytest.approx(32.7, rel=1e-3)


@pytest.mark.parametrize("name", METADATA)
def test_networks_of_torchvision_cost_what_its_metadata_say_of_16_frames(
    rows: dict[str, dict[str, Any]], name: str
) -> None:
    of_clip = METADATA[name].DEFAULT.meta["_ops"] * frames(name) / 16
    assert rows[name]["measured"] == pytest.approx(of_clip, rel=1e-3)
    assert rows[name]["published"] == pytest.approx(of_clip, rel=2e-3)


@pytest.mark.parametrize("name", METADATA)
def test_views_and_frames_are_those_of_torchvisions_documentation(name: str) -> None:
    documented = METADATA[name].DEFAULT.meta["_docs"]
    assert f"`clips_per_video={BY_NAME[name].views}`" in documented
    assert f"`clip_len={frames(name)}`" in documented


@pytest.mark.parametrize("name", sorted(FROM_PYTORCHVIDEO))
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_networks_of_pytorchvideo_cost_what_is_published(name: str) -> None:
    pytest.importorskip("pytorchvideo")
    assert BY_NAME[name].measured() == pytest.approx(BY_NAME[name].published, rel=0.005)


def test_what_cannot_be_measured_is_marked_and_priced_as_published(rows: dict[str, dict[str, Any]]) -> None:
    assert {name for name, row in rows.items() if row["basis"] == "published"} == FROM_PYTORCHVIDEO
    assert rows["I3D-ResNet-50"]["video"] == 2 * 153
    assert rows["SlowFast-ResNet-50 4×16"]["video"] == pytest.approx(30 * 36.1)
    for name, row in rows.items():
        assert (row["measured"] is None) == (name in FROM_PYTORCHVIDEO)
        if name not in FROM_PYTORCHVIDEO:
            assert row["video"] == row["views"] * row["measured"]


def test_the_printed_table_marks_what_was_not_measured(
    rows: dict[str, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    show_whole_videos(list(rows.values()))
    printed = capsys.readouterr().out
    starred = [line for line in printed.splitlines() if "306.0*" in line or "1083.0*" in line]
    assert len(starred) == len(FROM_PYTORCHVIDEO)
    assert printed.count("*") == 2 * len(FROM_PYTORCHVIDEO) + 1  # of video and images, and the caption's
    assert "[costs]" in printed


def test_whole_videos_take_the_compute_of_8_to_75_images(rows: dict[str, dict[str, Any]]) -> None:
    """The range from TSM to I3D that is quoted for whole-video networks."""
    assert rows["ResNet-50, one image"]["images"] == 1
    assert rows["TSM-ResNet-50"]["images"] == pytest.approx(8, abs=0.05)
    assert rows["I3D-ResNet-50"]["images"] == pytest.approx(75, abs=0.5)


def test_a_view_is_named_by_its_frames() -> None:
    assert IMAGE.view == "1 × 224²"
    assert BY_NAME["TSM-ResNet-50"].view == "8 × 224²"
    assert BY_NAME["SlowFast-ResNet-50 4×16"].view == "4 + 32 × 256²"
