"""Safe files of weights: they are verified by checksums, and tensors are compared with the network's.

Files that this package writes reveal whether their bytes have changed. ``.safetensors`` files carry a checksum in their
metadata (:func:`checksum`). Files of ``torch.save`` are archives with checksums of their own, which torch doesn't
verify, but :func:`read_torch_file` does.
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
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from adafocus_env.checks import brief
from adafocus_env.files import write_atomically
from adafocus_env.hub import download, is_repository

_WRAPPERS = {"module", "_orig_mod"}
"""Prefixes that DataParallel and torch.compile add to the names of what they wrap."""


def checksum(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of metadata and of the tensors' names, types, shapes and bytes, in sorted order."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_safetensors(path: str | os.PathLike[str], header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
    """Write tensors and text about them, with a checksum of both, atomically; the same content gives the same bytes.

    Args:
        path: The file, by custom with suffix ``.safetensors``.
        header: The file's metadata, without ``checksum``.
        tensors: By name.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {**header, "checksum": checksum(header, plain)}
    data = save(plain, metadata=metadata)
    size = int.from_bytes(data[:8], "little")
    described = {**json.loads(data[8 : 8 + size]), "__metadata__": metadata}  # safetensors orders it at random
    text = json.dumps(described, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    write_atomically(path, len(text).to_bytes(8, "little") + text + data[8 + size :])


def read_safetensors(path: Path, *, with_tensors: bool = True) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read metadata and, unless told otherwise, tensors; these only together with a checksum that is right, if any.

    Raises:
        ValueError: It is not a safetensors file, is cut off, or its bytes have changed since it was written.
    """
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys() if with_tensors else ()
            header, tensors = dict(file.metadata() or {}), {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        if is_safetensors(path):
            raise ValueError(f"{path} is damaged, or not whole: copy or download it again ({error})") from error
        raise ValueError(
            f"{path} is not a safetensors file, or not a whole one: {first_sight(path) or error}"
        ) from error
    content = {name: text for name, text in header.items() if name != "checksum"}
    if with_tensors and header.get("checksum") not in (None, checksum(content, tensors)):
        raise ValueError(f"{path} has changed since it was written: copy or download it again")
    return header, tensors


def find_file(kind: str, name_or_path: object, shipped: Path, suffix: str) -> Path:
    """Find a shipped file by its name, any file by its path, or the file named for its kind in a folder.

    What is neither, but is the name of a repository on the Hugging Face Hub, is downloaded from there.

    Args:
        kind: What the file should hold, such as ``"policy"``.
        name_or_path: A name without suffix, a path, or, if it is neither, ``"org/name"`` on the Hugging Face Hub.
        shipped: Folder of the shipped files.
        suffix: Suffix of the shipped files.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is neither a string nor a path.
    """
    if not isinstance(name_or_path, str | os.PathLike):
        raise ValueError(f"{kind} must be a name or a path, not {brief(name_or_path)}")
    named, path = shipped / f"{os.fspath(name_or_path)}{suffix}", Path(name_or_path)
    found = next((each for each in (named, path, path / f"{kind}{suffix}") if each.is_file()), None)
    if found is None and is_repository(name_or_path):
        return download(str(name_or_path), f"{kind}{suffix}")
    if found is None:
        names = sorted(file.stem for file in shipped.glob(f"*{suffix}"))
        raise FileNotFoundError(f"{kind} {str(path)!r} is neither a file nor one of the shipped ones: {names}")
    return found


def read_torch_file(path: str | os.PathLike[str], kind: str, safe_globals: Iterable[Any] = ()) -> Any:
    """Read a file of ``torch.save`` to the CPU, if it is undamaged and holds only tensors and plain values.

    Args:
        path: The file.
        kind: What the file should hold, for messages, such as ``"a policy"``.
        safe_globals: Further classes that the file may hold; see ``torch.serialization.safe_globals``.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is damaged, holds objects of other classes, or was not written by ``torch.save``.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is a folder, not {kind}" if path.is_dir() else f"no file {path}")
    if not _is_archive(path):  # perhaps a file of torch before 1.6, which has no checksums
        fault = first_sight(path)
    elif _is_whole(path):
        fault = None
    else:
        fault = "it is cut off, or its bytes have changed since it was written; copy or download it again"
    if fault is None:
        with torch.serialization.safe_globals(list(safe_globals)):
            try:
                return torch.load(path, map_location="cpu", weights_only=True)
            except Exception:  # torch documents no class for such errors, and its message advises unsafe loading
                fault = _foreign(path)
    raise ValueError(f"{path} can't be read safely as {kind}: {fault}")


def first_sight(path: Path) -> str | None:
    """What a file is that is often passed by mistake, told by its first bytes, and what to do about it."""
    with path.open("rb") as file:
        start = file.read(16)
    if not start:
        return "it is empty; copy or download it again"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return "it is a web page; the download was refused or asked for a confirmation, so try it in a browser"
    if is_safetensors(path):
        return "it is a safetensors file, as recognisers and policies are"
    if _is_archive(path):
        return "it is an archive, as released checkpoints (import_checkpoint.py converts them) and old policies are"
    return None


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as a safetensors file does."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def _is_archive(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _is_whole(archive: Path) -> bool:
    """Whether all contents of a zip archive match their checksums."""
    try:
        with zipfile.ZipFile(archive) as file:
            return file.testzip() is None
    except Exception:  # its class depends on which byte is wrong
        return False


def _foreign(path: Path) -> str:
    """Why torch refuses a file that is not known to be damaged, and what to do about it."""
    try:
        found = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except (RuntimeError, ValueError):  # a file of torch before 1.6, or not a file of torch
        found = []
    if not found:
        return "it is damaged, or torch.save didn't write it, or not tensors and plain values alone"
    return (
        f"it holds objects of {', '.join(found)}, which could run code; if you trust it, load it with the code that "
        "wrote it, and save only the state_dict() of its networks"
    )


def unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefixes of DataParallel (``module.``) and torch.compile (``_orig_mod.``) from tensors' names.

    Raises:
        ValueError: Two tensors get the same name.
    """
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        short = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
        if short in plain:
            raise ValueError(f"{short} is there twice, with and without a prefix of {sorted(_WRAPPERS)}")
        plain[short] = tensor
    return plain


def differences(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Iterator[str]:
    """A sentence for every tensor that is missing, unknown, not finite, or of the wrong shape or kind of number."""
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
    """Load weights into a module if all of them fit; otherwise list everything that is wrong.

    Args:
        module: The module that gets the weights.
        tensors: Tensors by the module's names, with or without prefixes of wrappers (see :func:`unwrapped`).

    Raises:
        ValueError: There are :func:`differences`. The message doesn't name the file.
    """
    tensors = unwrapped(tensors)
    if problems := list(differences(tensors, module.state_dict())):
        raise ValueError("the weights are not those that the configuration asks for:\n  " + "\n  ".join(problems))
    module.load_state_dict(tensors)
