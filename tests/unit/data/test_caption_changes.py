from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finegrain.data.caption_changes import drop_words, shuffled
from finegrain.errors import DataError
from finegrain.records import Sample, Split


def split_of(counts):
    samples = tuple(
        Sample(image=Path(f"{i}.jpg"), captions=tuple(f"{i}.{j}" for j in range(n)), pid=i)
        for i, n in enumerate(counts)
    )
    return Split(name="train", samples=samples)


def captions_of(split):
    return [caption for sample in split.samples for caption in sample.captions]


@given(
    counts=st.lists(st.integers(1, 3), min_size=1, max_size=20),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_only_captions_are_exchanged(counts, share, seed):
    split = split_of(counts)
    result = shuffled(split, share, seed=seed)
    before, after = captions_of(split), captions_of(result)
    assert Counter(before) == Counter(after)
    assert [len(sample.captions) for sample in result.samples] == counts
    assert [(s.image, s.pid) for s in result.samples] == [(s.image, s.pid) for s in split.samples]
    moved = sum(a != b for a, b in zip(before, after, strict=True))
    assert moved <= int(share * len(before))
    assert result == shuffled(split, share, seed=seed)


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_the_given_share_of_captions_is_exchanged(share):
    split = split_of([2] * 500)
    result = captions_of(shuffled(split, share, seed=0))
    moved = sum(a != b for a, b in zip(captions_of(split), result, strict=True))
    assert moved / 1000 == pytest.approx(share, abs=0.01)
    assert result != captions_of(shuffled(split, share, seed=1))


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_between_0_and_1(share):
    with pytest.raises(DataError, match="between 0 and 1"):
        shuffled(split_of([1]), share, seed=0)


words = st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=12)


@given(words=words, share=st.floats(0, 1), seed=st.integers(0, 99))
def test_remaining_words_keep_their_order_and_are_not_empty(words, share, seed):
    result = drop_words(" ".join(words), share, seed).split()
    assert result
    rest = iter(words)
    assert all(word in rest for word in result)
    assert result == drop_words(" ".join(words), share, seed).split()


def test_a_share_of_words_is_removed():
    caption = "word " * 20000
    assert len(drop_words(caption, 0.05, 3).split()) / 20000 == pytest.approx(0.95, abs=0.005)
    assert drop_words("a man in red", 0.0, 0) == "a man in red"


@pytest.mark.parametrize("caption", ["", "  "])
def test_an_empty_caption_stays_empty(caption):
    assert drop_words(caption, 0.5, 0) == caption
