"""Helpers for drawing the parts of a person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from finegrain.synthetic.body import Frame, Solid
from finegrain.synthetic.canvas import Canvas, Fold, Shape, Weave
from finegrain.synthetic.palette import COLORS, RGB, SKIN
from finegrain.synthetic.person import Person
from finegrain.synthetic.pose import Pose
from finegrain.synthetic.shapes import Points, blob, ribbon
from finegrain.synthetic.trim import UNTRIMMED, Trim


@dataclass(frozen=True, slots=True)
class Figure:
    """A posed person on a canvas.

    Attributes:
        ghost: Only the clothes are drawn, as on an invisible mannequin.
        trim: Parts of one garment that have another colour.
    """

    person: Person
    pose: Pose
    frame: Frame
    canvas: Canvas
    trunk: Solid
    ghost: bool = False
    trim: Trim = UNTRIMMED

    def trim_of(self, slot: str) -> Trim:
        """The trimming of the garment of a slot."""
        return self.trim if self.trim.slot == slot else UNTRIMMED

    def px(self, length: float) -> float:
        """A length in pixels."""
        return length * self.frame.unit

    def cloth(self, color: str) -> RGB:
        """A named colour, darker or lighter for this person."""
        return shaded(COLORS[color], 1.0 + 0.07 * self.person.tone)

    def limb(self, joints: ArrayLike, radii: ArrayLike, *, round_end: bool = True) -> list[Points]:
        """Pieces of a tapered limb through 3-D joints."""
        line = self.frame.project(np.asarray(joints, np.float32))
        sizes = np.asarray(radii, np.float32) * self.frame.unit
        return ribbon(line, sizes, round_end=round_end)

    def lump(self, centers: ArrayLike, radii: ArrayLike) -> Points:
        """Outline of a rounded body around 3-D centres."""
        line = self.frame.project(np.asarray(centers, np.float32))
        return blob(line, np.asarray(radii, np.float32) * self.frame.unit)

    def fold(
        self, solid: Solid, path: ArrayLike, *, width: float = 0.014, strength: float = -26.0
    ) -> Fold:
        """A crease along (azimuth, height) rows of a solid's surface."""
        return Fold(solid.surface(self.frame, path), self.px(width), strength)

    def weave(self, pattern: str | None, second: str | None, along: ArrayLike) -> Weave | None:
        """The pattern of a garment whose length has the direction (x, y) in the picture."""
        if pattern in (None, "plain") or second is None or pattern is None:
            return None
        axis = np.asarray(along, np.float32)
        axis = axis / max(float(np.hypot(*axis)), 1e-3)
        period = 0.058 if pattern == "striped" else 0.062
        return Weave(pattern, self.cloth(second), (float(axis[0]), float(axis[1])), self.px(period))

    def paint_skin(
        self, outlines: list[Points], *, relief: float = 0.030, gain: float = 1.0
    ) -> None:
        """Bare skin, which an invisible mannequin does not have."""
        if not self.ghost:
            color = shaded(SKIN[self.person.skin], gain)
            self.canvas.paint(Shape(outlines), color, relief=relief, slot="skin")


def shaded(color: RGB, gain: float) -> RGB:
    """A colour made lighter or darker."""
    red, green, blue = (min(255, max(0, round(channel * gain))) for channel in color)
    return red, green, blue


def stations(joints: Points) -> Points:
    """Five points along a limb of three joints: the joints and the midpoints."""
    a, b, c = joints
    # The middle joint is moved towards the straight line, as muscle and cloth are.
    bend = b * 0.92 + (a + c) * 0.04
    return np.stack([a, (a + bend) * 0.5, bend, (bend + c) * 0.5, c]).astype(np.float32)
