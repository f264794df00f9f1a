"""Loads the released checkpoints of AdaFocus and, for Something-Something, of AdaFocus-TSM."""

from __future__ import annotations

import collections
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from adafocus_env.checks import Bounds, check_integer
from adafocus_env.recognition.official_policy import OfficialPolicy
from adafocus_env.recognition.official_tsm import OfficialTSMPolicy, released_names
from adafocus_env.recognition.presets import paper_config, tsm_config
from adafocus_env.recognition.recognizer import Recognizer
from adafocus_env.recognition.tsm_recognizer import TSMRecognizer
from adafocus_env.weights import differences, read_torch_file, unwrapped

_NETWORKS = ("glancer", "focuser", "fc")  # in every file; "policy" may be None, or missing
_NAME = re.compile(r"(?P<size>\d+)(x(?P=size)|(s[1-3])?_?(checkpoint)?)\.pth\.tar")
"""Matches 128s3_checkpoint, 128checkpoint (ActivityNet), 144x144 (Something-Something), and shorter; not 50epochs."""
_POLICY_COPIES = ("policy.policy.", "policy.policy_old.")  # in the focuser, in files of stages 2 and 3
_make_scalar = np.float64(0).__reduce__()[0]  # its module's name depends on the version of numpy
_SAFE_GLOBALS: list[Any] = [
    # Needed to unpickle NumPy scalars (accuracies) and optimisers of old and new versions of NumPy.
    (_make_scalar, "numpy.core.multiarray.scalar"),
    (_make_scalar, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float64", "float32", "float16", "int64", "int32")),
    collections.defaultdict,
]


def load_official_checkpoint(
    path: str | os.PathLike[str], *, patch_size: int | None = None
) -> tuple[Recognizer, OfficialPolicy | None] | tuple[TSMRecognizer, OfficialTSMPolicy | None]:
    """Load a released checkpoint of any stage.

    The linear classifiers that the two CNNs of the ActivityNet family keep from stage 0 are checked and left out, as
    AdaFocus doesn't use them.

    Args:
        path: A ``.pth.tar`` file.
        patch_size: P, which no tensor reveals; ``None`` takes it from a name like those of the released files:
            ``128s3_checkpoint.pth.tar``, ``128checkpoint.pth.tar``, ``144x144.pth.tar``.

    Returns:
        The recogniser, and the patch policy (``None`` in files of stage 1), both in evaluation mode on the CPU. For
        files of Something-Something they are a :class:`TSMRecognizer` and its policy.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: P is unknown or not a number of pixels, or the file is not such a checkpoint. The message lists
            every missing, extra or misshapen tensor, and those that hold NaN or infinite values.
    """
    path = Path(path)
    if patch_size is not None:
        patch_size = check_integer("patch_size", patch_size, Bounds(at_least=1))
    elif path.is_file():
        named = _NAME.fullmatch(path.name)
        if named is None:
            raise ValueError(
                f"{path} isn't named as released files are (128s3_checkpoint.pth.tar), so nothing tells the size of "
                "its patches: pass patch_size=… (--patch-size)"
            )
        patch_size = int(named["size"])
    parts = _read(path)
    if {"fc.bias", "bias"}.isdisjoint(parts["fc"]):
        raise ValueError(f"{path} has no 'fc' with an 'fc.bias' or a 'bias': not a released checkpoint")
    assert patch_size is not None  # otherwise there is no file, and _read has raised
    load = _load_tsm if "bias" in parts["fc"] else _load_recurrent
    return load(path, parts, patch_size)


def _load_recurrent(path: Path, parts: Mapping[str, Any], patch_size: int) -> tuple[Recognizer, OfficialPolicy | None]:
    """Load a checkpoint of the ActivityNet family."""
    num_classes = parts["fc"]["fc.bias"].numel()
    policy = None
    if parts["policy"] is not None:
        bias = parts["policy"].get("actor.0.bias", torch.zeros(49))
        policy = OfficialPolicy(num_patches=len(bias) if bias.ndim else 49)
    _refuse(path, parts, _expected(num_classes, policy))
    if policy is not None and math.isqrt(int(policy.action_space.n)) ** 2 != policy.action_space.n:
        raise ValueError(f"{path}: the policy's {policy.action_space.n} actions don't form a square grid")
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
    """Load a checkpoint of Something-Something."""
    recognizer = TSMRecognizer(tsm_config(parts["fc"]["bias"].numel(), patch_size))
    own = recognizer.state_dict()
    policy = None if parts["policy"] is None else OfficialTSMPolicy()
    expected: dict[str, dict[str, Tensor]] = {part: {} for part in parts}
    names = list(released_names(recognizer))
    for part, name, ours in names:
        expected[part][name] = own[ours]
    if policy is not None:
        expected["policy"] = policy.state_dict()
    _refuse(path, parts, expected)
    recognizer.load_state_dict({ours: parts[part][name] for part, name, ours in names})
    if policy is not None:
        policy.load_state_dict(parts["policy"])
        policy.eval()
    return recognizer.eval(), policy


def _refuse(path: Path, parts: Mapping[str, Any], expected: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Raise ``ValueError`` with a list of what is wrong, if anything is."""
    problems = [
        f"{part}: {problem}" for part, wanted in expected.items() for problem in differences(parts[part] or {}, wanted)
    ]
    if problems:
        raise ValueError(f"{path} doesn't hold what a released checkpoint holds:\n  " + "\n  ".join(problems))


def _read(path: Path) -> dict[str, Any]:
    """The parts of a file, with names without the prefixes of wrappers; in stage 1, ``policy`` is ``None``."""
    file = read_torch_file(path, "a released checkpoint", _SAFE_GLOBALS)
    if not isinstance(file, dict):
        raise ValueError(f"{path} holds a {type(file).__name__}, not a checkpoint's dictionary")
    if missing := [part for part in _NETWORKS if part not in file]:
        raise ValueError(
            f"{path} lacks {missing}; a released checkpoint of AdaFocus has {list(_NETWORKS)}, this file "
            f"{[str(key) for key in file][:8]}"
        )
    parts = {part: file[part] for part in _NETWORKS} | {"policy": file.get("policy")}
    for part, value in parts.items():
        tensors = isinstance(value, dict) and all(
            isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items()
        )
        if tensors:
            try:
                parts[part] = unwrapped(value)
            except ValueError as error:
                raise ValueError(f"{path}: {part}: {error}") from error
        elif part != "policy" or value is not None:
            raise ValueError(f"{path}: {part!r} must be a dictionary of tensors, not {type(value).__name__}")
    return parts


def _expected(num_classes: int, policy: OfficialPolicy | None) -> dict[str, Mapping[str, Tensor]]:
    """Names and shapes of the tensors that the parts must have."""
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


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _resnet_features(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a ResNet's tensors from torchvision's names to f_L's, which number the children before the pooling."""
    with torch.device("meta"):
        names = [name for name, _ in torchvision.models.resnet50(weights=None).named_children()]
    places = {name: str(place) for place, name in enumerate(names[: names.index("avgpool")])}
    split = ((name.partition("."), tensor) for name, tensor in tensors.items())
    return {f"{places[child]}.{rest}": tensor for (child, _, rest), tensor in split if child in places}
