"""Recognises videos with the networks that ``Recognizer.export`` wrote, by torch alone (with onnxruntime for ONNX).

The folder of an export holds a copy of this file, so that it can be used where this package isn't installed::

    from exported import ExportedRecognizer

    recognizer = ExportedRecognizer("folder/of/the/export")
    found = recognizer.recognize(frames)  # frames (B, T, 3, H, W) uint8 RGB
    found.logits[:, -1].argmax(dim=1)     # the classes

Beside this file and ``settings.json`` lie four graphs, ``.pt2`` (torch.export) or ``.onnx``, for batches of any size:

| graph | takes | gives |
|---|---|---|
| ``glance`` | frames (B, 3, S, S) uint8 | map (B, C, h, w), the frame's share of the classifier's gates (B, 3·D) |
| ``decide`` | map, belief (B, D), time (B, 1), the policy's states (B, …) | actions, the next states |
| ``look`` | patches (B, 3, P, P) uint8 | the patch's share of the gates (B, 3·D) |
| ``classify`` | both shares, skipped (B,) bool, belief (B, D) | logits (B, classes), the next belief |

What is left to do between them is in :meth:`ExportedRecognizer.recognize`: frames are resized, patches are cut.

AdaFocus-TSM decides once about a clip: ``glance`` takes the frames of its first sampling, (B, frames, 3, S, S), and
``look`` one patch of each frame of its second, (B, frames, 3, P, P). Gates and beliefs are then logits, (B, classes).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

FORMAT = "adafocus-exported-1"
GRAPHS = "glance", "decide", "look", "classify"
Graph = Callable[..., Sequence[Tensor]]


class Recognized(NamedTuple):
    """What :meth:`ExportedRecognizer.recognize` finds; T counts looks, and is 1 for a clip.

    Attributes:
        logits: (B, T, classes) float32, the prediction after every look.
        corners: (B, T, 2) int64, top and left of every patch, pixels; meaningless where skipped.
        skipped: (B, T) bool, where the local network did not run.
        frames: (B,) int64, frames that were glanced at: fewer than there are where the policy has stopped.
    """

    logits: Tensor
    corners: Tensor
    skipped: Tensor
    frames: Tensor


class ExportedRecognizer:
    """A recogniser and its policy, as graphs.

    Args:
        folder: What ``Recognizer.export`` wrote.

    Attributes:
        settings: The content of ``settings.json``.

    Raises:
        FileNotFoundError: The folder lacks a file.
        ImportError: The graphs are ONNX's, and onnxruntime isn't installed.
        ValueError: The folder is of another format.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.settings = json.loads((Path(folder) / "settings.json").read_text())
        if self.settings.get("format") != FORMAT:
            raise ValueError(f"{folder} has format {self.settings.get('format')!r}, not {FORMAT!r}: export it again")
        paths = (Path(folder) / f"{name}.{self.settings['graphs']}" for name in GRAPHS)
        self._glance, self._decide, self._look, self._classify = map(_load, paths)

    @torch.no_grad()
    def recognize(self, frames: Tensor) -> Recognized:
        """Recognise videos, all of them one frame after the other. Nothing is computed about a video after its policy
        has stopped.

        Args:
            frames: (B, T, 3, H, W) uint8 RGB at full resolution, on the CPU; of clips one sampling after the other.

        Raises:
            ValueError: They are not such frames, or smaller than a patch.
        """
        units, settings, patch_size = self._units(frames), self.settings, self.settings["patch_size"]
        videos, times, looks = len(frames), len(units), settings["looks"]
        room = frames.shape[3] - patch_size, frames.shape[4] - patch_size
        belief = torch.zeros(videos, settings["hidden_size"])
        states: Sequence[Tensor] = [torch.zeros(videos, *shape) for shape in settings["states"]]
        rows = torch.arange(videos)  # those that go on
        found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for step in range(times * looks):
            glanced, read = (unit if len(rows) == videos else unit[rows] for unit in units[step // looks])
            if step % looks == 0:
                maps, frame_gates = self._glance(self._resized(glanced))
            time = torch.full((len(rows), 1), step / (times * looks))
            action, *states = self._decide(maps, belief, time, *states)
            corners, choice = self._meaning(action, room)
            skipped = choice > 0
            patch_gates = torch.zeros_like(frame_gates)
            if not skipped.all():
                patch_gates[~skipped] = self._look(_cut(read[~skipped], corners[~skipped], patch_size))[0]
            logits, belief = self._classify(frame_gates, patch_gates, skipped, belief)
            found.append((rows, logits, corners, skipped))
            stopped = choice > 1
            if stopped.all():
                break
            if stopped.any():
                rows, belief, maps, frame_gates, *states = (
                    part[~stopped] for part in (rows, belief, maps, frame_gates, *states)
                )
        glanced_at = frames.shape[1] // times  # one, or all of a clip
        return _joined(found, videos, times, looks, glanced_at)

    def _units(self, frames: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What is glanced at and what patches are cut from: the same frame, for each of a video, or once, the first
        frames of a clip and its others."""
        patch_size, clip = self.settings["patch_size"], self.settings.get("clip")  # which earlier folders don't have
        if (
            frames.ndim != 5
            or frames.dtype != torch.uint8
            or (clip and frames.shape[1] != sum(clip))
            or frames.shape[2] != 3
            or min(frames.shape[3:]) < patch_size
        ):
            times = " + ".join(map(str, clip)) if clip else "T"
            raise ValueError(
                f"frames must be (B, {times}, 3, H, W) uint8 with H and W of at least {patch_size}, not {frames.dtype} "
                f"of shape {tuple(frames.shape)}"
            )
        if clip:
            glanced, read = frames.split(clip, dim=1)
            return [(glanced, read)]
        return [(frame, frame) for frame in frames.unbind(dim=1)]

    def _resized(self, frames: Tensor) -> Tensor:
        """(B, …, 3, S, S) uint8, as ``glance`` reads them."""
        size, how = [self.settings["glance_size"]] * 2, self.settings["glance_interpolation"]
        if list(frames.shape[-2:]) == size:
            return frames.contiguous()
        smooth = {} if how == "nearest" else {"antialias": True, "align_corners": False}
        small = functional.interpolate(frames.flatten(0, -4), size, mode=how, **smooth)
        return small.unflatten(0, frames.shape[:-3])

    def _meaning(self, action: Tensor, room: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Corners (B, 2) int64, and (B,) what is done: 0, look; 1, skip the frame; 2, stop.

        Args:
            action: (B,) patch indices, or (B, 2) with what is done, or (B, 2) positions from -1 to 1.
            room: H − P and W − P, pixels.
        """
        spare, grid = torch.tensor(room), self.settings["grid"]
        nothing = torch.zeros(len(action), dtype=torch.int64)
        if grid is None:
            # The small term keeps rounding from turning a corner into the one before it.
            corners = ((action.double() + 1) / 2 * spare + 1e-4).floor().long()
            return corners.clamp(max=spare), nothing
        patch, choice = (action, nothing) if action.ndim == 1 else action.unbind(dim=1)
        return torch.stack((patch // grid, patch % grid), dim=1) * spare // (grid - 1), choice


def _joined(
    found: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]], videos: int, times: int, looks: int, frames_each: int
) -> Recognized:
    """What was found of all videos, given rows, logits, corners and skips of those that went on to each step."""
    steps = times * looks
    logits = torch.zeros(videos, steps, found[0][1].shape[1])
    corners = torch.zeros(videos, steps, 2, dtype=torch.int64)
    skipped = torch.ones(videos, steps, dtype=torch.bool)
    frames = torch.zeros(videos, dtype=torch.int64)
    for step, (rows, *parts) in enumerate(found):
        logits[rows, step:], corners[rows, step:] = (part[:, None] for part in parts[:2])  # the last one stays
        skipped[rows, step] = parts[2]
        frames[rows] = (step // looks + 1) * frames_each
    return Recognized(logits, corners, skipped, frames)


def _cut(frames: Tensor, corners: Tensor, size: int) -> Tensor:
    """(B, …, 3, P, P), one patch of each of (B, …, 3, H, W) frames or clips."""
    places = zip(frames, corners.tolist(), strict=True)
    return torch.stack([frame[..., top : top + size, left : left + size] for frame, (top, left) in places])


def _load(path: Path) -> Graph:
    """A graph as a function of tensors."""
    if not path.exists():
        raise FileNotFoundError(f"no file {path}: the folder is not a whole export")
    if path.suffix == ".pt2":
        return torch.export.load(path).module()
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError("graphs in ONNX need onnxruntime: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options)
    names = [given.name for given in session.get_inputs()]

    def run(*tensors: Tensor) -> list[Tensor]:
        arrays = (tensor.contiguous().numpy() for tensor in tensors)
        return [torch.from_numpy(array) for array in session.run(None, dict(zip(names, arrays, strict=True)))]

    return run
