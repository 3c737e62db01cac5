"""What a query found: as values, as a table, as a picture grid and as HTML."""

from __future__ import annotations

import base64
import html
import io
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from PIL import Image
from tabulate import tabulate

from finegrain.errors import ImageError, MissingExtraError, QueryError
from finegrain.preprocess.image import load_image
from finegrain.records import Pid, Scalar
from finegrain.search.picture_grid import Tile, draw_grid, fitting_tile

if TYPE_CHECKING:
    from finegrain.search.explanation import Explanation

_MAX_COLUMNS = 8
_MAX_CELL = 32
_MAX_FACTS = 3
_UNREADABLE = (ImageError, MissingExtraError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """One picture that a query found.

    Attributes:
        rank: Place in the results, from 1.
        score: Inner product with the query.
        match: Probability of a match by the re-ranker, where it was asked.
        id: The picture's id in the gallery.
        image: Its path, or the address of a part of a picture or video
            (:class:`~finegrain.preprocess.Crop`); None when it was added as pixels.
        pid: Key of the person or product, as it was given, where known.
        camera: Name of the camera, where known.
        time: When it was taken, where known, as ``2026-01-31T12:00:00.000Z``.
        track: Name of the track that it is part of, where known.
        metadata: Further columns.
        thumbnail: JPEG file kept in the gallery, as for a picture without a path.
        explainer: What :meth:`explain` asks; a searcher sets it for queries by text.
    """

    rank: int
    score: float
    id: int
    image: str | None
    pid: Pid | None = None
    camera: str | None = None
    time: str | None = None
    track: str | None = None
    metadata: Mapping[str, Scalar] = field(default_factory=dict)
    match: float | None = None
    thumbnail: bytes | None = field(default=None, repr=False)
    explainer: Callable[[Match], Explanation] | None = field(
        default=None, repr=False, compare=False
    )

    def open(self) -> Image.Image:
        """The picture in RGB: from its path where that can be read, else its thumbnail.

        Raises:
            ImageError: There is neither, or the file is missing or broken.
            MissingExtraError: It is in a video, PyAV is not installed, and there is no thumbnail.
        """
        if self.image is not None:
            try:
                return load_image(self.image)
            except _UNREADABLE:
                if self.thumbnail is None:
                    raise
        if self.thumbnail is not None:
            return load_image(self.thumbnail)
        raise ImageError(
            f"Picture {self.id} was added without a path or thumbnail, so it cannot be shown."
        )

    def explain(self) -> Explanation:
        """Which words of the query this picture matched, and where in it.

        Raises:
            QueryError: The query was a picture.
            ImageError: The picture cannot be opened.
        """
        if self.explainer is None:
            raise QueryError(
                "only a match of a query by text can be explained: it is words that are looked for"
            )
        return self.explainer(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the thumbnail, as JSON can hold it."""
        return {
            "rank": self.rank,
            "score": self.score,
            **({} if self.match is None else {"match": self.match}),
            "id": self.id,
            "image": self.image,
            "pid": self.pid,
            "camera": self.camera,
            "time": self.time,
            "track": self.track,
            "metadata": dict(self.metadata),
        }


class Matches(Sequence[Match]):
    """The results of one query, best first.

    Printing them gives a table, a notebook shows the pictures, :meth:`save` writes a grid.

    Args:
        query: The text searched for; ``<picture>`` for a query by picture.
        matches: Best first.
        notes: What to know of the answer, such as words of the query that were not read.
    """

    def __init__(self, query: str, matches: Sequence[Match], *, notes: Sequence[str] = ()) -> None:
        self.query = query
        self.notes = tuple(notes)
        self._matches = tuple(matches)

    def __len__(self) -> int:
        return len(self._matches)

    def __iter__(self) -> Iterator[Match]:
        return iter(self._matches)

    @overload
    def __getitem__(self, place: int) -> Match: ...
    @overload
    def __getitem__(self, place: slice) -> Matches: ...
    def __getitem__(self, place: int | slice) -> Match | Matches:
        if isinstance(place, slice):
            return Matches(self.query, self._matches[place], notes=self.notes)
        return self._matches[place]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Matches):
            return NotImplemented
        return (self.query, self._matches) == (other.query, other._matches)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "\n".join([_table(self), *(f"note: {_printable(note)}" for note in self.notes)])

    def _repr_html_(self) -> str:
        return _page(self)

    def to_dicts(self) -> list[dict[str, Any]]:
        """One JSON-ready dictionary per match."""
        return [match.to_dict() for match in self]

    def grid(
        self,
        *,
        columns: int = 5,
        tile: tuple[int, int] | None = None,
        correct: Sequence[bool] | None = None,
    ) -> Image.Image:
        """Draw the pictures under the query, with rank, score and a caption each.

        A picture that cannot be opened becomes a grey tile that says so.

        Args:
            columns: Tiles in a row.
            tile: Height and width of a picture, in pixels. By default the shape is that of most
                of the pictures; each is shown whole.
            correct: Whether each match is right; draws green and red frames.

        Raises:
            ImageError: An option does not fit, or the grid would be too large.
        """
        if columns < 1 or not (tile is None or (min(tile) >= 32 and max(tile) <= 2048)):
            raise ImageError(
                "A grid has at least one column and tiles of 32 to 2048 pixels; got "
                f"columns={columns}, tile={tile}."
            )
        if correct is not None and len(correct) != len(self):
            raise ImageError(
                f"correct has one entry per match ({len(self)} here); got {len(correct)}."
            )
        return draw_grid(
            self.query,
            [
                Tile(
                    open=partial(_opened, match),
                    left=str(match.rank),
                    right=f"{match.score:.3f}",
                    facts=_facts(match),
                    correct=None if correct is None else correct[place],
                )
                for place, match in enumerate(self)
            ],
            columns=columns,
            tile=tile,
        )

    def save(
        self,
        path: str | Path,
        *,
        columns: int = 5,
        tile: tuple[int, int] | None = None,
        correct: Sequence[bool] | None = None,
    ) -> None:
        """Write :meth:`grid` as a PNG or JPEG file, by the path's ending.

        Raises:
            ImageError: Another ending, a folder that does not exist, or an option that
                does not fit.
        """
        path = Path(path)
        if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
            raise ImageError(f"A grid is saved as .png or .jpg; got {path.name!r}.")
        picture = self.grid(columns=columns, tile=tile, correct=correct)
        try:
            picture.save(path, quality=92)
        except OSError as error:
            raise ImageError(f"The grid cannot be written to {path}: {error}.") from error


# --- the table --------------------------------------------------------------------------


def _table(matches: Matches) -> str:
    title = f"{len(matches)} matches for {matches.query!r}"
    if not matches:
        return title
    rows = [
        {
            "rank": match.rank,
            "score": f"{match.score:.4f}",
            "match": None if match.match is None else f"{match.match:.4f}",
            "image": _shortened(match.image or "-", from_left=True),
            "pid": match.pid,
            "camera": match.camera,
            "time": match.time,
            "track": match.track,
            **{name: _shortened(_shown(value)) for name, value in match.metadata.items()},
        }
        for match in matches
    ]
    # Columns without a value say nothing; the first few are the ones that fit.
    known = dict.fromkeys(name for row in rows for name in row)
    names = [name for name in known if any(row.get(name) is not None for row in rows)]
    width = shutil.get_terminal_size().columns
    for count in range(min(len(names), _MAX_COLUMNS), 2, -1):
        table = _drawn(rows, names[:count])
        if count == 3 or len(table.splitlines()[1]) <= width:
            break
    return f"{title}\n{table}"


def _drawn(rows: list[dict[str, Any]], names: list[str]) -> str:
    cells = [[row.get(name) for name in names] for row in rows]
    return tabulate(cells, headers=names, disable_numparse=True, missingval="-")


def _shown(value: Scalar) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    return None if value is None else str(value)


def _shortened(text: str | None, *, from_left: bool = False) -> str | None:
    """One printable line of limited length; the end of a path tells more than its start."""
    if text is None:
        return None
    line = _printable(text)
    if len(line) <= _MAX_CELL:
        return line
    return "…" + line[1 - _MAX_CELL :] if from_left else line[: _MAX_CELL - 1] + "…"


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


def _facts(match: Match) -> list[str]:
    """What is known of a picture, each with its column's name, most telling first."""
    known: list[tuple[str, str | None]] = [
        ("match", None if match.match is None else f"{match.match:.3f}"),
        ("pid", None if match.pid is None else str(match.pid)),
        ("camera", match.camera),
        ("time", None if match.time is None else f"{match.time[:10]} {match.time[11:19]}"),
        ("track", match.track),
        *((name, _shown(value)) for name, value in match.metadata.items()),
        ("file", None if match.image is None else Path(match.image).name),
    ]
    facts = [f"{name}: {_shortened(value)}" for name, value in known if value]
    return facts[:_MAX_FACTS]


def _opened(match: Match) -> Image.Image | None:
    """The picture, or None where it cannot be shown any more."""
    try:
        return match.open()
    except _UNREADABLE:
        return None


# --- the notebook -----------------------------------------------------------------------

_CARD = (
    '<figure style="margin:0;width:{width}px;font:12px/1.4 system-ui,sans-serif">{picture}'
    '<figcaption style="padding-top:4px"><b>{rank}</b>'
    '<span style="float:right;opacity:.6">{score:.4f}</span>{facts}</figcaption></figure>'
)
_FACT = (
    '<div style="opacity:.6;overflow:hidden;text-overflow:ellipsis;white-space:nowrap" '
    'title="{fact}">{fact}</div>'
)
_CARD_AREA = 132 * 224


def _page(matches: Matches) -> str:
    pictures = [_opened(match) for match in matches]
    height, width = fitting_tile(
        [picture.size for picture in pictures if picture is not None], area=_CARD_AREA
    )
    cards = "".join(
        _CARD.format(
            width=width,
            picture=_inline(picture, height, width),
            rank=match.rank,
            score=match.score,
            facts="".join(_FACT.format(fact=html.escape(f, quote=True)) for f in _facts(match)),
        )
        for match, picture in zip(matches, pictures, strict=True)
    )
    notes = "".join(f"<div>note: {html.escape(note)}</div>" for note in matches.notes)
    return (
        f'<div style="font:600 15px system-ui,sans-serif;margin:4px 0 10px">'
        f"{html.escape(matches.query)}</div>{notes}"
        f'<div style="display:flex;flex-wrap:wrap;gap:14px">{cards}</div>'
    )


def _inline(picture: Image.Image | None, height: int, width: int) -> str:
    frame = f"width:{width}px;height:{height}px;border-radius:6px"
    if picture is None:
        return (
            f'<div style="{frame};background:#e9e9e7;color:#808086;display:flex;'
            'align-items:center;justify-content:center">picture not found</div>'
        )
    picture.thumbnail((2 * width, 2 * height))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<img style="{frame};object-fit:contain;object-position:bottom" '
        f'src="data:image/jpeg;base64,{data}" alt="">'
    )
