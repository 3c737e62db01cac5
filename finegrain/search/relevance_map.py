"""Draws the regions of a picture that each word of a query matches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

TILE = (320, 200)
"""Maximum height and width of a picture, in pixels."""

COLUMNS = 6
_MAX_DRAWN = 24
_MARGIN, _GAP, _LABEL = 24, 14, 40
_PAPER, _INK, _SOFT, _AGAINST = (250, 250, 248), (28, 28, 30), (128, 128, 134), (206, 58, 50)
_WARM, _COLD = (255, 120, 0), (40, 90, 230)
_STRONGEST = 0.75  # opacity of the map where it is strongest


def draw(
    picture: Image.Image,
    words: Sequence[str],
    contribution: NDArray[np.floating],
    relevance: NDArray[np.floating],
) -> Image.Image:
    """Draw the picture, and a relevance map of each word: orange is positive, blue negative.

    All maps share one scale, so the map of a word with little relevance is pale.

    Args:
        picture: The picture in RGB.
        words: The ``W`` words; at most 24 with the largest absolute contribution are drawn.
        contribution: Contribution of each word, ``[W]``.
        relevance: Joint contribution of each word and region, ``[W, R, C]``.
    """
    strongest = np.argsort(-np.abs(contribution), kind="stable")[:_MAX_DRAWN]
    shown: list[int] = sorted(int(i) for i in strongest)
    tile = ImageOps.contain(picture, TILE[::-1], Image.Resampling.LANCZOS)
    columns = min(COLUMNS, 1 + len(shown))
    rows = -(-(1 + len(shown)) // columns)
    step = (tile.width + _GAP, tile.height + _LABEL + _GAP)
    page = Image.new(
        "RGB",
        (2 * _MARGIN + columns * step[0] - _GAP, 2 * _MARGIN + rows * step[1] - _GAP),
        _PAPER,
    )
    pen = ImageDraw.Draw(page)
    scale = max(float(np.abs(relevance[shown]).max()), np.finfo(np.float32).tiny)
    page.paste(tile, (_MARGIN, _MARGIN))
    for position, i in enumerate(shown, start=1):
        left = _MARGIN + position % columns * step[0]
        top = _MARGIN + position // columns * step[1]
        page.paste(_overlaid(tile, relevance[i] / scale), (left, top))
        _label(pen, (left, top + tile.height + 4), tile.width, words[i], float(contribution[i]))
    return page


def _overlaid(tile: Image.Image, strength: NDArray[np.floating]) -> Image.Image:
    """A picture in grey under a map with values from -1 to 1."""
    grey = ImageOps.grayscale(tile).convert("RGB")
    sized = Image.fromarray(strength.astype(np.float32)).resize(tile.size, Image.Resampling.BICUBIC)
    values = np.asarray(sized).clip(-1, 1)[..., None]
    colour = np.where(values > 0, np.array(_WARM), np.array(_COLD))
    share = _STRONGEST * np.abs(values)
    mixed: NDArray[Any] = (1 - share) * np.asarray(grey) + share * colour
    return Image.fromarray(mixed.round().astype(np.uint8))


def _label(
    pen: ImageDraw.ImageDraw, corner: tuple[int, int], width: int, word: str, adds: float
) -> None:
    font, small = (cast(ImageFont.FreeTypeFont, ImageFont.load_default(s)) for s in (17, 13))
    while len(word) > 1 and font.getlength(word) > width - 60:
        word = word[:-2] + "…"
    pen.text(corner, word, _INK if adds > 0 else _AGAINST, font)
    pen.text((corner[0] + width, corner[1] + 3), f"{adds:+.3f}", _SOFT, small, "ra")
