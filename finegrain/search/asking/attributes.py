"""What a dialogue asks about: attributes with the values that an answer may have.

They come from the gallery's own columns where the candidates have such, else from a list for people
or for garments. A text that names a value is compared with the pictures; a column is compared with
the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finegrain.errors import QueryError
from finegrain.index.exact import Vectors
from finegrain.search.matches import Match

Likelihood = NDArray[np.float64]
"""Probability of each answer, if each candidate were the right one: ``[N, V]``, rows sum to 1."""

NONE = "none"
"""The value of something that is not there, such as no bag."""

OTHER = "other"
"""The answer that none of the values is right."""

_COLORS = (
    "black", "white", "grey", "red", "blue", "green", "yellow", "orange", "pink", "purple", "brown",
    "beige",
)  # fmt: skip
_FEWEST_ROWS = 0.8
"""Least share of the candidates that have a column which is asked for."""

_MOST_VALUES = 20
_LONGEST_VALUE = 40
_UNSURE = 0.1
"""Share of answers that may be wrong, spread over the values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """Something that can be asked about a person or a product.

    Attributes:
        name: Its name, such as ``"colour of the shoes"``.
        values: What an answer may be.
        wordings: Texts that name a value in place of ``{}``, as captions do. Their embeddings are
            averaged.
        absent: The text for the value ``none``.
        known: Share of people who can answer; it is learnt from refusals.
    """

    name: str
    values: tuple[str, ...]
    wordings: tuple[str, ...]
    absent: str = "a person"
    known: float = 1.0

    def texts(self, value: str) -> list[str]:
        """The texts that name a value."""
        if value == NONE:
            return [self.absent]
        return [wording.format(value) for wording in self.wordings]


def _worn(name: str, values: Sequence[str], noun: str = "", *, known: float) -> Attribute:
    """An attribute of clothes: the garment itself, or the colour of a garment."""
    thing = f"{{}} {noun}".strip()
    wordings = (f"a person in {thing}", f"a person wearing {thing}", thing)
    return Attribute(name=name, values=tuple(values), wordings=wordings, known=known)


def _carried(name: str, values: Sequence[str], *, known: float) -> Attribute:
    wordings = ("a person with a {}", "carrying a {}", "a person holding a {}")
    return Attribute(name=name, values=(*values, NONE), wordings=wordings, known=known)


PEOPLE = (
    Attribute(
        name="gender",
        values=("woman", "man"),
        wordings=("a {}", "this is a {}", "the {} is walking"),
        known=1.0,
    ),
    _worn("upper garment", ("coat", "jacket", "t-shirt", "shirt", "hoodie", "sweater", "dress"),
          known=0.9),
    _worn("colour of the upper garment", _COLORS, "top", known=0.95),
    _worn("lower garment", ("trousers", "jeans", "shorts", "skirt"), known=0.85),
    _worn("colour of the lower garment", _COLORS, "trousers", known=0.85),
    _worn("shoes", ("sneakers", "boots", "shoes", "sandals"), known=0.5),
    _worn("colour of the shoes", _COLORS, "shoes", known=0.5),
    _carried("bag", ("backpack", "handbag", "shoulder bag", "suitcase"), known=0.7),
    _carried("umbrella", ("umbrella",), known=0.9),
    _worn("hat", ("cap", "beanie", "hat", NONE), known=0.7),
    Attribute(
        name="hair",
        values=("short", "long"),
        wordings=("a person with {} hair", "{} hair", "with {} hair"),
        known=0.7,
    ),
    Attribute(
        name="colour of the hair",
        values=("black", "brown", "blond", "red", "grey"),
        wordings=("a person with {} hair", "{} hair", "with {} hair"),
        known=0.6,
    ),
)  # fmt: skip
"""Attributes of people."""

GARMENTS = (
    Attribute(
        name="kind",
        values=(
            "t-shirt", "shirt", "sweater", "hoodie", "jacket", "coat", "dress", "skirt",
            "trousers", "jeans", "shorts", "shoes", "hat", "bag",
        ),
        wordings=("a {}", "a photo of a {}", "{}"),
    ),
    Attribute(
        name="colour", values=_COLORS, wordings=("{}", "a {} garment", "a photo of {} clothes")
    ),
    Attribute(
        name="pattern",
        values=("plain", "striped", "checked", "dotted", "floral"),
        wordings=("{}", "a {} garment", "a photo of {} clothes"),
        known=0.9,
    ),
    Attribute(
        name="sleeves",
        values=("long-sleeved", "short-sleeved", "sleeveless"),
        wordings=("{}", "a {} garment", "a {} top"),
        known=0.8,
    ),
    Attribute(
        name="material",
        values=("denim", "leather", "knitted", "cotton", "silk"),
        wordings=("{}", "a {} garment", "made of {}"),
        known=0.5,
    ),
)  # fmt: skip
"""Attributes of garments in a shop."""

LISTS: Mapping[str, tuple[Attribute, ...]] = {"people": PEOPLE, "garments": GARMENTS}


def checked_attributes(attributes: object) -> tuple[Attribute, ...] | None:
    """The argument ``attributes`` of a dialogue; None chooses by the gallery and the plan.

    Raises:
        QueryError: It is not the name of a list, nor a list of attributes.
    """
    if attributes is None:
        return None
    if isinstance(attributes, str) and attributes in LISTS:
        return LISTS[attributes]
    if isinstance(attributes, list | tuple) and attributes:
        listed = tuple(entry for entry in attributes if isinstance(entry, Attribute))
        if len(listed) == len(attributes):
            return listed
    raise QueryError(
        f"expected attributes as {' or '.join(map(repr, LISTS))}, or as a list of Attribute, got "
        f"{attributes!r:.60}"
    )


def likelihood_of_texts(
    candidates: Vectors, texts: Vectors, scale: float, *, unsure: float = _UNSURE
) -> Likelihood:
    """How likely each value is for each candidate, by their cosines.

    A cosine counts from its mean over the candidates, so that no text is near to all of them. The
    last column is the answer "other", which only gets its share of what is not sure.

    Args:
        candidates: Embeddings of the candidates, ``[N, D]``.
        texts: Embeddings of the values, ``[V, D]``.
        scale: What the model's training multiplied a cosine by.
        unsure: Share that is spread evenly, as the scores of one phrase are overconfident.
    """
    scores = candidates.astype(np.float64) @ texts.T.astype(np.float64)
    scores = scale * (scores - scores.mean(axis=0))
    scores -= scores.max(axis=1, keepdims=True)
    values = np.exp(scores)
    values /= values.sum(axis=1, keepdims=True)
    return _with_other(values, unsure)


def likelihood_of_column(
    values: Sequence[str], cells: Sequence[str | None], *, unsure: float = _UNSURE
) -> Likelihood:
    """How likely each value is for each candidate, by a column. Empty cells know nothing."""
    exact = np.array([[float(cell == value) for value in values] for cell in cells])
    exact[[cell is None for cell in cells]] = 1 / len(values)
    return _with_other(exact, unsure)


def _with_other(values: Likelihood, unsure: float) -> Likelihood:
    """Mix probabilities ``[N, V]`` with even ones for V values and "other"."""
    num_values = values.shape[1] + 1
    certain = np.pad((1 - unsure) * values, ((0, 0), (0, 1)))
    mixed: Likelihood = certain + unsure / num_values
    return mixed


def columns_of(matches: Sequence[Match]) -> dict[str, tuple[tuple[str, ...], list[str | None]]]:
    """Columns that can be asked for: their values, most frequent first, and their cells.

    These are texts, and true or false, of few different values, that most candidates have.
    """
    columns: dict[str, tuple[tuple[str, ...], list[str | None]]] = {}
    for name in dict.fromkeys(name for match in matches for name in match.metadata):
        cells = [match.metadata.get(name) for match in matches]
        filled = [cell for cell in cells if cell is not None]
        if not all(isinstance(cell, str | bool) for cell in filled):
            continue
        texts = [None if cell is None else _as_text(cell) for cell in cells]
        counts = {text: texts.count(text) for text in dict.fromkeys(texts) if text is not None}
        is_short = all(len(text) <= _LONGEST_VALUE for text in counts)
        if (
            1 < len(counts) <= min(_MOST_VALUES, len(matches) // 2)
            and is_short
            and len(filled) >= _FEWEST_ROWS * len(matches)
        ):
            columns[name] = (tuple(sorted(counts, key=counts.__getitem__, reverse=True)), texts)
    return columns


def _as_text(cell: object) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return str(cell)
