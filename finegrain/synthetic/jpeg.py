"""Writes pictures to JPEG files, with the same bytes in every run."""

from __future__ import annotations

import os
from pathlib import Path

import cv2

from finegrain.synthetic.canvas import Pixels

_QUALITY = 92
_END = b"\xff\xd9"
"""The last bytes of every JPEG file."""


def write_jpeg(path: Path, image: Pixels) -> None:
    """Write a picture (RGB, uint8 ``[H, W, 3]``), and create its folder."""
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        _QUALITY,
        # At this size, subsampled chroma would mix the colours of a bag and a coat.
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A partial picture never has the final name; the next run overwrites it.
    unfinished = path.with_name(f".{path.name}.partial")
    unfinished.write_bytes(data.tobytes())
    os.replace(unfinished, path)


def is_drawn(path: Path) -> bool:
    """Whether an earlier run wrote the complete picture; after a power failure it may be
    truncated."""
    try:
        with path.open("rb") as file:
            file.seek(-len(_END), os.SEEK_END)
            return file.read() == _END
    except OSError:
        return False
