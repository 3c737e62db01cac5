"""Explains which words of a query match a picture, and where.

A score is the inner product of two embeddings, ``t`` of the query and ``i`` of the picture. Let
``t_w`` be the embedding of the query without the word ``w``, and ``i_p`` the embedding of the
picture with the region ``p`` covered. Then

- ``(t - t_w) . i`` is the contribution of the word to the score (leave-one-out);
- ``t . (i - i_p)`` is the contribution of the region (occlusion: Zeiler and Fergus, ECCV 2014,
  https://arxiv.org/abs/1311.2901);
- ``(t - t_w) . (i - i_p)`` is their joint contribution: the part of the word's contribution that
  is lost if the region is covered. It is the second difference of the score and is exact for the
  model and these changes. It needs one encoding for each word and for each region, not one for
  each pair.

The method needs no gradients and no attention maps, so it works with every runtime. It explains
the score of the vectors, not the score of a re-ranker. Inner products of words with the tokens of
one encoding cost less, and point to the named garment far less often.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tabulate import tabulate

from finegrain.encoder import Encoder
from finegrain.errors import ImageError, QueryError
from finegrain.search.relevance_map import draw

MAX_WORDS = 64
"""Maximum number of words to explain; more than any context holds."""

CELLS = 32
"""Approximate number of regions of a picture; each costs one encoding. On rendered people, 50
regions point to the named garment a little more often (``benchmarks/explanation.py``)."""

OVERLAP = 2
"""Height and width of a cover in cells: small enough to distinguish regions, and large enough to
hide an object."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explanation:
    """Explains the score of a picture for a query.

    Attributes:
        query: The text.
        words: The ``W`` words of the query that are explained.
        score: Inner product of the query and the picture.
        contribution: Contribution of each word to the score, ``[W]``; it is negative for a word
            that does not fit the picture.
        relevance: Joint contribution of each word and region, ``[W, R, C]``. Rows and columns of
            regions start at the upper left of the picture.
        picture: The picture in RGB.
    """

    query: str
    words: tuple[str, ...]
    score: float
    contribution: NDArray[np.float32]
    relevance: NDArray[np.float32]
    picture: Image.Image

    @property
    def matched(self) -> tuple[str, ...]:
        """Words with a positive contribution, the largest first."""
        return tuple(self.words[i] for i in np.argsort(-self.contribution) if self._is_matched(i))

    @property
    def unmatched(self) -> tuple[str, ...]:
        """Words without a positive contribution, in the order of the query."""
        return tuple(word for i, word in enumerate(self.words) if not self._is_matched(i))

    def draw(self) -> Image.Image:
        """Draw the picture, and for each word a copy of it under the relevance map of the word."""
        return draw(self.picture, self.words, self.contribution, self.relevance)

    def save(self, path: str | Path) -> None:
        """Save :meth:`draw` as PNG or JPEG, according to the suffix of the path.

        Raises:
            ImageError: The suffix is another one, or the file cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
            raise ImageError(f"expected a path that ends in .png or .jpg, got {path.name!r}")
        try:
            self.draw().save(path, quality=92)
        except OSError as error:
            raise ImageError(f"the explanation cannot be written to {path}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Everything except the picture, as values for JSON."""
        return {
            "query": self.query,
            "score": self.score,
            "words": list(self.words),
            "contribution": self.contribution.tolist(),
            "relevance": self.relevance.tolist(),
        }

    def __str__(self) -> str:
        rows = zip(self.words, self.contribution.tolist(), strict=True)
        table = tabulate(rows, headers=["word", "adds"], floatfmt="+.4f")
        return f"score {self.score:.4f} for {self.query!r}\n{table}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        buffer = io.BytesIO()
        self.draw().save(buffer, "PNG")
        encoded = base64.b64encode(buffer.getvalue()).decode()
        return f'<img src="data:image/png;base64,{encoded}" alt="">'

    def _is_matched(self, word: int | np.intp) -> bool:
        return bool(self.contribution[word] > 0)


def explain(
    encoder: Encoder, query: str, picture: Image.Image, *, cells: int = CELLS
) -> Explanation:
    """Explain the score of a query and a picture.

    Args:
        encoder: Encoder of the search.
        query: A text; its first 64 words are explained.
        picture: The picture in RGB.
        cells: Approximate number of regions; the exact number depends on the shape of the
            picture. Each region costs one encoding.

    Raises:
        QueryError: The query has no words, or ``cells`` is below 1.
    """
    words = tuple(query.split()[:MAX_WORDS])
    if not words:
        raise QueryError("expected a query with at least one word to explain, got an empty one")
    if cells < 1:
        raise QueryError(f"expected cells of 1 or more, got {cells}")
    shortened = [" ".join(words[:i] + words[i + 1 :]) for i in range(len(words))]
    texts = encoder.encode_texts([query, *shortened])
    rows, columns = _grid(picture, cells)
    images = encoder.encode_images([picture, *_covered(picture, rows, columns)])
    by_word = texts[0] - texts[1:]
    by_cover = (images[0] - images[1:]).reshape(rows, columns, -1)
    return Explanation(
        query=query,
        words=words,
        score=float(texts[0] @ images[0]),
        contribution=by_word @ images[0],
        relevance=np.einsum("wd,rcd->wrc", by_word, by_cover),
        picture=picture,
    )


def _grid(picture: Image.Image, cells: int) -> tuple[int, int]:
    """Numbers of rows and columns that make the regions approximately square."""
    rows = round((cells * picture.height / picture.width) ** 0.5)
    rows = min(max(1, rows), cells, picture.height)
    return rows, min(max(1, round(cells / rows)), picture.width)


def _covered(picture: Image.Image, rows: int, columns: int) -> list[Image.Image]:
    """Copies of the picture; in each, a region with a margin of half a cell has the mean colour."""
    mean = tuple(round(value) for value in np.asarray(picture).reshape(-1, 3).mean(axis=0))
    height, width = picture.height / rows, picture.width / columns
    margin = (OVERLAP - 1) / 2
    covered = []
    for row in range(rows):
        for column in range(columns):
            box = (
                round((column - margin) * width),
                round((row - margin) * height),
                round((column + 1 + margin) * width),
                round((row + 1 + margin) * height),
            )
            hidden = picture.copy()
            hidden.paste(mean, box)
            covered.append(hidden)
    return covered
