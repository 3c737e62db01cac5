from __future__ import annotations

from pathlib import Path

import pytest

from finegrain.data.person_datasets import (
    CUHK_PEDES,
    ICFG_PEDES,
    RSTPREID,
    UFINE6926,
    Counts,
)
from finegrain.records import Sample, Split


@pytest.mark.parametrize(
    ("dataset", "whole"),
    [
        (CUHK_PEDES, (13003, 40206, 80440)),
        (ICFG_PEDES, (4102, 54522, 54522)),
        (RSTPREID, (4101, 20505, 41010)),
        (UFINE6926, (6926, 26206, 52412)),
    ],
)
def test_published_splits_add_up_to_the_published_total(dataset, whole):
    sizes = dataset.published.values()
    assert whole == tuple(
        sum(getattr(size, name) for size in sizes)
        for name in ("identities", "pictures", "captions")
    )


def split(name, *, pids, captions=2):
    samples = [
        Sample(image=Path(f"{i}.jpg"), captions=("a man",) * captions, pid=pid)
        for i, pid in enumerate(pids)
    ]
    return Split(name=name, samples=tuple(samples))


def test_counts_of_splits_are_added():
    splits = [split("train", pids=[1, 1, 2]), split("test", pids=[7], captions=3)]
    assert Counts.of(splits) == Counts(identities=3, pictures=4, captions=9)
    assert Counts.of([]) == Counts(identities=0, pictures=0, captions=0)


def test_splits_of_the_published_size_do_not_differ():
    whole = {
        "val": split("val", pids=[i % 200 for i in range(1000)]),
        "test": split("test", pids=[i % 200 for i in range(1000)]),
        "train": split("train", pids=[i % 3701 for i in range(18505)]),
    }
    assert RSTPREID.differences(whole) == ()
    whole["test"] = split("test", pids=[i % 200 for i in range(999)])
    (difference,) = RSTPREID.differences(whole)
    assert str(difference) == (
        "RSTPReid test: has 999 pictures where 1000 are published, "
        "1998 captions where 2000 are published"
    )


def test_a_missing_split_differs():
    assert [result.where for result in ICFG_PEDES.differences({})] == [
        "ICFG-PEDES train",
        "ICFG-PEDES test",
    ]


def test_the_total_is_compared_if_only_the_total_is_published():
    (difference,) = UFINE6926.differences({"train": split("train", pids=[1])})
    assert str(difference).startswith("UFine6926 all: has 1 identities where 6926 are published, ")
