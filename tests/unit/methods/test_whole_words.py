from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.methods.masking import MASK
from finegrain.methods.whole_words import clip_word_ends, mask_whole_words, number_words
from finegrain.preprocess.clip_bpe import clip_tokenizer

START, END = 49406, 49407
WORD_END, INSIDE = 400, 5
"""One id that ends a word, and one that does not."""

captions = st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=9), min_size=1, max_size=4)
"""Lengths of the words of some captions, in tokens."""


@pytest.fixture(scope="module")
def ends():
    return torch.from_numpy(clip_word_ends())


def encoded(lengths):
    """Ids ``[N, L]`` of captions, and of every token the word it is of."""
    rows = [
        [START, *(i for n in words for i in [INSIDE] * (n - 1) + [WORD_END]), END]
        for words in lengths
    ]
    numbers = [
        [0, *(k for k, n in enumerate(words, start=1) for _ in range(n)), 0] for words in lengths
    ]
    width = max(map(len, rows)) + 1
    return tuple(
        torch.tensor([row + [0] * (width - len(row)) for row in each], dtype=torch.int32)
        for each in (rows, numbers)
    )


def test_ends_of_words_are_those_of_the_tokenizer(ends):
    """A word on its own ends with its last token; its other tokens end nothing."""
    tokenizer = clip_tokenizer()
    assert ends.shape == (tokenizer.vocabulary_size,)
    for word in ("coat", "houndstooth", "cardigan-like", "2019", "überwurf", "!?"):
        batch = tokenizer.encode([word])
        ids = torch.from_numpy(batch.ids)[0, 1 : batch.eot[0]].long()
        assert ends[ids[-1]]
    ids = tokenizer.encode(["houndstoothy herringboney"]).ids
    assert number_words(torch.from_numpy(ids), ends).max() == 2
    assert (number_words(torch.from_numpy(ids), ends)[0, 1:-1] > 0).all()


@given(captions)
def test_words_are_numbered(lengths):
    ids, numbers = encoded(lengths)
    assert torch.equal(number_words(ids, torch.from_numpy(clip_word_ends())), numbers)


@settings(deadline=None)
@given(lengths=captions, rate=st.floats(0.05, 1), most=st.integers(1, 10), seed=st.integers(0, 99))
def test_words_are_hidden_whole_and_within_the_budget(lengths, rate, most, seed):
    torch.manual_seed(seed)
    ids, numbers = encoded(lengths)
    masked = mask_whole_words(ids, torch.from_numpy(clip_word_ends()), rate=rate, most=most)
    assert masked.ids.dtype == ids.dtype
    hidden = masked.targets > 0
    assert torch.equal(masked.targets[hidden], ids[hidden])
    assert torch.equal(masked.ids[~hidden], ids[~hidden])
    for row, words in enumerate(lengths):
        budget = min(most, max(1, round((sum(words) + 2) * rate)))
        whole = [bool(hidden[row][numbers[row] == k].all()) for k in range(1, len(words) + 1)]
        part = [bool(hidden[row][numbers[row] == k].any()) for k in range(1, len(words) + 1)]
        assert whole == part
        left = budget - int(hidden[row].sum())
        assert left >= 0
        # Greedy: what is left over has room for no word that still stands.
        assert all(n > left for n, is_hidden in zip(words, whole, strict=True) if not is_hidden)


def test_four_of_five_become_the_mask_and_one_of_ten_stays(ends):
    torch.manual_seed(0)
    ids = torch.full((400, 22), WORD_END)
    ids[:, 0], ids[:, -1] = START, END
    masked = mask_whole_words(ids, ends, rate=0.5)
    hidden = masked.targets > 0
    assert hidden.sum().item() == 400 * 10
    assert not hidden[:, 0].any()
    assert not hidden[:, -1].any()
    shares = np.array(
        [
            (masked.ids[hidden] == MASK).float().mean(),
            (masked.ids[hidden] == WORD_END).float().mean(),
        ]
    )
    np.testing.assert_allclose(shares, [0.8, 0.1], atol=0.02)


def test_every_word_is_as_likely(ends):
    torch.manual_seed(0)
    ids = torch.full((3000, 12), WORD_END)
    ids[:, 0], ids[:, -1] = START, END
    share = (mask_whole_words(ids, ends, rate=0.17).targets > 0).float().mean(dim=0)[1:-1]
    np.testing.assert_allclose(share, np.full(10, 0.2), atol=0.03)
