from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path

import pytest
from fixtures.shop_layouts import write_merchant
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from finegrain.data.catalog import DEFAULT_SHARES, DEFAULT_SPLIT, Shares, divided
from finegrain.data.datasets import Catalog, ShopCatalog, SyntheticProducts, take_split
from finegrain.errors import DataError, RecipeError
from finegrain.recipe import load_recipe, override
from finegrain.records import Problem, Sample, Split

RECIPE = Path(__file__).parents[3] / "recipes" / "tiny_synthetic.py"


def catalogue(*products, problems=()):
    """Pictures of products; each is (pid, metadata)."""
    samples = tuple(
        Sample(image=Path(f"{number}.jpg"), captions=("a coat",), pid=pid, metadata=about)
        for number, (pid, about) in enumerate(products)
    )
    return {DEFAULT_SPLIT: Split(name=DEFAULT_SPLIT, samples=samples, problems=problems)}


def ids_of(splits):
    return {
        name: [s.metadata["product_id"] for s in split.samples] for name, split in splits.items()
    }


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5)), min_size=1, max_size=60))
@settings(max_examples=30, deadline=None)
def test_every_product_is_in_exactly_one_split(drawn):
    products = [(pid, {"product_id": f"P{pid}", "group": group}) for pid, group in drawn]
    splits = divided(catalogue(*products), Shares(train=0.5, val=0.25, test=0.25))
    assert sum(map(len, splits.values())) == len(products)
    homes = {}
    for name, split in splits.items():
        assert (split.name, bool(split.samples)) == (name, True)
        for sample in split.samples:
            assert homes.setdefault(sample.pid, name) == name


@given(st.sets(st.integers(0, 10**6), min_size=2, max_size=40), st.data())
@settings(max_examples=30, deadline=None)
def test_the_split_of_a_product_does_not_depend_on_other_products(numbers, data):
    shelf = [(n, {"product_id": f"SKU-{n}"}) for n in sorted(numbers)]
    kept = data.draw(st.lists(st.sampled_from(shelf), min_size=1, unique_by=lambda p: p[0]))
    renumbered = [(place, about) for place, (_, about) in enumerate(kept)]
    whole = ids_of(divided(catalogue(*shelf), DEFAULT_SHARES))
    less = ids_of(divided(catalogue(*renumbered), DEFAULT_SHARES))
    assert all(set(ids) <= set(whole[name]) for name, ids in less.items())


def test_the_sizes_of_splits_are_close_to_the_shares():
    products = [(n, {"product_id": f"P{n}"}) for n in range(4000)]
    splits = divided(catalogue(*products), DEFAULT_SHARES)
    assert {name: round(len(split) / 4000, 2) for name, split in splits.items()} == pytest.approx(
        asdict(DEFAULT_SHARES), abs=0.012
    )


def test_the_split_of_a_product_is_the_same_on_every_machine():
    names = [f"P{n}" for n in range(40)]
    halves = Shares(train=0.5, val=0.25, test=0.25)
    placed = "".join(halves.of(name)[1] for name in names)
    assert placed == "reaaerreearrrerereeerrarraaarrrreearrrer"


def test_colours_of_one_group_stay_together():
    products = [(n, {"item_group_id": "G", "product_id": f"P{n}"}) for n in range(30)]
    assert len(divided(catalogue(*products), Shares(train=0.4, val=0.3, test=0.3))) == 1


def test_without_a_pid_the_first_picture_determines_the_split():
    products = [(n, {"product_id": None}) for n in range(300)]
    splits = divided(catalogue(*products), DEFAULT_SHARES)
    chosen = {s.image.name: name for name, split in splits.items() for s in split.samples}
    assert chosen == {f"{n}.jpg": DEFAULT_SHARES.of(f"{n}.jpg") for n in range(300)}


def test_problems_are_reported_in_one_split():
    bad = (Problem(where="shop.csv:3", why="has no caption"),)
    products = [(n, {"product_id": f"P{n}"}) for n in range(60)]
    splits = divided(catalogue(*products, problems=bad), DEFAULT_SHARES)
    assert [split.problems for split in splits.values()] == [bad, (), ()]


def test_a_catalogue_with_splits_keeps_them():
    (whole,) = catalogue((0, {})).values()
    own = {"train": whole}
    assert divided(own, DEFAULT_SHARES) is own
    alone = catalogue((0, {}))
    assert divided(alone, None) is alone


@pytest.mark.parametrize("shares", [{"train": 1.2, "val": -0.2, "test": 0}, {"train": 0.5}])
def test_invalid_shares_are_refused(shares):
    with pytest.raises(DataError, match="expected shares from 0 to 1 with a sum of 1"):
        Shares(**shares)


def test_a_table_and_a_feed_can_be_trained_on_without_a_split_column(tmp_path):
    for n in range(200):
        Image.new("RGB", (8, 16), (n, 0, 0)).save(tmp_path / f"{n}.png")
    with (tmp_path / "shop.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                ("image", "caption", "sku"),
                *((f"{n}.png", "a coat", f"S{n // 2}") for n in range(200)),
            ]
        )
    table = Catalog(table=str(tmp_path / "shop.csv"), pid_column="sku")
    splits = table.splits()
    assert list(splits) == ["train", "val", "test"]
    assert all(
        DEFAULT_SHARES.of(str(s.metadata["sku"])) == name
        for name, split in splits.items()
        for s in split.samples
    )
    feed = write_merchant(tmp_path / "feed", products=12)
    shop = ShopCatalog(
        path=str(feed),
        images_root=str(tmp_path / "feed" / "images"),
        shares=Shares(train=0.5, val=0, test=0.5),
    )
    halves = shop.splits()
    assert {name: split.num_pids for name, split in halves.items()} == {"train": 5, "test": 7}
    assert halves == shop.splits()


def test_a_catalogue_may_be_kept_in_one_split(tmp_path):
    feed = write_merchant(tmp_path, products=3)
    shop = ShopCatalog(path=str(feed), images_root=str(tmp_path / "images"), shares=None)
    assert len(take_split(shop.splits(), "all")) == 6


def test_shares_are_a_field_of_a_recipe(tmp_path):
    recipe = load_recipe(RECIPE)
    data = '{"type": "ShopCatalog", "shares": {"train": 0.8, "val": 0.1, "test": 0.1}}'
    changed = override(recipe, [f"data={data}"])
    assert changed.data.shares == Shares(train=0.8, val=0.1, test=0.1)
    with pytest.raises(RecipeError, match="expected shares from 0 to 1 with a sum of 1"):
        override(changed, ["data.shares.train=0.9"])


def test_synthetic_products_are_drawn_into_splits(tmp_path):
    data = SyntheticProducts(
        root=str(tmp_path / "shop"), products=12, height=64, width=48, views=2,
        shares=Shares(train=0.5, val=0.25, test=0.25),
    )  # fmt: skip
    splits = data.splits()
    assert sum(map(len, splits.values())) == 24
    for split in splits.values():
        for sample in split.samples:
            assert sample.metadata["subcategory"] == sample.metadata["category"]
            assert len(sample.captions) == 1
    assert data.splits() == splits
