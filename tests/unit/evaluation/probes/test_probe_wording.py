from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finegrain.data.lexicon import COLORS, OTHER_THINGS, SAID_OF_THINGS, THINGS
from finegrain.evaluation.probes.wording import (
    Span,
    alike,
    colors_of,
    exchanged,
    find_words,
    normalised,
    pattern_of,
    thing_after,
    with_article,
)


def told(caption):
    return [(mention.span.text, mention.color, mention.thing) for mention in colors_of(caption)]


def test_colours_are_read_with_their_things():
    assert told("A woman in a Red coat and long dark blue jeans, grey-haired, on white") == [
        ("red", "red", "outerwear"),
        ("dark blue", "blue", "trousers"),
        ("white", "white", None),
    ]


@pytest.mark.parametrize(
    "caption",
    [
        "red and black striped shirt",
        "a red, white and blue shirt",
        "red/black shirt",
        "red & black shirt",
        "red-black shirt",
        "white with red checks",
        "off-white shirt",
        "reddish shirt, blackboard",
        "a grey-haired man",
        "no colour",
        "",
    ],
)
def test_two_colours_of_one_thing_are_not_exchanged(caption):
    assert told(caption) == []


def test_a_noun_belongs_to_the_adjective_before_it():
    caption = "red leather hand bag, blue with a coat and black, shoes"
    result = {text: thing_after(caption, span) for span, text in
             ((Span(caption.index(t), caption.index(t) + len(t), t), t)
              for t in ("red", "blue", "black"))}  # fmt: skip
    assert result["red"] is not None
    assert result["red"].text == "hand bag"
    assert result["blue"] is result["black"] is None


def test_a_t_shirt_does_not_contain_a_shirt():
    spans = find_words("T-Shirt under a shirt", pattern_of(["shirt", "t-shirt"]))
    assert [span.text for span in spans] == ["t-shirt", "shirt"]
    assert find_words("a t-shirt", pattern_of(["shirt"])) == []


@pytest.mark.parametrize(
    ("caption", "old", "new", "expected"),
    [
        ("a red coat", "red", "orange", "an orange coat"),
        ("An orange coat", "orange", "red", "A red coat"),
        ("Red coat", "red", "dark blue", "Dark blue coat"),
        ("the red coat", "red", "orange", "the orange coat"),
        ("banana red", "red", "blue", "banana blue"),
    ],
)
def test_articles_and_capitals_follow_an_exchanged_word(caption, old, new, expected):
    (span,) = find_words(caption, pattern_of([old]))
    assert exchanged(caption, [(span, new)]) == expected


@given(
    pair=st.permutations(["red", "orange", "dark blue", "ivory"]),
    capital=st.booleans(),
    tail=st.sampled_from(["", " on an escalator", ", holding a cup"]),
)
def test_exchanging_twice_restores_the_caption(pair, capital, tail):
    first, second = pair[:2]
    n = {True: "n", False: ""}
    caption = (
        f"a{n[first[0] in 'aeio']} {first} coat over a{n[second[0] in 'aeio']} {second} skirt{tail}"
    )
    caption = caption[0].upper() + caption[1:] if capital else caption

    def swap(text):
        one, other = colors_of(text)
        return exchanged(text, [(one.span, other.span.text), (other.span, one.span.text)])

    assert swap(caption) != caption
    assert swap(swap(caption)) == caption


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        ("red coat", "a red coat"),
        ("orange coat", "an orange coat"),
        ("umbrella", "an umbrella"),
        ("blue jeans", "blue jeans"),
        ("dress", "a dress"),
        ("black hair", "black hair"),
    ],
)
def test_a_thing_has_its_article(thing, expected):
    assert with_article(thing) == expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("shirt", "t-shirt", True),
        ("navy", "blue", True),
        ("midi dress", "maxi dress", True),
        ("shirt", "dress", False),
        ("silk", "cotton", False),
        ("brand", "label", False),
    ],
)
def test_values_that_may_describe_one_thing_are_similar(one, other, expected):
    assert alike(one, other) is alike(other, one) is expected


def test_normalised_texts_are_words_separated_by_spaces():
    assert normalised("A  T-shirt, (red)!") == " a t-shirt red "
    assert normalised("") == "  "


def test_a_word_is_in_at_most_one_family_of_a_kind():
    things = [*THINGS.values(), OTHER_THINGS]
    for kind in (*SAID_OF_THINGS.values(), {f"{n} {k}": w for n, t in enumerate(things)
                                            for k, w in t.items()}):  # fmt: skip
        words = [word for group in kind.values() for word in group]
        assert len(words) == len(set(words))
    assert COLORS is SAID_OF_THINGS["color"]
