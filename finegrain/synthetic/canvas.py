"""Paints shapes of cloth, skin or hair with rounded shading and folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from finegrain.synthetic.palette import RGB
from finegrain.synthetic.shapes import Points, points

Pixels = NDArray[np.uint8]
Field = NDArray[np.float32]

_SHIFT = 4
_SUBPIXEL = float(1 << _SHIFT)
_TILE = 512
_COOL = np.asarray([0.0, 2.0, 8.0], np.float32)


@dataclass(frozen=True, slots=True)
class Weave:
    """A pattern in a second colour.

    Attributes:
        kind: ``striped`` or ``checked``.
        axis: Direction across the stripes, unit vector (x, y).
        period: Distance between stripes, in pixels.
    """

    kind: str
    color: RGB
    axis: tuple[float, float]
    period: float


@dataclass(frozen=True, slots=True)
class Fold:
    """A soft line on a shape: a crease (negative), or a lit ridge (positive)."""

    line: Points
    width: float
    strength: float


@dataclass(slots=True)
class Shape:
    """The area to fill: a union of outlines, without some cut-outs."""

    add: list[Points]
    cut: list[Points] = field(default_factory=list)


@lru_cache(maxsize=512)
def ramp(color: RGB) -> NDArray[np.uint8]:
    """Look-up table [256, 3] from shade (128 is the flat colour) to colour.

    Shadows are slightly blue, and light is added rather than multiplied, so that
    black cloth has visible folds and every colour can be named.
    """
    shade = np.linspace(0.0, 2.0, 256, dtype=np.float32)[:, None]
    base = np.asarray(color, np.float32)
    dark = np.minimum(shade, 1.0)
    shadow = base * (0.30 + 0.70 * dark) + (1.0 - dark) * _COOL
    light = np.maximum(shade - 1.0, 0.0)
    lit = shadow + light * (0.45 * base * (255.0 - base) / 255.0 + 46.0)
    return np.asarray(np.clip(lit, 0.0, 255.0), np.uint8)


@lru_cache(maxsize=1)
def cloth_noise() -> Field:
    """A tile of soft, upright wrinkles, float32 [512, 512] with unit deviation."""
    rng = np.random.default_rng(7)
    coarse = cv2.GaussianBlur(
        rng.standard_normal((_TILE, _TILE)).astype(np.float32), (0, 0), sigmaX=5, sigmaY=11
    )
    fine = cv2.GaussianBlur(
        rng.standard_normal((_TILE, _TILE)).astype(np.float32), (0, 0), sigmaX=2, sigmaY=3.5
    )
    tile = coarse / coarse.std() + 0.6 * fine / fine.std()
    return np.asarray(tile / tile.std(), np.float32)


class Canvas:
    """A picture that is being drawn.

    Attributes:
        pixels: RGB, uint8 [H, W, 3].
        cover: Painted pixels, uint8 ``[H, W]``.
        regions: Slot painted last at each pixel, as an index into `slots` plus one;
            None unless requested.
    """

    def __init__(
        self, pixels: Pixels, *, light: tuple[float, float], unit: float, regions: bool = False
    ) -> None:
        self.pixels = pixels
        self.cover: Pixels = np.zeros(pixels.shape[:2], np.uint8)
        self.regions: Pixels | None = np.zeros_like(self.cover) if regions else None
        self.slots: list[str] = []
        self._light = light
        self._unit = unit

    def paint(
        self,
        shape: Shape,
        color: RGB,
        *,
        relief: float = 0.04,
        depth: float = 1.0,
        folds: Sequence[Fold] = (),
        wrinkles: float = 0.0,
        weave: Weave | None = None,
        slot: str | None = None,
    ) -> None:
        """Fill a shape.

        Args:
            relief: Width of the rounded rim, in body units.
            depth: Strength of light and shadow on the rounding.
            wrinkles: Strength of random wrinkles, in shade steps.
            slot: Name of the region, for the region map.
        """
        box = self._box(shape)
        if box is None:
            return
        left, top, right, bottom = box
        mask = np.zeros((bottom - top, right - left), np.uint8)
        origin = points((left, top))
        _fill(mask, shape, origin)
        shade = self._shade(mask, relief * self._unit, depth)
        if wrinkles:
            y, x = (left * 7 + top * 3) % 97, (top * 5 + left) % 89
            tile = cloth_noise()[y : y + mask.shape[0], x : x + mask.shape[1]]
            if tile.shape == mask.shape:
                shade += tile * wrinkles
        if folds:
            shade += _fold_map(mask.shape, folds, origin)
        self._blend((left, top, right, bottom), mask, shade, color, weave)
        if slot is not None:
            self._mark((left, top, right, bottom), mask, slot)

    def line(self, path: Points, color: RGB, width: float, alpha: float = 1.0) -> None:
        """A thin line of one colour, ``width`` in pixels, drawn at once."""
        thickness = max(1, round(width))
        if alpha >= 1.0:
            cv2.polylines(self.pixels, [_fixed(path)], False, color, thickness, cv2.LINE_AA, _SHIFT)
            return
        left, top = np.maximum(path.min(axis=0).astype(int) - thickness - 1, 0)
        right, bottom = path.max(axis=0).astype(int) + thickness + 2
        view = self.pixels[top:bottom, left:right]
        if view.size == 0:
            return
        drawn = view.copy()
        cv2.polylines(
            drawn,
            [_fixed(path - points((left, top)))],
            False,
            color,
            thickness,
            cv2.LINE_AA,
            _SHIFT,
        )
        cv2.addWeighted(drawn, alpha, view, 1.0 - alpha, 0.0, dst=view)

    def flat(self, outline: Points, color: RGB) -> None:
        """A filled outline without shading, for small details."""
        cv2.fillPoly(self.pixels, [_fixed(outline)], color, cv2.LINE_AA, _SHIFT)

    def _box(self, shape: Shape) -> tuple[int, int, int, int] | None:
        height, width = self.cover.shape
        corners = np.concatenate(shape.add)
        low, high = corners.min(axis=0), corners.max(axis=0)
        left, top = max(int(low[0]) - 2, 0), max(int(low[1]) - 2, 0)
        right, bottom = min(int(high[0]) + 3, width), min(int(high[1]) + 3, height)
        if right - left < 2 or bottom - top < 2:
            return None
        return left, top, right, bottom

    def _shade(self, mask: Pixels, relief: float, depth: float) -> Field:
        """Shade of a rounded body with this silhouette, float32 ``[h, w]`` around 128."""
        size = max(3, round(relief) | 1)
        # Computed at half size: the result is smooth, and this takes a quarter of the work.
        small = cv2.resize(mask, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        half = max(3, (size // 2) | 1)
        soft = cv2.blur(small, (half, half), borderType=cv2.BORDER_CONSTANT)
        soft = cv2.blur(soft, (half, half), borderType=cv2.BORDER_CONSTANT)
        # The outside has the lower height, so the gradient points inwards at a rim.
        across = cv2.Sobel(soft, cv2.CV_32F, 1, 0, ksize=3, scale=half / 8.0)
        down = cv2.Sobel(soft, cv2.CV_32F, 0, 1, ksize=3, scale=half / 8.0)
        slope = across * np.float32(-self._light[0]) + down * np.float32(self._light[1])
        rim = soft.astype(np.float32) - 255.0
        shade = 134.0 + depth * (0.20 * slope + 0.24 * rim)
        return np.asarray(
            cv2.resize(shade, (mask.shape[1], mask.shape[0]), interpolation=cv2.INTER_LINEAR),
            np.float32,
        )

    def _blend(
        self,
        box: tuple[int, int, int, int],
        mask: Pixels,
        shade: Field,
        color: RGB,
        weave: Weave | None,
    ) -> None:
        left, top, right, bottom = box
        levels = np.asarray(cv2.convertScaleAbs(np.maximum(shade, 8.0)), np.uint8)
        cloth = ramp(color).take(levels, axis=0)
        if weave is not None:
            second = ramp(weave.color).take(levels, axis=0)
            share = _weave_map(mask.shape, weave, (left, top))
            cloth = np.asarray(cv2.blendLinear(cloth, second, 1.0 - share, share), np.uint8)
        alpha = mask.astype(np.float32) * np.float32(1.0 / 255.0)
        view = self.pixels[top:bottom, left:right]
        view[:] = cv2.blendLinear(cloth, view, alpha, 1.0 - alpha)
        cover = self.cover[top:bottom, left:right]
        cv2.max(cover, mask, dst=cover)

    def _mark(self, box: tuple[int, int, int, int], mask: Pixels, slot: str) -> None:
        if self.regions is None:
            return
        if slot not in self.slots:
            self.slots.append(slot)
        left, top, right, bottom = box
        self.regions[top:bottom, left:right][mask > 127] = self.slots.index(slot) + 1


def _fixed(outline: Points) -> NDArray[np.int32]:
    return np.asarray(np.rint(outline * _SUBPIXEL), np.int32)


def _fill(mask: Pixels, shape: Shape, origin: Points) -> None:
    """Draw the outlines of a shape one by one, since overlapping outlines in one call cancel
    out."""
    outlines = [*shape.add, *shape.cut]
    corners = _fixed(np.concatenate(outlines) - origin)
    start = 0
    for number, outline in enumerate(outlines):
        stop = start + len(outline)
        level = 255 if number < len(shape.add) else 0
        cv2.fillPoly(mask, [corners[start:stop]], level, cv2.LINE_AA, _SHIFT)
        start = stop


def _fold_map(shape: tuple[int, ...], folds: Sequence[Fold], origin: Points) -> Field:
    relief = np.zeros(shape, np.float32)
    widest = 1.0
    for fold in folds:
        path = _fixed(fold.line - origin)
        thickness = max(1, round(fold.width))
        cv2.polylines(relief, [path], False, fold.strength, thickness, cv2.LINE_8, _SHIFT)
        widest = max(widest, fold.width)
    size = max(3, round(widest) | 1)
    return np.asarray(cv2.blur(relief, (size, size)), np.float32)


def _weave_map(shape: tuple[int, ...], weave: Weave, origin: tuple[int, int]) -> Field:
    """Share of the second colour, float32 [h, w] from 0 to 1."""
    rows = (np.arange(shape[0], dtype=np.float32) + origin[1])[:, None]
    columns = (np.arange(shape[1], dtype=np.float32) + origin[0])[None]
    turn = np.float32(2.0 * np.pi / weave.period)
    along = (columns * weave.axis[0] + rows * weave.axis[1]) * turn
    stripes = np.clip(np.sin(along) * 3.0 - 0.9, 0.0, 1.0)
    if weave.kind == "striped":
        return np.asarray(stripes, np.float32)
    across = (rows * weave.axis[0] - columns * weave.axis[1]) * turn
    return np.asarray(0.5 * (stripes + np.clip(np.sin(across) * 3.0 - 0.9, 0.0, 1.0)), np.float32)
