"""Makes the score of a query that is more than one text or one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from finegrain.encoder import Encoder
from finegrain.errors import ImageError
from finegrain.gallery import Gallery
from finegrain.gallery.scoring import Linear, Scoring
from finegrain.index.exact import Vectors
from finegrain.search.asking.asked import Asked
from finegrain.search.asking.composition import Composer
from finegrain.search.asking.denial import Denied
from finegrain.search.asking.feedback import judged
from finegrain.search.asking.sample import GallerySample

_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """The score of a query.

    Attributes:
        scoring: The score.
        notes: Notes for the user, such as pictures that were left out.
    """

    scoring: Scoring
    notes: tuple[str, ...]


class Scorer:
    """Makes the scores of queries to a gallery.

    Args:
        encoder: Encodes texts and pictures.
        gallery: The gallery.
    """

    def __init__(self, encoder: Encoder, gallery: Gallery) -> None:
        self._encoder = encoder
        self.gallery = gallery
        self.sample = GallerySample(gallery)

    def score(self, asked: Asked) -> Scored:
        """Encode a query, and make its score.

        Raises:
            ImageError: None of its pictures can be read.
        """
        notes: list[str] = []
        scoring = self._wanted(asked, notes)
        if asked.denied:
            phrases = self._encoder.encode_texts(asked.denied)
            scoring = Denied.over(
                self.sample.rows(), scoring, phrases, same_spread=bool(asked.pictures)
            )
        if asked.has_feedback:
            scoring = self._after_feedback(asked, scoring, notes)
        return Scored(scoring=scoring, notes=tuple(notes))

    @cached_property
    def _composer(self) -> Composer:
        return Composer(self._encoder)

    def _wanted(self, asked: Asked, notes: list[str]) -> Scoring:
        """The score of what is asked for."""
        if not asked.pictures:
            return Linear(self._encoder.encode_texts([asked.wanted])[0])
        picture = self._mean_picture(asked, notes)
        if asked.text is None or not asked.wanted:
            return Linear(picture)
        words = self._encoder.encode_texts([asked.wanted])[0]
        return self._composer.compose(picture, words, asked.weight, self.sample.rows())

    def _mean_picture(self, asked: Asked, notes: list[str]) -> Vectors:
        """The mean embedding of the pictures that can be read, of length 1, ``[D]``."""
        batches = list(self._encoder.stream_images(asked.pictures))
        problems = [problem for batch in batches for problem in batch.problems]
        embeddings = np.concatenate([batch.embeddings for batch in batches])
        if not len(embeddings):
            num = len(asked.pictures)
            what = "the picture cannot" if num == 1 else f"none of the {num} pictures can"
            advice = "" if asked.text is None else " The words alone can be searched without it."
            raise ImageError(f"{what} be read: {str(problems[0]).rstrip('.')}.{advice}")
        notes += [f"left out, as it cannot be read: {problem}" for problem in problems]
        mean = embeddings.mean(axis=0, dtype=np.float64)
        unit: Vectors = (mean / np.linalg.norm(mean)).astype(np.float32)
        return unit

    def _after_feedback(self, asked: Asked, scoring: Scoring, notes: list[str]) -> Scoring:
        ids = (*asked.like, *asked.unlike)
        vectors = self.gallery.vectors(ids)
        if missing := [id_ for id_ in ids if id_ not in vectors]:
            notes.append(f"left out of the feedback, as not in the gallery: {_listed(missing)}")
        like = [vectors[id_] for id_ in asked.like if id_ in vectors]
        unlike = [vectors[id_] for id_ in asked.unlike if id_ in vectors]
        return judged(scoring, like, unlike, self.sample.rows())


def _listed(ids: Sequence[int]) -> str:
    shown = ", ".join(map(str, ids[:_SHOWN]))
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return f"picture {shown}{more}" if len(ids) == 1 else f"pictures {shown}{more}"
