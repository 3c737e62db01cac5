from __future__ import annotations

from dataclasses import replace

import pytest
from fixtures.shop_layouts import (
    write_deepfashion_multimodal,
    write_fashion_gen,
    write_fashion_iq,
)

from finegrain.data.fashion_iq import FASHION_IQ
from finegrain.data.fashion_survey import FASHION_DATASETS, survey_fashion

WRITERS = {
    "fashion_gen": lambda root: write_fashion_gen(root, train=2, val=1, views=1),
    "fashion_iq": lambda root: write_fashion_iq(root, triplets=2),
    "deepfashion_multimodal": write_deepfashion_multimodal,
}


def as_published(dataset, root):
    """The dataset as if what lies in ``root`` were what is published."""
    return replace(dataset, published=dict(dataset.count(dataset.read(root))))


def row(found, *cells):
    """Whether the print-out has a line of these cells."""
    words = " ".join(map(str, cells)).split()
    return any(line.split() == words for line in str(found).splitlines())


@pytest.mark.parametrize("dataset", FASHION_DATASETS, ids=lambda dataset: dataset.name)
def test_a_whole_copy_is_valid(dataset, tmp_path):
    root = WRITERS[dataset.name](tmp_path / "set")
    whole = as_published(dataset, root)
    found = survey_fashion(root, whole)
    assert (found.faults, found.notes) == ((), ())
    assert found.splits == dataset.read(root)
    assert str(found).startswith(f"{dataset.title} in {root}\n")
    assert str(found).endswith("valid")
    assert "How to get it" not in str(found)
    for what, size in whole.published.items():
        assert row(found, what, size, size, "none")


@pytest.mark.parametrize("dataset", FASHION_DATASETS, ids=lambda dataset: dataset.name)
def test_nothing_there_says_how_to_get_it(dataset, tmp_path):
    found = survey_fashion(tmp_path / "nowhere", dataset)
    assert not found.splits
    assert len(found.faults) == 1
    assert str(found).endswith(f"How to get it: {dataset.access}")


def test_counts_beside_the_published_ones(tmp_path):
    root = write_fashion_iq(tmp_path, triplets=2)
    found = survey_fashion(root, FASHION_IQ)
    assert row(found, "train dress triplets", 2, 5985, -5983)
    assert len(found.notes) == len(found.faults) == 3
    assert all(" train " in note for note in found.notes)
    assert all(" val " in fault for fault in found.faults)


def test_every_row_that_is_left_out_is_named(tmp_path):
    root = write_fashion_iq(tmp_path, triplets=2)
    whole = as_published(FASHION_IQ, root)
    lost = whole.read(root)["val"].samples[0].image
    lost.unlink()
    found = survey_fashion(root, whole)
    assert found.faults[0].startswith("val: 2 pictures or captions are missing; the first: ")
    assert "FashionIQ: has 0 val dress triplets where 2 are published" in found.faults[1]
    assert f"left out of val:\n  {found.splits['val'].problems[0]}\n  " in str(found)
    assert row(found, "val dress triplets", 0, 2, -2)


def test_a_long_list_of_rows_is_cut(tmp_path):
    root = write_fashion_iq(tmp_path, triplets=5)
    for picture in (root / "images").iterdir():
        if picture.name in {s.image.name for s in FASHION_IQ.read(root)["train"].samples[:11]}:
            picture.unlink()
    shown = str(survey_fashion(root, FASHION_IQ))
    told = shown.split("left out of train:\n")[1].split("\n\n")[0].splitlines()
    assert len(told) == 11
    assert told[-1].split()[0] == "and"
