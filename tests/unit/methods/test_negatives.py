from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.methods.negatives import draw_candidates, given_candidates

products = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=8)
"""Product and sub-category of each picture; 0 is an unknown one."""


@settings(deadline=None)
@given(products, st.integers(1, 3), st.integers(0, 99))
def test_every_pair_comes_with_a_wrong_one_where_there_is_another_product(items, captions, seed):
    torch.manual_seed(seed)
    pids, groups = (torch.tensor(column) for column in zip(*items, strict=True))
    pairs = draw_candidates(pids, groups, captions=captions)
    rows = len(items) * captions
    right = pairs.matches.bool()
    assert right.tolist() == [True] * rows + [False] * (len(right) - rows)
    assert pairs.captions[right].tolist() == list(range(rows))
    assert torch.equal(pairs.pictures[right], pairs.captions[right] // captions)
    assert (~right).sum().item() == rows * (len(set(pids.tolist())) > 1)
    origins = [i // captions for i in range(rows)] if (~right).any() else []
    for origin, picture, caption in zip(
        origins, pairs.pictures[~right].tolist(), pairs.captions[~right].tolist(), strict=True
    ):
        told = caption // captions
        assert pids[picture] != pids[told]
        assert origin in (picture, told)
        rival = told if picture == origin else picture
        known = groups[origin] > 0
        alike = [
            j
            for j in range(len(items))
            if pids[j] != pids[origin] and groups[j] == groups[origin] and known
        ]
        assert not alike or rival in alike


def test_pictures_and_captions_are_exchanged_and_rivals_are_drawn_evenly():
    torch.manual_seed(0)
    pids = torch.arange(4)
    wrong = [draw_candidates(pids, torch.tensor([1, 1, 1, 2]), captions=2) for _ in range(1000)]
    pictures = torch.cat([pairs.pictures[8:9] for pairs in wrong])
    captions = torch.cat([pairs.captions[8:9] for pairs in wrong])
    assert 400 < (pictures != 0).sum() < 600
    assert 200 < (pictures == 1).sum() < 300
    counts = captions[pictures == 0].bincount(minlength=8).tolist()
    assert counts[:2] == counts[6:] == [0, 0]
    assert all(80 < count < 170 for count in counts[2:6])


def test_without_sub_categories_any_other_product_will_do():
    torch.manual_seed(0)
    drawn = {
        int(draw_candidates(torch.arange(3), None, captions=1).pictures[3]) for _ in range(100)
    }
    assert drawn == {0, 1, 2}


def test_a_batch_of_one_product_has_right_pairs_only():
    pairs = draw_candidates(torch.zeros(3, dtype=torch.long), torch.ones(3).long(), captions=2)
    assert pairs.matches.tolist() == [1] * 6


def test_mined_negatives_are_the_likelier_the_nearer():
    torch.manual_seed(0)
    nearness = torch.tensor([[9.0, 1.0, 3.0, 8.0]] + [[0.0] * 4] * 3).log()
    groups = torch.tensor([1, 1, 1, 2])
    drawn = [
        draw_candidates(torch.arange(4), groups, captions=1, logits=nearness) for _ in range(2000)
    ]
    rivals = torch.stack([pairs.pictures[4] + pairs.captions[4] for pairs in drawn])
    # Of its own group only, however near another is: 1 to 3.
    assert set(rivals.tolist()) == {1, 2}
    assert (rivals == 2).float().mean().item() == pytest.approx(0.75, abs=0.04)


@given(products, st.integers(0, 99))
def test_mined_negatives_are_never_of_the_same_product(items, seed):
    torch.manual_seed(seed)
    pids, groups = (torch.tensor(column) for column in zip(*items, strict=True))
    near = 50.0 * (pids[:, None] == pids)
    pairs = draw_candidates(pids, groups, captions=1, logits=near)
    assert torch.equal(pids[pairs.pictures] == pids[pairs.captions], pairs.matches.bool())


@given(st.integers(1, 6), st.integers(1, 3))
def test_wrong_captions_that_came_with_their_pictures(pictures, captions):
    pairs = given_candidates(pictures * captions, pictures, captions=captions)
    told = [(i, i * captions + k, 1) for i in range(pictures) for k in range(captions)]
    wrong = [(i, pictures * captions + i, 0) for i in range(pictures)]
    columns = (column.tolist() for column in pairs)
    assert list(zip(*columns, strict=True)) == told + wrong
