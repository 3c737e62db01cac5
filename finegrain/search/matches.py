"""Matches of a query, and their display as a table, a picture grid and HTML."""

from __future__ import annotations

import base64
import html
import io
import shutil
import textwrap
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
    from finegrain.search.asking.words import WordsRead
    from finegrain.search.explanation import Explanation

_MAX_COLUMNS = 8
_MAX_CELL = 32
_MIN_IMAGE = 16
_ALWAYS = ("rank", "score", "match", "probability", "image")
"""Columns that every table has, also in a narrow terminal."""

_MAX_FACTS = 3
Refiner = Callable[[Sequence[int], Sequence[int]], "Matches"]
"""Answers a query again, with ids of pictures that were judged right and wrong."""

_UNREADABLE = (ImageError, MissingExtraError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A picture that matches a query.

    Attributes:
        rank: Rank in the results, from 1.
        score: Inner product with the query.
        match: Probability of a match; None if the re-ranker did not score the picture.
        probability: Calibrated probability that the picture shows the one person or product that
            the text describes. It is low for all pictures if a text fits many. None for queries by
            picture and after feedback, and if the plan has no calibration.
        id: Id of the picture in the gallery.
        image: Path of the picture, or address of a part of a picture or video
            (:class:`~finegrain.preprocess.Crop`); None if it was added as pixels.
        pid: Key of the person or product, if known.
        camera: Name of the camera, if known.
        time: Time at which it was taken, if known, as ``2026-01-31T12:00:00.000Z``.
        track: Name of its track, if known.
        metadata: Further columns.
        thumbnail: JPEG file from the gallery, for example of a picture without a path.
        explainer: Function behind :meth:`explain`; a searcher sets it for queries by text.
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
    probability: float | None = None
    thumbnail: bytes | None = field(default=None, repr=False)
    explainer: Callable[[Match, int | None], Explanation] | None = field(
        default=None, repr=False, compare=False
    )

    def open(self) -> Image.Image:
        """Open the picture in RGB from its path, or its thumbnail if the path cannot be read.

        Raises:
            ImageError: There is no thumbnail, and no path or a missing or broken file.
            MissingExtraError: There is no thumbnail, and the format requires a package that is
                not installed.
        """
        if self.image is not None:
            try:
                return load_image(self.image)
            except _UNREADABLE:
                if self.thumbnail is None:
                    raise
        if self.thumbnail is not None:
            return load_image(self.thumbnail)
        raise ImageError(f"Picture {self.id} has no path and no thumbnail, so it cannot be shown.")

    def explain(self, *, cells: int | None = None) -> Explanation:
        """Explain which words of the query match this picture, and where.

        Args:
            cells: Approximate number of regions of the picture, 32 by default. Each costs one
                encoding.

        Raises:
            QueryError: The query was a picture, or ``cells`` is below 1.
            ImageError: The picture cannot be opened.
        """
        if self.explainer is None:
            raise QueryError(
                "expected a match of a query by text, whose words can be explained, got one of a "
                "query by picture"
            )
        return self.explainer(self, cells)

    def to_dict(self) -> dict[str, Any]:
        """Everything except the thumbnail, as values for JSON."""
        return {
            "rank": self.rank,
            "score": self.score,
            **({} if self.match is None else {"match": self.match}),
            **({} if self.probability is None else {"probability": self.probability}),
            "id": self.id,
            "image": self.image,
            "pid": self.pid,
            "camera": self.camera,
            "time": self.time,
            "track": self.track,
            "metadata": dict(self.metadata),
        }


class Matches(Sequence[Match]):
    """The matches of one query, best first.

    ``print`` shows a table, a notebook shows the pictures, and :meth:`save` writes a picture grid.

    Args:
        query: Text of the query; ``<picture>`` for a query by picture.
        matches: Matches, best first.
        notes: Notes for the user, such as words of the query that the model did not read.
        rejected: The best match, if none was probable enough and there are no matches.
        read: How words were read that the model does not know.

    Attributes:
        refiner: Function behind :meth:`refine`; a searcher sets it.
    """

    def __init__(
        self,
        query: str,
        matches: Sequence[Match],
        *,
        notes: Sequence[str] = (),
        rejected: Match | None = None,
        read: Sequence[WordsRead] = (),
    ) -> None:
        self.query = query
        self.rejected = rejected
        self.notes = tuple(notes)
        self.refiner: Refiner | None = None
        self._read = tuple(read)
        self._matches = tuple(matches)

    def __len__(self) -> int:
        return len(self._matches)

    def __iter__(self) -> Iterator[Match]:
        return iter(self._matches)

    @overload
    def __getitem__(self, index: int) -> Match: ...
    @overload
    def __getitem__(self, index: slice) -> Matches: ...
    def __getitem__(self, index: int | slice) -> Match | Matches:
        if isinstance(index, slice):
            part = Matches(self.query, self._matches[index], notes=self.notes, read=self._read)
            part.refiner = self.refiner
            return part
        return self._matches[index]

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
        """One dictionary of JSON values for each match."""
        return [match.to_dict() for match in self]

    @property
    def changed_words(self) -> dict[str, str]:
        """Words of the query that were read as others, as ``{"jumper": "sweater"}``."""
        return {word: plain for read in self._read for word, plain in read.changed.items()}

    @property
    def unread_words(self) -> tuple[str, ...]:
        """Words of the query that the model never read in its training."""
        return tuple(dict.fromkeys(word for read in self._read for word in read.unread))

    def refine(
        self, like: Sequence[int | Match] = (), unlike: Sequence[int | Match] = ()
    ) -> Matches:
        """Search again, with some of these matches judged right or wrong.

        Judged pictures leave the answer. Judgements of earlier calls stay in force. Without a
        judgement, the answer stays as it is.

        Args:
            like: Ranks of matches that are right, or the matches.
            unlike: Ranks of matches that are wrong, or the matches.

        Example:
            >>> matches = searcher.query("woman in red coat")    # doctest: +SKIP
            >>> matches.refine(like=[1, 4], unlike=[2])          # doctest: +SKIP

        Raises:
            QueryError: There is no match of that rank, a match is judged both right and wrong, or
                no searcher made these matches.
            GalleryError: The searcher was closed.
        """
        if self.refiner is None:
            raise QueryError("expected the matches of a searcher to refine, got others. Search.")
        return self.refiner(self._ids(like), self._ids(unlike))

    def _ids(self, judged: Sequence[int | Match]) -> list[int]:
        """Ids of matches that are given by rank or as they are."""
        id_of = {match.rank: match.id for match in self}
        ids = []
        for match in judged:
            if isinstance(match, Match):
                ids.append(match.id)
            elif type(match) is int and match in id_of:
                ids.append(id_of[match])
            else:
                ranks = f"{min(id_of)} to {max(id_of)}" if id_of else "none, as there is no match"
                raise QueryError(f"expected ranks of these matches ({ranks}), got {match!r:.40}")
        return ids

    def grid(
        self,
        *,
        columns: int = 5,
        tile: tuple[int, int] | None = None,
        correct: Sequence[bool] | None = None,
    ) -> Image.Image:
        """Draw the pictures in a grid, each with its rank, score and columns.

        A grey tile replaces a picture that cannot be opened.

        Args:
            columns: Number of columns.
            tile: Height and width of a tile, in pixels. By default it has the median shape of the
                pictures. Pictures are not cropped.
            correct: Whether each match is correct; it gets a green or a red frame.

        Raises:
            ImageError: An argument is invalid, or the grid would be too large.
        """
        if columns < 1 or not (tile is None or (min(tile) >= 32 and max(tile) <= 2048)):
            raise ImageError(
                "expected at least one column and tiles of 32 to 2048 pixels, got "
                f"columns={columns}, tile={tile}"
            )
        if correct is not None and len(correct) != len(self):
            raise ImageError(
                f"expected one entry of correct for each of {len(self)} matches, got {len(correct)}"
            )
        return draw_grid(
            self.query,
            [
                Tile(
                    open=partial(_opened, match),
                    left=str(match.rank),
                    right=f"{match.score:.3f}",
                    facts=_facts(match),
                    correct=None if correct is None else correct[i],
                )
                for i, match in enumerate(self)
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
        """Save :meth:`grid` as PNG or JPEG, according to the suffix of the path.

        Raises:
            ImageError: The suffix is another one, the file cannot be written, or an argument is
                invalid.
        """
        path = Path(path)
        if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
            raise ImageError(f"expected a path that ends in .png or .jpg, got {path.name!r}")
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
    rows: list[dict[str, Any]] = [
        {
            "rank": match.rank,
            "score": f"{match.score:.4f}",
            "match": None if match.match is None else f"{match.match:.4f}",
            "probability": _probability(match),
            "image": _printable(match.image or "-"),
            "pid": _cell(match.pid),
            "camera": _cell(match.camera),
            "time": match.time,
            "track": _cell(match.track),
            **{name: _cell(value) for name, value in match.metadata.items()},
        }
        for match in matches
    ]
    # Columns without a value are left out.
    all_names = dict.fromkeys(name for row in rows for name in row)
    names = [name for name in all_names if any(row.get(name) is not None for row in rows)]
    terminal = shutil.get_terminal_size().columns
    kept, image_width = _fitting(rows, names, terminal)
    for row in rows:
        row["image"] = _shortened(row["image"], image_width, from_left=True)
    cells = [[row.get(name) for name in kept] for row in rows]
    headers = [_shortened(name) for name in kept]
    table = tabulate(cells, headers=headers, disable_numparse=True, missingval="-")
    dropped = [_shortened(name) for name in names if name not in kept]
    if not dropped:
        return f"{title}\n{table}"
    note = f"not shown: {', '.join(dropped)} (--json and to_dicts() have all columns)"
    return "\n".join([title, table, *textwrap.wrap(note, terminal)])


def _fitting(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], terminal: int
) -> tuple[list[str], int]:
    """The columns that fit the terminal, and the width of the image's.

    Narrow columns, such as numbers and names, come before those of long texts.
    """
    padding = 2  # what tabulate adds to headers, and puts between columns
    widths = {
        name: max(len(_shortened(name)) + padding, *(len(str(row.get(name) or "")) for row in rows))
        for name in names
    }
    image = min(widths["image"], _MIN_IMAGE)
    kept = [name for name in names if name in _ALWAYS]
    room = terminal - image - sum(widths[name] + padding for name in kept if name != "image")
    for name in sorted((name for name in names if name not in _ALWAYS), key=widths.__getitem__):
        if len(kept) < _MAX_COLUMNS and widths[name] + padding <= room:
            kept.append(name)
            room -= widths[name] + padding
    room = min(max(room, 0), _MAX_CELL - image)
    return [name for name in names if name in kept], image + room


def _probability(match: Match) -> str | None:
    return None if match.probability is None else f"{match.probability:.2f}"


def _cell(value: Scalar) -> str | None:
    """A value as one short line, or None if it is missing."""
    if isinstance(value, bool):
        return str(value).lower()
    return None if value is None else _shortened(str(value))


def _shortened(text: str, width: int = _MAX_CELL, *, from_left: bool = False) -> str:
    """Shorten a text to one printable line; a path keeps its end, which tells more."""
    line = _printable(text)
    if len(line) <= width:
        return line
    return "…" + line[1 - width :] if from_left else line[: width - 1] + "…"


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


def _facts(match: Match) -> list[str]:
    """The first values of a picture as ``name: value``, the most important columns first."""
    columns: list[tuple[str, str | None]] = [
        ("match", None if match.match is None else f"{match.match:.3f}"),
        ("probability", _probability(match)),
        ("pid", _cell(match.pid)),
        ("camera", _cell(match.camera)),
        ("time", None if match.time is None else f"{match.time[:10]} {match.time[11:19]}"),
        ("track", _cell(match.track)),
        *((_shortened(name), _cell(value)) for name, value in match.metadata.items()),
        ("file", None if match.image is None else _shortened(Path(match.image).name)),
    ]
    facts = [f"{name}: {value}" for name, value in columns if value]
    return facts[:_MAX_FACTS]


def _opened(match: Match) -> Image.Image | None:
    """The picture, or None if it cannot be opened."""
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
