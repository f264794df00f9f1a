"""The released AdaFocus checkpoints: ActivityNet, FCVID and Mini-Kinetics; and AdaFocus-TSM's, Something-Something."""

from __future__ import annotations

import collections
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torchvision
from gymnasium import spaces
from torch import Tensor, nn

from adafocus_env.official_tsm import OfficialTSMPolicy, released_names
from adafocus_env.recognition.presets import paper_config, tsm_config
from adafocus_env.recognition.recognizer import Recognizer
from adafocus_env.recognition.tsm_recognizer import TSMRecognizer

_PARTS = ("glancer", "focuser", "fc", "policy")
_POLICY_COPIES = ("policy.policy.", "policy.policy_old.")  # of the focuser, in files of stages 2 and 3
_make_scalar = np.float64(0).__reduce__()[0]  # its module's name depends on the version of numpy
_SAFE_GLOBALS: list[Any] = [
    # What numpy scalars (accuracies) and optimisers are pickled with, by old and new versions of numpy.
    (_make_scalar, "numpy.core.multiarray.scalar"),
    (_make_scalar, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float64", "float32", "float16", "int64", "int32")),
    collections.defaultdict,
]


class OfficialPolicy(nn.Module):
    """π as released: 1×1 convolution, linear, GRU, a softmax head over the candidates and a critic (paper, Sec. 3.1).

    It sees the glance alone. Its parameters have their released names.

    Args:
        channels: C of the glance.
        side: Height and width of the glance.
        num_patches: N.
        hidden_size: Length of the encoded glance and of the recurrent state.

    Attributes:
        observation_space: The glance of one lane.
        action_space: Patch indices.
    """

    takes_tensors = True

    def __init__(self, channels: int = 1280, side: int = 7, num_patches: int = 49, hidden_size: int = 1024) -> None:
        super().__init__()
        self.state_encoder = nn.Sequential(
            nn.Conv2d(channels, 32, 1, bias=False),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * side * side, hidden_size),
            nn.ReLU(),
        )
        self.gru = nn.GRU(hidden_size, hidden_size)
        self.actor = nn.Sequential(nn.Linear(hidden_size, num_patches), nn.Softmax(dim=-1))
        self.critic = nn.Sequential(nn.Linear(hidden_size, 1))
        self.observation_space = spaces.Box(0.0, 6.0, (channels, side, side), np.float32)
        self.action_space = spaces.Discrete(num_patches)

    @property
    def policy(self) -> OfficialPolicy:
        """The network, where SB3's models have theirs."""
        return self

    def forward(self, glance: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Action probabilities of one frame.

        Args:
            glance: (B, C, h, w) float32.
            state: (B, hidden_size), zeros before the first frame.

        Returns:
            (B, N) probabilities and the next state.
        """
        output, after = self.gru(self.state_encoder(glance)[None], state[None])
        return self.actor(output[0]), after[0]

    @torch.no_grad()
    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """Choose patches, in SB3's dialect.

        Args:
            observation: (B, C, h, w) glances or one without B, as array or tensor; or a mapping with them as
                ``glance``.
            state: What the last call returned; ``None`` at the start.
            episode_start: (B,) bool, lanes whose state starts anew.
            deterministic: Arg-max (the paper's test time) instead of sampling with torch's generator.

        Returns:
            Patch indices as the observations came, and the next state.
        """
        raw = observation["glance"] if isinstance(observation, Mapping) else observation
        weight = cast(nn.Linear, self.actor[0]).weight
        glance = torch.as_tensor(raw, dtype=torch.float32, device=weight.device)
        single = glance.ndim == 3
        glance = glance[None] if single else glance
        hidden = glance.new_zeros(len(glance), self.gru.hidden_size)
        if state is not None:
            hidden = torch.as_tensor(state, device=weight.device)
        if episode_start is not None:
            hidden = hidden * ~torch.as_tensor(np.atleast_1d(episode_start), device=weight.device)[:, None]
        probabilities, hidden = self(glance, hidden)
        patch = probabilities.argmax(dim=1) if deterministic else torch.multinomial(probabilities, 1)[:, 0]
        patch = patch[0] if single else patch
        return (patch, hidden) if isinstance(raw, Tensor) else (patch.cpu().numpy(), hidden.cpu().numpy())


def load_official_checkpoint(
    path: str | os.PathLike[str], *, patch_size: int | None = None
) -> tuple[Recognizer, OfficialPolicy | None] | tuple[TSMRecognizer, OfficialTSMPolicy | None]:
    """Load a released checkpoint of any stage.

    The linear classifiers that the two CNNs of the ActivityNet family carry from stage 0 are checked and left out:
    AdaFocus doesn't use them.

    Args:
        path: A ``.pth.tar`` file.
        patch_size: P, which no tensor tells; ``None`` takes the number that the file's name begins with, as in
            ``128s3_checkpoint.pth.tar``.

    Returns:
        The recogniser, and the patch policy (``None`` in files of stage 1), both in evaluation mode on the CPU; a
        :class:`TSMRecognizer` and its policy from files of Something-Something.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is no such checkpoint: every missing, extra or misshapen key is listed. Or P is unknown.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    if patch_size is None:
        named = re.match(r"\d+", path.name)
        if named is None:
            raise ValueError(f"{path.name} doesn't begin with the size of its patches: pass patch_size=…")
        patch_size = int(named[0])
    parts = _read(path)
    if {"fc.bias", "bias"}.isdisjoint(parts["fc"]):
        raise ValueError(f"{path} has no 'fc' with an 'fc.bias' or a 'bias': not a released checkpoint")
    load = _load_tsm if "bias" in parts["fc"] else _load_recurrent
    return load(path, parts, patch_size)


def _load_recurrent(path: Path, parts: Mapping[str, Any], patch_size: int) -> tuple[Recognizer, OfficialPolicy | None]:
    """The ActivityNet family."""
    num_classes = parts["fc"]["fc.bias"].numel()
    policy = None
    if parts["policy"] is not None:
        bias = parts["policy"].get("actor.0.bias", torch.zeros(49))
        policy = OfficialPolicy(num_patches=len(bias) if bias.ndim else 49)
    problems = list(_differences(parts, _expected(num_classes, policy)))
    if policy is not None and math.isqrt(int(policy.action_space.n)) ** 2 != policy.action_space.n:
        problems.append(f"policy: {policy.action_space.n} actions don't form a square grid")
    _refuse(path, problems)
    recognizer = Recognizer(paper_config(num_classes, patch_size))
    recognizer.global_cnn.load_state_dict(_below(parts["glancer"], "net.features."))
    recognizer.local_cnn.load_state_dict(_resnet_features(_below(parts["focuser"], "net.")))
    recognizer.classifier.load_state_dict(parts["fc"])
    recognizer.metadata = {"source": path.name}
    if policy is not None:
        policy.load_state_dict(parts["policy"])
        policy.eval()
    return recognizer.eval(), policy


def _load_tsm(path: Path, parts: Mapping[str, Any], patch_size: int) -> tuple[TSMRecognizer, OfficialTSMPolicy | None]:
    """Something-Something."""
    recognizer = TSMRecognizer(tsm_config(parts["fc"]["bias"].numel(), patch_size))
    own = recognizer.state_dict()
    policy = None if parts["policy"] is None else OfficialTSMPolicy()
    expected: dict[str, dict[str, Tensor]] = {part: {} for part in _PARTS}
    names = list(released_names(recognizer))
    for part, name, ours in names:
        expected[part][name] = own[ours]
    if policy is not None:
        expected["policy"] = policy.state_dict()
    _refuse(path, list(_differences(parts, expected)))
    recognizer.load_state_dict({ours: parts[part][name] for part, name, ours in names})
    if policy is not None:
        policy.load_state_dict(parts["policy"])
        policy.eval()
    return recognizer.eval(), policy


def _refuse(path: Path, problems: list[str]) -> None:
    if problems:
        raise ValueError(f"{path} doesn't hold what a released checkpoint holds:\n  " + "\n  ".join(problems))


def _read(path: Path) -> dict[str, Any]:
    """The four parts of a file; tensors alone are loaded, no code."""
    try:
        with torch.serialization.safe_globals(_SAFE_GLOBALS):
            file = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} can't be read safely as a checkpoint: {error}") from error
    if not isinstance(file, dict):
        raise ValueError(f"{path} holds a {type(file).__name__}, not a checkpoint's dictionary")
    if missing := [part for part in _PARTS if part not in file]:
        raise ValueError(f"{path} lacks {missing}; a released checkpoint has {list(_PARTS)}")
    for part in _PARTS:
        value = file[part]
        tensors = isinstance(value, dict) and all(isinstance(tensor, Tensor) for tensor in value.values())
        if not tensors and not (part == "policy" and value is None):
            raise ValueError(f"{path}: {part!r} must be a dictionary of tensors, not {type(value).__name__}")
    return {part: file[part] for part in _PARTS}


def _expected(num_classes: int, policy: OfficialPolicy | None) -> dict[str, Mapping[str, Tensor]]:
    """Names and shapes that the parts have to have."""
    with torch.device("meta"):
        glancer = torchvision.models.mobilenet_v2(weights=None, num_classes=num_classes).state_dict()
        focuser = torchvision.models.resnet50(weights=None, num_classes=num_classes).state_dict()
        fc = nn.ModuleDict({"gru": nn.GRU(1280 + 2048, 1024), "fc": nn.Linear(1024, num_classes)}).state_dict()
    own = {} if policy is None else policy.state_dict()
    copies = {prefix + name: tensor for prefix in _POLICY_COPIES for name, tensor in own.items()}
    return {
        "glancer": {f"net.{name}": tensor for name, tensor in glancer.items()},
        "focuser": {f"net.{name}": tensor for name, tensor in focuser.items()} | copies,
        "fc": fc,
        "policy": own,
    }


def _differences(parts: Mapping[str, Any], expected: Mapping[str, Mapping[str, Tensor]]) -> Iterator[str]:
    for part, wanted in expected.items():
        found = parts[part] or {}
        yield from (f"{part}: {name} is missing" for name in wanted if name not in found)
        yield from (f"{part}: {name} is unknown" for name in found if name not in wanted)
        yield from (
            f"{part}: {name} must be {tuple(tensor.shape)}, not {tuple(found[name].shape)}"
            for name, tensor in wanted.items()
            if name in found and found[name].shape != tensor.shape
        )


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _resnet_features(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """From torchvision's names to the places of a ResNet's children before the pooling, as f_L numbers them."""
    with torch.device("meta"):
        names = [name for name, _ in torchvision.models.resnet50(weights=None).named_children()]
    places = {name: str(place) for place, name in enumerate(names[: names.index("avgpool")])}
    split = ((name.partition("."), tensor) for name, tensor in tensors.items())
    return {f"{places[child]}.{rest}": tensor for (child, _, rest), tensor in split if child in places}
