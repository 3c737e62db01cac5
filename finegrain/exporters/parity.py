"""The parity check: it compares an exported model with the eager model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tabulate import tabulate

from finegrain.encoder import Encoder
from finegrain.errors import ExportError
from finegrain.exporters.precision import Fp32
from finegrain.exporters.profile import ExportProfile
from finegrain.metrics import RetrievalMetrics, retrieval_metrics
from finegrain.preprocess import ImageSource
from finegrain.records import Sample

TOP = 10
MIN_QUERIES = 200
"""Smallest number of captions that show the effect of a lower precision on a ranking."""
MAX_COMPARED = 400
"""Largest number of captions and of pictures that are compared."""
NUM_ALONE = 32
"""Number of captions and of pictures that are also compared in batches of one."""
EDGE_CAPTIONS = ("", "a", "coat", "红色外套", "👩‍🦰 🧥", "word " * 300)

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchReport:
    """How close an exported match head is to its eager twin, and its effect on the metrics.

    Attributes:
        num_pairs: Number of pairs of caption and picture that were compared.
        probability_error: Largest error of the probability of a match.
        weight: Weight of the match probability beside the cosine, selected by mAP on these pairs.
        first_rank1, first_mAP: Metrics of the embeddings alone, in percent.
        eager_rank1, eager_mAP: Metrics of the eager model after re-ranking, in percent.
        rank1, mAP: Metrics of the exported model after re-ranking, in percent.
    """

    num_pairs: int
    probability_error: float
    weight: float
    first_rank1: float
    first_mAP: float  # noqa: N815
    eager_rank1: float
    eager_mAP: float  # noqa: N815
    rank1: float
    mAP: float  # noqa: N815

    def to_dict(self) -> dict[str, Any]:
        return {f"match_{name}": value for name, value in asdict(self).items()}

    def failures(self, profile: ExportProfile) -> list[str]:
        """A sentence for each bound of the profile that is exceeded."""
        failed = []
        # `not <=` fails for a NaN, and `>` does not.
        if not self.probability_error <= profile.max_match_error:
            failed.append(
                f"a probability of a match is off by {self.probability_error:.4f}, more than "
                f"{profile.max_match_error}"
            )
        drift = np.maximum(self.eager_rank1 - self.rank1, self.eager_mAP - self.mAP)
        if not drift <= profile.max_drift:
            failed.append(
                f"re-ranked, rank1 or mAP falls by {drift:.2f} points, more than "
                f"{profile.max_drift}"
            )
        return failed

    def __str__(self) -> str:
        return tabulate([asdict(self)], headers="keys", floatfmt=".4f")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShorteningReport:
    """What shorter embeddings cost; see :mod:`finegrain.exporters.shortening`.

    Attributes:
        full_dim, dim: Width before and after.
        num_fitted: Number of pictures and captions that the projection was fitted on.
        held_out: Whether the metrics are of other identities than these.
        full_rank1, full_mAP: Metrics of the full embeddings, in percent.
        rank1, mAP: Metrics of the shortened embeddings, in percent.
        lost_rank1: How much rank1 falls, in percentage points.
    """

    full_dim: int
    dim: int
    num_fitted: int
    held_out: bool
    full_rank1: float
    full_mAP: float  # noqa: N815
    rank1: float
    mAP: float  # noqa: N815

    @property
    def lost_rank1(self) -> float:
        return self.full_rank1 - self.rank1

    def to_dict(self) -> dict[str, Any]:
        numbers = asdict(self) | {"held_out": int(self.held_out), "lost_rank1": self.lost_rank1}
        return {f"shortened_{name}": value for name, value in numbers.items()}

    def __str__(self) -> str:
        numbers = asdict(self) | {"lost_rank1": self.lost_rank1}
        return tabulate([numbers], headers="keys", floatfmt=".2f")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport:
    """How close an exported model is to its eager twin.

    Attributes:
        num_queries, num_pictures: Number of captions and pictures, including edge cases.
        text_cosine, image_cosine: Smallest cosine between embeddings of both models.
        top10_overlap: Mean share of a query's first ten results that both models return.
        rank1_agreement: Share of queries with the same first result.
        eager_rank1, rank1: Rank1 of the eager and of the exported model, in percent. The gallery
            is small, so only the difference is meaningful.
        eager_mAP, mAP: The mAP of both models, in percent.
        match: The comparison of the match head. None for a method without one.
        shortening: The cost of shorter embeddings. None if they have their full width.
    """

    num_queries: int
    num_pictures: int
    text_cosine: float
    image_cosine: float
    top10_overlap: float
    rank1_agreement: float
    eager_rank1: float
    rank1: float
    eager_mAP: float  # noqa: N815
    mAP: float  # noqa: N815
    match: MatchReport | None = None
    shortening: ShorteningReport | None = None

    @property
    def drift(self) -> float:
        """The larger drop of rank1 and mAP, in percentage points."""
        # np.maximum propagates a NaN, and max does not.
        return float(np.maximum(self.eager_rank1 - self.rank1, self.eager_mAP - self.mAP))

    def to_dict(self) -> dict[str, Any]:
        """Numbers by name; those of a part begin with ``match_`` or ``shortened_``."""
        parts = ("match", "shortening")
        numbers = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in parts}
        for part in (self.match, self.shortening):
            numbers |= {} if part is None else part.to_dict()
        return numbers

    def failures(self, profile: ExportProfile) -> list[str]:
        """A sentence for each bound of the profile that is exceeded."""
        least = (
            ("cosine of texts", self.text_cosine, profile.text.min_cosine),
            ("cosine of pictures", self.image_cosine, profile.image.min_cosine),
            ("top-10 overlap", self.top10_overlap, profile.min_overlap),
            ("rank-1 agreement", self.rank1_agreement, profile.min_rank1_agreement),
        )
        # `not >=` fails for a NaN, and `<` does not.
        failed = [
            f"{what} is {got:.6f}, below {bound}" for what, got, bound in least if not got >= bound
        ]
        if not self.drift <= profile.max_drift:
            failed.append(
                f"rank1 or mAP falls by {self.drift:.2f} points, more than {profile.max_drift}"
            )
        return failed + ([] if self.match is None else self.match.failures(profile))

    def __str__(self) -> str:
        numbers = replace(self, match=None, shortening=None).to_dict()
        metrics = ("eager_rank1", "rank1", "eager_mAP", "mAP")
        scores = {name: numbers.pop(name) for name in metrics}
        return "\n\n".join(
            (
                tabulate([numbers], headers="keys", floatfmt=".6f"),
                tabulate([{**scores, "drift": self.drift}], headers="keys", floatfmt=".2f"),
                *([] if self.match is None else [f"re-ranking:\n{self.match}"]),
                *([] if self.shortening is None else [f"shortening:\n{self.shortening}"]),
            )
        )


@dataclass(frozen=True, slots=True)
class _Embeddings:
    """Embeddings of captions ``[Q, D]`` and pictures ``[G, D]``."""

    texts: Array
    images: Array

    def best(self) -> NDArray[np.int64]:
        """Indices of each caption's first ten pictures, ``[Q, 10]``."""
        return np.argsort(-(self.texts @ self.images.T), axis=1, kind="stable")[:, :TOP]

    def first(self, num_texts: int, num_images: int) -> _Embeddings:
        return _Embeddings(self.texts[:num_texts], self.images[:num_images])


def compare(
    eager: Encoder, exported: Encoder, samples: Sequence[Sample], profile: ExportProfile
) -> ParityReport:
    """Compare two encoders of one model on pictures and their captions.

    Edge cases are added: captions that are empty, of one word, not Latin, as long as the context
    and longer; and pictures that are portrait, landscape, grey and one pixel wide. Batches of
    one and of ``profile.max_batch`` are compared.

    A graph in fp32 performs the operations of the eager model, so an error of its conversion is
    in every embedding, and few captions show it. A lower precision rounds, and its effect on a
    ranking is a statistic over many.

    Raises:
        ExportError: There are fewer than ten pictures, or too few captions: 200, or 32 where both
            graphs are fp32.
    """
    samples = samples[:MAX_COMPARED]
    pairs = [(caption, s.pid) for s in samples for caption in s.captions][:MAX_COMPARED]
    is_fp32 = isinstance(profile.text, Fp32) and isinstance(profile.image, Fp32)
    min_queries = NUM_ALONE if is_fp32 else MIN_QUERIES
    if len(pairs) < min_queries or len(samples) < TOP:
        raise ExportError(
            f"the parity check needs {min_queries} captions and {TOP} pictures, got "
            f"{len(pairs)} and {len(samples)}; export with a dataset that has them"
        )
    longest = "coat " * (exported.tokenizer.context_length - 2)
    captions = [*(caption for caption, _ in pairs), *EDGE_CAPTIONS, longest]
    pictures: list[ImageSource] = [*(s.image for s in samples), *_edge_pictures()]

    exported.batch_size = profile.max_batch
    wanted, got = _encode(eager, captions, pictures), _encode(exported, captions, pictures)
    exported.batch_size = 1
    text_rows = [*range(NUM_ALONE), *range(len(pairs), len(captions))]
    image_rows = [*range(min(NUM_ALONE, len(samples))), *range(len(samples), len(pictures))]
    alone = _encode(exported, [captions[i] for i in text_rows], [pictures[i] for i in image_rows])

    size = len(pairs), len(samples)
    wanted_best, got_best = wanted.first(*size).best(), got.first(*size).best()
    overlap = [len({*a} & {*b}) / TOP for a, b in zip(wanted_best, got_best, strict=True)]
    pids = np.array([pid for _, pid in pairs]), np.array([s.pid for s in samples])
    before, after = (_metrics(e.first(*size), *pids) for e in (wanted, got))
    return ParityReport(
        num_queries=len(captions),
        num_pictures=len(pictures),
        text_cosine=min(
            _least_cosine(got.texts, wanted.texts),
            _least_cosine(alone.texts, wanted.texts[text_rows]),
        ),
        image_cosine=min(
            _least_cosine(got.images, wanted.images),
            _least_cosine(alone.images, wanted.images[image_rows]),
        ),
        top10_overlap=float(np.mean(overlap)),
        rank1_agreement=float(np.mean(wanted_best[:, 0] == got_best[:, 0])),
        eager_rank1=before.rank1,
        rank1=after.rank1,
        eager_mAP=before.mAP,
        mAP=after.mAP,
    )


def _encode(
    encoder: Encoder, captions: Sequence[str], pictures: Sequence[ImageSource]
) -> _Embeddings:
    return _Embeddings(encoder.encode_texts(captions), encoder.encode_images(pictures))


def _least_cosine(a: Array, b: Array) -> float:
    # np.min propagates a NaN, and min does not.
    return float(np.sum(a * b, axis=1).min())


def _metrics(
    embeddings: _Embeddings, query_pids: NDArray[np.int64], gallery_pids: NDArray[np.int64]
) -> RetrievalMetrics:
    return retrieval_metrics(embeddings.texts, embeddings.images, query_pids, gallery_pids)


def _edge_pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (97, 301, 3), np.uint8)
    landscape = Image.fromarray(noise)
    return [
        landscape,
        landscape.rotate(90, expand=True),
        landscape.convert("L"),
        landscape.crop((0, 0, 1, 97)),
        landscape.crop((0, 0, 1, 1)),
    ]
