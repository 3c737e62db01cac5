"""Tokenizer files of published models, and invalid files."""

from __future__ import annotations

import json

import pytest
from fixtures.published_tokenizers import write_gemma, write_unigram, write_word_pieces

from finegrain.errors import DataError, PlanError
from finegrain.preprocess import text, tokenizer_file
from finegrain.preprocess.cleaning import NO_CLEANING
from finegrain.preprocess.clip_bpe import clip_tokenizer
from finegrain.preprocess.tokenizer_file import read_tokenizer, read_vocabulary


def read(file, vocabulary=1000):
    return read_tokenizer(file, context_length=20, cleaning=NO_CLEANING, vocabulary=vocabulary)


def test_word_pieces_start_with_the_start_token(tmp_path):
    tokenizer = read(write_word_pieces(tmp_path))
    assert (tokenizer.start_id, tokenizer.end_id) == (2, 3)


def test_unigrams_have_an_end_token_only(tmp_path):
    tokenizer = read(write_unigram(tmp_path))
    assert (tokenizer.start_id, tokenizer.end_id) == (None, 1)
    batch = tokenizer.encode([""])
    assert (batch.ids.tolist(), batch.eot.tolist()) == ([[1, 0]], [0])


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt", "spiece.model"])
@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe\x00", b"<html>Not found</html>" * 9])
def test_a_file_that_is_not_a_tokenizer_is_refused(tmp_path, name, content):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(DataError, match="is not a tokenizer"):
        read(file)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "tokenizer.json")


def test_a_huge_file_is_not_read(tmp_path, monkeypatch):
    file = write_word_pieces(tmp_path)
    monkeypatch.setattr(tokenizer_file, "MAX_BYTES", 10)
    with pytest.raises(DataError, match=r"at most .* bytes"):
        read(file)


def test_a_tokenizer_with_more_ids_than_the_tower_is_refused(tmp_path):
    file = write_gemma(tmp_path, lower=True)
    largest = max(read_vocabulary(file).values())
    assert read(file, largest + 1).vocabulary_size == largest + 1
    with pytest.raises(DataError, match=f"ids up to {largest}, and the text tower knows {largest}"):
        read(file, largest)


def test_a_tokenizer_without_an_end_token_is_refused(tmp_path):
    file = write_gemma(tmp_path, lower=True)
    settings = json.loads(file.read_text(encoding="utf-8"))
    settings["post_processor"] = None
    file.write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(DataError, match="is not the tokenizer of a text tower"):
        read(file)


def test_a_tokenizer_with_too_many_entries_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "tokenizer.json"
    file.write_text(clip_tokenizer(77).to_json(), encoding="utf-8")
    monkeypatch.setattr(text, "MAX_ENTRIES", 1000)
    with pytest.raises(PlanError, match="entries; expected at most 1000"):
        text.Tokenizer.from_json(file.read_bytes(), context_length=77)
    with pytest.raises(DataError, match="entries; expected at most 1000"):
        read_vocabulary(file)
