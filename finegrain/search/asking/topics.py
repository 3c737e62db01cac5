"""Opens dialogues: reads the candidates of a query, and what can be asked about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from finegrain.encoder import Encoder
from finegrain.errors import QueryError
from finegrain.gallery import Gallery
from finegrain.index.exact import Vectors
from finegrain.search.asking.attributes import (
    GARMENTS,
    NONE,
    PEOPLE,
    Attribute,
    columns_of,
    likelihood_of_column,
    likelihood_of_texts,
)
from finegrain.search.asking.dialogue import Dialogue, KnownShares, Topic, first_belief
from finegrain.search.asking.words import WordReader
from finegrain.search.matches import Match, Matches

_SCALE = 20.0
"""What a cosine is multiplied by, if the plan does not state it."""

_CAUTION = 0.25
"""Share of the scale in the first belief. With all of it, the belief in the first pictures was too
firm to follow answers: chosen on the validation split of rendered people, by BRI."""

_OF_PEOPLE = ("man", "woman", "person", "people")


class Asker:
    """Opens the dialogues of a searcher.

    Args:
        encoder: Encodes the texts of attributes, each once.
        words: Reads texts in words that the model knows; None for a pretrained text tower.
        scale: What the model's training multiplied a cosine by, if the plan states it.
    """

    def __init__(self, encoder: Encoder, words: WordReader | None, scale: float | None) -> None:
        self._encoder = encoder
        self._words = words
        self._scale = _SCALE if scale is None else scale
        self._embedded: dict[Attribute, Vectors] = {}
        self._known = KnownShares()

    def open(
        self,
        candidates: Matches,
        gallery: Gallery,
        attributes: Sequence[Attribute] | None,
        *,
        k: int,
    ) -> Dialogue:
        """Begin a dialogue about the matches of a query.

        Args:
            candidates: The matches, as many as the dialogue decides among.
            gallery: The gallery.
            attributes: What may be asked; None chooses columns, or else a list.
            k: Number of matches to return.
        """
        vectors = gallery.vectors(match.id for match in candidates)
        kept = [match for match in candidates if match.id in vectors]
        if not kept:
            raise QueryError("no picture fits the query and its filter, so nothing can be asked")
        rows = np.stack([vectors[match.id] for match in kept])
        scores = np.array([match.score for match in kept])
        topics = by_columns(kept) if attributes is None else []
        if not topics:
            listed = self._listed() if attributes is None else attributes
            topics = [self._by_texts(attribute, rows) for attribute in self._known_of(listed)]
        return Dialogue(
            Matches(candidates.query, kept, notes=candidates.notes),
            first_belief(scores, _CAUTION * self._scale),
            topics,
            self._known,
            k=k,
        )

    def _listed(self) -> tuple[Attribute, ...]:
        """The list of people, unless no caption of the training had a word for them."""
        is_of_people = self._words is None or any(map(self._words.knows, _OF_PEOPLE))
        return PEOPLE if is_of_people else GARMENTS

    def _known_of(self, attributes: Sequence[Attribute]) -> list[Attribute]:
        """The attributes with the values that the model knows, if these are at least two."""
        known = []
        for attribute in attributes:
            values = tuple(v for v in attribute.values if v == NONE or self._knows(v))
            if len(values) > 1:
                known.append(replace(attribute, values=values))
        return known

    def _knows(self, text: str) -> bool:
        return self._words is None or self._words.knows(text)

    def _by_texts(self, attribute: Attribute, rows: Vectors) -> Topic:
        """Compare the texts of an attribute's values with the candidates."""
        if attribute not in self._embedded:
            self._embedded[attribute] = np.stack(
                [self._mean(attribute.texts(value)) for value in attribute.values]
            )
        likelihood = likelihood_of_texts(rows, self._embedded[attribute], self._scale)
        return Topic(attribute=attribute, likelihood=likelihood)

    def _mean(self, texts: Sequence[str]) -> Vectors:
        """The mean embedding of texts in words that the model knows, of length 1, ``[D]``."""
        if self._words is not None:
            texts = [self._words.read(text).text for text in texts]
        mean = self._encoder.encode_texts(texts).mean(axis=0, dtype=np.float64)
        unit: Vectors = (mean / np.linalg.norm(mean)).astype(np.float32)
        return unit


def by_columns(matches: Sequence[Match]) -> list[Topic]:
    """What can be asked by the columns of the candidates, such as their brand."""
    return [
        Topic(
            attribute=Attribute(name=name, values=values, wordings=()),
            likelihood=likelihood_of_column(values, cells),
        )
        for name, (values, cells) in columns_of(matches).items()
    ]
