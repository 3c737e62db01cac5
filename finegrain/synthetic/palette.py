"""The colours of people, garments and hair, as sRGB triples."""

from __future__ import annotations

RGB = tuple[int, int, int]

# Each can still be named after a camera's tint and light: the distance between two is larger than
# any change by a view.
COLORS: dict[str, RGB] = {
    "black": (30, 30, 34),
    "white": (236, 236, 234),
    "grey": (128, 130, 134),
    "red": (196, 28, 38),
    "blue": (36, 80, 182),
    "green": (36, 124, 62),
    "yellow": (238, 202, 44),
    "orange": (236, 116, 24),
    "pink": (240, 146, 180),
    "purple": (112, 50, 144),
    "brown": (104, 64, 36),
    "beige": (216, 192, 150),
}

DENIM: dict[str, RGB] = {
    "blue": (52, 84, 140),
    "black": (36, 37, 42),
    "grey": (118, 122, 130),
}

SKIN: dict[str, RGB] = {
    "fair": (238, 200, 176),
    "light": (224, 178, 146),
    "tan": (198, 146, 108),
    "brown": (146, 98, 66),
    "dark": (96, 62, 44),
}

HAIR: dict[str, RGB] = {
    "black": (30, 26, 26),
    "brown": (82, 54, 36),
    "blond": (206, 168, 100),
    "red": (158, 74, 34),
    "grey": (150, 148, 146),
}
