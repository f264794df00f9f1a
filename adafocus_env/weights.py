"""Weights in files: what is checked before any of them is used, whoever wrote the file.

Files of ours tell when their bytes have changed since they were written. ``.safetensors`` files carry a checksum in
their metadata (:func:`checksum`). What ``torch.save`` writes is an archive with checksums of all that is in it, at
which torch doesn't look: :func:`read_torch_file` does.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adafocus_env.checks import brief

_WRAPPERS = {"module", "_orig_mod"}
"""What DataParallel and torch.compile put before the names of what they wrap."""


def checksum(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of metadata and of the tensors' names, types, shapes and bytes, in sorted order."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def find_file(kind: str, name_or_path: object, shipped: Path, suffix: str) -> Path:
    """A shipped file by its name, or any file by its path.

    Args:
        kind: What it should be, for messages, such as ``"policy"``.
        name_or_path: A name without suffix, or a path.
        shipped: Folder of the shipped files.
        suffix: Of the shipped files.

    Raises:
        FileNotFoundError: Neither a shipped name nor a file.
        ValueError: Neither a string nor a path.
    """
    if not isinstance(name_or_path, str | os.PathLike):
        raise ValueError(f"{kind} must be a name or a path, not {brief(name_or_path)}")
    named, path = shipped / f"{os.fspath(name_or_path)}{suffix}", Path(name_or_path)
    found = next((each for each in (named, path) if each.is_file()), None)
    if found is None:
        names = sorted(file.stem for file in shipped.glob(f"*{suffix}"))
        raise FileNotFoundError(f"{kind} {str(path)!r} is neither a file nor one of the shipped ones: {names}")
    return found


def read_torch_file(path: str | os.PathLike[str], kind: str, safe_globals: Iterable[Any] = ()) -> Any:
    """Read what ``torch.save`` wrote, to the CPU: tensors and plain values, no code, and only as they were written.

    Args:
        path: The file.
        kind: What it should be, for messages, such as ``"a policy"``.
        safe_globals: What else may be in it; see ``torch.serialization.safe_globals``.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It was damaged, holds objects of other classes, or was never written by ``torch.save``.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is a folder, not {kind}" if path.is_dir() else f"no file {path}")
    if not _is_archive(path):  # but perhaps a file of torch before 1.6, which has no checksums
        fault = first_sight(path)
    elif _is_whole(path):
        fault = None
    else:
        fault = "it is cut off, or its bytes have changed since it was written; copy or download it again"
    if fault is None:
        with torch.serialization.safe_globals(list(safe_globals)):
            try:
                return torch.load(path, map_location="cpu", weights_only=True)
            except Exception:  # torch names no class for what it can't read, and its text advises to read it unsafely
                fault = _foreign(path)
    raise ValueError(f"{path} can't be read safely as {kind}: {fault}")


def first_sight(path: Path) -> str | None:
    """What a file is that is often taken for another one, by its first bytes, and what to do about it."""
    with path.open("rb") as file:
        start = file.read(16)
    if not start:
        return "it is empty; copy or download it again"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return "it is a web page; the download was refused or asked for a confirmation, so try it in a browser"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        return "it is a safetensors file, as recognisers are"
    if _is_archive(path):
        return "it is an archive, as policies and released checkpoints are (import_checkpoint.py converts the latter)"
    return None


def _is_archive(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _is_whole(archive: Path) -> bool:
    """Whether all of a zip archive is as its checksums say."""
    try:
        with zipfile.ZipFile(archive) as file:
            return file.testzip() is None
    except Exception:  # depends on which byte is wrong
        return False


def _foreign(path: Path) -> str:
    """What to do about a whole file that torch refuses."""
    try:
        found = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except (RuntimeError, ValueError):  # files of torch before 1.6 don't tell, and others are no files of torch
        found = []
    if not found:
        return "it is damaged, or torch.save didn't write it, or not tensors and plain values alone"
    return (
        f"it holds objects of {', '.join(found)}, which could run code; who trusts it can load it with the code that "
        "wrote it, and save the state_dict() of its networks alone"
    )


def unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by the names that they have without DataParallel (``module.``) and torch.compile
    (``_orig_mod.``), whose prefixes say nothing about the network.

    Raises:
        ValueError: Two of them get the same name.
    """
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        short = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
        if short in plain:
            raise ValueError(f"{short} is there twice, with and without a prefix of {sorted(_WRAPPERS)}")
        plain[short] = tensor
    return plain


def differences(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Iterator[str]:
    """A sentence for every tensor that is missing, unknown, or of another shape or kind of number than is wanted."""
    yield from (f"{name} is missing" for name in wanted if name not in tensors)
    for name, tensor in tensors.items():
        if name not in wanted:
            yield f"{name} is unknown"
        elif tensor.shape != wanted[name].shape:
            yield f"{name} must be {tuple(wanted[name].shape)}, not {tuple(tensor.shape)}"
        elif (tensor.is_floating_point(), tensor.layout) != (wanted[name].is_floating_point(), wanted[name].layout):
            yield f"{name} must be {wanted[name].dtype}, not {tensor.dtype} ({tensor.layout})"
        elif not bool(torch.isfinite(tensor).all()):
            yield f"{name} holds values that are not finite; the training has diverged, so take an earlier file"


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """``module.load_state_dict``, but nothing doubtful is loaded, and all that is wrong is said.

    Args:
        module: Gets the weights.
        tensors: By the module's names, with or without prefixes of wrappers (see :func:`unwrapped`).

    Raises:
        ValueError: See :func:`differences`. It doesn't name the file.
    """
    tensors = unwrapped(tensors)
    if problems := list(differences(tensors, module.state_dict())):
        raise ValueError("the weights are not those that the configuration asks for:\n  " + "\n  ".join(problems))
    module.load_state_dict(tensors)
