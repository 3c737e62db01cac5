"""Product photographs of garments: on an invisible mannequin in front of a light background."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from finegrain.errors import DataError
from finegrain.synthetic import layout, lower, upper
from finegrain.synthetic.articles import ALL_COLORS, KINDS, LOWER, Product, product
from finegrain.synthetic.body import Frame, trunk
from finegrain.synthetic.canvas import Canvas, Pixels
from finegrain.synthetic.figure import Figure
from finegrain.synthetic.jpeg import is_drawn, write_jpeg
from finegrain.synthetic.person import Person
from finegrain.synthetic.pose import SIDES, Pose, pose
from finegrain.synthetic.render import check_size
from finegrain.synthetic.shapes import points
from finegrain.synthetic.view import CAMERAS, View
from finegrain.synthetic.worn import render_worn

SIZE = (256, 192)
FORMAT = "finegrain-synthetic-products"
FORMAT_VERSION = 2
CATALOG = "catalog.csv"
COLUMNS = (
    "image",
    "title",
    "product_id",
    "category",
    "color",
    "pattern",
    "sleeves",
    "sleeve_color",
    "hem_color",
    "print",
    "print_color",
    "stripe_color",
    "knee_color",
    "gender",
    "price",
)
_SUPERSAMPLING = 2
_PAPER = 245
_FEWEST_COLORS = 4  # a pattern takes two colours, and its trim needs a choice
# Yaw of the first, second, ... view of a garment, in degrees.
_TURNS = (0.0, 180.0, 35.0, -35.0)


def render_product(item: Product, view: int = 0, *, size: tuple[int, int] = SIZE) -> Pixels:
    """Draw one view of an article.

    Args:
        view: 0 is the front, 1 the back, 2 and 3 half turned.

    Returns:
        RGB, uint8 [H, W, 3].
    """
    check_size(size)
    height, width = (side * _SUPERSAMPLING for side in size)
    kind = KINDS[item.category]
    low, high = kind.span
    if item.category in ("skirt", "dress"):
        low = lower.SKIRT_HEM[item.person.hem] - 0.015
    unit = min(0.86 * height / (high - low), 0.90 * width / (2.0 * kind.half_width))
    yaw = np.radians(_TURNS[view % len(_TURNS)])
    frame = Frame(
        turn=(float(np.cos(yaw)), float(np.sin(yaw))),
        tilt=(1.0, 0.06),
        unit=unit,
        x=width / 2.0,
        ground=height / 2.0 + unit * (low + high) / 2.0,
    )
    canvas = Canvas(np.full((height, width, 3), _PAPER, np.uint8), light=(-0.4, 0.7), unit=unit)
    figure = Figure(
        item.person,
        _hanging_pose(item.person, float(yaw)),
        frame,
        canvas,
        trunk(item.person.gender, 1.0),
        ghost=True,
        trim=item.trim,
    )
    _DRAW["lower" if item.category in LOWER else "upper"](figure)
    _lay_shadow(canvas)
    return np.asarray(cv2.resize(canvas.pixels, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def _hanging_pose(person: Person, yaw: float) -> Pose:
    still = View(
        camera=CAMERAS[0],
        yaw=yaw,
        walking=False,
        phase=0.0,
        fill=1.0,
        shift=0.0,
        cut=0.0,
        exposure=1.0,
        occluder=None,
        occluder_side=1,
        scene_seed="",
    )
    posture = pose(person, still)
    # Sleeves hang away from the body, so that they are visible.
    out = points((0.0, 0.0, 0.0), (0.034, 0.006, 0.0), (0.070, 0.018, 0.0))
    left, right = (
        arm + side * out * (1, side, 1) for arm, side in zip(posture.arms, SIDES, strict=True)
    )
    apart = points((0.006, 0.0, 0.0), (0.016, 0.0, 0.0), (0.026, 0.0, 0.0))
    legs = tuple(leg + side * apart for leg, side in zip(posture.legs, SIDES, strict=True))
    posture = replace(posture, legs=(legs[0], legs[1]))
    return replace(posture, arms=(left.astype(np.float32), right.astype(np.float32)))


def _draw_upper(figure: Figure) -> None:
    behind = figure.frame.turn[0] < 0.0
    if figure.person.upper == "hoodie" and not behind:
        upper.draw_hood(figure)
    for side in (0, 1):
        upper.draw_arm(figure, side)
    upper.draw_upper(figure)
    if figure.person.upper == "hoodie" and behind:
        upper.draw_hood(figure)


_DRAW: dict[str, Callable[[Figure], None]] = {"upper": _draw_upper, "lower": lower.draw_legs}


def _lay_shadow(canvas: Canvas) -> None:
    """A soft shadow around the garment."""
    height, width = canvas.cover.shape
    small = cv2.resize(canvas.cover, (width // 4, height // 4), interpolation=cv2.INTER_AREA)
    soft = cv2.resize(cv2.blur(small, (9, 9)), (width, height), interpolation=cv2.INTER_LINEAR)
    moved = np.roll(soft, (height // 90, width // 120), axis=(0, 1)).astype(np.float32) / 255.0
    gain = 1.0 - 0.28 * moved * (1.0 - canvas.cover.astype(np.float32) / 255.0)
    canvas.pixels[:] = cv2.blendLinear(
        canvas.pixels, np.zeros_like(canvas.pixels), gain, 1.0 - gain
    )


def write_products(
    root: str | Path,
    *,
    products: int,
    views: int = 2,
    seed: int = 0,
    size: tuple[int, int] = SIZE,
    colors: Collection[str] = ALL_COLORS,
    worn: bool = False,
    progress: bool = True,
) -> Path:
    """Draw a catalogue of synthetic garments, unless the folder already has it.

    The folder holds ``catalog.csv`` with one row per picture (columns `COLUMNS`; ``image``
    is relative to the folder), ``images/`` and ``synthetic.json`` with the settings. Pictures
    that an interrupted run finished are kept.

    Args:
        products: Number of articles.
        views: Number of pictures of each article.
        size: Height and width of a picture in pixels.
        colors: Four or more colours of the shop.
        worn: Whether models wear the garments, instead of an invisible mannequin.
        progress: Show a bar.

    Returns:
        ``root``.

    Raises:
        DataError: An argument is out of range, or ``root`` has other files.
    """
    folder = Path(root)
    check_size(size)
    for name, value in (("products", products), ("views", views)):
        if value < 1:
            raise DataError(f"{name}: expected at least 1, got {value!r}. Ask for one or more.")
    if len(known := set(colors) & set(ALL_COLORS)) < _FEWEST_COLORS or len(known) < len(colors):
        raise DataError(
            f"colors: expected {_FEWEST_COLORS} or more of {', '.join(ALL_COLORS)}; got {colors!r}."
        )
    settings = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "products": products,
        "views": views,
        "seed": seed,
        "size": list(size),
        "colors": sorted(colors),
        "worn": worn,
    }
    if layout.is_complete(folder, settings):
        return folder
    with layout.only_drawing(folder):
        if not layout.is_complete(folder, settings):
            layout.start(folder, settings)
            items = [product(index, seed=seed, colors=colors) for index in range(products)]
            draw = partial(render_worn if worn else render_product, size=size)
            _draw_catalog(folder, items, views, draw, progress=progress)
            layout.finish(folder)
    return folder


def _draw_catalog(
    folder: Path,
    items: Sequence[Product],
    views: int,
    draw: Callable[[Product, int], Pixels],
    *,
    progress: bool,
) -> None:
    """Draw the pictures of all articles, and write the table that lists them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    total = len(items) * views
    with tqdm(total=total, unit="picture", desc="drawing products", disable=not progress) as bar:
        for item in items:
            for view in range(views):
                image = f"images/{item.product_id}_{view}.jpg"
                if not is_drawn(folder / image):
                    write_jpeg(folder / image, draw(item, view))
                writer.writerow([image, *(getattr(item, name) for name in COLUMNS[1:])])
                bar.update()
    layout.write_atomically(folder / CATALOG, text.getvalue())
