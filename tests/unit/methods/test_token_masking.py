"""Masked, replaced and dropped tokens, for each method's rules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.methods.token_masking import (
    MASK,
    clip_word_ends,
    disturb_words,
    mask_whole_words,
    mask_words,
    number_words,
)
from finegrain.preprocess.clip_bpe import clip_tokenizer

START, END = 49406, 49407


def captions(lengths, length):
    ids = torch.zeros(len(lengths), length, dtype=torch.int32)
    for row, count in enumerate(lengths):
        ids[row, 0] = START
        ids[row, 1 : count + 1] = torch.arange(1000, 1000 + count)
        ids[row, count + 1] = END
    return ids


@settings(deadline=None, max_examples=50)
@given(
    lengths=st.lists(st.integers(1, 10), min_size=1, max_size=6),
    rate=st.floats(0.0, 1.0),
    seed=st.integers(0, 1000),
)
def test_only_words_are_masked_and_each_caption_has_one(lengths, rate, seed):
    torch.manual_seed(seed)
    ids = captions(lengths, 12)
    masked, targets = mask_words(ids, rate=rate)
    chosen = targets > 0
    words = (ids > 0) & (ids < MASK)
    assert torch.equal(targets[chosen], ids[chosen])
    assert torch.equal(masked[~chosen], ids[~chosen])
    assert not (chosen & ~words).any()
    assert chosen.any(dim=1).all()
    assert ((masked[chosen] > 0) & (masked[chosen] <= MASK)).all()
    assert masked.dtype == ids.dtype


def test_the_end_of_an_empty_caption_is_masked():
    """The released code masks position 1 in this case, for any token."""
    masked, targets = mask_words(captions([0], 4))
    assert targets.tolist() == [[0, END, 0, 0]]
    assert masked.tolist() == [[START, MASK, 0, 0]]


def test_the_input_is_not_changed():
    ids = captions([8, 8], 12)
    before = ids.clone()
    mask_words(ids, rate=0.9)
    assert torch.equal(ids, before)


def test_words_are_masked_in_the_shares_of_bert():
    """15 % of words; of these 80 % masked, 10 % replaced, 10 % unchanged."""
    torch.manual_seed(0)
    ids = torch.full((2000, 60), 777, dtype=torch.int32)
    masked, targets = mask_words(ids)
    chosen = targets > 0
    assert chosen.float().mean().item() == pytest.approx(0.15, abs=0.005)
    result = masked[chosen]
    assert (result == MASK).float().mean().item() == pytest.approx(0.8, abs=0.01)
    assert (result == 777).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert result[(result != MASK) & (result != 777)].unique().numel() > 1000


WORD_END, INSIDE = 400, 5
"""An id that ends a word, and one that does not."""

word_lengths = st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=9), min_size=1, max_size=4)
"""Lengths of the words of some captions, in tokens."""


@pytest.fixture(scope="module")
def ends():
    return torch.from_numpy(clip_word_ends())


def encoded(lengths):
    """Ids ``[N, L]`` of captions, and the number of the word of each token."""
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


def test_ends_of_words_equal_those_of_the_tokenizer(ends):
    """A single word ends with its last token; its other tokens do not end a word."""
    tokenizer = clip_tokenizer()
    assert ends.shape == (tokenizer.vocabulary_size,)
    for word in ("coat", "houndstooth", "cardigan-like", "2019", "überwurf", "!?"):
        batch = tokenizer.encode([word])
        ids = torch.from_numpy(batch.ids)[0, 1 : batch.eot[0]].long()
        assert ends[ids[-1]]
    ids = tokenizer.encode(["houndstoothy herringboney"]).ids
    assert number_words(torch.from_numpy(ids), ends).max() == 2
    assert (number_words(torch.from_numpy(ids), ends)[0, 1:-1] > 0).all()


@given(word_lengths)
def test_words_are_numbered(lengths):
    ids, numbers = encoded(lengths)
    assert torch.equal(number_words(ids, torch.from_numpy(clip_word_ends())), numbers)


@settings(deadline=None)
@given(
    lengths=word_lengths, rate=st.floats(0.05, 1), most=st.integers(1, 10), seed=st.integers(0, 99)
)
def test_words_are_masked_completely_and_within_the_budget(lengths, rate, most, seed):
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
        # Greedy: no unmasked word fits in the rest of the budget.
        assert all(n > left for n, is_hidden in zip(words, whole, strict=True) if not is_hidden)


def test_80_percent_become_the_mask_token_and_10_percent_are_unchanged(ends):
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


def test_every_word_has_the_same_probability(ends):
    torch.manual_seed(0)
    ids = torch.full((3000, 12), WORD_END)
    ids[:, 0], ids[:, -1] = START, END
    share = (mask_whole_words(ids, ends, rate=0.17).targets > 0).float().mean(dim=0)[1:-1]
    np.testing.assert_allclose(share, np.full(10, 0.2), atol=0.03)


START, END = 49406, 49407


def captions_with_ends(lengths, length):
    ids = torch.zeros(len(lengths), length, dtype=torch.int32)
    for row, count in enumerate(lengths):
        ids[row, 0] = START
        ids[row, 1 : count + 1] = torch.arange(1000, 1000 + count)
        ids[row, count + 1] = END
    return ids, torch.tensor(lengths, dtype=torch.int32) + 1


@settings(deadline=None, max_examples=50)
@given(
    lengths=st.lists(st.integers(0, 10), min_size=1, max_size=6),
    rate=st.floats(0.0, 1.0),
    seed=st.integers(0, 1000),
)
def test_changed_captions_keep_start_and_end(lengths, rate, seed):
    torch.manual_seed(seed)
    ids, eot = captions_with_ends(lengths, 12)
    result, ends = disturb_words(ids, eot, rate=rate)
    assert (result.shape, result.dtype, ends.dtype) == (ids.shape, ids.dtype, eot.dtype)
    assert (ends <= eot).all()
    for row, end in zip(result.tolist(), ends.tolist(), strict=True):
        assert row[0] == START
        assert row[end] == END
        assert all(0 < word <= MASK for word in row[1:end])
        assert not any(row[end + 1 :])


def test_a_rate_of_zero_changes_nothing():
    ids, eot = captions_with_ends([3, 0, 10], 12)
    result, ends = disturb_words(ids, eot, rate=0.0)
    assert torch.equal(result, ids)
    assert torch.equal(ends, eot)


def test_words_are_changed_in_the_stated_shares():
    """A fifth of the words: 60 % masked, 20 % replaced, 20 % removed."""
    torch.manual_seed(0)
    ids = torch.full((2000, 62), 777, dtype=torch.int32)
    ids[:, 0], ids[:, -1] = START, END
    result, ends = disturb_words(ids, torch.full((2000,), 61, dtype=torch.int32))
    words = 2000 * 60
    left = int((ends - 1).sum())
    hidden = int((result == MASK).sum())
    stayed = int((result == 777).sum())
    assert (words - left) / words == pytest.approx(0.04, abs=0.003)
    assert hidden / words == pytest.approx(0.12, abs=0.004)
    assert (left - hidden - stayed) / words == pytest.approx(0.04, abs=0.003)
