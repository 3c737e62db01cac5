from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.methods.rivals import draw_rivals


@settings(deadline=None, max_examples=60)
@given(
    queries=st.lists(st.integers(0, 2), min_size=1, max_size=6),
    answers=st.lists(st.integers(0, 2), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
)
def test_a_rival_is_of_another_person_and_exists_where_there_is_one(queries, answers, seed):
    torch.manual_seed(seed)
    same = torch.tensor(queries)[:, None] == torch.tensor(answers)
    rivals, exists = draw_rivals(100 * torch.randn(same.shape), same)
    for row, pid in enumerate(queries):
        assert bool(exists[row]) == any(other != pid for other in answers)
        if exists[row]:
            assert answers[rivals[row]] != pid


def test_shares_are_the_softmax_over_wrong_answers():
    torch.manual_seed(0)
    logits = torch.tensor([0.0, 1.0, 9.0, -1.0])
    same = torch.tensor([False, False, True, False])
    rivals, _ = draw_rivals(logits.expand(20000, -1), same.expand(20000, -1))
    expected = logits.masked_fill(same, -torch.inf).softmax(dim=0)
    shares = torch.bincount(rivals, minlength=4) / len(rivals)
    torch.testing.assert_close(shares, expected, atol=0.015, rtol=0)
