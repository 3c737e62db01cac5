"""Parts of pictures and videos, and their addresses.

A gallery identifies a part by its address: the path of the file and a media fragment
(https://www.w3.org/TR/media-frags/)::

    /films/gate-3.mp4#t=12.400                       the frame at that second
    /films/gate-3.mp4#t=12.400&xywh=10,20,64,128     a part of that frame, in pixels
    /photos/street.jpg#xywh=10,20,64,128             a part of a picture
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from PIL import Image

from finegrain.errors import ImageError

MAX_SECONDS = 10_000_000
"""Maximum length of a video in seconds; a third of a year."""

MAX_COORDINATE = 99_999
"""Maximum coordinate and size of a box, in pixels."""

_FRAGMENT = re.compile(
    r"(?=.)(?:t=(?P<time>[0-9]{1,7}(?:\.[0-9]{1,3})?))?"
    r"(?:(?:^|(?<=[0-9])&)xywh=(?P<box>[0-9]{1,5},[0-9]{1,5},[1-9][0-9]{0,4},[1-9][0-9]{0,4}))?"
)


@dataclass(frozen=True, slots=True)
class Crop:
    """A part of a picture, a frame of a video, or a part of such a frame.

    Attributes:
        path: Path of the file.
        box: Left, top, width and height in pixels of the upright picture; None for all of it.
        time: Time of the frame in seconds from the first frame of a video, rounded to
            milliseconds; None for pictures.

    Raises:
        ImageError: The box or the time is invalid, or both are None.

    Example:
        >>> crop = Crop.of("/films/gate-3.mp4#t=12.400&xywh=10,20,64,128")
        >>> crop.time, crop.box
        (12.4, (10, 20, 64, 128))
        >>> crop.address
        '/films/gate-3.mp4#t=12.400&xywh=10,20,64,128'
    """

    path: str | Path
    box: tuple[int, int, int, int] | None = None
    time: float | None = None

    def __post_init__(self) -> None:
        if self.box is None and self.time is None:
            raise ImageError(
                f"A crop of {self.path} has a box or a time; got neither. Pass the path alone."
            )
        if self.box is not None:
            # Integers of NumPy become int, because they print differently.
            object.__setattr__(self, "box", _checked_box(self.path, self.box))
        if self.time is not None:
            if not 0 <= self.time < MAX_SECONDS:
                raise ImageError(
                    f"expected the time of a frame as 0 to {MAX_SECONDS} s, got {self.time!r}"
                )
            object.__setattr__(self, "time", round(float(self.time), 3))

    @classmethod
    def of(cls, address: str | Path) -> Self | None:
        """Parse an address; None for other paths and existing files with ``#`` in their name."""
        path, _, fragment = str(address).rpartition("#")
        parsed = _FRAGMENT.fullmatch(fragment)
        if not path or parsed is None or os.path.lexists(address):
            return None
        box, time = parsed["box"], parsed["time"]
        x, y, width, height = map(int, box.split(",")) if box else (0, 0, 0, 0)
        return cls(
            path,
            (x, y, width, height) if box else None,
            None if time is None else float(time),
        )

    @property
    def address(self) -> str:
        """The absolute path with the fragment; :meth:`of` parses it."""
        parts = [] if self.time is None else [f"t={self.time:.3f}"]
        parts += [] if self.box is None else [f"xywh={','.join(map(str, self.box))}"]
        return f"{os.path.realpath(self.path)}#{'&'.join(parts)}"

    def cut(self, whole: Image.Image, size: tuple[int, int] | None = None) -> Image.Image:
        """Cut the box out of the upright picture; parts outside of the picture are left out.

        Args:
            whole: The picture, which may be reduced in size.
            size: Width and height of the original, to which the box refers; by default those of
                ``whole``.

        Raises:
            ImageError: The whole box lies outside of the picture.
        """
        if self.box is None:
            return whole
        x, y, width, height = self.box
        full_width, full_height = size or whole.size
        if x >= full_width or y >= full_height:
            raise ImageError(
                f"{self.path}: the box {','.join(map(str, self.box))} lies outside the picture "
                f"of {full_width} x {full_height} pixels. Boxes are left, top, width, height."
            )
        left, right = _scaled(x, min(x + width, full_width), whole.width / full_width)
        top, bottom = _scaled(y, min(y + height, full_height), whole.height / full_height)
        return whole.crop((left, top, right, bottom))


def _scaled(start: int, stop: int, scale: float) -> tuple[int, int]:
    """Scale a range of pixels to a reduced picture; the result has at least one pixel."""
    if scale == 1:
        return start, stop
    first = math.floor(start * scale)
    return first, max(first + 1, round(stop * scale))


def _checked_box(path: str | Path, box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    try:
        x, y, width, height = (int(side) for side in box)
        is_integral = (x, y, width, height) == tuple(box)
    except (TypeError, ValueError, OverflowError):
        is_integral = False
    if (
        not is_integral
        or min(x, y) < 0
        or min(width, height) < 1
        or max(x, y, width, height) > MAX_COORDINATE
    ):
        raise ImageError(
            f"expected a box of {path} as left, top, width and height in whole pixels, 0 to "
            f"{MAX_COORDINATE}, with width and height of at least 1; got {box!r:.80}"
        )
    return x, y, width, height
