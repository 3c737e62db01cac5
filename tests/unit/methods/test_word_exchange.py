from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.errors import RecipeError
from finegrain.methods.word_exchange import APART, WORDS, color_tokens, exchange_words
from finegrain.preprocess.clip_bpe import clip_tokenizer

AMONG = torch.tensor([5, 6, 7])


@settings(deadline=None, max_examples=60)
@given(
    captions=st.lists(
        st.lists(st.sampled_from([1, 2, 5, 6, 7]), min_size=7, max_size=7), min_size=1, max_size=5
    ),
    seed=st.integers(0, 1000),
)
def test_two_different_words_change_places_wherever_there_are_two(captions, seed):
    torch.manual_seed(seed)
    ids = torch.tensor(captions, dtype=torch.int32)
    found = exchange_words(ids, AMONG)
    assert found.ids.dtype == ids.dtype
    for before, after, exists in zip(captions, found.ids.tolist(), found.exists, strict=True):
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
    found = {tuple(row[::3]) for row in exchange_words(ids.repeat(64, 1), AMONG).ids.tolist()}
    assert found == {(6, 5, 7), (7, 6, 5), (5, 7, 6)}


def test_two_colors_of_one_thing_stay():
    tokenizer = clip_tokenizer(16)
    ids = torch.from_numpy(tokenizer.encode(["a black and white dress"]).ids)
    assert not exchange_words(ids, color_tokens(tokenizer)).exists.any()


def test_colors_change_places_in_a_caption():
    tokenizer = clip_tokenizer(16)
    ids = torch.from_numpy(tokenizer.encode(["a man in a red coat and blue trousers"]).ids)
    expected = tokenizer.encode(["a man in a blue coat and red trousers"]).ids
    assert exchange_words(ids, color_tokens(tokenizer)).ids.tolist() == expected.tolist()
    assert len(set(color_tokens(tokenizer).tolist())) == len(WORDS)


def test_a_vocabulary_that_divides_colors_is_refused():
    class Letters:
        def encode(self, captions):
            tokens = clip_tokenizer(16).encode(captions)
            tokens.eot[0] = 4
            return tokens

    with pytest.raises(RecipeError, match=r"black are several; leave swap out of the losses"):
        color_tokens(Letters())
