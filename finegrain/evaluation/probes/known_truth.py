"""Probes with ground truth from the caller: precision of queries, and swapped captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tabulate import tabulate

from finegrain.encoder import Encoder
from finegrain.errors import EvaluationError
from finegrain.metrics import pair_accuracy, precision_at_k
from finegrain.preprocess import ImageSource

Truth = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryPrecision:
    """Precision at ``k`` of queries with ground truth.

    Attributes:
        k: Depth of the rankings.
        precision: Query to the share of right pictures among its first ``k``, from 0 to 1.
        num_relevant: Query to the number of right pictures in the gallery.
    """

    k: int
    precision: Mapping[str, float]
    num_relevant: Mapping[str, int]

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.precision.values())))

    def __str__(self) -> str:
        rows = [(q, f"{p:.1f}", str(self.num_relevant[q])) for q, p in self.precision.items()]
        rows.append(("mean", f"{self.mean:.3f}", ""))
        return tabulate(
            rows, headers=["query", f"precision@{self.k}", "in gallery"], disable_numparse=True
        )


def query_precision(
    encoder: Encoder,
    pictures: Sequence[ImageSource],
    truths: Sequence[Truth],
    queries: Mapping[str, Callable[[Truth], bool]],
    *,
    k: int = 10,
    progress: bool = False,
) -> QueryPrecision:
    """Search a gallery for each query and count the right pictures among the first ``k``.

    Args:
        encoder: The model.
        pictures: The gallery, ``G`` pictures.
        truths: The ground truth of each picture, ``G`` mappings.
        queries: Query text to a function that tells from a picture's truth whether it is right.
        k: Depth of the rankings.
        progress: Show a progress bar.

    Raises:
        EvaluationError: The numbers of pictures and truths differ, or ``k`` is below 1.
    """
    _check_lengths(len(pictures), truths=len(truths))
    images = encoder.encode_images(pictures, progress=progress)
    texts = encoder.encode_texts(list(queries))
    order = np.argsort(-(texts @ images.T), axis=1, kind="stable")
    relevant = {q: [is_right(truth) for truth in truths] for q, is_right in queries.items()}
    return QueryPrecision(
        k=k,
        precision={
            q: precision_at_k([relevant[q][i] for i in order[row]], k)
            for row, q in enumerate(queries)
        },
        num_relevant={q: sum(flags) for q, flags in relevant.items()},
    )


def swap_accuracy(
    encoder: Encoder,
    pictures: Sequence[ImageSource],
    captions: Sequence[str],
    swapped: Sequence[str],
    *,
    progress: bool = False,
) -> float:
    """How often a picture is closer to its caption than to the same with two colours exchanged.

    The accuracy shows whether a model binds attributes to things: "red coat, blue jeans" has the
    same words as "blue coat, red jeans". Chance is 0.5, which a bag of words does not exceed.

    Args:
        encoder: The model.
        pictures: ``N`` pictures.
        captions: A true caption of each picture.
        swapped: The same captions with two colours exchanged.
        progress: Show a progress bar.

    Returns:
        The accuracy, from 0 to 1.

    Raises:
        EvaluationError: The numbers of pictures, captions and swapped captions differ.
    """
    _check_lengths(len(pictures), captions=len(captions), swapped=len(swapped))
    images = encoder.encode_images(pictures, progress=progress)
    own = np.sum(images * encoder.encode_texts(captions), axis=1)
    other = np.sum(images * encoder.encode_texts(swapped), axis=1)
    return pair_accuracy(own, other)


def _check_lengths(num_pictures: int, **lengths: int) -> None:
    for name, length in lengths.items():
        if length != num_pictures:
            raise EvaluationError(
                f"expected {name} for each of the {num_pictures} pictures, got {length}"
            )
