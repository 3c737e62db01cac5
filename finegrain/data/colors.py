"""Measures the dominant colour of a garment in its photograph."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from finegrain.data.lexicon import COLORS
from finegrain.errors import DataError

_SWATCHES: Mapping[str, tuple[str, ...]] = {
    "black": ("101010", "1e1e1e", "2a2a2c", "383838", "1c1a24", "2a2220"),
    "gray": ("585858", "6e6e6e", "8c8c8c", "a4a4a4", "7a8086", "968f88"),
    "white": ("ffffff", "e8e8e8", "d4d4d4", "c4c4c8", "e6e0dc", "d8dde6"),
    "beige": ("d9c3a5", "c8b08c", "e6d5bb", "b8a48a", "cbb8a6"),
    "brown": ("7b4a2a", "5c3a22", "96663c", "402a1c", "a57b54", "6e5846"),
    "red": ("c8102e", "e0201c", "8c1420", "a02a2e", "5c101c", "d8453e"),
    "orange": ("f07818", "e89040", "d86020", "ff9a50"),
    "yellow": ("f5dc28", "e6c84a", "f0e68c", "c8a818", "fff28a"),
    "green": ("2a8c3c", "1c5030", "78b450", "9ab88c", "5a6b3c", "14967a", "6ec8a0", "b4e68c"),
    "blue": (
        "2840c8",
        "2c50aa",
        "6a7f9e",
        "1c2c5a",
        "5078b4",
        "7896b4",
        "a0c0e0",
        "1e82c8",
        "344a70",
        "28b4dc",
    ),
    "purple": ("6a2a8c", "8c6ab4", "401a50", "b496d2", "7a2a70"),
    "pink": ("f0a0b4", "e65a96", "e6c0c4", "c83c78", "d89090", "f5c8d2", "ccb0ba"),
}

NAMES = tuple(COLORS)
"""The names of colours, which are those of :mod:`finegrain.data.lexicon`."""

_SIDE = 64
_BORDER = 4
_LIGHTNESS_WEIGHT = 0.6
"""Weight of lightness in distances. Folds and shadows change it more than the hue."""


def dominant_color(image: Image.Image | npt.NDArray[np.uint8]) -> str:
    """Name the colour of the garment in the middle of a photograph.

    Each pixel gets the name of the nearest swatch in CIE Lab. The score of a name is its share
    of the picture's middle, times the ratio of that share to its share of the border, which is
    mostly background.

    Args:
        image: RGB picture, as a Pillow image or uint8 ``[H, W, 3]``.

    Returns:
        One of :data:`NAMES`.

    Raises:
        DataError: ``image`` is not an RGB picture.
    """
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise DataError(
            f"expected an RGB picture [H, W, 3] of uint8, got {pixels.dtype} {list(pixels.shape)}."
        )
    small = cv2.resize(np.ascontiguousarray(pixels), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    names = _nearest_name(np.asarray(small, dtype=np.uint8))
    middle = np.bincount(names.ravel(), weights=_MIDDLE.ravel(), minlength=len(NAMES))
    border = np.bincount(names.ravel(), weights=_RIM.ravel(), minlength=len(NAMES))
    return NAMES[int(np.argmax(middle * middle / np.maximum(middle + border, 1e-9)))]


def _to_lab(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    return np.asarray(lab * np.array([_LIGHTNESS_WEIGHT, 1, 1]), dtype=np.float32)


def _nearest_name(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.intp]:
    pixels = _to_lab(rgb).reshape(-1, 1, 3)
    nearest = np.square(pixels - _SWATCH_LAB).sum(axis=2).argmin(axis=1)
    return np.asarray(_SWATCH_NAME[nearest], dtype=np.intp)


def _middle() -> npt.NDArray[np.float64]:
    """Weights ``[_SIDE, _SIDE]`` that decrease from the centre and sum to 1."""
    offset = (np.arange(_SIDE) - (_SIDE - 1) / 2) / _SIDE
    bell = np.exp(-0.5 * np.square(offset / 0.18))
    return np.asarray(np.outer(bell, bell) / np.square(bell.sum()), dtype=np.float64)


def _rim() -> npt.NDArray[np.float64]:
    rim = np.ones((_SIDE, _SIDE))
    rim[_BORDER:-_BORDER, _BORDER:-_BORDER] = 0
    return np.asarray(rim / rim.sum(), dtype=np.float64)


_MIDDLE, _RIM = _middle(), _rim()
_SWATCH_NAME = np.repeat(np.arange(len(NAMES)), [len(_SWATCHES[name]) for name in NAMES])
_SWATCH_LAB = _to_lab(
    np.array([[list(bytes.fromhex(code)) for name in NAMES for code in _SWATCHES[name]]], np.uint8)
)
