from __future__ import annotations

import re
from pathlib import Path

import pytest

from finegrain.evaluation.probes.ask import make_probes
from finegrain.evaluation.probes.attributes import MAX_VALUES, IdentityTexts, attributes_of
from finegrain.evaluation.probes.wording import normalised
from finegrain.records import Sample, Split


def split_of(*texts, metadata=None):
    """A split with one picture of one identity for each tuple of captions."""
    return Split(
        name="test",
        samples=tuple(
            Sample(
                image=Path(f"{n}.jpg"),
                captions=captions if isinstance(captions, tuple) else (captions,),
                pid=n,
                metadata=metadata[n] if metadata else {},
            )
            for n, captions in enumerate(texts)
        ),
    )


def asked(split, name, seed=0):
    (probe,) = [probe for probe in make_probes(split, seed=seed) if probe.name == name]
    return probe.questions


def captions_of(questions):
    return [question.captions for question in questions]


# --- colours ----------------------------------------------------------------------------


def test_two_colours_are_exchanged():
    questions = asked(split_of("A woman in an orange coat and dark blue jeans."), "color swap")
    (question,) = questions
    assert question.images == (Path("0.jpg"),)
    assert question.captions == (
        "A woman in an orange coat and dark blue jeans.",
        "A woman in a dark blue coat and orange jeans.",
    )


def test_a_colour_that_is_named_twice_is_exchanged_twice():
    (question,) = asked(split_of("red coat, blue jeans; the red coat is open"), "color swap")
    assert question.captions[1] == "blue coat, red jeans; the blue coat is open"


@pytest.mark.parametrize(
    "texts",
    [
        "red coat",
        "red and blue coat",
        "navy coat and blue jeans",
        "red coat beside a blue coat",
        ("red coat, blue jeans", "Blue coat. Red jeans"),
        ("red coat, blue jeans", "in a blue jacket"),
        "no colour at all",
    ],
)
def test_there_is_no_question_if_the_exchanged_caption_may_be_true(texts):
    assert asked(split_of(texts), "color swap") == []


def test_captions_of_other_pictures_of_the_identity_are_considered():
    one, other = split_of("red coat, blue jeans", "somebody in a blue coat").samples
    same = Sample(image=other.image, captions=other.captions, pid=one.pid)
    assert asked(Split(name="test", samples=(one, same)), "color swap") == []


def test_a_question_has_a_picture_with_exchanged_colours():
    split = split_of(
        "red coat, blue jeans", "green coat, blue jeans", "man in a blue jacket with red trousers"
    )
    questions = asked(split, "color swap, caption to picture")
    assert [(q.captions, q.images) for q in questions] == [
        (("red coat, blue jeans",), (Path("0.jpg"), Path("2.jpg"))),
        (("man in a blue jacket with red trousers",), (Path("2.jpg"), Path("0.jpg"))),
    ]


def test_a_picture_with_both_colour_orders_is_not_a_counterpart():
    split = split_of(
        "red coat, blue jeans", ("blue coat, red jeans", "red jacket over the blue coat")
    )
    assert asked(split, "color swap, caption to picture") == []


# --- attributes -------------------------------------------------------------------------


def test_the_wrong_colour_is_one_that_captions_have_for_such_a_thing():
    split = split_of("red coat", "blue coat", "green jeans")
    questions = captions_of(asked(split, "attribute swap: color"))
    assert questions == [("red coat", "blue coat"), ("blue coat", "red coat")]


def test_a_value_in_any_caption_of_the_identity_is_not_a_wrong_answer():
    split = split_of(("red coat", "a coat like navy"), "blue coat")
    assert captions_of(asked(split, "attribute swap: color")) == [("blue coat", "red coat")]
    columns = split_of("red coat", "blue coat", metadata=[{"note": "blue lining"}, {}])
    assert captions_of(asked(columns, "attribute swap: color")) == [("blue coat", "red coat")]


def test_words_of_one_family_are_not_alternatives():
    assert asked(split_of("navy coat", "blue coat"), "attribute swap: color") == []
    assert asked(split_of("black sneakers", "black trainers"), "attribute swap: footwear") == []


def test_common_values_are_drawn_more_often():
    split = split_of(*["red coat"] * 200, *["blue coat"] * 90, *["pink coat"] * 10)
    wrong = [c[1] for c in captions_of(asked(split, "attribute swap: color"))[:200]]
    assert 160 <= wrong.count("blue coat") < 200


def test_columns_that_captions_name_are_asked_about():
    metadata = [{"label": "T-Shirt", "sku": f"s{n}"} for n in range(3)]
    metadata += [{"label": "pants", "sku": f"p{n}"} for n in range(3)]
    texts = ["blue t-shirt"] * 3 + ["blue pants", "worn with a t-shirt", "nothing"]
    split = split_of(*texts, metadata=metadata)
    questions = captions_of(asked(split, "attribute swap: label"))
    assert questions == [("blue t-shirt", "blue pants")] * 3 + [("blue pants", "blue t-shirt")]
    names = {attribute.name for attribute in attributes_of(split.samples)}
    assert "sku" not in names


def test_values_of_one_family_are_not_alternatives():
    labels = ["shirt", "t-shirt"] * 2
    split = split_of(*labels, metadata=[{"label": label} for label in labels])
    assert asked(split, "attribute swap: label") == []


@pytest.mark.parametrize(
    "values",
    [
        ["one"] * 8,
        [f"{chr(97 + n)}name" for n in range(8)],
        ["2", "3"] * 4,
        ["a very long text indeed", "b"] * 4,
        [1, 2] * 4,
        [None] * 8,
    ],
)
def test_columns_without_values_are_left_out(values):
    split = split_of(*["coat"] * 8, metadata=[{"column": value} for value in values])
    assert "column" not in {attribute.name for attribute in attributes_of(split.samples)}


def test_a_column_with_too_many_values_is_left_out():
    values = [
        f"brand {'abcdefgh'[n % 8]}{'xyz'[n // 8 % 3]}{n // 24}" for n in range(MAX_VALUES + 1)
    ]
    split = split_of(*["coat"] * 2 * len(values), metadata=[{"brand": v} for v in values * 2])
    assert "brand" not in {attribute.name for attribute in attributes_of(split.samples)}


def test_a_column_replaces_the_attribute_of_the_same_name():
    split = split_of(
        *["red coat", "blue coat"] * 2, metadata=[{"color": "red"}, {"color": "blue"}] * 2
    )
    result = [a for a in attributes_of(split.samples) if a.name == "color"]
    assert [a.column for a in result] == [True]


# --- negation ---------------------------------------------------------------------------


def test_present_things_are_affirmed_and_absent_ones_denied():
    split = split_of("an orange coat", "blue coat")
    wrong = (
        "a picture with a blue coat",
        "a picture without an orange coat",
        "a picture with a blue coat but without an orange coat",
    )
    right = {
        "affirmative": "a picture with an orange coat",
        "negative": "a picture without a blue coat",
        "hybrid": "a picture with an orange coat but without a blue coat",
    }
    for kind, caption in right.items():
        questions = asked(split, f"negation: {kind}")
        assert questions[0].captions == (caption, *wrong)
        assert len(questions) == 2
    drawn = {asked(split, "negation", seed=seed)[0].captions[0] for seed in range(20)}
    assert drawn == set(right.values())


def test_an_adjective_alone_is_not_denied():
    assert asked(split_of("in red", "in blue"), "negation") == []


def test_adjectives_between_a_colour_and_its_thing_are_kept():
    split = split_of("black long leather shoes", "white long leather shoes")
    question = asked(split, "negation: affirmative")[0]
    assert question.captions[1] == "a picture with white long leather shoes"


# --- all attributes ---------------------------------------------------------------------

COLOURS, GARMENTS = ("a red", "a blue", "a green", "an orange"), ("coat", "dress", "t-shirt")
WARDROBE = [
    f"A {('woman', 'man')[n % 2]} in {COLOURS[n % 4]} {GARMENTS[n % 3]} and "
    f"{COLOURS[(n + 1 + n // 5) % 4].split()[1]} {('jeans', 'shorts')[n % 2]}"
    for n in range(40)
]


def test_the_questions_depend_on_the_seed_only():
    split = split_of(*WARDROBE)
    assert make_probes(split, seed=1) == make_probes(split, seed=1)
    assert make_probes(split, seed=1) != make_probes(split, seed=2)


@pytest.mark.parametrize("seed", range(3))
def test_wrong_captions_are_not_captions_of_the_identity(seed):
    split = split_of(*WARDROBE)
    texts = IdentityTexts(split.samples)
    pids = {sample.image: sample.pid for sample in split.samples}
    probes = make_probes(split, seed=seed)
    for probe in probes:
        asked_about = [q.images[0] for q in probe.questions]
        assert len(asked_about) == len(set(asked_about))
        for question in probe.questions:
            assert max(len(question.images), len(question.captions)) == probe.choices
            assert min(len(question.images), len(question.captions)) == 1
            assert len(set(map(normalised, question.captions))) == len(question.captions)
            for wrong in question.captions[1:]:
                assert not texts.has_text(pids[question.images[0]], wrong)
                assert not re.search(r"\ba [aeio]|\ban [^aeiou]", wrong)
    assert sum(len(probe.questions) for probe in probes) > 100


def test_a_split_without_suitable_captions_has_no_questions():
    for split in (split_of(), split_of("", "???")):
        assert all(not probe.questions for probe in make_probes(split))
