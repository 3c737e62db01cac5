from __future__ import annotations

import sys

import numpy as np
import pytest
from fixtures.shop_layouts import views_of, write_fashion_gen
from PIL import Image

from finegrain.data.fashion_gen import FASHION_GEN, read_fashion_gen
from finegrain.errors import DataError, MissingExtraError
from finegrain.synthetic.articles import product

h5py = pytest.importorskip("h5py")


@pytest.fixture
def copy(tmp_path):
    return write_fashion_gen(tmp_path, train=2, val=1, views=2)


def validation(root):
    return h5py.File(root / "fashiongen_256_256_validation.h5", "r+")


def test_views_of_a_product_share_their_pid_and_pictures_are_exact(copy):
    splits = read_fashion_gen(copy)
    assert {name: [s.pid for s in split.samples] for name, split in splits.items()} == {
        "train": [1, 1, 2, 2], "val": [3, 3],
    }  # fmt: skip
    item, first = product(0), splits["train"].samples[0]
    (caption,) = first.captions
    assert caption.startswith(f"{item.title}. {item.color}, {item.pattern}. ")
    assert first.metadata == {
        "brand": "Maison Éclair", "category": first.metadata["category"],
        "subcategory": item.category.upper(), "material": "100% cotton.",
        "department": "CLOTHING", "gender": first.metadata["gender"], "season": "SS2018",
        "pose": "id_gridfs_1", "price": float(item.price),
    }  # fmt: skip
    for sample, view in zip(splits["train"].samples, views_of(2, 2), strict=True):
        with Image.open(sample.image) as picture:
            np.testing.assert_array_equal(np.asarray(picture), view.pixels((256, 256)))


def test_pictures_are_written_once_and_missing_ones_again(copy):
    first, second = read_fashion_gen(copy)["val"].samples
    time = first.image.stat().st_mtime_ns
    second.image.unlink()
    assert read_fashion_gen(copy)["val"].samples == (first, second)
    assert (first.image.stat().st_mtime_ns, second.image.exists()) == (time, True)


def test_files_of_the_same_name_do_not_share_pictures(copy):
    before = read_fashion_gen(copy)["val"].samples[0].image
    with validation(copy) as file:
        file["input_productID"][...] = 77
    after = read_fashion_gen(copy)["val"].samples[0]
    assert after.pid == 77
    assert after.image.parent.parent != before.parent.parent


def test_copies_with_fewer_columns_or_flat_strings_are_read(copy):
    with validation(copy) as file:
        names = file["input_name"][()].ravel()
        del file["input_name"], file["input_msrpUSD"], file["input_brand"]
        file["input_name"] = [name.decode() for name in names]
    sample = read_fashion_gen(copy)["val"].samples[0]
    assert sample.captions[0].startswith(product(2).title)
    assert {"price", "brand"}.isdisjoint(sample.metadata)


def test_a_row_without_a_description_is_a_problem(copy):
    with validation(copy) as file:
        for key in ("input_name", "input_description"):
            file[key][1] = b" "
        file["input_subcategory"][0] = b""
        file["input_msrpUSD"][0] = np.nan
    split = read_fashion_gen(copy)["val"]
    assert [str(problem) for problem in split.problems] == [
        "fashiongen_256_256_validation.h5 row 1: has no input_name and no input_description"
    ]
    assert split.samples[0].metadata["subcategory"] is None
    assert split.samples[0].metadata["price"] is None


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("input_name", None, "expected a dataset 'input_name', found index"),
        ("input_image", np.zeros((2, 8, 8), np.uint8), r"uint8 \[N, H, W, 3\], got uint8 \[2, 8"),
        ("input_image", np.zeros((2, 8, 8, 3)), "got float64"),
        ("input_productID", np.zeros((3, 1), np.int64), r"of shape \[2, 1\], got \[3, 1\]"),
        ("input_productID", np.zeros((2, 1)), "as integers, got float64"),
        ("input_name", h5py.ExternalLink("other.h5", "secret"), "a dataset inside the file"),
        ("input_name", h5py.SoftLink("/input_brand"), "a dataset inside the file"),
    ],
)
def test_files_in_another_format_are_refused(copy, key, value, message):
    with h5py.File(copy / "other.h5", "w") as other:
        other["secret"] = np.array([[b"x"], [b"y"]])
    with validation(copy) as file:
        del file[key]
        if value is not None:
            file[key] = value
    with pytest.raises(DataError, match=message):
        read_fashion_gen(copy)


def test_missing_broken_or_several_files_are_refused(tmp_path, copy):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"found none\. How to get it: the challenge"):
        read_fashion_gen(empty)
    (empty / "train.h5").write_bytes(b"no hdf5")
    with pytest.raises(DataError, match="expected HDF5 at"):
        read_fashion_gen(empty)
    (copy / "my_validation.h5").touch()
    with pytest.raises(DataError, match="expected one file"):
        read_fashion_gen(copy)


def test_the_error_without_h5py_names_the_extra(copy, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"finegrain\[fashion\]"):
        read_fashion_gen(copy)


def test_differences_from_the_published_size_are_reported(copy):
    result = {problem.why for problem in FASHION_GEN.differences(read_fashion_gen(copy))}
    assert "has 4 train pictures where 260480 are published" in result
    assert "has 1 val products where 7519 are published" in result
    assert FASHION_GEN.published["train pictures"] + FASHION_GEN.published["val pictures"] == 293008
