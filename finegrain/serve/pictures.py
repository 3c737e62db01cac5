"""Pictures and JSON in forms, and pictures that are sent out."""

from __future__ import annotations

import io
import json
from typing import Any

from PIL import Image
from starlette.concurrency import run_in_threadpool

from finegrain.errors import ImageError, QueryError
from finegrain.preprocess.image import load_image

_QUALITY = 88
_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


async def decoded(data: bytes) -> Image.Image:
    """The picture in the bytes of an uploaded file.

    Raises:
        ImageError: It is not a JPEG, PNG or WebP file, or is broken or too large.
    """
    if not (data.startswith(_STARTS) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")):
        raise ImageError("expected a JPEG, PNG or WebP file, got something else")
    return await run_in_threadpool(load_image, data)


def as_jpeg(picture: Image.Image, side: int) -> bytes:
    """A picture as a JPEG file whose longer side is at most ``side`` pixels."""
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def json_object(text: str) -> dict[str, Any]:
    """The JSON object in a field of a form.

    Raises:
        QueryError: It is something else.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise QueryError(f"expected a JSON object, got {text!r:.60}")
    return value
