"""Make the image pool that ships with the package from the full Fashion-MNIST.

The script reads the four IDX files of Fashion-MNIST (Debian's package `dataset-fashion-mnist` puts them under
`/usr/share/datasets/fashion-mnist`) and writes a compact subset as `fashion_mnist.npz`: class-balanced images with 32
grey levels, in five pools that share no image. The pools `test` and `final` come from the data set's own test file.
"""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adafocus_env.command_line import run_script
from adafocus_env.files import unfinished

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


GREY_LEVELS = 32
SLICES = {
    "train": {
        "recognizer": (slice(0, 1150),),
        "train": (slice(1150, 1450), slice(1550, 2100)),
        "val": (slice(1450, 1550),),
    },
    "t10k": {"test": (slice(0, 300),), "final": (slice(300, 600),)},
}
"""Which of each class's shuffled images go to which pool, by source file."""


@dataclass
class Config:
    source: Path = Path("/usr/share/datasets/fashion-mnist")
    """Folder with Fashion-MNIST's four .gz IDX files."""
    out: Path = Path("runs/make_image_pool")
    """Folder to write fashion_mnist.npz to."""
    seed: int = 0
    """Seed of the choice of images."""


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read a gzipped IDX file of unsigned bytes."""
    import numpy as np

    data = gzip.decompress(path.read_bytes())
    zero, kind, dimensions = struct.unpack(">HBB", data[:4])
    if zero != 0 or kind != 8:
        raise ValueError(f"{path} is not an IDX file of unsigned bytes")
    shape = struct.unpack(f">{dimensions}I", data[4 : 4 + 4 * dimensions])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def main(config: Config) -> None:
    import numpy as np

    random = np.random.default_rng(config.seed)
    arrays: dict[str, npt.NDArray[np.uint8]] = {}
    for file, pools in SLICES.items():
        images = read_idx(config.source / f"{file}-images-idx3-ubyte.gz")
        labels = read_idx(config.source / f"{file}-labels-idx1-ubyte.gz")
        levels = np.round(images / 255 * (GREY_LEVELS - 1)).astype(np.uint8)
        by_class = [random.permutation(np.flatnonzero(labels == label)) for label in range(10)]
        for pool, slices in pools.items():
            chosen = np.concatenate([indices[part] for part in slices for indices in by_class])
            arrays[f"{pool}_images"] = levels[chosen]
            arrays[f"{pool}_labels"] = labels[chosen]
    path = config.out / "fashion_mnist.npz"
    with unfinished(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, {', '.join(f'{k} {v.shape}' for k, v in arrays.items())}")


if __name__ == "__main__":
    run_script(main, Config, __doc__)
