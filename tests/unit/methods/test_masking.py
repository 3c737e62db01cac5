from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.methods.masking import MASK, mask_words

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
def test_only_words_are_hidden_and_each_caption_loses_one(lengths, rate, seed):
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


def test_of_an_empty_caption_the_end_is_hidden():
    """As in the released code, which hides position 1 whatever is there."""
    masked, targets = mask_words(captions([0], 4))
    assert targets.tolist() == [[0, END, 0, 0]]
    assert masked.tolist() == [[START, MASK, 0, 0]]


def test_the_input_stays_as_it_was():
    ids = captions([8, 8], 12)
    before = ids.clone()
    mask_words(ids, rate=0.9)
    assert torch.equal(ids, before)


def test_shares():
    """15 % of words; of those 80 % hidden, 10 % another word, 10 % left."""
    torch.manual_seed(0)
    ids = torch.full((2000, 60), 777, dtype=torch.int32)
    masked, targets = mask_words(ids)
    chosen = targets > 0
    assert chosen.float().mean().item() == pytest.approx(0.15, abs=0.005)
    found = masked[chosen]
    assert (found == MASK).float().mean().item() == pytest.approx(0.8, abs=0.01)
    assert (found == 777).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert found[(found != MASK) & (found != 777)].unique().numel() > 1000
