"""Word pieces compared with BERT's tokenizer, on a small vocabulary."""

from __future__ import annotations

import re
from string import ascii_lowercase, digits

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertTokenizerFast

from finegrain.errors import DataError
from finegrain.preprocess import Tokenizer
from finegrain.preprocess.cleaning import CLIP_CLEANING
from finegrain.preprocess.word_pieces import SPECIAL, word_piece_tokenizer

WORDS = """
a the woman man in with red coat jean ##s black and wear ##ing back ##pack person
"""
CHARACTERS = [*ascii_lowercase, *digits, *"$%&[]<>_+=|", "é", "女"]


def vocabulary():
    pieces = [f"[unused{i}]" for i in range(104)]
    for name, place in SPECIAL.items():
        pieces[place] = name
    more = [*CHARACTERS, *(f"##{character}" for character in CHARACTERS), *WORDS.split()]
    return [*pieces, *dict.fromkeys(more)]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("words") / "vocab.txt"
    path.write_text("\n".join(vocabulary()) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tokenizer(file):
    return word_piece_tokenizer(file, 51)


@pytest.fixture(scope="module")
def theirs():
    ids = {piece: id_ for id_, piece in enumerate(vocabulary())}
    return BertTokenizerFast(vocab=ids, do_lower_case=True)


def as_albef(caption):
    """The cleaning of ALBEF, copied literally."""
    for mark in ",.'!?\"()*#:;~":
        caption = caption.lower().replace(mark, "")
    caption = caption.replace("-", " ").replace("/", " ").replace("<person>", "person")
    return " ".join(re.sub(r"\s{2,}", " ", caption).strip().split(" ")[:50])


def ids_of(tokenizer, caption):
    batch = tokenizer.encode([caption])
    return batch.ids[0, : batch.eot[0]].tolist()


SPOKEN = """
a woman jeans wearing red-black coat, (coat) back/pack backpack's <person> Man zebra 3$ café 女人
#1 e-mail T-shirt! ~ & -
"""


@settings(deadline=None, max_examples=150)
@given(words=st.lists(st.sampled_from([*SPOKEN.split(), "&amp;", "\u2019", " "]), max_size=70))
def test_ids_equal_those_of_bert_after_albefs_cleaning(words, tokenizer, theirs):
    """Without [SEP], and truncated to ALBEF's fifty tokens."""
    caption = " ".join(words)
    expected = theirs(as_albef(caption), add_special_tokens=False)["input_ids"]
    assert ids_of(tokenizer, caption) == [SPECIAL["[CLS]"], *expected][:50]


def test_a_run_without_a_stated_cleaning_keeps_the_old_one(file, theirs):
    """Runs of version 0.1.0 repaired the caption first."""
    before = word_piece_tokenizer(file, 51, CLIP_CLEANING)
    caption = "A &amp; b: a \u201cred\u201d coat."
    expected = theirs(as_albef(CLIP_CLEANING(caption)), add_special_tokens=False)["input_ids"]
    assert ids_of(before, caption) == [SPECIAL["[CLS]"], *expected]


@pytest.mark.parametrize("caption", ["[SEP]", "[MASK] coat", "a [CLS] [PAD]"])
def test_special_tokens_in_a_caption_are_text(caption, tokenizer):
    ids = ids_of(tokenizer, caption)
    assert ids[0] == SPECIAL["[CLS]"]
    assert not set(ids[1:]) & (set(SPECIAL.values()) - {SPECIAL["[UNK]"]})


def test_a_plan_contains_the_tokenizer(tokenizer):
    again = Tokenizer.from_json(tokenizer.to_json(), context_length=51)
    captions = ["A woman, in a red-black coat.", "", "<person> wearing jeans", "女 ☃"]
    one, other = tokenizer.encode(captions), again.encode(captions)
    assert one.ids.tolist() == other.ids.tolist()
    assert one.eot.tolist() == other.eot.tolist()
    assert (again.start_id, again.end_id) == (SPECIAL["[CLS]"], SPECIAL["[SEP]"])
    assert again.vocabulary_size == len(vocabulary())


def test_a_vocabulary_in_another_layout_is_refused(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\n[CLS]\nword\n")
    with pytest.raises(DataError, match=r"expected \[UNK\] at 100, \[CLS\] at 101.*own vocab\.txt"):
        word_piece_tokenizer(path, 51)


def test_invalid_vocabularies_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"cannot be read: .*Expected the vocab\.txt"):
        word_piece_tokenizer(tmp_path / "vocab.txt", 51)
    path = tmp_path / "binary"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read"):
        word_piece_tokenizer(path, 51)
    with path.open("wb") as file:
        file.truncate((16 << 20) + 1)
    with pytest.raises(DataError, match=r"has 16777217 bytes; a vocabulary has up to"):
        word_piece_tokenizer(path, 51)
