"""Pictures to JPEG files, the same bytes on every run."""

from __future__ import annotations

import os
from pathlib import Path

import cv2

from finegrain.synthetic.canvas import Pixels

_QUALITY = 92
_END = b"\xff\xd9"
"""The last bytes of every JPEG file."""


def write_jpeg(path: Path, image: Pixels) -> None:
    """Write a picture (RGB, uint8 [H, W, 3]), making its folder."""
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        _QUALITY,
        # Halved chroma would mix a bag's colour into the coat's at this size.
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Half of a picture is never under its name; the next run overwrites it.
    unfinished = path.with_name(f".{path.name}.partial")
    unfinished.write_bytes(data.tobytes())
    os.replace(unfinished, path)


def is_drawn(path: Path) -> bool:
    """Whether an earlier run wrote the picture to its end; a power cut can leave less."""
    try:
        with path.open("rb") as file:
            file.seek(-len(_END), os.SEEK_END)
            return file.read() == _END
    except OSError:
        return False
