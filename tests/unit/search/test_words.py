from __future__ import annotations

import json
from pathlib import Path

import pytest

from finegrain.cli.parser import main
from finegrain.data.everyday_words import IGNORED, READ_AS
from finegrain.errors import PlanError
from finegrain.plan import Plan, write_plan
from finegrain.preprocess.vocabulary import VOCABULARY, Vocabulary
from finegrain.search.asking.words import WordReader
from finegrain.search.searcher import Searcher

WORDS = (
    "a an and backpack black blonde blue boots cap checked coat dress grey gray hoodie in jacket "
    "jeans long man orange person red shirt skirt striped sweater t-shirt trousers umbrella under "
    "white with woman yellow"
)
KNOWN = Vocabulary(words=dict.fromkeys(WORDS.split(), 5), tokens=(0,))


@pytest.fixture(scope="module")
def reader() -> WordReader:
    return WordReader(KNOWN)


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("woman in a red coat", "woman in a red coat"),
        ("Woman in a RED coat.", "Woman in a RED coat."),
        ("lass in a jumper", "woman in a sweater"),
        ("an anorak", "a jacket"),
        ("a tangerine coat", "an orange coat"),
        ("man with a brolly", "man with an umbrella"),
        ("gal in a trench  coat, blue jeans", "woman in a coat, blue jeans"),
        ("red coats", "red coat"),
        ("jumpers", "sweater"),
        ("black-and-white dress", "black-and-white dress"),
        ("the man's coat", "the man's coat"),
        ("woman in a stirped rdess", "woman in a striped dress"),
        ("rde coat", "red coat"),
        ("jmuper", "sweater"),
        ("hoody", "hoodie"),
        ("a charcoal tee", "a grey t-shirt"),
    ],
)
def test_words_are_read_as_known_ones(reader: WordReader, typed: str, read: str):
    assert reader.read(typed).text == read
    assert reader.read(typed).unread == ()


@pytest.mark.parametrize("text", ["red goat", "purple elephant in a coat", "a boat, a man"])
def test_english_words_are_no_typos(reader: WordReader, text: str):
    read = reader.read(text)
    assert read.text == text
    assert set(read.unread) <= {"goat", "purple", "elephant", "boat"}
    assert read.unread


def test_what_changed_is_noted(reader: WordReader):
    read = reader.read("bloke with a brolly and a zebra")
    assert read.changed == {"bloke": "man", "brolly": "umbrella"}
    assert read.notes == [
        "read 'bloke' as 'man', 'brolly' as 'umbrella' (words=False, or --no-words)",
        "the model never read 'zebra' in its training, so the other words decide",
    ]
    assert reader.read("man in a red coat").notes == []


@pytest.mark.parametrize("text", ["xyzzy", "elephant", "the giraffe", "大象"])
def test_a_text_of_unknown_words_alone_says_that_the_order_means_nothing(reader, text: str):
    (note,) = reader.read(text).notes
    assert "the order of the matches says nothing" in note


def test_function_words_are_not_reported(reader: WordReader):
    assert reader.read("show me the man who is in a coat").notes == []


def test_a_model_of_another_language_gets_no_english_names():
    german = Vocabulary(
        words=dict.fromkeys(["ein", "mann", "mit", "rotem", "mantel", "und", "schal"], 5), tokens=()
    )
    read = WordReader(german).read("mann mit jumper und mantell und schals")
    assert read.text == "mann mit jumper und mantell und schal"
    assert read.unread == ("jumper", "mantell")


@pytest.mark.parametrize("text", ["", " ", "…", "a" * 2000, "’s", "-", "İstanbul coat", "coat 5"])
def test_unusual_texts_are_read(reader: WordReader, text: str):
    assert reader.read(text).text == text


def test_names_are_lower_case_and_of_up_to_three_words():
    for name, plain in READ_AS.items():
        assert name == name.lower().strip()
        assert 1 <= len(name.split()) <= 3
        assert all(word == word.lower().strip() != "" for word in plain)
    assert not IGNORED & {"man", "coat", "red"}


@pytest.fixture(scope="module")
def searcher(tiny_plan, crops, tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    with _searcher(tiny_plan, folder / "model.plan", KNOWN.to_json()) as searcher:
        searcher.add(crops, progress=False)
        yield searcher


def _searcher(tiny_plan, path, vocabulary: bytes) -> Searcher:
    plan = Plan(tiny_plan)
    members = {name: plan.take(name) for name in plan.manifest.sha256}
    write_plan(path, plan.manifest, members | {VOCABULARY: vocabulary})
    return Searcher(path, threads=1)


def test_a_query_is_searched_by_the_words_as_they_were_read(searcher: Searcher):
    matches = searcher.query("lass in a scarlet jumper with a zebra", 5)
    plain = searcher.query("woman in a red sweater with a zebra", 5)
    assert [(m.id, m.score) for m in matches] == [(m.id, m.score) for m in plain]
    assert matches.query == "lass in a scarlet jumper with a zebra"
    assert matches.changed_words == {"lass": "woman", "scarlet": "red", "jumper": "sweater"}
    assert matches.unread_words == plain.unread_words == ("zebra",)
    assert matches[:2].unread_words == ("zebra",)
    assert "note: read 'lass' as 'woman'" in repr(matches)


def test_reading_words_can_be_turned_off(searcher: Searcher, crops_searcher: Searcher):
    query = "lass in a scarlet jumper"
    typed = searcher.query(query, 5, words=False)
    assert typed.notes == ()
    assert typed.changed_words == {}
    assert typed.unread_words == ()
    same = crops_searcher.query(query, 5)
    assert [match.score for match in typed] == [match.score for match in same]


def test_denied_words_and_words_beside_a_picture_are_read(searcher: Searcher, crops):
    denied = searcher.query("man without a brolly", 3)
    assert denied.notes[0].startswith("read 'brolly' as 'umbrella'")
    assert "read as: 'man' without 'umbrella'" in denied.notes[1]
    beside = searcher.query(image=sorted(crops.iterdir())[0], text="in a crimson coat")
    assert beside.changed_words == {"crimson": "red"}


def test_several_queries_have_their_own_notes(searcher: Searcher):
    first, second = searcher.query(["lass", "man"], 2)
    assert first.changed_words == {"lass": "woman"}
    assert second.notes == ()


def test_the_command_line_shows_how_words_were_read(searcher: Searcher, capsys):
    query = ["query", str(Path(searcher.gallery.path).with_suffix(".plan")), "lass", "-k", "1"]
    assert main([*query, "a zebra", "--json"]) == 0
    read, unread = json.loads(capsys.readouterr().out)
    assert read["notes"] == ["read 'lass' as 'woman' (words=False, or --no-words)"]
    assert "the model never read 'zebra'" in unread["notes"][0]
    assert main([*query, "--no-words"]) == 0
    assert "note:" not in capsys.readouterr().out


def test_a_plan_without_vocabulary_reads_words_as_they_are(crops_searcher: Searcher):
    matches = crops_searcher.query("lass in a scarlet jumper with a zebra", 3)
    assert matches.notes == ()
    assert matches.unread_words == ()


def test_a_damaged_vocabulary_is_refused(tiny_plan, tmp_path):
    with pytest.raises(PlanError, match=r"vocabulary\.json"):
        _searcher(tiny_plan, tmp_path / "model.plan", b"[]")
