"""Yardsticks for the environment's speed: a step written down plainly, and the least that a step has to do."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import torch
from torch import Tensor, nn

from adafocus_env import FeatureBank
from adafocus_env.recognition.classifier import tanh_
from adafocus_env.recognition.image_networks import ImageNetworks


def byte_statistics(recognizer: ImageNetworks[Any]) -> tuple[Tensor, ...]:
    """Mean and standard deviation of each colour channel of images of bytes, (3, 1, 1) float32 each."""
    values = recognizer.config.mean, recognizer.config.std
    return tuple(255 * torch.tensor(each, device=recognizer.device).view(3, 1, 1) for each in values)


class ReferenceProcedure:
    """A plain step: the global CNN, then a crop, the local CNN and the classifier for the chosen and the random patch.

    There is no table, the two patches are not batched, and torch's default memory format is used. Loading is not part
    of it: it is given frames, (B, T, 3, H, W) uint8, labels, (B,), and the candidates' corners, (N, 2) int64.
    """

    def __init__(self, recognizer: ImageNetworks[Any], frames: Tensor, labels: Tensor, corners: Tensor) -> None:
        frozen = recognizer.frozen().to(memory_format=torch.contiguous_format)
        self._global_cnn, self._local_cnn = frozen.global_cnn, frozen.local_cnn
        self._gru, self._fc = frozen.classifier.gru, frozen.classifier.fc
        self._config, (self._mean, self._std) = recognizer.config, byte_statistics(recognizer)
        self._frames, self._labels, self._corners = frames.contiguous(), labels, corners
        self._hidden = torch.zeros(1, len(frames), self._config.hidden_size, device=frames.device)
        self._time = 0
        self._maps: Tensor | None = None

    @torch.no_grad()
    def step(self, patch: Tensor, random_patch: Tensor, *, glance: bool = True) -> tuple[Tensor, Tensor]:
        """Process one frame of every video, given the chosen and the random candidates, (B,) int64 each.

        Without ``glance`` the last global maps are used again. Returns the maps, (B, C, h, w), and the rewards, (B,).
        """
        frame = self._frames[:, self._time]
        if self._time == 0:
            self._hidden = torch.zeros_like(self._hidden)
        if glance or self._maps is None:
            self._maps = self._glance(frame)
        global_vectors = self._maps.mean(dim=(2, 3))
        confidence, hidden = self._look(frame, global_vectors, patch)
        reference, _ = self._look(frame, global_vectors, random_patch)
        self._hidden = hidden
        self._time = (self._time + 1) % self._frames.shape[1]
        return self._maps, confidence - reference

    def _glance(self, frame: Tensor) -> Tensor:
        images = frame.float()
        if images.shape[-1] != self._config.glance_size:
            smooth = self._config.glance_interpolation == "bilinear"
            images = nn.functional.interpolate(
                images, (self._config.glance_size,) * 2, mode=self._config.glance_interpolation, antialias=smooth
            )
        maps: Tensor = self._global_cnn((images - self._mean) / self._std)
        return maps

    def _look(self, frame: Tensor, global_vectors: Tensor, patch: Tensor) -> tuple[Tensor, Tensor]:
        size = self._config.patch_size
        corners = self._corners[patch.cpu()].tolist()
        patches = torch.stack(
            [image[:, top : top + size, left : left + size] for image, (top, left) in zip(frame, corners, strict=True)]
        )
        local_vectors = self._local_cnn((patches.float() - self._mean) / self._std).mean(dim=(2, 3))
        output, hidden = self._gru(torch.cat((global_vectors, local_vectors), dim=1)[:, None], self._hidden)
        probabilities = torch.softmax(self._fc(output[:, 0]), dim=1)
        return probabilities.gather(1, self._labels[:, None])[:, 0], hidden


class Floor:
    """The least work of a step: gathers, one matrix product, the GRU's gates and the class softmax, without allocation.

    Lanes are taken in blocks that fit the cache. There are no actions, draws, infos or resets. As in an environment,
    every call gathers other rows: the next frames of some videos, and from time to time other videos. A step looks at
    random patches, or at all candidates. The bank was built ahead, so a frame's candidates lie side by side in it.
    """

    def __init__(self, bank: FeatureBank, num_envs: int, patches: int) -> None:
        classifier, device = bank.recognizer.classifier, bank.device
        self._maps_table, self._global_table, self._local_table = bank._maps, bank._global_gates, bank._local_gates
        self._gru, self._fc, self._size = classifier.gru, classifier.fc, bank.recognizer.config.hidden_size
        self._rows = itertools.cycle(_rows(bank, num_envs, patches))
        gates = 3 * self._size
        on_cpu = device.type == "cpu"
        self._block = min(num_envs, max(1, (1 << 19) // (gates * patches))) if on_cpu else num_envs
        empty = functools.partial(torch.empty, device=device)
        self._maps = empty(num_envs, bank._maps.shape[1])
        self._frame_gates, self._hidden_gates = empty(num_envs, gates), empty(num_envs, gates)
        self._gates = empty(self._block, patches, gates)
        self._new, self._states = (empty(self._block, patches, self._size) for _ in range(2))
        self._logits, self._probabilities = (empty(self._fc.out_features, self._block * patches) for _ in range(2))
        self._hidden = torch.zeros(num_envs, self._size, device=device)

    @torch.no_grad()
    def step(self, *, glance: bool) -> None:
        """Process one frame in every lane, with or without the gather of the global maps."""
        size, gru = self._size, self._gru
        frame_rows, patch_rows = next(self._rows)
        if glance:
            torch.index_select(self._maps_table, 0, frame_rows, out=self._maps)
        torch.index_select(self._global_table, 0, frame_rows, out=self._frame_gates)
        torch.addmm(gru.bias_hh_l0, self._hidden, gru.weight_hh_l0.T, out=self._hidden_gates)
        self._frame_gates[:, : 2 * size] += self._hidden_gates[:, : 2 * size]
        for start in range(0, len(self._hidden), self._block):
            lanes = slice(start, start + self._block)
            self._advance(lanes, patch_rows[lanes].flatten())

    def _advance(self, lanes: slice, patch_rows: Tensor) -> None:
        """Process the patches of some lanes; the lanes keep the hidden state of the first patch, the chosen one."""
        size, fc, hidden = self._size, self._fc, self._hidden[lanes]
        gates, new, states = (each[: len(hidden)] for each in (self._gates, self._new, self._states))
        torch.index_select(self._local_table, 0, patch_rows, out=gates.view(len(patch_rows), -1))
        gates += self._frame_gates[lanes, None]
        gates[..., : 2 * size].sigmoid_()
        new_hidden = self._hidden_gates[lanes, None, 2 * size :]
        torch.addcmul(gates[..., 2 * size :], gates[..., :size], new_hidden, out=new)
        tanh_(new)
        torch.lerp(new, hidden[:, None], gates[..., size : 2 * size], out=states)
        logits, probabilities = (each[:, : len(patch_rows)] for each in (self._logits, self._probabilities))
        torch.addmm(fc.bias[:, None], fc.weight, states.view(-1, size).T, out=logits)
        torch.softmax(logits, dim=0, out=probabilities)
        hidden.copy_(states[:, 0])


def _rows(bank: FeatureBank, num_envs: int, patches: int) -> list[tuple[Tensor, Tensor]]:
    """Rows of the bank's tables for some steps: of frames, (num_envs,), and of patches, (num_envs, patches), int64."""
    random = torch.Generator().manual_seed(0)
    times, count, candidates = bank.videos.num_frames, 4 * bank.videos.num_frames, len(bank.corners)
    video = torch.randint(len(bank.videos), (count // times, num_envs), generator=random)
    frame = video.repeat_interleave(times, dim=0) * times + torch.arange(count)[:, None] % times
    candidate = (
        torch.arange(patches).expand(count, num_envs, -1)
        if patches == candidates
        else torch.randint(candidates, (count, num_envs, patches), generator=random)
    )
    frame_rows, patch_rows = 1 + frame, 1 + frame[..., None] * candidates + candidate
    return list(zip(frame_rows.to(bank.device), patch_rows.to(bank.device), strict=True))
