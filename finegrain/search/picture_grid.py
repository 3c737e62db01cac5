"""Draws pictures in a grid with text under each."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from math import ceil
from statistics import median
from typing import cast

from PIL import Image, ImageDraw, ImageFont

from finegrain.errors import ImageError

_MAX_GRID_PIXELS = 100_000_000
_AREA = 384 * 192
_MAX_SIDE = 1024
_PERSON_SHAPE = 2.0  # height divided by width
_MAX_SHAPE = 2.5
_MIN_SIDE = 4
_FACT_UNITS = 3  # line height of a fact, in half units
_Colour = tuple[int, int, int]

_PAPER: _Colour = (250, 250, 248)
_INK: _Colour = (28, 28, 30)
_SOFT: _Colour = (128, 128, 134)
_LINE: _Colour = (222, 222, 220)
_MISSING: _Colour = (233, 233, 231)
_RIGHT: _Colour = (38, 150, 84)
_WRONG: _Colour = (206, 58, 50)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A picture of a grid and the text under it.

    Attributes:
        open: Returns the picture when it is drawn, or None if it is missing.
        left: Text under the left corner.
        right: Text under the right corner.
        facts: Lines below, each cut to the width of the tile.
        correct: True draws a green frame, False a red frame.
    """

    open: Callable[[], Image.Image | None]
    left: str
    right: str
    facts: Sequence[str] = ()
    correct: bool | None = None


def fitting_tile(sizes: Sequence[tuple[int, int]], *, area: int) -> tuple[int, int]:
    """Height and width of a tile with the median shape of pictures.

    Args:
        sizes: Width and height of each picture; if empty, the tile has the shape of a person.
        area: Area of the tile, in pixels.
    """
    shape = median(height / width for width, height in sizes) if sizes else _PERSON_SHAPE
    shape = min(max(shape, 1 / _MAX_SHAPE), _MAX_SHAPE)
    return round((area * shape) ** 0.5), round((area / shape) ** 0.5)


def draw_grid(
    title: str, tiles: Sequence[Tile], *, columns: int, tile: tuple[int, int] | None
) -> Image.Image:
    """Draw tiles under a title, from left to right and top to bottom.

    Each picture is scaled to fit into its tile.

    Args:
        title: Text above the tiles, of at most three lines.
        tiles: Tiles; a missing picture is drawn in grey.
        columns: Maximum number of columns.
        tile: Height and width of a tile, in pixels; None chooses them from the pictures.

    Raises:
        ImageError: The grid would be too large.
    """
    columns = min(columns, max(1, len(tiles)))
    if tile is None:
        tiles, sizes = _opened(tiles)
        tile = fitting_tile(sizes, area=_AREA)
    return _Grid(columns=columns, tile=tile).draw(title, tiles)


def _opened(tiles: Sequence[Tile]) -> tuple[list[Tile], list[tuple[int, int]]]:
    """Tiles with reduced pictures in memory, and the original sizes of the pictures."""
    if len(tiles) * _AREA > _MAX_GRID_PIXELS:
        raise ImageError(
            f"A grid of {len(tiles)} pictures would be larger than {_MAX_GRID_PIXELS:,} pixels. "
            "Draw the first ones, as in matches[:50].save(...), or smaller tiles."
        )
    opened: list[Tile] = []
    sizes: list[tuple[int, int]] = []
    for tile in tiles:
        picture = tile.open()
        if picture is not None:
            sizes.append(picture.size)
            picture.thumbnail((_MAX_SIDE, _MAX_SIDE), Image.Resampling.LANCZOS)
        opened.append(replace(tile, open=partial(_same, picture)))
    return opened, sizes


def _same(picture: Image.Image | None) -> Image.Image | None:
    return picture


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grid:
    """Layout of a picture grid; all sizes are proportional to the tile."""

    columns: int
    tile: tuple[int, int]

    @property
    def _unit(self) -> int:
        return max(4, round(min(self.tile) / 16))

    def draw(self, title: str, tiles: Sequence[Tile]) -> Image.Image:
        height, width = self.tile
        unit = self._unit
        rows = -(-len(tiles) // self.columns)
        margin, gap = 3 * unit, 2 * unit
        page_width = max(2 * margin + self.columns * (width + gap) - gap, 40 * unit)
        heading = _wrapped(title, _font(2 * unit), page_width - 2 * margin)
        top = margin + len(heading) * 3 * unit + unit
        num_facts = max((len(tile.facts) for tile in tiles), default=0)
        card = height + unit // 2 + 2 * unit + num_facts * _FACT_UNITS * unit // 2 + unit // 2
        page_height = top + rows * (card + gap) - (gap if rows else 0) + margin
        if page_width * page_height > _MAX_GRID_PIXELS:
            raise ImageError(
                f"A grid of {len(tiles)} pictures would be {page_width} x {page_height} pixels. "
                "Draw the first ones, as in matches[:50].save(...), or smaller tiles."
            )
        page = Image.new("RGB", (page_width, page_height), _PAPER)
        pen = ImageDraw.Draw(page)
        for line, text in enumerate(heading):
            pen.text((margin, margin + line * 3 * unit), text, _INK, _font(2 * unit))
        for index, tile in enumerate(tiles):
            row, column = divmod(index, self.columns)
            corner = (margin + column * (width + gap), top + row * (card + gap))
            page.paste(self._picture(tile), corner)
            self._caption(pen, tile, (corner[0], corner[1] + height + unit // 2))
        return page

    def _picture(self, tile: Tile) -> Image.Image:
        height, width = self.tile
        picture = tile.open()
        shown = self._missing() if picture is None else _contained(picture, width, height)
        if tile.correct is None:
            framed = _framed(shown, self._unit // 2, 1, _LINE)
        else:
            border = max(2, self._unit // 3)
            framed = _framed(shown, self._unit // 2, border, _RIGHT if tile.correct else _WRONG)
        # The frame surrounds the picture; the rest of the tile has the colour of the page.
        page = Image.new("RGB", (width, height), _PAPER)
        page.paste(framed, ((width - framed.width) // 2, height - framed.height))
        return page

    def _missing(self) -> Image.Image:
        height, width = self.tile
        tile = Image.new("RGB", (width, height), _MISSING)
        ImageDraw.Draw(tile).text(
            (width / 2, height / 2), "picture not found", _SOFT, _font(self._unit * 1.2), "mm"
        )
        return tile

    def _caption(self, pen: ImageDraw.ImageDraw, tile: Tile, corner: tuple[int, int]) -> None:
        unit, width = self._unit, self.tile[1]
        left, top = corner
        pen.text((left, top), tile.left, _INK, _font(1.5 * unit))
        pen.text((left + width, top), tile.right, _SOFT, _font(1.5 * unit), "ra")
        small = _font(1.2 * unit)
        for line, fact in enumerate(tile.facts):
            below = top + 2 * unit + line * _FACT_UNITS * unit // 2
            pen.text((left, below), _cut(fact, small, width), _SOFT, small)


def _contained(picture: Image.Image, width: int, height: int) -> Image.Image:
    """A picture scaled to fit; a very long one is stretched to a side that a frame fits on."""
    scale = min(width / picture.width, height / picture.height)
    size = (
        max(_MIN_SIDE, round(picture.width * scale)),
        max(_MIN_SIDE, round(picture.height * scale)),
    )
    return picture.resize(size, Image.Resampling.LANCZOS)


def _framed(tile: Image.Image, radius: int, border: int, colour: _Colour) -> Image.Image:
    """Round the corners and draw a frame, at four times the size for smooth arcs."""
    large = (tile.width * 4, tile.height * 4)
    box = (0, 0, large[0] - 1, large[1] - 1)
    inside, frame = Image.new("L", large), Image.new("L", large)
    ImageDraw.Draw(inside).rounded_rectangle(box, radius * 4, fill=255)
    ImageDraw.Draw(frame).rounded_rectangle(box, radius * 4, outline=255, width=border * 4)
    result = Image.new("RGB", tile.size, _PAPER)
    result.paste(tile, mask=inside.resize(tile.size, Image.Resampling.BOX))
    result.paste(colour, mask=frame.resize(tile.size, Image.Resampling.BOX))
    return result


@lru_cache(maxsize=16)
def _font(size: float) -> ImageFont.FreeTypeFont:
    return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Break a text into at most three lines."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > 3:
        lines = [*lines[:2], " ".join(lines[2:])]
    return [_cut(line, font, width) for line in lines]


def _cut(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    longest = bisect(range(1, len(text)), width, key=lambda n: ceil(font.getlength(text[:n] + "…")))
    return text[:longest] + "…"
