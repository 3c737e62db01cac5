from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finegrain.data.caption_augment import drop_words

words = st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=12)


@given(words=words, share=st.floats(0, 1), seed=st.integers(0, 99))
def test_what_is_left_is_in_order_and_is_not_nothing(words, share, seed):
    found = drop_words(" ".join(words), share, seed).split()
    assert found
    rest = iter(words)
    assert all(word in rest for word in found)
    assert found == drop_words(" ".join(words), share, seed).split()


def test_share():
    caption = "word " * 20000
    assert len(drop_words(caption, 0.05, 3).split()) / 20000 == pytest.approx(0.95, abs=0.005)
    assert drop_words("a man in red", 0.0, 0) == "a man in red"


@pytest.mark.parametrize("caption", ["", "  "])
def test_of_nothing_nothing_is_taken(caption):
    assert drop_words(caption, 0.5, 0) == caption
