from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.methods.masking import MASK
from finegrain.methods.token_noise import disturb_words

START, END = 49406, 49407


def captions(lengths, length):
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
def test_captions_stay_captions(lengths, rate, seed):
    torch.manual_seed(seed)
    ids, eot = captions(lengths, 12)
    found, ends = disturb_words(ids, eot, rate=rate)
    assert (found.shape, found.dtype, ends.dtype) == (ids.shape, ids.dtype, eot.dtype)
    assert (ends <= eot).all()
    for row, end in zip(found.tolist(), ends.tolist(), strict=True):
        assert row[0] == START
        assert row[end] == END
        assert all(0 < word <= MASK for word in row[1:end])
        assert not any(row[end + 1 :])


def test_at_rate_zero_nothing_changes():
    ids, eot = captions([3, 0, 10], 12)
    found, ends = disturb_words(ids, eot, rate=0.0)
    assert torch.equal(found, ids)
    assert torch.equal(ends, eot)


def test_shares():
    """A fifth of the words: 60 % hidden, 20 % exchanged, 20 % left out."""
    torch.manual_seed(0)
    ids = torch.full((2000, 62), 777, dtype=torch.int32)
    ids[:, 0], ids[:, -1] = START, END
    found, ends = disturb_words(ids, torch.full((2000,), 61, dtype=torch.int32))
    words = 2000 * 60
    left = int((ends - 1).sum())
    hidden = int((found == MASK).sum())
    stayed = int((found == 777).sum())
    assert (words - left) / words == pytest.approx(0.04, abs=0.003)
    assert hidden / words == pytest.approx(0.12, abs=0.004)
    assert (left - hidden - stayed) / words == pytest.approx(0.04, abs=0.003)
