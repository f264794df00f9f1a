"""What equals the released code: the frames that are read, how they are resized and cropped, its metric.

What it does is written down here again, from its behaviour, with Pillow's own functions.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from adafocus_env import FrameFolders, VideoFiles
from adafocus_env.videos import get_videos
from adafocus_env.videos.views import evaluation_view, middle_frames, random_frames, training_crops, training_view
from agents import Evaluation

# ------------------------------------------------------------------------------------------------------------ frames


@pytest.mark.parametrize("frames", [1, 5, 8, 12])
def test_evaluation_repeats_the_first_frame_unless_there_are_more_than_it_reads(frames: int) -> None:
    """Something-Something: frames are spread only where n > T."""
    for available in range(1, frames + 1):
        assert middle_frames(available, frames, "first").tolist() == [0] * frames
    assert middle_frames(frames, frames, "last").tolist() == list(range(frames))
    more = middle_frames(frames + 1, frames, "first").tolist()
    assert more == [int((frames + 1) / frames * (k + 0.5)) for k in range(frames)]
    # Training spreads them from n = T on.
    drawn = random_frames(frames, frames, np.random.default_rng(0), "first").tolist()
    assert drawn == list(range(frames))


# ------------------------------------------------------------------------------------------------------------- views

SIZES = [  # height, width
    (1, 1), (1, 3), (5, 2), (7, 9), (31, 33), (48, 48), (48, 64), (64, 48), (56, 71), (71, 56), (57, 57), (55, 100),
    (101, 54), (240, 320), (320, 240), (255, 257), (256, 340), (181, 97), (360, 202), (59, 173), (112, 61),
]  # fmt: skip


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def as_seen(image: Image.Image, resized: int, size: int) -> np.ndarray:
    """Shorter side to ``resized``, the longer one cut off to whole pixels; the centre, rounded to even."""
    width, height = image.size
    tall, wide = (int(resized * long / short) for long, short in ((height, width), (width, height)))
    image = image.resize((resized, tall) if width < height else (wide, resized), Image.Resampling.BILINEAR)
    left, top = (int(round((side - size) / 2)) for side in image.size)  # noqa: RUF046
    return np.asarray(image.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize(("resized", "size"), [(56, 48), (57, 48), (33, 33)])
def test_evaluation_views_are_pillows_to_the_bit(tmp_path: Path, resized: int, size: int) -> None:
    for height, width in SIZES:
        folder = tmp_path / "frames" / f"{height}x{width}"
        folder.mkdir(parents=True)
        picture(height, width).save(folder / "1.png")
    (tmp_path / "list.txt").write_text("\n".join(f"{height}x{width} 3 0" for height, width in SIZES))
    for path in (tmp_path / "frames").glob("*/1.png"):
        for number in (2, 3):
            path.with_name(f"{number}.png").write_bytes(path.read_bytes())
    (tmp_path / "set.toml").write_text(
        'root = "frames"\ntrain_list = "list.txt"\ntest_list = "list.txt"\nnum_classes = 1\ntemplate = "{}.png"\n'
        f'num_frames = 2\nframe_size = {size}\nresized = {resized}\nresize = "pillow"\n'
    )
    videos = get_videos(str(tmp_path / "set.toml"), "test")
    found = videos.frames(torch.arange(len(SIZES)))
    for row, (height, width) in enumerate(SIZES):
        wanted = as_seen(picture(height, width), resized, size)
        for frame in found[row]:
            np.testing.assert_array_equal(frame.permute(1, 2, 0).numpy(), wanted, f"{height}x{width}")


def test_the_paper_s_sizes_are_pillows_too_and_torch_s_are_close() -> None:
    """Short side 256, centre 224."""
    for height, width in [(240, 320), (360, 202), (480, 271)]:
        image = picture(height, width)
        frames = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        wanted = torch.from_numpy(as_seen(image, 256, 224).copy()).permute(2, 0, 1)[None]
        assert torch.equal(evaluation_view(frames, 256, 224, "pillow"), wanted)
        difference = (evaluation_view(frames, 256, 224).int() - wanted.int()).abs()
        assert difference.max() <= 1


def test_who_resizes_is_checked_and_part_of_what_a_data_set_is(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "list.csv").write_text("a.mp4,0")
    settings: dict[str, Any] = {"num_classes": 1}
    by_torch, by_pillow = (
        VideoFiles(tmp_path, tmp_path / "list.csv", resize=by, **settings) for by in ("torch", "pillow")
    )
    assert by_torch.fingerprint != by_pillow.fingerprint
    with pytest.raises(ValueError, match="resize must be one of"):
        VideoFiles(tmp_path, tmp_path / "list.csv", resize="cv2", **settings)


def test_training_crops_of_a_340_by_256_frame() -> None:
    """Ten shapes at 13 places, as the released code lists them."""
    sides = {256: (0, 21), 224: (8, 29), 192: (16, 37), 168: (22, 43)}  # quarters of what is free: down, right
    pairs = [(256, 256), (256, 224), (224, 256), (224, 224), (224, 192), (192, 224), (192, 192), (192, 168), (168, 192),
             (168, 168)]  # fmt: skip
    steps = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2), (2, 0), (2, 4), (4, 2), (0, 2), (1, 1), (1, 3), (3, 1), (3, 3)]
    wanted = [(i * sides[h][0], j * sides[w][1], h, w) for h, w in pairs for i, j in steps]
    assert sorted(training_crops(256, 340, 224)) == sorted(wanted)


@pytest.mark.parametrize(
    ("height", "width", "sides"),
    [
        (240, 320, {240, 210, 180, 158}),
        (226, 400, {224, 197, 169, 149}),  # 226 is nearly 224, and becomes it
        (223, 400, {223, 195, 167, 147}),  # 224 would leave the frame
        (258, 258, {258, 224, 193, 170}),  # 225 is nearly 224
        (500, 256, {256, 224, 192, 168}),
        (1, 9, {1}),
    ],
)
def test_sides_of_training_crops(height: int, width: int, sides: set[int]) -> None:
    crops = training_crops(height, width, 224)
    assert len(crops) == 130
    assert {crop[2] for crop in crops} == {crop[3] for crop in crops} == sides
    assert all(0 <= top <= height - h and 0 <= left <= width - w for top, left, h, w in crops)


@pytest.mark.parametrize("flip", [False, True])
def test_training_views_are_all_of_these_crops_and_no_others(flip: bool) -> None:
    size = 12
    image = picture(20, 29)
    wanted: Counter[bytes] = Counter()
    for top, left, height, width in training_crops(20, 29, size):
        seen = image.crop((left, top, left + width, top + height)).resize((size, size), Image.Resampling.BILINEAR)
        mirrored = seen.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else seen
        wanted.update([np.asarray(seen).tobytes(), np.asarray(mirrored).tobytes()])
    frames = torch.from_numpy(np.array(image)).permute(2, 0, 1).expand(2, -1, -1, -1)
    random = np.random.default_rng(0)
    drawn: Counter[bytes] = Counter()
    for _ in range(8 * wanted.total()):
        view = training_view(frames, size, random, flip=flip, resize="pillow")
        assert torch.equal(view[0], view[1])
        drawn[view[0].permute(1, 2, 0).numpy().tobytes()] += 1
    assert drawn.keys() == wanted.keys()
    assert all(abs(drawn[view] - 8 * count) < 6 * (8 * count) ** 0.5 for view, count in wanted.items())


def test_each_sampling_of_a_clip_can_have_a_crop_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    for number in range(1, 31):
        picture(40, 60).save(tmp_path / "clip" / f"{number}.png")
    (tmp_path / "list.txt").write_text("clip 30 0")
    same = {}
    for separate in (False, True):
        videos = FrameFolders(
            tmp_path, tmp_path / "list.txt", template="{}.png", num_classes=1, num_frames=(2, 3), training=True,
            frame_size=16, resized=16, flip=False, separate_crops=separate,
        )  # fmt: skip
        visits: list[Tensor] = [videos.frames(torch.tensor([0]))[0] for _ in range(8)]
        for visit in visits:
            for part in visit.split((2, 3)):
                assert (part == part[:1]).all()  # one crop within a sampling
        same[separate] = [torch.equal(visit[0], visit[2]) for visit in visits]
    assert all(same[False])
    assert not any(same[True])


# ------------------------------------------------------------------------------------------------------------- metric


def evaluation(labels: list[set[int]], probabilities: list[list[float]]) -> Evaluation:
    values = np.array(probabilities, dtype=np.float32)
    videos, classes = values.shape
    return Evaluation(
        labels=np.array([min(several) for several in labels]),
        label_sets=np.array([[k in several for k in range(classes)] for several in labels]),
        probabilities=values,
        predictions=values.argmax(axis=1)[:, None],
        returns=np.zeros(videos),
        gflops=np.ones(videos),
        focused=np.ones(videos, dtype=np.int64),
        corners=np.zeros((videos, 1, 2), dtype=np.int64),
        skipped=np.zeros((videos, 1), dtype=np.bool_),
        policy_gflops=0.0,
    )


@pytest.mark.parametrize(
    ("labels", "probabilities", "wanted"),
    [
        # Class 0 is absent, and all is right. Class 1 is looked for where class 0 is probable (nowhere: in the order of
        # the videos), at ranks 1 and 3; class 2 where class 1 is probable, at ranks 3 and 4; and nothing in the last.
        (
            [{1}, {2}, {1}, {2}],
            [[0, 1, 0], [0, 0, 1], [0, 1, 0], [0, 0, 1]],
            ((1 / 1 + 2 / 3) / 2 + (1 / 3 + 2 / 4) / 2 + 0) / 3,
        ),
        # Class 1 of four is absent: class 2 at ranks 2 and 3 of column 1, class 3 at rank 3 of column 2.
        (
            [{0}, {2}, {3}, {2}],
            [[0.7, 0.1, 0.1, 0.1], [0.2, 0.3, 0.4, 0.1], [0.1, 0.4, 0.2, 0.3], [0.05, 0.2, 0.6, 0.15]],
            (1 + (1 / 2 + 2 / 3) / 2 + 1 / 3 + 0) / 4,
        ),
        # The last class is absent: nothing moves.
        ([{0}, {1}], [[0.6, 0.3, 0.1], [0.7, 0.2, 0.1]], (1 / 2 + 1 / 2 + 0) / 3),
        # Several labels, all classes occur.
        ([{0, 1}, {1, 2}, {0}], [[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.6, 0.1, 0.3]], (1 + 1 + 1 / 3) / 3),
        # Several labels, class 1 is absent.
        ([{0, 2}, {2}], [[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]], (1 + 1 + 0) / 3),
    ],
)
def test_the_released_mean_average_precision(
    labels: list[set[int]], probabilities: list[list[float]], wanted: float
) -> None:
    assert evaluation(labels, probabilities).reference_mean_average_precision == pytest.approx(wanted)
