"""Training on a user's table uses the readers of indexing, and refuses leaks between splits."""

from __future__ import annotations

import pytest
from PIL import Image

from finegrain.data.catalog import Shares
from finegrain.data.datasets import Catalog, LabelledPhotos, ShopCatalog
from finegrain.errors import DataError


@pytest.fixture
def shop(tmp_path):
    for number, name in enumerate("abcd"):
        Image.new("RGB", (8, 16), (60 * number, 0, 0)).save(tmp_path / f"{name}.png")
    return tmp_path


def write(shop, *lines, name="t.csv", encoding="utf-8"):
    (shop / name).write_text("\n".join(lines) + "\n", encoding=encoding)
    return str(shop / name)


HEADER = "image,caption,sku,split"


def catalog(path, **options):
    return Catalog(table=path, pid_column="sku", split_column="split", **options)


def test_splits_without_common_pictures_are_accepted(shop):
    path = write(shop, HEADER, "a.png,red,1,train", "b.png,blue,2,test", "c.png,green,1,train")
    assert {name: len(s) for name, s in catalog(path).splits().items()} == {"train": 2, "test": 1}


def test_a_product_in_two_splits_is_refused(shop):
    path = write(shop, HEADER, "a.png,red,1,train", "b.png,blue,1,test")
    with pytest.raises(DataError, match="got 1 both in split train and in test, such as '1'"):
        catalog(path).splits()


def test_a_picture_in_two_splits_is_refused(shop):
    path = write(shop, HEADER, "a.png,red,1,train", "a.png,blue,2,val")
    with pytest.raises(DataError, match=r"a\.png in split val is the same picture as .*a\.png in"):
        catalog(path).splits()


def test_a_copy_of_a_picture_in_another_split_is_refused(shop):
    (shop / "copy.png").write_bytes((shop / "a.png").read_bytes())
    path = write(shop, HEADER, "a.png,red,1,train", "b.png,green,3,train", "copy.png,blue,2,test")
    with pytest.raises(DataError, match=r"copy\.png in split test is the same picture as"):
        catalog(path).splits()


def test_labelled_photos_may_share_labels_but_not_pictures(shop):
    write(shop, "photo,kind,part", "a.png,coat,train", "b.png,coat,test", name="labels.csv")
    data = LabelledPhotos(
        root=str(shop), image_column="photo", label_column="kind", split_column="part"
    )
    assert {name: len(split) for name, split in data.splits().items()} == {"train": 1, "test": 1}
    write(shop, "photo,kind,part", "a.png,coat,train", "a.png,coat,test", name="labels.csv")
    with pytest.raises(DataError, match="is the same picture as"):
        data.splits()


def test_products_that_share_a_picture_stay_together(shop):
    rows = [f"{'abcd'[n % 4]}.png,c,{n}" for n in range(40)]
    path = write(shop, "image,caption,sku", *rows)
    splits = Catalog(
        table=path, pid_column="sku", shares=Shares(train=0.5, val=0, test=0.5)
    ).splits()
    where = {}
    for name, split in splits.items():
        for sample in split.samples:
            assert where.setdefault(sample.image, name) == name


def test_problems_are_reported(shop):
    path = write(shop, HEADER, "a.png,red,1,train", "gone.png,blue,2,train")
    with pytest.warns(UserWarning, match=r"t\.csv: 1 left out: t\.csv:3: picture 'gone\.png'"):
        catalog(path, max_bad_share=0.5).splits()


def test_too_many_missing_pictures_are_an_error(shop):
    path = write(shop, HEADER, "a.png,red,1,train", "gone.png,blue,2,train")
    with pytest.raises(DataError, match=r"at most 10% to be left out, got 1 of 2: t\.csv:3"):
        catalog(path).splits()


def test_training_accepts_the_tables_that_indexing_accepts(shop):
    folder = shop / "downloads"
    folder.mkdir()
    (shop / "a.png").rename(folder / "a.png")
    path = write(shop, "№|картинка|подпись", "1|https://s.x/a.png|пальто", encoding="cp1251")
    options = {"images_root": str(folder), "encoding": "cp1251", "shares": None,
               "image_column": "картинка", "caption_columns": ("подпись",)}  # fmt: skip
    for data in (Catalog(table=path, **options), ShopCatalog(path=path, **options)):
        (sample,) = data.splits()["all"].samples
        assert (sample.image, sample.captions) == (folder / "a.png", ("пальто",))
    path = write(shop, "id,caption", "b,blue coat", name="p.csv")
    for data in (Catalog(table=path, image_pattern="{id}.png", shares=None),
                 ShopCatalog(path=path, image_pattern="{id}.png", shares=None)):  # fmt: skip
        assert data.splits()["all"].samples[0].image == shop / "b.png"
