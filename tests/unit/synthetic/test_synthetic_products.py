"""Pictures of garments with titles and columns that agree."""

import csv
import random
from dataclasses import replace

import cv2
import numpy as np
import pytest

from finegrain.errors import DataError
from finegrain.synthetic import product, render_product, write_products
from finegrain.synthetic.articles import KINDS, LOWER
from finegrain.synthetic.palette import COLORS, DENIM
from finegrain.synthetic.products import COLUMNS
from finegrain.synthetic.trim import LEGGED, UNTRIMMED
from finegrain.synthetic.worn import _dressed, render_worn


def test_a_catalog_is_written_and_read(tmp_path):
    root = write_products(tmp_path / "shop", products=6, views=2, size=(96, 72), progress=False)

    with (root / "catalog.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 12
    assert len({row["product_id"] for row in rows}) == 6
    for row in rows:
        assert cv2.imread(str(root / row["image"])).shape == (96, 72, 3)
        assert float(row["price"]) > 0
    stamp = (root / "catalog.csv").stat().st_mtime_ns
    write_products(root, products=6, views=2, size=(96, 72), progress=False)
    assert (root / "catalog.csv").stat().st_mtime_ns == stamp
    with pytest.raises(DataError, match="Give another folder"):
        write_products(root, products=7, views=2, size=(96, 72), progress=False)


def test_titles_agree_with_the_columns():
    items = [product(index) for index in range(300)]

    assert {item.category for item in items} == set(KINDS)
    assert len({item.title for item in items}) > 200
    for item in items:
        title = item.title.lower()
        assert item.color in title
        assert title.startswith("women's" if item.gender == "woman" else "men's")
        assert any(noun in title for noun in KINDS[item.category].nouns)
        assert (item.pattern == "plain") == ("striped" not in title and "checked" not in title)
        assert ("belt" in title) == (item.person.belt and item.category in ("coat", "dress"))
        if item.sleeve_color:
            assert f"{item.sleeves} {item.sleeve_color} sleeves" in title
        elif "sleeves" in title:
            assert f"{item.sleeves} sleeves" in title
        ends = "cuffs" if item.category in LEGGED else "hem"
        assert (f" {item.hem_color} {ends}" in title) == bool(item.hem_color)
        assert (f" {item.print_color} {item.print}" in title) == bool(item.print)
        assert (f" {item.stripe_color} side stripes" in title) == bool(item.stripe_color)
        assert (f" {item.knee_color} knees" in title) == bool(item.knee_color)


FIELDS = {
    "sleeve_color": "sleeves",
    "hem_color": "hem",
    "print_color": "print",
    "stripe_color": "stripes",
    "knee_color": "knees",
}


@pytest.mark.parametrize("part", FIELDS)
def test_pictures_show_each_part_in_its_color(part: str):
    shown = 0
    for index in range(80):
        item = product(index)
        if not (color := getattr(item, part)) or color == "white":
            continue
        for view in (0, 1):
            trimmed = render_product(item, view, size=(192, 144)).astype(np.float32)
            plain = replace(item, trim=replace(item.trim, **{FIELDS[part]: None}))
            before = render_product(plain, view, size=(192, 144)).astype(np.float32)
            near = [np.abs(image - COLORS[color]).max(axis=2) < 40.0 for image in (trimmed, before)]
            assert near[0].sum() > near[1].sum() + 30, (item.title, view)
        shown += 1
    assert shown > 5


def test_a_trim_has_another_color_than_the_body():
    for index in range(300):
        item = product(index)
        parts = {getattr(item, part) for part in FIELDS}
        assert item.color not in parts
        assert (item.category in LOWER) <= (item.sleeve_color == "")


def test_pictures_show_the_color_on_a_light_background():
    shown = 0
    for index in range(60):
        item = product(index)
        if item.pattern != "plain" or item.color == "white":
            continue
        untrimmed = replace(item, trim=UNTRIMMED)
        image = render_product(untrimmed, size=(128, 96)).astype(np.float32)
        assert image[:4].min() > 225
        cloth = image[np.abs(image - 245.0).max(axis=2) > 40.0]
        wanted = np.asarray(DENIM[item.color] if item.category == "jeans" else COLORS[item.color])
        assert np.abs(np.median(cloth, axis=0) - wanted).max() < 45.0, item.title
        shown += 1
    assert shown > 25


def test_views_differ_and_are_reproducible():
    item = product(0)

    np.testing.assert_array_equal(render_product(item, 1), render_product(item, 1))
    assert (render_product(item, 0) != render_product(item, 1)).any()


def test_a_shop_may_have_few_colors():
    few = ("black", "white", "red", "blue", "yellow")
    items = [product(index, colors=few) for index in range(300)]
    for item in items:
        parts = {getattr(item, part) for part in FIELDS}
        assert parts <= {*few, ""}
        assert item.color in few or item.category == "jeans"
        assert item.color not in parts
    assert len({item.title for item in items}) > 270


@pytest.mark.parametrize("part", FIELDS)
def test_a_model_wears_each_part_in_its_color(part: str):
    shown = 0
    for index in range(200):
        item = product(index, colors=("blue", "yellow", "green", "pink"))
        if not getattr(item, part) or shown > 4:
            continue
        without = replace(item, trim=replace(item.trim, **{FIELDS[part]: None}))
        worn, bare = (render_worn(it, 0, size=(128, 96)).astype(int) for it in (item, without))
        assert (np.abs(worn - bare).max(axis=2) > 40).sum() > 8, item.title
        shown += 1
    assert shown > 1


def test_models_wear_other_things_in_every_view():
    item = product(3)
    np.testing.assert_array_equal(
        render_worn(item, 1, size=(64, 48)), render_worn(item, 1, size=(64, 48))
    )
    dressed = [_dressed(item, random.Random(view)) for view in range(20)]
    slot = "lower" if item.category in LOWER else "upper"
    own = {(getattr(p, slot), p.color(slot), p.gender) for p in dressed}
    assert own == {(item.category, item.color, item.gender)}
    assert len({p.looks for p in dressed}) == 20
    assert not any(p.bag == "backpack" for p in dressed)


def test_worn_and_unworn_garments_do_not_share_a_folder(tmp_path):
    write_products(tmp_path / "shop", products=1, size=(64, 48), progress=False, worn=True)
    with pytest.raises(DataError, match="Give another folder"):
        write_products(tmp_path / "shop", products=1, size=(64, 48), progress=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"products": 0},
        {"views": 0},
        {"size": (4, 4)},
        {"colors": ("red", "blue", "black")},
        {"colors": ("red", "blue", "black", "white", "mauve")},
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path, wrong):
    with pytest.raises(DataError, match="expected"):
        write_products(tmp_path / "none", **{"products": 1, "progress": False, **wrong})
