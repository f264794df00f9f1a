from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adafocus_env import RoamingFashion, RoamingMotion, VideoDataset
from adafocus_env.videos import SPLITS
from adafocus_env.videos.registry import get_videos, register_videos
from adafocus_env.videos.scenery import EMBEDDED_SPLITS, FINAL, Scenery, _shipped_pool, _textures


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 999), min_size=1, max_size=6))
def test_a_video_depends_on_its_index_only(indices: list[int]) -> None:
    videos = RoamingFashion("val")
    batch = videos.frames(torch.tensor(indices))
    for row, index in enumerate(indices):
        assert torch.equal(batch[row], videos.frames(torch.tensor([index]))[0])


def test_the_pixels_are_those_of_version_1() -> None:
    """Any change to the pixels makes the shipped recogniser, policies and published figures stale: raise VERSION."""
    frames = RoamingFashion("test").frames(torch.arange(4))
    assert frames.shape == (4, 8, 3, 112, 112)
    assert frames.dtype == torch.uint8
    # A sum is the same on every machine; single pixels may differ by a rounding.
    assert int(frames.sum(dtype=torch.int64)) == pytest.approx(PIXEL_SUM, rel=1e-5)


PIXEL_SUM = 135_492_258


def test_same_videos_in_a_fresh_process() -> None:
    script = (
        "import torch; from adafocus_env import RoamingFashion as R; print(int(R('val').frames(torch.arange(9)).sum()))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert int(found.stdout) == int(RoamingFashion("val").frames(torch.arange(9)).sum())


def test_splits_share_no_image_and_no_texture() -> None:
    splits = EMBEDDED_SPLITS
    images = {split: {image.tobytes() for image in _shipped_pool(split)[0].numpy()} for split in splits}
    textures = {split: {texture.numpy().tobytes() for texture in _textures(0, split)} for split in splits}
    for one in splits:
        for other in splits:
            if one < other:
                assert not images[one] & images[other]
                assert not textures[one] & textures[other]


def test_the_final_split_is_one_of_the_embedded_benchmarks_alone(tmp_path: Path) -> None:
    assert len(get_videos(None, FINAL)) == len(get_videos("roaming-motion", FINAL)) == 5_000
    assert RoamingFashion(FINAL).fingerprint != RoamingFashion("test").fingerprint
    (tmp_path / "data.toml").write_text("")
    register_videos("somebody's", RoamingFashion)
    for name in (str(tmp_path / "data.toml"), "somebody's"):
        with pytest.raises(ValueError, match="the embedded benchmarks alone"):
            get_videos(name, FINAL)
    with pytest.raises(ValueError, match="leave root out"):
        RoamingFashion(FINAL, root=tmp_path)


def test_items_are_where_locations_say() -> None:
    """Without distractors and with a frozen background, what differs from the empty scene is the item."""
    videos = RoamingFashion("val", num_videos=40)
    indices = torch.arange(40)
    boxes, visible = videos.locations(indices)
    assert bool((boxes[..., :2] >= 0).all())
    assert bool((boxes[..., :2] + 28 <= 112).all())
    bare = RoamingFashion("val", num_videos=40, num_distractors=0)
    scene = bare._frames_of(bare._background(indices, torch.arange(8)))
    changed = (bare.frames(indices) != scene).any(dim=2)
    for video, time in np.ndindex(40, 8):
        rows, columns = changed[video, time].nonzero(as_tuple=True)
        assert bool(len(rows)) == bool(visible[video, time])
        if len(rows):
            top, left, height, width = boxes[video, time].tolist()
            assert top <= int(rows.min()) <= int(rows.max()) < top + height
            assert left <= int(columns.min()) <= int(columns.max()) < left + width


def test_paths_are_smooth_and_partly_visible() -> None:
    videos = RoamingFashion("train")
    boxes, visible = videos.locations(torch.arange(2000))
    steps = boxes[:, 1:, :2].sub(boxes[:, :-1, :2]).float().norm(dim=-1)
    assert float(steps.max()) < 8
    assert float(steps.mean()) > 1
    assert float(visible.float().mean()) == pytest.approx(0.4, abs=0.03)
    assert bool(visible.any(dim=1).all())
    runs = visible.int().diff(dim=1).abs().sum(dim=1) + visible[:, 0].int() + visible[:, -1].int()
    assert bool((runs == 2).all())  # one stretch each


def test_distractors_are_shuffled_items() -> None:
    videos = RoamingFashion("val", num_videos=20)
    images = videos._images[:20]
    shuffled = videos._shuffle_blocks(images, torch.arange(20), sprite=1)
    blocks = [x.reshape(20, 7, 4, 7, 4).permute(0, 1, 3, 2, 4).reshape(20, 49, 16) for x in (images, shuffled)]
    for before, after in zip(*blocks, strict=True):
        assert sorted(before.tolist()) == sorted(after.tolist())
    assert not torch.equal(images, shuffled)


def test_classes_are_balanced_enough() -> None:
    counts = torch.bincount(RoamingFashion("test").labels, minlength=10)
    assert len(counts) == 10
    assert int(counts.sum()) >= 5000
    assert int(counts.min()) > 400


def write_mnist(root: Path) -> None:
    """IDX files of noise, named as MNIST's."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    random = np.random.default_rng(0)
    for part, count in (("train", 60), ("t10k", 20)):
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        header = (0x0803).to_bytes(4, "big") + b"".join(n.to_bytes(4, "big") for n in images.shape)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(
            (0x0801).to_bytes(4, "big") + count.to_bytes(4, "big") + labels.tobytes()
        )


def test_full_data_set_from_a_folder(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    pools = [len(RoamingFashion(split, root=tmp_path, source="MNIST", num_videos=5)._images) for split in SPLITS]
    assert pools == [36, 18, 6, 20]
    with pytest.raises(FileNotFoundError, match="FashionMNIST/raw"):
        RoamingFashion("val", root=tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [{"split": "dev"}, {"num_frames": 0}, {"frame_size": 28}, {"num_videos": 0}, {"visible_fraction": 0},
     {"num_distractors": -1}, {"source": "CIFAR10"}, {"source": "MNIST"}],
)  # fmt: skip
def test_bad_arguments_are_named(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        RoamingFashion(**arguments)  # type: ignore[arg-type]


def test_bad_indices_are_errors() -> None:
    videos = RoamingFashion("val", num_videos=5)
    for indices in (torch.tensor([5]), torch.tensor([-1]), torch.tensor([0.5]), torch.tensor(1)):
        with pytest.raises(IndexError):
            videos.frames(indices)


def test_fingerprints_tell_data_sets_apart() -> None:
    made = [
        RoamingFashion("val"), RoamingFashion("test"), RoamingFashion("val", seed=1),
        RoamingFashion("val", num_frames=9), RoamingFashion("val", num_videos=7),
        RoamingFashion("val", num_distractors=0),
    ]  # fmt: skip
    assert len({videos.fingerprint for videos in made}) == len(made)
    assert RoamingFashion("val").fingerprint == made[0].fingerprint


@pytest.mark.parametrize("kind", [RoamingFashion, RoamingMotion])
def test_fingerprints_know_every_argument(kind: type[Scenery], tmp_path: Path) -> None:
    """A bank of one data set is never taken for another's."""
    arguments: dict[str, Any] = {"split": "val", "seed": 0, "num_videos": 5, "frame_size": 60, "num_distractors": 2}
    arguments |= {"samplings": (2, 3)} if kind is RoamingMotion else {"num_frames": 5, "visible_fraction": 0.5}
    others: dict[str, list[Any]] = {
        "split": ["test"], "seed": [1], "num_videos": [6], "frame_size": [61], "num_distractors": [1],
        "samplings": [(3, 2), (5,)], "num_frames": [6], "visible_fraction": [0.6],
    }  # fmt: skip
    made = [kind(**arguments)]
    made += [kind(**{**arguments, name: value}) for name in arguments for value in others[name]]
    write_mnist(tmp_path)
    made.append(kind(**arguments, root=tmp_path, source="MNIST"))
    assert len({videos.fingerprint for videos in made}) == len(made)
    assert kind(**arguments).fingerprint == made[0].fingerprint


def test_the_item_is_in_front(tmp_path: Path) -> None:
    """Where an opaque item is, distractors change nothing."""
    alone, crowded = (RoamingFashion("val", num_videos=20, num_distractors=count) for count in (0, 40))
    boxes, visible = alone.locations(torch.arange(20))
    frames = [videos.frames(torch.arange(20)).permute(0, 1, 3, 4, 2) for videos in (alone, crowded)]
    opaque = alone._images[alone._item] >= 64  # a quarter of full level covers what is behind
    compared = 0
    for video, time in visible.nonzero().tolist():
        top, left = boxes[video, time, :2].tolist()
        one, other = (each[video, time, top : top + 28, left : left + 28][opaque[video]] for each in frames)
        assert torch.equal(one, other)
        compared += len(one)
    assert compared > 10_000


def test_data_sets_by_name() -> None:
    register_videos("short", lambda split: RoamingFashion(split, num_videos=3, num_frames=2))
    videos = get_videos("short", "val")
    assert isinstance(videos, VideoDataset)
    assert (len(videos), videos.num_frames, videos.split) == (3, 2, "val")
    assert get_videos(videos, "test") is videos
