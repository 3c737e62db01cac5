"""Pictures to JPEG files, the same bytes on every run."""

from __future__ import annotations

from pathlib import Path

import cv2

from finegrain.data.synthetic.canvas import Pixels

_QUALITY = 92


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
    path.write_bytes(data.tobytes())
