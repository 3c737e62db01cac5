"""Garments worn by models with other clothes; a title describes one of the visible garments."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

from finegrain.synthetic.articles import LOWER, Product
from finegrain.synthetic.canvas import Pixels
from finegrain.synthetic.person import Person, draw_person
from finegrain.synthetic.render import render
from finegrain.synthetic.view import CAMERAS, View

_MODEL = (
    "skin", "hair_color", "hair_length", "hair_style", "shoes", "shoes_color", "bag",
    "bag_color", "hat", "hat_color", "stature", "build",
)  # fmt: skip
_UPPER = (
    "upper", "upper_color", "upper_pattern", "upper_second_color", "sleeves", "upper_open", "belt",
)  # fmt: skip
_LOWER = ("lower", "lower_color", "lower_pattern", "lower_second_color", "hem")
_YAWS = (0.0, 30.0, -30.0, 180.0, 150.0, -150.0)
"""View angles of a model, in degrees. Chest or back is visible from all of them."""


def render_worn(item: Product, view: int = 0, *, size: tuple[int, int]) -> Pixels:
    """Draw an article on a model; place and other clothes differ between views.

    Returns:
        RGB, uint8 [H, W, 3].
    """
    rng = random.Random(f"finegrain/worn/{item.title}/{item.product_id}/{view}")
    place = View(
        camera=rng.choice(CAMERAS),
        yaw=math.radians(rng.choice(_YAWS) + rng.uniform(-8.0, 8.0)),
        walking=rng.random() < 0.5,
        phase=rng.uniform(0.0, math.tau),
        fill=rng.uniform(0.85, 0.94),
        shift=rng.gauss(0.0, 0.04),
        cut=0.0,
        exposure=rng.uniform(0.90, 1.10),
        occluder=None,
        occluder_side=1,
        scene_seed=f"finegrain/worn/{item.product_id}/{view}",
    )
    return render(_dressed(item, rng), place, size=size, trim=item.trim)


def _dressed(item: Product, rng: random.Random) -> Person:
    """A model of the article's gender; everything except the article is drawn at random."""
    model = draw_person(rng)
    # A backpack would hide the print on the back.
    while model.gender != item.gender or model.upper == "dress" or model.bag == "backpack":
        model = draw_person(rng)
    return replace(item.person, **{name: getattr(model, name) for name in _others(item.category)})


def _others(category: str) -> Sequence[str]:
    """Fields of a person that do not depend on an article of a category."""
    if category in LOWER:
        return (*_MODEL, *_UPPER)
    return _MODEL if category == "dress" else (*_MODEL, *_LOWER)
