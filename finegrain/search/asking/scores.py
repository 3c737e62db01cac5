"""Makes the score of a query that is more than one text or one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finegrain.encoder import Encoder
from finegrain.errors import ImageError
from finegrain.gallery import Gallery
from finegrain.gallery.scoring import Linear, Scoring
from finegrain.index.exact import Vectors
from finegrain.preprocess import ImageSource
from finegrain.search.asking.asked import Asked
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


def score_of(asked: Asked, encoder: Encoder, gallery: Gallery, sample: GallerySample) -> Scored:
    """Encode a query, and make its score.

    Raises:
        ImageError: None of its pictures can be read.
    """
    notes: list[str] = []
    scoring = _of_query(asked, encoder, sample, notes)
    if asked.has_feedback:
        vectors = gallery.vectors([*asked.like, *asked.unlike])
        if missing := [id_ for id_ in (*asked.like, *asked.unlike) if id_ not in vectors]:
            notes.append(f"left out of the feedback, as not in the gallery: {_listed(missing)}")
        like = [vectors[id_] for id_ in asked.like if id_ in vectors]
        unlike = [vectors[id_] for id_ in asked.unlike if id_ in vectors]
        scoring = judged(scoring, like, unlike, sample.rows())
    return Scored(scoring=scoring, notes=tuple(notes))


def _of_query(asked: Asked, encoder: Encoder, sample: GallerySample, notes: list[str]) -> Scoring:
    if asked.text is None:
        return Linear(_mean_picture(asked.pictures, encoder, notes))
    wanted, *denied = encoder.encode_texts([asked.wanted, *asked.denied])
    return Denied.over(sample.rows(), wanted, np.stack(denied)) if denied else Linear(wanted)


def _mean_picture(pictures: Sequence[ImageSource], encoder: Encoder, notes: list[str]) -> Vectors:
    """The mean embedding of the pictures that can be read, of length 1, ``[D]``."""
    if len(pictures) == 1:
        embedding: Vectors = encoder.encode_images(pictures)[0]
        return embedding
    batches = list(encoder.stream_images(pictures))
    problems = [problem for batch in batches for problem in batch.problems]
    embeddings = np.concatenate([batch.embeddings for batch in batches])
    if not len(embeddings):
        raise ImageError(f"none of the {len(pictures)} pictures can be read: {problems[0]}")
    notes += [f"left out, as it cannot be read: {problem}" for problem in problems]
    mean = embeddings.mean(axis=0, dtype=np.float64)
    unit: Vectors = (mean / np.linalg.norm(mean)).astype(np.float32)
    return unit


def _listed(ids: Sequence[int]) -> str:
    shown = ", ".join(map(str, ids[:_SHOWN]))
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return f"picture {shown}{more}" if len(ids) == 1 else f"pictures {shown}{more}"
