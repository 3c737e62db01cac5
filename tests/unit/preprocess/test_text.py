from __future__ import annotations

import gzip
import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, processors

from finegrain.errors import DataError, MissingExtraError, PlanError, QueryError
from finegrain.preprocess import Cleaning
from finegrain.preprocess.clip_bpe import clip_tokenizer
from finegrain.preprocess.text import Tokenizer

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "red", "coat", "black", "bag"]


def word_level(*, template: str = "[CLS] $A [SEP]") -> tokenizers.Tokenizer:
    """A tokenizer of a few words whose special tokens are *added*, as in BERT's file."""
    ids = {word: id_ for id_, word in enumerate(WORDS)}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(word_level(), context_length=5)


def test_special_ids_are_read_from_the_file(tokenizer):
    again = Tokenizer.from_json(tokenizer.to_json(), context_length=9)
    assert (again.start_id, again.end_id, again.vocabulary_size) == (1, 2, len(WORDS))
    assert again.context_length == 9


def test_the_width_is_the_length_of_the_longest_caption(tokenizer):
    batch = tokenizer.encode(["red coat", "", "Bag"])
    np.testing.assert_array_equal(batch.ids, [[1, 4, 5, 2], [1, 2, 0, 0], [1, 7, 2, 0]])
    np.testing.assert_array_equal(batch.eot, [3, 1, 2])
    assert batch.ids.dtype == batch.eot.dtype == np.int32


def test_a_truncated_caption_has_an_end_token(tokenizer):
    batch = tokenizer.encode(["red coat black bag red", "red"])
    np.testing.assert_array_equal(batch.ids, [[1, 4, 5, 6, 2], [1, 4, 2, 0, 0]])
    np.testing.assert_array_equal(batch.eot, [4, 2])


def test_pad_to_fixes_the_width(tokenizer):
    np.testing.assert_array_equal(tokenizer.encode(["red"], pad_to=5).ids, [[1, 4, 2, 0, 0]])
    np.testing.assert_array_equal(tokenizer.encode(["red coat bag"], pad_to=4).ids, [[1, 4, 5, 2]])


def test_no_captions_give_an_empty_batch(tokenizer):
    batch = tokenizer.encode([])
    assert batch.ids.shape == (0, 2)
    assert batch.eot.shape == (0,)


def test_special_tokens_in_a_caption_are_ordinary_text(tokenizer):
    # lower() alone would hide "[sep]" from this file, so the next step is tested as well
    assert tokenizer.encode(["[SEP] red"]).ids.tolist() == [[1, 3, 4, 2]]
    raw = tokenizer._tokenizer.encode("[SEP][CLS]", add_special_tokens=False).ids
    assert not {1, 2} & set(raw) or raw == []


@given(captions=st.lists(st.text(max_size=30) | st.sampled_from(WORDS), max_size=6))
@settings(max_examples=60, deadline=None)
def test_every_batch_is_well_formed(captions):
    tokenizer = Tokenizer(word_level(), context_length=5)
    batch = tokenizer.encode(captions)
    for ids, eot in zip(batch.ids, batch.eot, strict=True):
        assert ids[0] == 1
        assert (ids == 2).nonzero()[0].tolist() == [eot]
        assert not ids[eot + 1 :].any()
        assert ids[1:eot].all()


def test_truncation_before_cleaning_does_not_change_the_ids():
    clip = Tokenizer(word_level(), context_length=77)
    caption = "red coat " * 100_000
    short = "red coat " * 100
    np.testing.assert_array_equal(clip.encode([caption]).ids, clip.encode([short]).ids)


def test_words_beyond_the_limit_of_the_cleaning_are_reported():
    tokenizer = Tokenizer(word_level(), context_length=5, cleaning=Cleaning(max_words=4))
    assert tokenizer.beyond_context("red coat black bag red coat") == "bag red coat"


def test_a_caption_is_cleaned_as_the_plan_states():
    cleaning = Cleaning(omit="!", blank="-", repair=False)
    told = Tokenizer(word_level(), context_length=9, cleaning=cleaning)
    again = Tokenizer.from_json(told.to_json(), context_length=9, cleaning=cleaning)
    for tokenizer in (told, again):
        assert tokenizer.encode(["Red-Coat! b!ag &amp;"]).ids.tolist() == [[1, 4, 5, 7, 3, 2]]
    plain = Tokenizer(word_level(), context_length=9)
    assert plain.encode(["Red-Coat! b!ag &amp;"]).ids.tolist() == [[1, 3, 3, 3, 2]]


@pytest.mark.parametrize("caption", [None, 3, b"red", ["red"]])
def test_only_text_is_a_caption(tokenizer, caption):
    with pytest.raises(QueryError, match="expected a caption as text"):
        tokenizer.encode([caption])


def test_a_single_text_is_not_a_list_of_captions(tokenizer):
    with pytest.raises(QueryError, match="Put it in a list"):
        tokenizer.encode("red coat")


@pytest.mark.parametrize("pad_to", [0, 2, 6, -1])
def test_pad_to_must_fit_the_context(tokenizer, pad_to):
    with pytest.raises(QueryError, match="pad_to between 3 and the context length 5"):
        tokenizer.encode(["red"], pad_to=pad_to)


@pytest.mark.parametrize("data", [b"", b"{}", "[1]", b"\xff\xfe", '{"version": "1.0"}'])
def test_other_files_are_not_tokenizers(data):
    with pytest.raises(PlanError, match="expected the JSON of a tokenizer"):
        Tokenizer.from_json(data, context_length=77)


def test_a_tokenizer_without_start_and_end_is_refused():
    with pytest.raises(PlanError, match=r"got ids \[1\]"):
        Tokenizer(word_level(template="[CLS] $A"), context_length=77)


def test_the_start_token_is_optional():
    tokenizer = Tokenizer(word_level(template="$A [SEP]"), context_length=4)
    assert (tokenizer.start_id, tokenizer.end_id) == (None, 2)
    batch = tokenizer.encode(["red coat", "", "red coat black bag"])
    np.testing.assert_array_equal(batch.ids, [[4, 5, 2, 0], [2, 0, 0, 0], [4, 5, 6, 2]])
    np.testing.assert_array_equal(batch.eot, [2, 0, 3])
    assert tokenizer.beyond_context("red coat black bag") == "bag"
    assert tokenizer.encode([""]).ids.shape == (1, 2)


def test_a_context_without_room_is_refused():
    with pytest.raises(PlanError, match="context length of 3 or more, got 2"):
        Tokenizer(word_level(), context_length=2)


def test_truncation_and_padding_of_the_file_are_ignored():
    inner = word_level()
    inner.enable_truncation(3)
    inner.enable_padding(length=9)
    batch = Tokenizer(inner, context_length=5).encode(["red coat bag"])
    assert batch.ids.tolist() == [[1, 4, 5, 7, 2]]


NO_TORCH = """
import sys
from finegrain.preprocess.clip_bpe import clip_tokenizer
clip_tokenizer()
assert not {"torch", "open_clip"} & set(sys.modules)
"""


@pytest.mark.skipif(importlib.util.find_spec("open_clip") is None, reason="needs open_clip")
def test_a_caching_tokenizer_encodes_each_caption_once(tokenizer, monkeypatch):
    remembering = tokenizer.remembering(2)
    captions = ["red coat", "black bag", "red bag"]
    expected = tokenizer.encode(captions)
    np.testing.assert_array_equal(remembering.encode(captions).ids, expected.ids)
    encoded, encode = [], Tokenizer._encoded
    monkeypatch.setattr(
        Tokenizer, "_encoded", lambda self, text: encoded.append(text) or encode(self, text)
    )
    again = remembering.encode(captions)
    np.testing.assert_array_equal(again.ids, expected.ids)
    np.testing.assert_array_equal(again.eot, expected.eot)
    assert encoded == ["red bag"], "only two captions were to be kept"
    tokenizer.encode(captions)
    assert encoded[1:] == captions, "the tokenizer itself keeps none"


def test_building_clip_imports_no_torch():
    subprocess.run([sys.executable, "-c", NO_TORCH], check=True)


def test_the_error_of_a_missing_vocabulary_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"finegrain\[train\]"):
        clip_tokenizer()


def test_a_damaged_vocabulary_is_refused(tmp_path):
    with pytest.raises(DataError, match="could not read it"):
        clip_tokenizer(vocabulary=tmp_path / "nothing.gz")
    damaged = tmp_path / "damaged.gz"
    damaged.write_bytes(gzip.compress(b"merges" * 1_000)[:-9])
    with pytest.raises(DataError, match="could not read it"):
        clip_tokenizer(vocabulary=damaged)
    other = tmp_path / "other.gz"
    other.write_bytes(gzip.compress(b"#version\na b\nab c\n"))
    with pytest.raises(DataError, match=r"expected CLIP's 48894 merges in .*, got 2"):
        clip_tokenizer(vocabulary=other)


def test_a_pattern_that_takes_too_long_is_reported(capfd: pytest.CaptureFixture[str]):
    pieces = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"[UNK]": 0, "a": 1, "<s>": 2, "</s>": 3}, unk_token="[UNK]")
    )
    pattern = tokenizers.Regex("(a+)+$")
    pieces.pre_tokenizer = tokenizers.pre_tokenizers.Split(pattern, "isolated")
    pieces.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    tokenizer = Tokenizer(pieces, context_length=8)
    assert tokenizer.encode(["aaa"]).eot.tolist() == [2]
    for read in (lambda text: tokenizer.encode([text]), tokenizer.beyond_context):
        with pytest.raises(QueryError, match="the tokenizer of the plan gave up"):
            read("a" * 200 + "!")
