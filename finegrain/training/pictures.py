"""The pictures of a split, decoded once and resized for the image tower."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from finegrain.preprocess import ImageTransform, load_image
from finegrain.records import Split

MAX_MEMORY = 2 << 30
"""Decoded pictures are kept in memory up to this number of bytes, and above it in a file."""

CACHE = Path(os.environ.get("FINEGRAIN_CACHE", "~/.cache/finegrain")).expanduser()
"""Folder of these files, which all runs and processes share."""


class Pictures:
    """The pictures of a split as uint8 ``[H, W, 3]``.

    Small splits are kept in memory. For a large split, a memory-mapped file is written at the
    first use, with 147 kB per picture at 384x128. Its name is a digest of the transform and of
    the path, size and modification time of every picture, so it is never out of date. The folder
    may be deleted at any time.

    Raises:
        ImageError: A picture cannot be read.
    """

    def __init__(self, split: Split, transform: ImageTransform, *, progress: bool) -> None:
        self._paths = [sample.image for sample in split.samples]
        self._transform = transform
        shape = (len(self._paths), transform.height, transform.width, 3)
        if np.prod(shape) <= MAX_MEMORY:
            self._decoded = np.empty(shape, np.uint8)
            self._decode_into(self._decoded, progress)
        else:
            self._decoded = self._from_file(shape, progress)

    def __getitem__(self, i: int) -> NDArray[np.uint8]:
        """A writable copy of picture ``i``, uint8 ``[H, W, 3]``."""
        return np.array(self._decoded[i])

    def _from_file(self, shape: tuple[int, ...], progress: bool) -> NDArray[np.uint8]:
        path = CACHE / "pictures" / f"{self._digest()}.npy"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Two processes may do the same work at once, but neither reads an incomplete file.
            unfinished = path.with_name(f".{path.name}.{os.getpid()}")
            try:
                made = np.lib.format.open_memmap(unfinished, "w+", np.uint8, shape)
                self._decode_into(made, progress)
                made.flush()
                del made  # Windows does not rename a file that is mapped
                os.replace(unfinished, path)
            finally:
                unfinished.unlink(missing_ok=True)
        return np.load(path, mmap_mode="r", allow_pickle=False)

    def _digest(self) -> str:
        digest = hashlib.sha256(repr(self._transform).encode())
        for path in self._paths:
            stat = path.stat()
            digest.update(f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()[:32]

    def _decode_into(self, decoded: NDArray[np.uint8], progress: bool) -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            bar = tqdm(
                pool.map(self._read, self._paths),
                total=len(self._paths),
                desc="reading",
                unit=" pictures",
                disable=not progress,
            )
            for i, picture in enumerate(bar):
                decoded[i] = picture

    def _read(self, path: Path) -> NDArray[np.uint8]:
        return self._transform(load_image(path)).transpose(1, 2, 0)
