"""Files on the Hugging Face Hub, through the optional package ``huggingface_hub``."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_OF_FILES = (".safetensors", ".pt", ".pth", ".tar", ".zip", ".checkpoint")


def is_repository(name: object) -> bool:
    """Whether a name can only be that of a repository on the Hub, ``"org/name"``: a ``Path``, a name that ends as files
    do, or one that begins with a folder that is here, can't be."""
    return (
        isinstance(name, str)
        and _REPOSITORY.fullmatch(name) is not None
        and not name.endswith(_OF_FILES)
        and not Path(name.split("/")[0]).is_dir()
    )


def download(repository: str, filename: str) -> Path:
    """A file of a repository, downloaded once and kept in ``huggingface_hub``'s cache.

    Raises:
        FileNotFoundError: ``huggingface_hub`` isn't installed, or can't get the file.
    """
    try:
        hub = load_hub()
    except ImportError as error:
        raise FileNotFoundError(f"no folder {repository!r}; if it is on the Hugging Face Hub, {error}") from error
    try:
        return Path(hub.hf_hub_download(repository, filename))
    except Exception as error:  # its class depends on what is missing: repository, file, right or network
        raise FileNotFoundError(
            f"{repository!r} is no folder here, and the Hugging Face Hub doesn't give {filename} of it: {error}"
        ) from error


def load_hub() -> ModuleType:
    """The package ``huggingface_hub``.

    Raises:
        ImportError: It isn't installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError("huggingface_hub is needed: pip install 'adafocus-env[hub]'") from error
    return huggingface_hub
