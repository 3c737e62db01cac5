from __future__ import annotations

import json

import pytest

from finegrain.errors import PlanError
from finegrain.preprocess.clip_bpe import clip_tokenizer
from finegrain.preprocess.vocabulary import MAX_BYTES, MAX_WORDS, Vocabulary, words_of

CAPTIONS = ["A man in a red coat.", "Man with a T-shirt & a coat", "naïve 红色 coat's"]


@pytest.fixture(scope="module")
def tokenizer():
    return clip_tokenizer(context_length=8)


def test_words_are_counted_once_a_caption(tokenizer):
    vocabulary = Vocabulary.of(CAPTIONS, clip_tokenizer())
    assert vocabulary.words == {
        "a": 2, "man": 2, "coat": 2, "in": 1, "red": 1, "with": 1, "t-shirt": 1, "naïve": 1,
        "红": 1, "色": 1, "coat's": 1,
    }  # fmt: skip
    assert next(iter(vocabulary.words)) in ("a", "man", "coat")


def test_tokens_are_those_of_the_captions_and_those_that_are_added(tokenizer):
    encoded = tokenizer.encode(CAPTIONS).ids
    assert set(Vocabulary.of(CAPTIONS, tokenizer).tokens) == set(encoded.ravel().tolist())
    assert Vocabulary.of([], tokenizer).tokens == (tokenizer.end_id,)


def test_words_beyond_the_context_are_not_known(tokenizer):
    vocabulary = Vocabulary.of(["one two three four five six seven eight"], tokenizer)
    assert list(vocabulary.words) == ["one", "two", "three", "four", "five", "six"]


def test_the_file_is_read_as_it_was_written(tokenizer):
    vocabulary = Vocabulary.of(CAPTIONS, tokenizer)
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary


def test_rare_words_are_left_out_of_a_large_file(tokenizer, monkeypatch):
    monkeypatch.setattr("finegrain.preprocess.vocabulary.MAX_WORDS", 2)
    assert len(Vocabulary.of(CAPTIONS, tokenizer).words) == 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "not valid JSON"),
        (b'{"words": {"a": 1, "a": 2}, "tokens": []}', "twice"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "expected words and tokens"),
        (b'{"words": {}}', "expected words and tokens"),
        (b'{"words": {"a": "1"}, "tokens": []}', "words with counts"),
        (b'{"words": {"a": 0}, "tokens": []}', "words with counts"),
        (b'{"words": [], "tokens": []}', "words with counts"),
        (b'{"words": {}, "tokens": [true]}', "token ids"),
        (b'{"words": {}, "tokens": [-1]}', "token ids"),
        (b'{"words": {}, "tokens": {}}', "token ids"),
        (b" " * (MAX_BYTES + 1), "at most"),
        (
            json.dumps({"words": {str(n): 1 for n in range(MAX_WORDS + 1)}, "tokens": []}).encode(),
            "at most",
        ),
    ],
)
def test_a_file_of_another_kind_is_refused(data: bytes, message: str):
    with pytest.raises(PlanError, match=message):
        Vocabulary.from_json(data)


def test_words_keep_hyphens_and_scripts_without_blanks_are_split():
    assert words_of("Long-sleeved T-SHIRT, 3 men's") == ["long-sleeved", "t-shirt", "men's"]
    assert words_of("红色coat") == ["红", "色", "coat"]
