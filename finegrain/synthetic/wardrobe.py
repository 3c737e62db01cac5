"""Probabilities of the attributes, given the others, as tables."""

from __future__ import annotations

import random

from finegrain.synthetic.palette import COLORS

Weights = dict[str, float]

NONE = "none"
WARM = ("coat", "jacket", "hoodie")
SWAPS: tuple[tuple[str, str], ...] = (
    ("upper", "lower"),
    ("shoes", "bag"),
    ("upper", "bag"),
    ("upper", "shoes"),
)
"""Slots whose colours a swap pair may exchange, in order of preference."""

UPPER: dict[str, Weights] = {
    "woman": {
        "coat": 0.23,
        "jacket": 0.17,
        "t-shirt": 0.16,
        "shirt": 0.14,
        "hoodie": 0.10,
        "dress": 0.20,
    },
    "man": {"coat": 0.21, "jacket": 0.24, "t-shirt": 0.22, "shirt": 0.17, "hoodie": 0.16},
}

_UPPER_COLOR: Weights = {
    "black": 0.13,
    "white": 0.10,
    "grey": 0.09,
    "red": 0.12,
    "blue": 0.11,
    "green": 0.09,
    "yellow": 0.08,
    "orange": 0.06,
    "pink": 0.06,
    "purple": 0.06,
    "brown": 0.06,
    "beige": 0.07,
}
_RARE_FOR_MEN = ("pink", "purple")

PATTERN: dict[str, Weights] = {
    "coat": {"plain": 0.88, "checked": 0.12},
    "jacket": {"plain": 0.92, "checked": 0.08},
    "t-shirt": {"plain": 0.66, "striped": 0.34},
    "shirt": {"plain": 0.50, "striped": 0.20, "checked": 0.30},
    "hoodie": {"plain": 0.86, "striped": 0.14},
    "dress": {"plain": 0.66, "striped": 0.17, "checked": 0.17},
}
LOWER_PATTERN: dict[str, Weights] = {
    "trousers": {"plain": 0.92, "checked": 0.08},
    "jeans": {"plain": 1.0},
    "shorts": {"plain": 0.85, "checked": 0.15},
    "skirt": {"plain": 0.75, "striped": 0.10, "checked": 0.15},
}
SLEEVES: dict[str, Weights] = {
    "coat": {"long": 1.0},
    "jacket": {"long": 1.0},
    "t-shirt": {"short": 0.88, "long": 0.12},
    "shirt": {"long": 0.68, "short": 0.32},
    "hoodie": {"long": 1.0},
    "dress": {"short": 0.55, "long": 0.45},
}
OPEN_SHARE: Weights = {"coat": 0.35, "jacket": 0.35}
BELT_SHARE: Weights = {"coat": 0.35, "dress": 0.35}

_LOWER: dict[str, Weights] = {
    "woman": {"trousers": 0.32, "jeans": 0.34, "skirt": 0.22, "shorts": 0.12},
    "man": {"trousers": 0.43, "jeans": 0.41, "shorts": 0.16},
}
LOWER_COLOR: dict[str, Weights] = {
    "trousers": {
        "black": 0.30,
        "grey": 0.15,
        "beige": 0.13,
        "brown": 0.09,
        "white": 0.07,
        "blue": 0.08,
        "green": 0.06,
        "red": 0.05,
        "purple": 0.02,
        "orange": 0.02,
        "pink": 0.02,
        "yellow": 0.01,
    },
    "jeans": {"blue": 0.62, "black": 0.24, "grey": 0.14},
    "shorts": {
        "black": 0.18,
        "blue": 0.16,
        "beige": 0.16,
        "grey": 0.12,
        "white": 0.10,
        "green": 0.09,
        "red": 0.09,
        "brown": 0.05,
        "orange": 0.05,
    },
    "skirt": {
        "black": 0.18,
        "red": 0.14,
        "white": 0.10,
        "pink": 0.10,
        "blue": 0.10,
        "grey": 0.08,
        "green": 0.08,
        "yellow": 0.06,
        "purple": 0.06,
        "brown": 0.05,
        "beige": 0.05,
    },
}
JEANS_COLOR = LOWER_COLOR["jeans"]
HEM: dict[str, Weights] = {
    "trousers": {"long": 0.86, "cropped": 0.14},
    "jeans": {"long": 0.88, "cropped": 0.12},
    "shorts": {"short": 0.4, "knee": 0.6},
    "skirt": {"short": 0.38, "knee": 0.42, "long": 0.20},
    "dress": {"short": 0.36, "knee": 0.42, "long": 0.22},
}

_SHOES: dict[str, Weights] = {
    "woman": {"sneakers": 0.42, "boots": 0.24, "shoes": 0.24, "sandals": 0.10},
    "man": {"sneakers": 0.56, "boots": 0.17, "shoes": 0.24, "sandals": 0.03},
}
SHOES_COLOR: dict[str, Weights] = {
    "sneakers": {
        "white": 0.40,
        "black": 0.20,
        "grey": 0.10,
        "red": 0.10,
        "blue": 0.08,
        "green": 0.04,
        "yellow": 0.04,
        "pink": 0.04,
    },
    "boots": {"black": 0.52, "brown": 0.32, "beige": 0.10, "red": 0.06},
    "shoes": {"black": 0.52, "brown": 0.30, "white": 0.08, "red": 0.10},
    "sandals": {"brown": 0.40, "black": 0.30, "white": 0.15, "beige": 0.15},
}
BAG: dict[str, Weights] = {
    "woman": {NONE: 0.32, "backpack": 0.20, "handbag": 0.27, "shoulder bag": 0.21},
    "man": {NONE: 0.48, "backpack": 0.31, "shoulder bag": 0.18, "handbag": 0.03},
}
BAG_COLOR: Weights = {
    "black": 0.28,
    "brown": 0.15,
    "red": 0.11,
    "blue": 0.10,
    "grey": 0.08,
    "beige": 0.07,
    "green": 0.06,
    "yellow": 0.05,
    "white": 0.04,
    "orange": 0.03,
    "pink": 0.03,
}
HAT: Weights = {NONE: 0.68, "cap": 0.13, "beanie": 0.11, "hat": 0.08}
HAT_COLOR: Weights = {
    "black": 0.22,
    "white": 0.12,
    "red": 0.15,
    "blue": 0.13,
    "grey": 0.10,
    "beige": 0.09,
    "brown": 0.06,
    "green": 0.06,
    "yellow": 0.04,
    "orange": 0.03,
}
UMBRELLA_SHARE = 0.11
UMBRELLA_COLOR: Weights = {
    "black": 0.24,
    "red": 0.18,
    "blue": 0.15,
    "yellow": 0.12,
    "green": 0.10,
    "white": 0.07,
    "purple": 0.07,
    "pink": 0.07,
}

SKIN: Weights = {"fair": 0.26, "light": 0.30, "tan": 0.20, "brown": 0.14, "dark": 0.10}
HAIR_COLOR: Weights = {"black": 0.36, "brown": 0.33, "blond": 0.16, "red": 0.06, "grey": 0.09}
HAIR_LENGTH: dict[str, Weights] = {
    "woman": {"short": 0.12, "medium": 0.30, "long": 0.58},
    "man": {"short": 0.88, "medium": 0.08, "long": 0.04},
}
HAIR_STYLE: dict[str, Weights] = {
    "short": {"straight": 0.7, "curly": 0.3},
    "medium": {"straight": 0.7, "curly": 0.3},
    "long": {"straight": 0.42, "curly": 0.16, "ponytail": 0.26, "bun": 0.16},
}


def upper_color(gender: str) -> Weights:
    """Weights of an upper garment's colour; every colour is common enough for queries."""
    if gender == "woman":
        return _UPPER_COLOR
    return {c: w * (0.5 if c in _RARE_FOR_MEN else 1.0) for c, w in _UPPER_COLOR.items()}


def lower(gender: str, upper: str) -> Weights:
    """Weights of a lower garment; few people wear shorts with warm clothes."""
    # A coat would hide shorts, and a caption must not name an invisible garment.
    shorts = 0.0 if upper == "coat" else 0.15 if upper in WARM else 1.0
    return {k: w * (shorts if k == "shorts" else 1.0) for k, w in _LOWER[gender].items()}


def hem(upper: str, lower: str | None) -> Weights:
    """Weights of the length of a lower garment or dress; a skirt is visible below a coat."""
    if upper == "coat" and lower == "skirt":
        return {"long": 1.0}
    return HEM[lower or upper]


def shoes(gender: str, covered: bool) -> Weights:
    """Weights of footwear; sandals are worn with bare legs."""
    return {k: w * (0.2 if covered and k == "sandals" else 1.0) for k, w in _SHOES[gender].items()}


def second_color(rng: random.Random, color: str, pattern: str) -> str | None:
    """A colour that differs clearly from ``color``; None for a garment of one colour."""
    if pattern == "plain":
        return None
    options: tuple[str, ...]
    if color in ("white", "beige", "yellow", "pink"):
        options = ("black", "blue", "red", "green")
    elif color in ("black", "blue", "green", "purple", "brown"):
        options = ("white", "beige", "yellow")
    else:
        options = ("white", "black")
    return rng.choice([name for name in options if name != color and name in COLORS])


def none_or(name: str) -> str | None:
    """Convert the word for nothing to None."""
    return None if name == NONE else name
