from __future__ import annotations

import numpy as np
import pytest

from finegrain.errors import QueryError
from finegrain.search.asking.attributes import (
    GARMENTS,
    NONE,
    PEOPLE,
    Attribute,
    checked_attributes,
    columns_of,
    likelihood_of_column,
    likelihood_of_texts,
)
from finegrain.search.asking.dialogue import Dialogue, KnownShares, Topic, first_belief
from finegrain.search.asking.topics import by_columns
from finegrain.search.matches import Match, Matches
from finegrain.search.searcher import Searcher

COLORS = ("red", "blue", "green", "black")
KINDS = ("coat", "dress")


def match(number: int, **metadata) -> Match:
    return Match(rank=number + 1, score=0.5, id=number + 1, image=None, metadata=metadata)


@pytest.fixture
def matches() -> Matches:
    """Eight products: each colour once in each kind."""
    rows = [match(n, colour=COLORS[n % 4], kind=KINDS[n // 4]) for n in range(8)]
    return Matches("garment", rows)


def dialogue_about(matches: Matches, known: KnownShares | None = None) -> Dialogue:
    belief = np.full(len(matches), 1 / len(matches))
    return Dialogue(matches, belief, by_columns(matches), known or KnownShares(), k=3)


def test_the_most_informative_question_comes_first(matches: Matches):
    question = dialogue_about(matches).question
    assert question is not None
    assert question.attribute == "colour"
    assert set(question.values) == set(COLORS)
    assert str(question) == f"colour? ({', '.join(question.values)}, other)"


def test_answers_bring_the_right_picture_to_the_top(matches: Matches):
    dialogue = dialogue_about(matches)
    dialogue.answer("Green ")
    assert [m.id for m in dialogue.matches[:2]] == [3, 7]
    dialogue.answer("dress")
    assert dialogue.matches[0].id == 7
    assert [m.rank for m in dialogue.matches] == [1, 2, 3]
    assert dialogue.matches.notes == ("ordered by the answers too: colour: Green , kind: dress",)


def test_a_denied_value_goes_down(matches: Matches):
    dialogue = dialogue_about(matches)
    dialogue.deny("red")
    assert {m.id for m in dialogue.matches}.isdisjoint({1, 5})


def test_a_refusal_changes_no_order_and_is_not_asked_again(matches: Matches):
    dialogue = dialogue_about(matches)
    dialogue.skip()
    assert [m.id for m in dialogue.matches] == [1, 2, 3]
    assert dialogue.question is not None
    assert dialogue.question.attribute == "kind"


def test_undo_takes_back_the_last_answer(matches: Matches):
    dialogue = dialogue_about(matches)
    before = dialogue.question
    dialogue.answer("green")
    dialogue.undo()
    assert dialogue.question == before
    assert dialogue.matches == matches[:3]
    with pytest.raises(QueryError, match="expected an answer to take back"):
        dialogue.undo()


def test_a_dialogue_stops_when_one_candidate_is_clear():
    rows = [match(n, pid_like=str(n), colour=COLORS[n]) for n in range(4)]
    topic = Topic(
        attribute=Attribute(name="colour", values=COLORS, wordings=()),
        likelihood=likelihood_of_column(COLORS, COLORS, unsure=0.01),
    )
    dialogue = Dialogue(Matches("x", rows), np.full(4, 0.25), [topic], KnownShares(), k=4)
    dialogue.answer("blue")
    assert dialogue.question is None
    assert dialogue.stopped == "one candidate has 99% of the belief"
    with pytest.raises(QueryError, match="no open question: one candidate"):
        dialogue.answer("red")


def test_a_dialogue_stops_when_nothing_is_left_to_ask(matches: Matches):
    dialogue = dialogue_about(matches)
    dialogue.skip()
    dialogue.skip()
    assert dialogue.question is None
    assert dialogue.stopped == "nothing is left to ask"
    empty = Dialogue(matches, np.full(8, 1 / 8), [], KnownShares(), k=3)
    assert empty.stopped == "nothing is known to ask about"


def test_a_dialogue_stops_when_no_answer_tells_much():
    rows = [match(n) for n in range(4)]
    alike = likelihood_of_column(("a", "b"), ("a", "a", "a", "a"))
    topic = Topic(attribute=Attribute(name="x", values=("a", "b"), wordings=()), likelihood=alike)
    dialogue = Dialogue(Matches("x", rows), np.full(4, 0.25), [topic], KnownShares(), k=4)
    assert dialogue.stopped == "no answer would tell more than 0.00 bits"


def test_pictures_of_one_person_share_the_belief():
    rows = [Match(rank=n + 1, score=0.5, id=n + 1, image=None, pid=n // 2) for n in range(4)]
    topic = Topic(
        attribute=Attribute(name="hat", values=("yes", "no"), wordings=()),
        likelihood=likelihood_of_column(("yes", "no"), ("yes", "yes", "no", "no"), unsure=0.01),
    )
    dialogue = Dialogue(Matches("x", rows), np.full(4, 0.25), [topic], KnownShares(), k=4)
    dialogue.answer("yes")
    assert dialogue.stopped is not None
    assert dialogue.stopped.startswith("one candidate")


@pytest.mark.parametrize("value", ["purple", "", 3, None])
def test_another_answer_is_refused(matches: Matches, value):
    dialogue = dialogue_about(matches)
    with pytest.raises(QueryError, match=r"expected an answer out of .*other, got"):
        dialogue.answer(value)


def test_questions_that_people_cannot_answer_are_asked_later(matches: Matches):
    known = KnownShares()
    for _ in range(40):
        known.note("colour", answered=False)
    question = dialogue_about(matches, known).question
    assert question is not None
    assert question.attribute == "kind"


def test_belief_follows_the_scores():
    belief = first_belief(np.array([0.9, 0.8, 0.9]), 10.0)
    np.testing.assert_allclose(belief, np.array([1, np.exp(-1), 1]) / (2 + np.exp(-1)))


def test_likelihoods_are_probabilities_and_unsure():
    rng = np.random.default_rng(0)
    rows, texts = rng.normal(size=(5, 8)), rng.normal(size=(3, 8))
    likelihood = likelihood_of_texts(rows.astype(np.float32), texts.astype(np.float32), 20.0)
    np.testing.assert_allclose(likelihood.sum(axis=1), 1)
    assert likelihood.shape == (5, 4)
    assert likelihood[:, -1] == pytest.approx(0.1 / 4)
    excess = rows @ texts.T - (rows @ texts.T).mean(axis=0)
    assert list(likelihood[:, :3].argmax(axis=1)) == list(excess.argmax(axis=1))


def test_an_empty_cell_is_as_likely_for_each_value():
    likelihood = likelihood_of_column(("a", "b"), ["a", None])
    np.testing.assert_allclose(likelihood, [[14 / 15, 1 / 30, 1 / 30], [29 / 60, 29 / 60, 1 / 30]])


def test_columns_of_few_texts_are_asked_for():
    rows = [
        match(
            n, brand="ab"[n % 2], sale=n < 3, name=f"product {n}", price=float(n), same="x",
            long="y" * 50 if n % 2 else "z" * 50, rare="r" if n == 0 else None,
        )
        for n in range(8)
    ]  # fmt: skip
    columns = columns_of(rows)
    assert columns.keys() == {"brand", "sale"}
    assert columns["sale"][0] == ("no", "yes")


@pytest.mark.parametrize("attributes", ["people", "garments", None, [PEOPLE[0]]])
def test_attributes_are_a_list_or_its_name(attributes):
    checked = checked_attributes(attributes)
    assert checked in (PEOPLE, GARMENTS, None, (PEOPLE[0],))


@pytest.mark.parametrize("attributes", ["persons", [], ["colour"], 3])
def test_other_attributes_are_refused(attributes):
    with pytest.raises(QueryError, match="expected attributes as 'people' or 'garments'"):
        checked_attributes(attributes)


def test_a_value_that_is_absent_has_a_text_of_its_own():
    bag = next(attribute for attribute in PEOPLE if attribute.name == "bag")
    assert bag.texts(NONE) == ["a person"]
    assert bag.texts("backpack")[0] == "a person with a backpack"


def test_a_searcher_asks_about_its_own_columns(searcher: Searcher, crops):
    pictures = sorted(crops.iterdir())
    searcher.add(
        pictures,
        [{"colour": COLORS[n % 4], "kind": KINDS[n % 2]} for n in range(len(pictures))],
        progress=False,
    )
    dialogue = searcher.dialogue("coat", 5)
    assert dialogue.matches == searcher.query("coat", 5)
    assert dialogue.question is not None
    assert dialogue.question.attribute == "colour"
    dialogue.answer("blue")
    assert {m.metadata["colour"] for m in dialogue.matches[:3]} == {"blue"}
    assert "no question" not in repr(dialogue)
    few = searcher.dialogue("coat", candidates=6, where="colour in ('red', 'blue')")
    assert {m.metadata["colour"] for m in few.matches} <= {"red", "blue"}
    with pytest.raises(QueryError, match="no picture fits"):
        searcher.dialogue("coat", where="colour = 'mauve'")


def test_a_searcher_without_columns_asks_about_people(crops_searcher: Searcher):
    dialogue = crops_searcher.dialogue("coat", attributes="people")
    asked = []
    while dialogue.question is not None:
        asked.append(dialogue.question.attribute)
        dialogue.skip()
    assert len(asked) == len(set(asked))
    assert set(asked) <= {attribute.name for attribute in PEOPLE}
    assert dialogue.stopped is not None
