"""Asks questions about what is searched for, until the answer is clear.

Each question is the one whose answer is expected to tell most about which candidate is right, by
the mutual information of the answer and the candidate. No language model takes part::

    p_i      belief in candidate i: at first a softmax of the scores of the query
    l_iv     probability of the answer v, if i is right
    P(v)     = sum_i p_i l_iv
    gain     = sum_iv p_i l_iv log2(l_iv / P(v)), the expected loss of entropy in bits
    update   p_i <- p_i l_iv, divided by the sum

The question with the highest ``gain * known`` is asked, where ``known`` is how often people could
answer such a question. "I don't know" changes no belief and lowers ``known``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from finegrain.errors import QueryError, did_you_mean
from finegrain.search.asking.attributes import OTHER, Attribute, Likelihood
from finegrain.search.matches import Matches

CANDIDATES = 500
"""Number of best pictures of the query among which a dialogue decides."""

LEAST_GAIN = 0.1
"""A question that is expected to tell less, in bits, is not asked."""

CLEAR = 0.9
"""Belief in one candidate at which the dialogue stops."""

Belief = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question about one attribute.

    Attributes:
        attribute: Name of the attribute.
        values: The values that may be answered, the most probable first; ``"other"`` is always
            an answer as well.
        gain: Expected information of the answer, in bits.
    """

    attribute: str
    values: tuple[str, ...]
    gain: float

    def __str__(self) -> str:
        return f"{self.attribute}? ({', '.join([*self.values, OTHER])})"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Topic:
    """An attribute of the candidates.

    Attributes:
        attribute: The attribute. Its values are those of the columns of ``likelihood``.
        likelihood: Probability of each answer for each candidate, ``[N, V + 1]``; the last is
            "other".
    """

    attribute: Attribute
    likelihood: Likelihood


def information(belief: Belief, likelihood: Likelihood) -> float:
    """Mutual information of the right candidate and an answer, in bits.

    Args:
        belief: Probability of each candidate, ``[N]``.
        likelihood: Probability of each answer for each candidate, ``[N, V]``.
    """
    answers = belief @ likelihood
    ratios = np.log2(np.maximum(likelihood, 1e-300) / np.maximum(answers, 1e-300))
    return float(np.sum(belief[:, None] * likelihood * ratios))


def first_belief(scores: NDArray[np.float64], scale: float) -> Belief:
    """Softmax of the scores of a query, multiplied by a scale."""
    weights = np.exp(scale * (scores - scores.max()))
    belief: Belief = weights / weights.sum()
    return belief


class KnownShares:
    """How often questions about each attribute were answered, over all dialogues of a searcher."""

    _WEIGHT = 4.0
    """Number of answers that the share of the attribute's list counts for."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, int]] = {}

    def note(self, attribute: str, *, answered: bool) -> None:
        yes, no = self._counts.get(attribute, (0, 0))
        self._counts[attribute] = (yes + answered, no + (not answered))

    def of(self, attribute: Attribute) -> float:
        yes, no = self._counts.get(attribute.name, (0, 0))
        return (yes + self._WEIGHT * attribute.known) / (yes + no + self._WEIGHT)


@dataclass(frozen=True, slots=True, eq=False)
class _Turn:
    """The state of a dialogue between two answers."""

    belief: Belief
    open_topics: tuple[Topic, ...]


class Dialogue:
    """A search that asks questions; :meth:`finegrain.Searcher.dialogue` starts one.

    Example:
        >>> dialogue = searcher.dialogue("woman in red coat")     # doctest: +SKIP
        >>> while dialogue.question:                              # doctest: +SKIP
        ...     print(dialogue.question)
        ...     dialogue.answer(input())
        >>> print(dialogue.matches, dialogue.stopped)             # doctest: +SKIP

    Args:
        candidates: The candidates, in the order of the query.
        belief: The belief in each of them.
        topics: What may be asked.
        known: How often people could answer.
        k: Number of matches to return.
    """

    def __init__(
        self,
        candidates: Matches,
        belief: Belief,
        topics: Sequence[Topic],
        known: KnownShares,
        *,
        k: int,
    ) -> None:
        self._candidates = candidates
        self._known = known
        self._k = k
        keys = [("pid", m.pid) if m.pid is not None else ("id", m.id) for m in candidates]
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        self._group = np.array([numbers[key] for key in keys])
        self._turns = [_Turn(belief, tuple(topics))]
        self._answers: list[str] = []
        self._chosen: tuple[Topic, float] | None = None

    @property
    def question(self) -> Question | None:
        """The next question; None if the dialogue has stopped."""
        if self.stopped is not None:
            return None
        topic, gain = self._best()
        values = topic.attribute.values
        probable = np.argsort(-(self._turn.belief @ topic.likelihood)[: len(values)], kind="stable")
        return Question(
            attribute=topic.attribute.name,
            values=tuple(values[number] for number in probable),
            gain=gain,
        )

    @property
    def stopped(self) -> str | None:
        """Why there is no further question; None if there is one."""
        clearest = float(np.bincount(self._group, weights=self._turn.belief).max())
        if clearest > CLEAR:
            return f"one candidate has {clearest:.0%} of the belief"
        if not self._turn.open_topics:
            return "nothing is left to ask" if self._answers else "nothing is known to ask about"
        if (gain := self._best()[1]) < LEAST_GAIN:
            return f"no answer would tell more than {gain:.2f} bits"
        return None

    @property
    def matches(self) -> Matches:
        """The candidates after the answers, best first, with the scores of the query."""
        if not self._answers:
            return self._candidates[: self._k]
        best = np.argsort(-self._turn.belief, kind="stable")[: self._k]
        ranked = [replace(self._candidates[int(at)], rank=rank) for rank, at in enumerate(best, 1)]
        answered = f"ordered by the answers too: {', '.join(self._answers)}"
        return Matches(self._candidates.query, ranked, notes=[*self._candidates.notes, answered])

    def answer(self, value: str) -> None:
        """Answer the question with one of its values, or ``"other"``.

        Raises:
            QueryError: The dialogue has stopped, or the value is none of the question.
        """
        topic, number = self._answered(value)
        self._update(topic, topic.likelihood[:, number], f"{topic.attribute.name}: {value}")
        self._known.note(topic.attribute.name, answered=True)

    def deny(self, value: str) -> None:
        """Answer that one of the values is wrong.

        Raises:
            QueryError: The dialogue has stopped, or the value is none of the question.
        """
        topic, number = self._answered(value)
        self._update(topic, 1 - topic.likelihood[:, number], f"{topic.attribute.name}: not {value}")

    def skip(self) -> None:
        """Say that the answer is not known. The question is not asked again.

        Raises:
            QueryError: The dialogue has stopped.
        """
        topic = self._asked()
        self._update(topic, np.ones(len(self._candidates)), f"{topic.attribute.name}: not known")
        self._known.note(topic.attribute.name, answered=False)

    def undo(self) -> None:
        """Take back the last answer or refusal.

        Raises:
            QueryError: There is none.
        """
        if not self._answers:
            raise QueryError("expected an answer to take back, got none. Answer a question first.")
        self._turns.pop()
        self._answers.pop()
        self._chosen = None

    def __repr__(self) -> str:
        return f"{self.matches!r}\n{self.question or self.stopped}"

    @property
    def _turn(self) -> _Turn:
        return self._turns[-1]

    def _best(self) -> tuple[Topic, float]:
        """The topic to ask about, and the information that its answer is expected to give."""
        if self._chosen is None:
            gains = [information(self._turn.belief, t.likelihood) for t in self._turn.open_topics]
            worth = [
                gain * self._known.of(topic.attribute)
                for gain, topic in zip(gains, self._turn.open_topics, strict=True)
            ]
            number = int(np.argmax(worth))
            self._chosen = (self._turn.open_topics[number], gains[number])
        return self._chosen

    def _asked(self) -> Topic:
        if (reason := self.stopped) is not None:
            raise QueryError(f"there is no open question: {reason}. Call undo() to go back.")
        return self._best()[0]

    def _answered(self, value: str) -> tuple[Topic, int]:
        topic = self._asked()
        options = [*topic.attribute.values, OTHER]
        name = value.strip().casefold() if isinstance(value, str) else value
        folded = [option.casefold() for option in options]
        if name not in folded:
            raise QueryError(
                f"expected an answer out of {', '.join(options)}, got {value!r:.40}"
                f"{did_you_mean(str(name), options)}. Call skip() if you do not know."
            )
        return topic, folded.index(name)

    def _update(self, topic: Topic, likelihood: Belief, answer: str) -> None:
        belief = self._turn.belief * likelihood
        remaining = tuple(t for t in self._turn.open_topics if t is not topic)
        self._turns.append(_Turn(belief / belief.sum(), remaining))
        self._answers.append(answer)
        self._chosen = None
