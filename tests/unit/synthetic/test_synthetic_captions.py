"""Captions are varied, of bounded length, true, and pairs for swapping differ in two words."""

import re

import pytest

from finegrain.synthetic import captions_of, identities, view_of
from finegrain.synthetic.captions import MAX_WORDS, MIN_WORDS, words
from finegrain.synthetic.palette import COLORS
from finegrain.synthetic.person import COLOR_FIELDS

_HAIR_WORDS = {"black", "brown", "grey", "red"}


@pytest.fixture(scope="module")
def written():
    """(identity, view, caption) of the first pictures of a population."""
    return [
        (identity, view_of(identity, picture), caption)
        for identity in identities(400)
        for picture in range(2)
        for caption in captions_of(identity, view_of(identity, picture), picture)
    ]


def _garment_colors(text):
    """Colour words of a caption, without those of hair."""
    without_hair = re.sub(r"\b[\w-]+ (?=hair\b|ponytail\b|bun\b)", "", text.lower())
    without_hair = re.sub(r"\b\w+-haired|hair is [\w ]+? and", "", without_hair)
    return [word for word in words(without_hair) if word in COLORS]


def test_captions_are_varied_and_of_bounded_length(written):
    texts = [caption.text for _, _, caption in written]
    lengths = [len(words(text)) for text in texts]

    assert min(lengths) >= MIN_WORDS
    assert max(lengths) <= MAX_WORDS
    assert 0.02 < sum(length <= 9 for length in lengths) / len(lengths) < 0.30
    assert 0.005 < sum(length > 38 for length in lengths) / len(lengths) < 0.15
    assert len(set(texts)) > 0.97 * len(texts)
    assert len({tuple(words(text)[:2]) for text in texts}) > 120
    assert len({word for text in texts for word in words(text)}) > 150


def test_colors_named_are_worn(written):
    for identity, _, caption in written:
        person = identity.person
        worn = {person.color(slot) for slot in COLOR_FIELDS}
        worn |= {person.upper_second_color, person.lower_second_color}
        assert set(_garment_colors(caption.text)) <= worn, caption.text


def test_pronouns_and_nouns_agree_with_the_person(written):
    wrong = {
        "woman": {"man", "he", "his", "guy", "male", "gentleman"},
        "man": {"woman", "she", "her", "lady", "girl", "female"},
    }
    for identity, _, caption in written:
        assert not wrong[identity.person.gender] & set(words(caption.text)), caption.text


def test_absent_and_invisible_things_are_not_mentioned(written):
    names = {
        "sneakers|trainers|boots|sandals|leather shoes": lambda p, v: v.shows_shoes,
        "backpack|rucksack": lambda p, v: p.bag == "backpack",
        "umbrella": lambda p, v: p.umbrella_color is not None,
        "beanie|cap\\b": lambda p, v: p.hat is not None,
        "short-sleeved": lambda p, v: p.sleeves == "short",
        "long-sleeved": lambda p, v: p.sleeves == "long",
        "facing the camera|towards": lambda p, v: v.facing == "front",
        "from behind|walking away|facing away": lambda p, v: v.facing == "back",
        "walking": lambda p, v: v.walking,
        "standing": lambda p, v: not v.walking,
        "striped|stripy|stripes": lambda p, v: "striped" in (p.upper_pattern, p.lower_pattern),
        "\\b(face|smil\\w+|eyes|glasses)\\b": lambda p, v: False,
    }
    for pattern, holds in names.items():
        pattern = pattern.replace("facing the camera", "(?<!standing and )facing the camera")
        said = [(i, v, c) for i, v, c in written if re.search(pattern, c.text.lower())]
        for identity, view, caption in said:
            assert holds(identity.person, view), caption.text


def test_a_swapped_caption_differs_only_in_two_colors(written):
    swapped = [c for _, _, c in written if c.swapped is not None]
    assert len(swapped) > 0.45 * len(written)
    for caption in swapped:
        # Articles follow the colours: "an orange coat" becomes "a red coat".
        before = [word for word in words(caption.text) if word not in ("a", "an")]
        after = [word for word in words(caption.swapped) if word not in ("a", "an")]
        changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
        assert changed, caption.text
        colors = {word for pair in changed for word in pair}
        assert len(colors) == 2
        assert colors <= set(COLORS)
        assert {(b, a) for a, b in changed} == set(changed)


def test_swap_people_have_a_caption_that_is_true_of_the_partner_when_swapped():
    people = {identity.pid: identity for identity in identities(300)}
    for identity in people.values():
        if identity.swap is None:
            continue
        captions = captions_of(identity, view_of(identity, 0), 0)
        pair = {identity.person.color(slot) for slot in identity.swap}
        assert captions[0].swapped is not None
        assert pair <= set(words(captions[0].text))
        partner = people[identity.swap_pid].person
        worn = {partner.color(slot) for slot in COLOR_FIELDS}
        worn |= {partner.upper_second_color, partner.lower_second_color}
        assert set(_garment_colors(captions[0].swapped)) <= worn


def test_captions_depend_on_the_seed_only():
    identity = identities(1)[0]
    view = view_of(identity, 0)

    assert captions_of(identity, view, 0) == captions_of(identity, view, 0)
    assert captions_of(identity, view, 0) != captions_of(identity, view, 0, seed=5)
    assert len({c.text for c in captions_of(identity, view, 0, count=5)}) == 5


def test_articles_fit_their_words(written):
    for _, _, caption in written:
        for text in (caption.text, caption.swapped or ""):
            assert not re.search(r"\ba [aeio]|\ban (?!umbr)[^aeio]", text.lower()), text
            assert "  " not in text
            assert "{" not in text
