"""Which words of a query a picture matched, and where.

A score is the inner product of two embeddings, ``t`` of the query and ``i`` of the picture. Leave
out a word, and the text becomes ``t_w``; cover a place, and the picture becomes ``i_p``. Then

- ``(t - t_w) . i`` is what the word adds to the score (leave-one-out);
- ``t . (i - i_p)`` is what the place adds (occlusion: Zeiler and Fergus, ECCV 2014);
- ``(t - t_w) . (i - i_p)`` is what the two add together: how much of the word's share goes when
  the place is covered. It is the second difference of the score, exact for this model and these
  changes, and it needs as many encodings as there are words and places, not their product.

No gradients and no attention maps: the towers that search explain, whatever runs them. It is what
the *vectors* saw; a re-ranker may have had other reasons.
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
"""More than any context holds."""

CELLS = 50
"""Places of a picture, about; each costs one encoding."""

OVERLAP = 2
"""A cover is so many cells high and wide: small enough to tell places apart, and large enough to
hide a thing."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explanation:
    """Why a picture was found.

    Attributes:
        query: The text, of ``W`` words.
        words: Its words.
        score: Inner product of query and picture.
        contribution: What each word adds to the score, ``[W]``; a word that does not fit the
            picture takes away.
        relevance: What each word and place add together, ``[W, R, C]``, in rows and columns
            of places from the picture's upper left.
        picture: The picture, in RGB.
    """

    query: str
    words: tuple[str, ...]
    score: float
    contribution: NDArray[np.float32]
    relevance: NDArray[np.float32]
    picture: Image.Image

    @property
    def matched(self) -> tuple[str, ...]:
        """Words that speak for the picture, most telling first."""
        return tuple(self.words[i] for i in np.argsort(-self.contribution) if self._speaks_for(i))

    @property
    def unmatched(self) -> tuple[str, ...]:
        """Words that speak against it, in the order of the query."""
        return tuple(word for i, word in enumerate(self.words) if not self._speaks_for(i))

    def draw(self) -> Image.Image:
        """The picture, and again for each word with the places where it was found."""
        return draw(self.picture, self.words, self.contribution, self.relevance)

    def save(self, path: str | Path) -> None:
        """Write :meth:`draw` as a PNG or JPEG file, by the path's ending.

        Raises:
            ImageError: Another ending, or the file cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
            raise ImageError(f"an explanation is saved as .png or .jpg; got {path.name!r}")
        try:
            self.draw().save(path, quality=92)
        except OSError as error:
            raise ImageError(f"the explanation cannot be written to {path}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Everything but the picture, as JSON can hold it."""
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

    def _speaks_for(self, word: int | np.intp) -> bool:
        return bool(self.contribution[word] > 0)


def explain(
    encoder: Encoder, query: str, picture: Image.Image, *, cells: int = CELLS
) -> Explanation:
    """Explain the score of a query and a picture.

    Args:
        encoder: What gave the score.
        query: A text of ``W`` words; of more than 64 the first are looked at.
        picture: In RGB.
        cells: Into how many places the picture is divided, about; their number follows its
            shape. One encoding each.

    Raises:
        QueryError: The query has no words, or ``cells`` is below 1.
    """
    words = tuple(query.split()[:MAX_WORDS])
    if not words:
        raise QueryError("there is no word to explain in the query")
    if cells < 1:
        raise QueryError(f"expected cells of 1 or more, got {cells}")
    lacking = [" ".join(words[:i] + words[i + 1 :]) for i in range(len(words))]
    texts = encoder.encode_texts([query, *lacking])
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
    """Rows and columns of about square places."""
    rows = round((cells * picture.height / picture.width) ** 0.5)
    rows = min(max(1, rows), cells, picture.height)
    return rows, min(max(1, round(cells / rows)), picture.width)


def _covered(picture: Image.Image, rows: int, columns: int) -> list[Image.Image]:
    """The picture with each place, and half a place around it, in the picture's mean colour."""
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
