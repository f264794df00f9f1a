"""Files of policies: an agent's state as safetensors, whose metadata describes it; those of earlier versions are read.

Tensors have the names of the state's nested mappings, joined by slashes (``average/value_head.bias``). Everything else
is JSON in the metadata, one entry for each key of the state, so that any reader of safetensors files can show how large
the policy is, what it sees, how it acts and what it was made for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

import agents
from adafocus_env.recognition.image_networks import ImageNetworks
from adafocus_env.weights import is_safetensors, read_safetensors, read_torch_file, write_safetensors

FORMAT = "adafocus-policy-1"
PICKLED_FORMAT = "adafocus-reinforce-1"
"""Of the files of ``torch.save`` that earlier versions wrote."""
_SETTINGS = "grid", "looks", "num_frames", "patch_size", "skip_cost", "glance_cost"


def write_state(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write an agent's state with a checksum, atomically.

    Args:
        path: The file.
        state: Nested mappings of tensors and of values that JSON knows; its keys are text, or numbers that are read as
            text.
    """
    values: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}
    _separate(state, "", tensors, values)
    write_safetensors(path, {"format": FORMAT, **{name: json.dumps(value) for name, value in values.items()}}, tensors)


def read_state(path: Path) -> dict[str, Any]:
    """Read the state that :func:`write_state`, or an agent of an earlier version, wrote.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is no policy's file, or its bytes have changed since it was written.
    """
    if not (path.is_file() and is_safetensors(path)):
        state = read_torch_file(path, "a policy file of Reinforce.save")
        if not isinstance(state, dict) or state.get("format") != PICKLED_FORMAT:
            raise ValueError(f"{path} is not a policy file of format {PICKLED_FORMAT!r}; write one with Reinforce.save")
        return state
    header, tensors = read_safetensors(path)
    if (found := header.pop("format", None)) != FORMAT:
        raise ValueError(
            f"{path} is not a policy file, but a safetensors file of format {found!r}; Reinforce.save writes {FORMAT!r}"
        )
    if header.pop("checksum", None) is None:
        raise ValueError(f"{path} has changed since it was written, as its checksum is gone: copy or download it again")
    state = {name: json.loads(value) for name, value in header.items()}
    for name, tensor in tensors.items():
        *groups, last = name.split("/")
        place = state
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = tensor
    return state


def _separate(state: Mapping[Any, Any], prefix: str, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Sort a state's content into tensors, by their joined names, and everything else, nested as it is."""
    for name, value in state.items():
        if isinstance(value, Tensor):
            tensors[f"{prefix}{name}"] = value
        elif isinstance(value, Mapping):
            inner: dict[str, Any] = {}
            _separate(value, f"{prefix}{name}/", tensors, inner)
            if inner or not value:
                values[str(name)] = inner
        else:
            values[str(name)] = value


def made_for(env: Any) -> dict[str, Any]:
    """What a policy that learns in an environment is made for, as its file says it; empty if that is not known.

    Args:
        env: A vector environment of this package, or one of Gymnasium's over single ones.

    Returns:
        ``recognizer``, its fingerprint; ``glance``, that of the part whose output the policy sees; ``environment``, its
        class; ``grid``; ``looks`` at each frame; ``num_frames``; ``patch_size``; and the prices, ``skip_cost`` and
        ``glance_cost``.
    """
    single = env.unwrapped
    single = single.envs[0].unwrapped if hasattr(single, "envs") else single
    recognizer = getattr(single, "recognizer", None)
    if not isinstance(recognizer, ImageNetworks):
        return {}
    return {
        "environment": type(single).__name__,
        "recognizer": recognizer.fingerprint(),
        "glance": recognizer.glance_fingerprint(),
        **{name: getattr(single, name) for name in _SETTINGS if hasattr(single, name)},
    }


def with_network_of(trained_by: str | None, kind: type[Any], base: type[Any]) -> type[Any]:
    """``kind``, unless the class of that name, if it is a subclass of ``base``, has a network of its own."""
    getattr(agents, str(trained_by), None)  # the package imports its own classes when they are asked for
    for known in _subclasses(base):
        if known.__name__ == trained_by and known._make_policy is not kind._make_policy:
            return known
    return kind


def _subclasses(kind: type[Any]) -> Iterator[type[Any]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
