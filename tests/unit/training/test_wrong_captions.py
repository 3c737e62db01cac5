"""Wrong captions come from the same sub-category of the whole training split."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finegrain.errors import DataError
from finegrain.records import Sample, Split
from finegrain.training.wrong_captions import SUBCATEGORY, WrongCaptions

products = st.lists(
    st.tuples(st.integers(0, 6), st.sampled_from([None, "tops", "jeans"]), st.integers(1, 3)),
    min_size=1,
    max_size=12,
)
"""Product, sub-category and number of captions of each picture."""


def split_of(rows):
    return Split(
        name="train",
        samples=tuple(
            Sample(
                image=Path(f"{i}.png"),
                captions=tuple(f"picture {i} of {pid}, caption {j}" for j in range(count)),
                pid=pid,
                metadata={} if name is None else {SUBCATEGORY: name},
            )
            for i, (pid, name, count) in enumerate(rows)
        ),
    )


def written(split):
    captions = defaultdict(list)
    for sample, label in zip(split.samples, split.identities().tolist(), strict=True):
        captions[label] += sample.captions
    return captions


@given(products, st.integers(0, 50))
def test_a_wrong_caption_comes_from_the_sub_category_if_possible(rows, seed):
    split = split_of(rows)
    captions = written(split)
    if len(captions) == 1:
        with pytest.raises(DataError, match="the train split has 1; expected 2 or more"):
            WrongCaptions(split, captions)
        return
    wrong = WrongCaptions(split, captions)
    labels = split.identities().tolist()
    for i, sample in enumerate(split.samples):
        name = sample.metadata.get(SUBCATEGORY)
        alike = {
            label
            for other, label in zip(split.samples, labels, strict=True)
            if name is not None and other.metadata.get(SUBCATEGORY) == name
        } - {labels[i]}
        allowed = alike or captions.keys() - {labels[i]}
        drawn = wrong.draw(sample, labels[i], (0, seed, i))
        assert any(drawn in captions[pid] for pid in allowed)
        assert drawn == wrong.draw(sample, labels[i], (0, seed, i))


def test_other_products_are_equally_likely_for_any_number_of_pictures():
    split = split_of([(0, "tops", 1), (1, "tops", 1), (1, "tops", 3), (2, "tops", 1), (3, None, 1)])
    wrong = WrongCaptions(split, written(split))
    for number, own in ((0, 0), (3, 2)):
        drawn = (
            wrong.draw(split.samples[number], own, (0, epoch, number)) for epoch in range(3000)
        )
        counts = Counter(int(caption.split(" of ")[1].split(",")[0]) for caption in drawn)
        assert counts.keys() == {0, 1, 2} - {own}
        assert all(1350 < count < 1650 for count in counts.values())
