from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures.shop_layouts import (
    write_deepfashion_multimodal,
    write_fashion_gen,
    write_fashion_iq,
    write_image_folder,
    write_shopify,
)

from finegrain.data.datasets import (
    DeepFashionMultiModal,
    FashionGen,
    FashionIq,
    ShopCatalog,
    take_split,
)
from finegrain.errors import DataError
from finegrain.recipe import load_recipe, recipe_from_dict

RECIPES = Path(__file__).parents[3] / "recipes"

KINDS = {
    FashionGen: lambda root: write_fashion_gen(root, train=1, val=1, views=1),
    FashionIq: lambda root: write_fashion_iq(root, triplets=1),
    DeepFashionMultiModal: write_deepfashion_multimodal,
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_copy_of_another_size_is_read_with_a_warning(kind, tmp_path):
    if kind is FashionGen:
        pytest.importorskip("h5py")
    root = KINDS[kind](tmp_path / "set")
    with pytest.warns(UserWarning, match=f"not comparable .*{kind.known.title}: has"):
        splits = kind(root=str(root)).splits()
    assert "train" in splits
    assert all(split.samples for split in splits.values())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_error_of_a_missing_dataset_tells_how_to_get_it(kind, tmp_path):
    with pytest.raises(DataError) as raised:
        kind(root=str(tmp_path)).splits()
    assert f"How to get it: {kind.known.access}" in str(raised.value)


@pytest.mark.filterwarnings("ignore:not comparable")
def test_missing_pictures_are_an_error_unless_allowed(tmp_path):
    root = write_fashion_iq(tmp_path, triplets=2)
    FashionIq(root=str(root)).splits()["train"].samples[0].image.unlink()
    with pytest.raises(DataError, match=r"got 2 records without: cap\.dress.*allow_missing=true"):
        FashionIq(root=str(root)).splits()
    splits = FashionIq(root=str(root), allow_missing=True).splits()
    assert (len(splits["train"]), len(splits["train"].problems)) == (4, 2)


def test_shop_catalogues_of_all_kinds_are_read(tmp_path):
    root = write_image_folder(tmp_path / "folder", products=2)
    assert len(take_split(ShopCatalog(path=str(root)).splits(), "val")) == 2
    export = write_shopify(tmp_path / "shop", products=2)
    dataset = ShopCatalog(path=str(export), images_root=str(tmp_path / "shop" / "images"))
    assert sum(map(len, dataset.splits().values())) == 4
    with pytest.raises(DataError, match="downloads none"):
        ShopCatalog(path=str(export)).splits()


@pytest.mark.parametrize("dataset", [*(kind() for kind in KINDS), ShopCatalog(images_root="x")])
def test_a_recipe_can_use_published_datasets(dataset):
    recipe = replace(load_recipe(RECIPES / "tiny_synthetic.py"), data=dataset)
    assert recipe_from_dict(json.loads(recipe.to_json()), "the test") == recipe
