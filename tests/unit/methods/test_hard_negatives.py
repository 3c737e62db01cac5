"""Hard negatives: other pictures, other captions, and captions with exchanged colours."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.errors import RecipeError
from finegrain.methods.hard_negatives import (
    APART,
    WORDS,
    color_tokens,
    draw_candidates,
    draw_hard_negatives,
    exchange_words,
    given_candidates,
)
from finegrain.preprocess.clip_bpe import clip_tokenizer


@settings(deadline=None, max_examples=60)
@given(
    queries=st.lists(st.integers(0, 2), min_size=1, max_size=6),
    answers=st.lists(st.integers(0, 2), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
)
def test_a_negative_is_of_another_person_if_there_is_one(queries, answers, seed):
    torch.manual_seed(seed)
    same = torch.tensor(queries)[:, None] == torch.tensor(answers)
    negatives, exists = draw_hard_negatives(100 * torch.randn(same.shape), same)
    for row, pid in enumerate(queries):
        assert bool(exists[row]) == any(other != pid for other in answers)
        if exists[row]:
            assert answers[negatives[row]] != pid


def test_probabilities_are_the_softmax_over_negatives():
    torch.manual_seed(0)
    logits = torch.tensor([0.0, 1.0, 9.0, -1.0])
    same = torch.tensor([False, False, True, False])
    negatives, _ = draw_hard_negatives(logits.expand(20000, -1), same.expand(20000, -1))
    expected = logits.masked_fill(same, -torch.inf).softmax(dim=0)
    shares = torch.bincount(negatives, minlength=4) / len(negatives)
    torch.testing.assert_close(shares, expected, atol=0.015, rtol=0)


products = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=8)
"""Product and sub-category of each picture; 0 is an unknown sub-category."""


@settings(deadline=None)
@given(products, st.integers(1, 3), st.integers(0, 99))
def test_every_pair_has_a_negative_if_there_is_another_product(items, captions, seed):
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


def test_pictures_and_captions_are_exchanged_and_negatives_are_drawn_evenly():
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


def test_without_sub_categories_any_other_product_is_a_negative():
    torch.manual_seed(0)
    drawn = {
        int(draw_candidates(torch.arange(3), None, captions=1).pictures[3]) for _ in range(100)
    }
    assert drawn == {0, 1, 2}


def test_a_batch_of_one_product_has_matching_pairs_only():
    pairs = draw_candidates(torch.zeros(3, dtype=torch.long), torch.ones(3).long(), captions=2)
    assert pairs.matches.tolist() == [1] * 6


def test_more_similar_negatives_are_drawn_more_often():
    torch.manual_seed(0)
    nearness = torch.tensor([[9.0, 1.0, 3.0, 8.0]] + [[0.0] * 4] * 3).log()
    groups = torch.tensor([1, 1, 1, 2])
    drawn = [
        draw_candidates(torch.arange(4), groups, captions=1, logits=nearness) for _ in range(2000)
    ]
    negatives = torch.stack([pairs.pictures[4] + pairs.captions[4] for pairs in drawn])
    # Hard negatives come from the same sub-category only, even if another is nearer: 1 to 3.
    assert set(negatives.tolist()) == {1, 2}
    assert (negatives == 2).float().mean().item() == pytest.approx(0.75, abs=0.04)


@given(products, st.integers(0, 99))
def test_mined_negatives_are_never_of_the_same_product(items, seed):
    torch.manual_seed(seed)
    pids, groups = (torch.tensor(column) for column in zip(*items, strict=True))
    near = 50.0 * (pids[:, None] == pids)
    pairs = draw_candidates(pids, groups, captions=1, logits=near)
    assert torch.equal(pids[pairs.pictures] == pids[pairs.captions], pairs.matches.bool())


@given(st.integers(1, 6), st.integers(1, 3))
def test_given_wrong_captions_are_paired_with_their_pictures(pictures, captions):
    pairs = given_candidates(pictures * captions, pictures, captions=captions)
    told = [(i, i * captions + k, 1) for i in range(pictures) for k in range(captions)]
    wrong = [(i, pictures * captions + i, 0) for i in range(pictures)]
    columns = (column.tolist() for column in pairs)
    assert list(zip(*columns, strict=True)) == told + wrong


AMONG = torch.tensor([5, 6, 7])


@settings(deadline=None, max_examples=60)
@given(
    captions=st.lists(
        st.lists(st.sampled_from([1, 2, 5, 6, 7]), min_size=7, max_size=7), min_size=1, max_size=5
    ),
    seed=st.integers(0, 1000),
)
def test_two_different_words_are_exchanged_if_there_are_two(captions, seed):
    torch.manual_seed(seed)
    ids = torch.tensor(captions, dtype=torch.int32)
    result = exchange_words(ids, AMONG)
    assert result.ids.dtype == ids.dtype
    for before, after, exists in zip(captions, result.ids.tolist(), result.exists, strict=True):
        colors = [(i, word) for i, word in enumerate(before) if word in (5, 6, 7)]
        pairs = [
            {i, j}
            for (i, word), (j, other) in combinations(colors, 2)
            if word != other and j - i >= APART
        ]
        assert bool(exists) == bool(pairs)
        places = {i for i, word in enumerate(before) if after[i] != word}
        assert places in pairs if exists else not places
        assert Counter(before) == Counter(after)


def test_every_pair_is_drawn():
    torch.manual_seed(0)
    ids = torch.tensor([[5, 0, 0, 6, 0, 0, 7]])
    result = {tuple(row[::3]) for row in exchange_words(ids.repeat(64, 1), AMONG).ids.tolist()}
    assert result == {(6, 5, 7), (7, 6, 5), (5, 7, 6)}


def test_two_colors_of_one_thing_are_not_exchanged():
    tokenizer = clip_tokenizer(16)
    ids = torch.from_numpy(tokenizer.encode(["a black and white dress"]).ids)
    assert not exchange_words(ids, color_tokens(tokenizer)).exists.any()


def test_colors_of_a_caption_are_exchanged():
    tokenizer = clip_tokenizer(16)
    ids = torch.from_numpy(tokenizer.encode(["a man in a red coat and blue trousers"]).ids)
    expected = tokenizer.encode(["a man in a blue coat and red trousers"]).ids
    assert exchange_words(ids, color_tokens(tokenizer)).ids.tolist() == expected.tolist()
    assert len(set(color_tokens(tokenizer).tolist())) == len(WORDS)


def test_a_vocabulary_that_splits_colors_is_refused():
    class Letters:
        def encode(self, captions):
            tokens = clip_tokenizer(16).encode(captions)
            tokens.eot[0] = 4
            return tokens

    with pytest.raises(RecipeError, match=r"black are several; leave swap out of the losses"):
        color_tokens(Letters())
