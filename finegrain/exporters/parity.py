"""The parity gate: does the exported model say what the eager model says?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tabulate import tabulate

from finegrain.encoder import Encoder
from finegrain.errors import ExportError
from finegrain.exporters.profile import ExportProfile
from finegrain.preprocess import ImageSource

TOP = 10
MIN_QUERIES = 200
EDGE_CAPTIONS = ("", "a", "coat", "红色外套", "👩‍🦰 🧥", "word " * 300)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport:
    """How near an exported model is to its eager twin.

    Attributes:
        num_queries, num_pictures: What was compared, edge cases included.
        text_cosine, image_cosine: Least cosine between twins.
        top10_overlap: Mean share of a query's first ten that both find.
        rank1_agreement: Share of queries with the same first result.
    """

    num_queries: int
    num_pictures: int
    text_cosine: float
    image_cosine: float
    top10_overlap: float
    rank1_agreement: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def failures(self, profile: ExportProfile) -> list[str]:
        """What does not hold, as sentences; empty when all does."""
        checks = (
            ("cosine of texts", self.text_cosine, profile.min_cosine),
            ("cosine of pictures", self.image_cosine, profile.min_cosine),
            ("top-10 overlap", self.top10_overlap, profile.min_overlap),
            ("rank-1 agreement", self.rank1_agreement, profile.min_rank1_agreement),
        )
        # `not >=` and not `<`: a NaN must fail.
        return [
            f"{what} is {got:.6f}, below {least}" for what, got, least in checks if not got >= least
        ]

    def __str__(self) -> str:
        return tabulate([self.to_dict()], headers="keys", floatfmt=".6f")


def compare(
    eager: Encoder,
    exported: Encoder,
    captions: Sequence[str],
    pictures: Sequence[ImageSource],
    profile: ExportProfile,
) -> ParityReport:
    """Compare two encoders of one model.

    Besides what is given, captions that are empty, of one word, not Latin and too long, and
    pictures that are portrait, landscape, grey and one pixel wide are compared; so are
    batches of one and of ``profile.max_batch``.

    Raises:
        ExportError: Fewer than 200 captions are given, or fewer than ten pictures.
    """
    if len(captions) < MIN_QUERIES or len(pictures) < TOP:
        raise ExportError(
            f"the parity check needs {MIN_QUERIES} captions and {TOP} pictures, got "
            f"{len(captions)} and {len(pictures)}; export with a dataset that has them"
        )
    captions = [*captions, *EDGE_CAPTIONS]
    pictures = [*pictures, *_edge_pictures()]
    eager_texts, eager_images = eager.encode_texts(captions), eager.encode_images(pictures)
    text_cosines, image_cosines, rankings = [], [], None
    for batch_size in (1, profile.max_batch):
        exported.batch_size = batch_size
        texts, images = exported.encode_texts(captions), exported.encode_images(pictures)
        text_cosines.append(np.sum(texts * eager_texts, axis=1).min())
        image_cosines.append(np.sum(images * eager_images, axis=1).min())
        rankings = _rank(texts, images)
    wanted = _rank(eager_texts, eager_images)
    assert rankings is not None
    overlap = [len({*a} & {*b}) / TOP for a, b in zip(wanted, rankings, strict=True)]
    return ParityReport(
        num_queries=len(captions),
        num_pictures=len(pictures),
        text_cosine=float(min(text_cosines)),
        image_cosine=float(min(image_cosines)),
        top10_overlap=float(np.mean(overlap)),
        rank1_agreement=float(np.mean(wanted[:, 0] == rankings[:, 0])),
    )


def _rank(texts: NDArray[np.float32], images: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.argsort(-(texts @ images.T), axis=1, kind="stable")[:, :TOP]


def _edge_pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (97, 301, 3), np.uint8)
    landscape = Image.fromarray(noise)
    return [
        landscape,
        landscape.rotate(90, expand=True),
        landscape.convert("L"),
        landscape.crop((0, 0, 1, 97)),
    ]
