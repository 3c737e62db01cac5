from __future__ import annotations

import json

import pytest

from finegrain.cli.parser import main
from finegrain.errors import QueryError
from finegrain.search.asking.negation import Reading, contradictions, read_english
from finegrain.synthetic.queries import ATTRIBUTE_QUERIES, DETAIL_QUERIES


@pytest.mark.parametrize(
    ("text", "wanted", "denied"),
    [
        ("man in a coat without a bag, not wearing a hat", "man in a coat", "bag|hat"),
        ("woman with no hat or bag in a red coat", "woman in a red coat", "hat|bag"),
        ("man without a hat and a bag", "man", "hat|bag"),
        ("man without a hat and with a bag", "man with a bag", "hat"),
        ("man with no hat and a bag", "man with a bag", "hat"),
        ("dress with no sleeves and no belt", "dress", "sleeves|belt"),
        ("person who isn't wearing a hat", "person", "hat"),
        ("person who isn’t wearing a hat", "person", "hat"),
        ("a man who does not wear glasses and carries a bag", "a man carries a bag", "glasses"),
        ("a man that doesn't have a beard", "a man", "beard"),
        ("neither a hat nor a bag, man in blue", "man in blue", "hat|bag"),
        ("man without a hat, a bag or an umbrella", "man", "hat|bag|umbrella"),
        ("man without hat, bag, or umbrella, in a coat", "man, in a coat", "hat|bag|umbrella"),
        ("man without a hat, a red coat", "man, a red coat", "hat"),
        ("sleeveless dress, not a red one, long", "sleeveless dress, long", "red"),
        ("Woman Without A Handbag.", "Woman", "handbag"),
        ("coat, not red", "coat", "red"),
        ("man not in a coat", "man", "coat"),
        ("shirt without any logo on the chest", "shirt", "logo on the chest"),
        ("photo with a red coat but without a blue coat", "photo with a red coat", "blue coat"),
        ("red coat, no coat", "red coat", "coat"),
        ("man without a hat, without a hat", "man", "hat"),
        ("no hat", "", "hat"),
        ("she doesn't have a bag", "", "bag"),
    ],
)  # fmt: skip
def test_denied_phrases_are_read(text, wanted, denied):
    assert read_english(text) == Reading(wanted=wanted, denied=tuple(denied.split("|")))


@pytest.mark.parametrize(
    "text",
    [
        *(query.text for query in (*ATTRIBUTE_QUERIES, *DETAIL_QUERIES)),
        "", " ", "without", "red coat without", "without a", "no,", "with no and", "nor hat",
        "no. 7 shirt", "no 7 shirt", "No.7 shirt", "not only a coat", "not too long a dress",
        "without doubt a coat", "a nor'wester", "notched lapels", "knot", "north face jacket, noon",
        "  woman ,in  red  ", "nothing but a coat", "donna", "isn't", "she doesn't",
    ],
)  # fmt: skip
def test_texts_that_deny_nothing_stay_as_they_are(text):
    assert read_english(text) == Reading(wanted=text)


def test_a_contradiction_is_a_denied_phrase_that_is_wanted():
    assert contradictions("red coats and boots", ["coat", "boot", "hat"]) == ["coat", "boot"]
    assert contradictions("red coat", ["blue coat", "raincoat", "at"]) == []
    assert contradictions("a dress", ["dresses"]) == []


def ids(matches):
    return [match.id for match in matches]


def test_a_denied_query_is_read_and_says_so(crops_searcher):
    matches = crops_searcher.query("red coat without a bag, no hat")
    assert matches.query == "red coat without a bag, no hat"
    assert "read as: 'red coat' without 'bag', 'hat'" in matches.notes[0]
    avoided = crops_searcher.query("red coat", avoid=["bag", "hat"])
    assert [(m.id, m.score) for m in avoided] == [(m.id, m.score) for m in matches]
    assert "read as: 'red coat' without 'bag', 'hat'" in avoided.notes[0]


def test_reading_can_be_turned_off(crops_searcher):
    text = "red coat without a bag"
    matches = crops_searcher.query(text, negation=False)
    vector = crops_searcher._encoder.encode_texts([text])
    assert ids(matches) == [hit.id for hit in crops_searcher.gallery.search(vector, 10)[0]]
    assert not matches.notes


def test_a_query_that_denies_nothing_is_searched_as_before(crops_searcher):
    text = "woman in red coat"
    vector = crops_searcher._encoder.encode_texts([text])
    expected = crops_searcher.gallery.search(vector, 12)[0]
    for negation in (True, False):
        matches = crops_searcher.query(text, 12, negation=negation)
        assert [(m.id, m.score) for m in matches] == [(h.id, h.score) for h in expected]


def test_the_score_loses_what_the_phrase_adds_beyond_its_mean(crops_searcher):
    gallery = crops_searcher.gallery
    rows = {id_: vector.astype(float) for id_, vector in gallery.vectors(gallery).items()}
    coat, bag = crops_searcher._encoder.encode_texts(["coat", "bag"]).astype(float)
    mean = sum(float(bag @ row) for row in rows.values()) / len(rows)
    for match in crops_searcher.query("coat without a bag", 12):
        row = rows[match.id]
        assert match.score == pytest.approx(coat @ row - max(0, bag @ row - mean), abs=1e-6)


def test_denied_and_other_queries_share_a_call(crops_searcher):
    mixed = crops_searcher.query(["coat", "coat without a bag", "dress"], 4)
    assert mixed == [crops_searcher.query(q, 4) for q in ("coat", "coat without a bag", "dress")]


def test_feedback_applies_to_denied_queries(crops_searcher):
    matches = crops_searcher.query("coat without a bag", 5)
    refined = matches.refine(like=[1], unlike=[5])
    assert {matches[0].id, matches[4].id}.isdisjoint(ids(refined))
    assert "read as: 'coat' without 'bag'" in refined.notes[0]


@pytest.mark.parametrize("text", ["no hat", "without a bag", "neither a hat nor a bag"])
def test_a_query_that_only_denies_is_refused_with_advice(crops_searcher, text):
    with pytest.raises(QueryError, match=r"only says what must not be there .* 'person "):
        crops_searcher.query(text)
    with pytest.raises(QueryError, match="query 2 of 2"):
        crops_searcher.query(["coat", text])
    assert len(crops_searcher.query(text, negation=False))


def test_a_contradiction_is_named(crops_searcher):
    matches = crops_searcher.query("red coat, no coat")
    assert any("asks for 'coat' and denies it" in note for note in matches.notes)
    assert any("denies it" in n for n in crops_searcher.query("red coat", avoid="coats").notes)


@pytest.mark.parametrize("avoid", [3, [3], [""], "", "  ", None, {"bag": 1}])
def test_an_invalid_phrase_to_avoid_is_refused(crops_searcher, avoid):
    with pytest.raises(QueryError, match="avoid"):
        crops_searcher.query("coat", avoid=avoid)


@pytest.mark.parametrize("negation", [None, "en", 1])
def test_an_invalid_reader_is_refused(crops_searcher, negation):
    with pytest.raises(QueryError, match="negation"):
        crops_searcher.query("coat", negation=negation)


def test_pictures_take_no_words_to_avoid(crops_searcher, crops):
    with pytest.raises(QueryError, match="a picture has none"):
        crops_searcher.query(crops / "00.jpg", avoid="bag")
    with pytest.raises(QueryError, match="a picture has none"):
        crops_searcher.query(images=[crops / "00.jpg"], avoid="bag")


def test_another_language_has_a_reader_of_its_own(crops_searcher):
    def german(text: str) -> Reading:
        wanted, _, denied = text.partition(" ohne ")
        return Reading(wanted=wanted, denied=(denied,) if denied else ())

    matches = crops_searcher.query("Mantel ohne Hut", negation=german)
    assert ids(matches) == ids(crops_searcher.query("Mantel", avoid="Hut"))


def test_the_command_reads_denied_words(crops_searcher, tiny_plan, capsys):
    base = ["query", str(tiny_plan), "--gallery", str(crops_searcher.gallery.path), "--json"]
    text = "coat without a bag"
    answers = [[text], ["coat", "--avoid", "bag"], [text, "--no-negation"]]
    shown, notes = [], []
    for arguments in answers:
        assert main([*base, *arguments]) == 0
        out, err = capsys.readouterr()
        shown.append([row["id"] for row in json.loads(out)])
        notes.append("read as: 'coat' without 'bag'" in err)
    assert notes == [True, True, False]
    assert shown[0] == shown[1] == ids(crops_searcher.query(text))
    assert shown[2] == ids(crops_searcher.query(text, negation=False))
