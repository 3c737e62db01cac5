from __future__ import annotations

from dataclasses import replace

import pytest
from fixtures.karpathy_layout import FLICKR_RECORDS, write_karpathy
from fixtures.shop_layouts import (
    write_deepfashion_multimodal,
    write_fashion_gen,
    write_fashion_iq,
)

from finegrain.data.count_survey import COUNTED_DATASETS, survey_counts
from finegrain.data.fashion_iq import FASHION_IQ

WRITERS = {
    "fashion_gen": lambda root: write_fashion_gen(root, train=2, val=1, views=1),
    "fashion_iq": lambda root: write_fashion_iq(root, triplets=2),
    "deepfashion_multimodal": write_deepfashion_multimodal,
    "flickr30k": lambda root: write_karpathy(root, "dataset_flickr30k.json", FLICKR_RECORDS),
    "mscoco": lambda root: write_karpathy(root, "dataset_coco.json", FLICKR_RECORDS),
}


def as_published(dataset, root):
    """Set the published counts to those of the copy in ``root``."""
    return replace(dataset, published=dict(dataset.count(dataset.read(root))))


def row(survey, *cells):
    """Whether the printed table has a row of these cells."""
    words = " ".join(map(str, cells)).split()
    return any(line.split() == words for line in str(survey).splitlines())


@pytest.mark.parametrize("dataset", COUNTED_DATASETS, ids=lambda dataset: dataset.name)
def test_a_complete_copy_is_valid(dataset, tmp_path):
    root = WRITERS[dataset.name](tmp_path / "set")
    whole = as_published(dataset, root)
    survey = survey_counts(root, whole)
    assert (survey.faults, survey.notes) == ((), ())
    assert survey.splits == dataset.read(root)
    assert str(survey).startswith(f"{dataset.title} in {root}\n")
    assert str(survey).endswith("valid")
    assert "How to get it" not in str(survey)
    for what, size in whole.published.items():
        assert row(survey, what, size, size, "none")


@pytest.mark.parametrize("dataset", COUNTED_DATASETS, ids=lambda dataset: dataset.name)
def test_the_error_of_a_missing_dataset_tells_how_to_get_it(dataset, tmp_path):
    survey = survey_counts(tmp_path / "nowhere", dataset)
    assert not survey.splits
    assert len(survey.faults) == 1
    assert str(survey).endswith(f"How to get it: {dataset.access}")


def test_counts_are_shown_beside_the_published_ones(tmp_path):
    root = write_fashion_iq(tmp_path, triplets=2)
    survey = survey_counts(root, FASHION_IQ)
    assert row(survey, "train dress triplets", 2, 5985, -5983)
    assert len(survey.notes) == len(survey.faults) == 3
    assert all(" train " in note for note in survey.notes)
    assert all(" val " in fault for fault in survey.faults)


def test_rows_that_are_left_out_are_named(tmp_path):
    root = write_fashion_iq(tmp_path, triplets=2)
    whole = as_published(FASHION_IQ, root)
    lost = whole.read(root)["val"].samples[0].image
    lost.unlink()
    survey = survey_counts(root, whole)
    assert survey.faults[0].startswith("val: 2 pictures or captions are missing; the first: ")
    assert "FashionIQ: has 0 val dress triplets where 2 are published" in survey.faults[1]
    assert f"left out of val:\n  {survey.splits['val'].problems[0]}\n  " in str(survey)
    assert row(survey, "val dress triplets", 0, 2, -2)


def test_a_long_list_of_rows_is_shortened(tmp_path):
    root = write_fashion_iq(tmp_path, triplets=5)
    for picture in (root / "images").iterdir():
        if picture.name in {s.image.name for s in FASHION_IQ.read(root)["train"].samples[:11]}:
            picture.unlink()
    shown = str(survey_counts(root, FASHION_IQ))
    listed = shown.split("left out of train:\n")[1].split("\n\n")[0].splitlines()
    assert len(listed) == 11
    assert listed[-1].split()[0] == "and"
