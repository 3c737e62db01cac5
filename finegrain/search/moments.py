"""Finds when somebody who fits a query was in front of a camera. Nothing is trained for it.

The score of a track is the mean of its three best pictures, so that one blurred crop does not
decide. Without tracks, the pictures of the moment count, and missing ones count as background. A
moment is from the first to the last picture around the best one whose score is above half of the
way from the background to the peak. The background is the mean score of the gallery.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np
from PIL import Image
from tabulate import tabulate

from finegrain.cameras.storing import MEAN
from finegrain.errors import GalleryError, ImageError, QueryError
from finegrain.gallery import Hit
from finegrain.gallery.entries import checked_k
from finegrain.gallery.row import Row
from finegrain.gallery.scoring import Linear
from finegrain.index.exact import Vectors
from finegrain.preprocess import Crop, load_image
from finegrain.records import Scalar
from finegrain.search.asking.probability import (
    NOT_CALIBRATED,
    checked_probability,
    probabilities,
)
from finegrain.search.queries import Query
from finegrain.search.retriever import Retriever

Per = Literal["track", "time"]
"""What a moment is of: one track, or any pictures of one camera that are close in time."""

GAP_SECONDS = 5.0
"""Most seconds between two pictures of one moment, where there are no tracks."""

_BEST = 3
_CANDIDATES = 4  # tracks for each moment that is asked for
_MOST_ROWS = 4096  # best pictures that moments without tracks are made of


class Score(NamedTuple):
    """Score of a picture at a time."""

    time: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When somebody who fits the query was there.

    Attributes:
        rank: Rank, from 1.
        score: Mean score of its three best pictures.
        probability: Calibrated probability of its best picture; None without a calibration.
        camera: Name of the camera, if known.
        track: Name of the track; None for moments per time.
        start, end: From when to when, in UTC. For a track of ``watch`` these are the times at which
            the person entered and left the picture.
        peak: Time of the best picture.
        id: Id of the best picture in the gallery.
        image: Address of the best picture; None for a stream.
        curve: Scores of its pictures by time.
        metadata: Columns of the best picture, such as ``entered_door``.
        thumbnail: JPEG file of the best picture.
    """

    rank: int
    score: float
    probability: float | None
    camera: str | None
    track: str | None
    start: str
    end: str
    peak: str
    id: int
    image: str | None
    curve: tuple[Score, ...]
    metadata: Mapping[str, Scalar] = field(default_factory=dict)
    thumbnail: bytes | None = field(default=None, repr=False)

    @property
    def seconds(self) -> float:
        """Length of the moment."""
        return _seconds(self.end) - _seconds(self.start)

    def open(self) -> Image.Image:
        """The best picture, from its thumbnail or its file.

        Raises:
            ImageError: There is neither.
        """
        if self.thumbnail is not None:
            return load_image(self.thumbnail)
        if self.image is None:
            raise ImageError(f"Picture {self.id} has no file and no thumbnail.")
        return load_image(self.image)

    def save_clip(self, path: str | Path, *, margin: float = 2.0) -> None:
        """Write the part of the video around the moment as MP4.

        Args:
            path: A new file.
            margin: Seconds before the start and after the end.

        Raises:
            ImageError: The moment is of a stream, which is not recorded; or the video is gone.
            MissingExtraError: PyAV is not installed.
        """
        from finegrain.cameras.clips import write_clip

        crop = None if self.image is None else Crop.of(self.image)
        if crop is None or crop.time is None:
            raise ImageError(
                f"{self.track or self.camera}: expected a moment of a video file, got one of a "
                "stream, which is not recorded. Record it, and watch the folder of the recordings."
            )
        before = _seconds(self.peak) - _seconds(self.start)
        after = _seconds(self.end) - _seconds(self.peak)
        write_clip(crop.path, path, crop.time - before - margin, crop.time + after + margin)

    def to_dict(self) -> dict[str, Any]:
        """Everything except the thumbnail, as values for JSON."""
        return {
            "rank": self.rank,
            "score": self.score,
            **({} if self.probability is None else {"probability": self.probability}),
            "camera": self.camera,
            "track": self.track,
            "start": self.start,
            "end": self.end,
            "peak": self.peak,
            "id": self.id,
            "image": self.image,
            "curve": [list(point) for point in self.curve],
            "metadata": dict(self.metadata),
        }


class Moments(Sequence[Moment]):
    """Moments of a query, best first. ``print`` shows a table.

    Args:
        moments: The moments.
        notes: Notes for the user.
    """

    def __init__(self, moments: Iterable[Moment], notes: Iterable[str] = ()) -> None:
        self._moments = list(moments)
        self.notes = tuple(notes)

    @overload
    def __getitem__(self, at: int) -> Moment: ...
    @overload
    def __getitem__(self, at: slice) -> list[Moment]: ...
    def __getitem__(self, at: int | slice) -> Moment | list[Moment]:
        return self._moments[at]

    def __len__(self) -> int:
        return len(self._moments)

    def to_dicts(self) -> list[dict[str, Any]]:
        """The moments as values for JSON."""
        return [moment.to_dict() for moment in self]

    def __repr__(self) -> str:
        cells = [
            {
                "rank": m.rank,
                "score": f"{m.score:.3f}",
                "probability": None if m.probability is None else f"{m.probability:.2f}",
                "camera": m.camera,
                "start": m.start[:19].replace("T", " "),
                "end": m.end[11:19],
                "peak": m.peak[11:19],
                "seconds": f"{m.seconds:.1f}",
                "id": m.id,
            }
            for m in self
        ]
        table = tabulate(cells, headers="keys", missingval="-", disable_numparse=True)
        return "\n".join([table or "no moments", *(f"note: {note}" for note in self.notes)])


class _Scored(NamedTuple):
    row: Row
    score: float

    @property
    def time(self) -> str:
        return str(self.row.time)


def find_moments(
    retriever: Retriever,
    query: Query,
    k: int,
    *,
    where: str | None,
    per: Per,
    min_probability: float | None,
    gap: float,
) -> Moments:
    """The best moments of a query; see :meth:`finegrain.search.searcher.Searcher.moments`."""
    if per not in ("track", "time"):
        raise QueryError(f"expected per='track' or 'time', got {per!r:.40}")
    if isinstance(gap, bool) or not isinstance(gap, int | float) or not 0 < gap < 86_400:
        raise QueryError(f"expected gap as seconds, above 0 and below a day, got {gap!r:.40}")
    least = checked_probability(min_probability)
    depth = checked_k(k)
    if len(retriever.gallery) == 0:
        raise GalleryError(f"the gallery {retriever.gallery.path} is empty; watch a camera first")
    vector = retriever.encoded([query])[0]
    groups = (
        _tracks(retriever, vector, _CANDIDATES * depth, where)
        if per == "track"
        else _cameras(retriever, vector, where)
    )
    background = float((retriever.scorer.sample.rows() @ vector).mean()) if groups else 0.0
    runs = [
        run
        for rows in groups
        for run in (
            _runs(rows, background, gap) if per == "time" else [_run(rows, background, gap)]
        )
    ]
    best = sorted(runs, key=lambda run: (-run.score, run.pictures[0].row.id))[:depth]
    chances = _chances(retriever, vector, best)
    notes = []
    if least is not None and retriever.calibration is None:
        notes.append(NOT_CALIBRATED)
    elif least is not None:
        best = [run for run in best if chances[_peak(run.pictures).row.id] >= least]
    if not groups:
        notes.append(
            "no picture that fits the filter has a time" + " and a track" * (per == "track")
        )
    thumbnails = retriever.gallery.thumbnails([_peak(run.pictures).row.id for run in best])
    return Moments(
        (
            _moment(rank, run, chances, thumbnails, with_track=per == "track")
            for rank, run in enumerate(best, start=1)
        ),
        notes,
    )


def _tracks(
    retriever: Retriever, vector: Vectors, count: int, where: str | None
) -> list[list[_Scored]]:
    """The pictures of the tracks that fit best, each by time."""
    gallery = retriever.gallery
    if not gallery.values("track", 1):
        raise QueryError(
            "no picture has a track, which `finegrain watch` stores. Use per='time' for frames "
            "without tracks."
        )
    (hits,) = gallery.search(vector[None], count, where, group_by="track")
    names = {row.track for row in gallery.rows(hit.id for hit in hits) if row.track is not None}
    if not names:
        return []
    quoted = ", ".join("'" + n.replace("\\", "\\\\").replace("'", "''") + "'" for n in names)
    own = f"track in ({quoted})"
    ids = gallery.ids_where(own if where is None else f"({where}) and {own}")
    tracks: dict[str | None, list[_Scored]] = {}
    for scored in _scored(retriever, vector, ids):
        tracks.setdefault(scored.row.track, []).append(scored)
    return list(tracks.values())


def _cameras(retriever: Retriever, vector: Vectors, where: str | None) -> list[list[_Scored]]:
    """The best pictures of each camera, by time."""
    (hits,) = retriever.gallery.search(vector[None], _MOST_ROWS, where)
    cameras: dict[str | None, list[_Scored]] = {}
    for scored in _scored(retriever, vector, [hit.id for hit in hits]):
        cameras.setdefault(scored.row.camera, []).append(scored)
    return list(cameras.values())


def _scored(retriever: Retriever, vector: Vectors, ids: Sequence[int]) -> list[_Scored]:
    """Pictures with a time and their scores, by time; without the mean vectors of tracks."""
    gallery = retriever.gallery
    rows = [r for r in gallery.rows(ids) if r.time and r.metadata.get("vector") != MEAN]
    vectors = gallery.vectors(row.id for row in rows)
    scored = [_Scored(r, float(vectors[r.id] @ vector)) for r in rows if r.id in vectors]
    return sorted(scored, key=lambda item: (item.time, item.row.id))


class _Run(NamedTuple):
    """Pictures of one moment, by time, with its score, start and end."""

    pictures: list[_Scored]
    score: float
    start: str
    end: str


def _runs(rows: Sequence[_Scored], background: float, gap: float) -> list[_Run]:
    """All runs of pictures of a camera; missing pictures of the best three count as background."""
    empty = [background] * _BEST
    return [
        _Run(
            run,
            _mean_of_best([*(item.score for item in run), *empty]),
            run[0].time,
            run[-1].time,
        )
        for run in _divided(rows, background, gap)
    ]


def _run(rows: Sequence[_Scored], background: float, gap: float) -> _Run:
    """The run of pictures of a track around its best one, with the score of the track.

    A track of ``watch`` keeps few pictures, so those may be far apart.
    """
    if "track_start" in rows[0].row.metadata:
        gap = float("inf")
    peak = _peak(rows)
    run = next(run for run in _divided(rows, background, gap) if peak in run)
    first, last = run[0], run[-1]
    # The person was there before the first crop that was kept, and after the last one.
    begins, ends = first is rows[0], last is rows[-1]
    return _Run(
        run,
        _mean_of_best([item.score for item in rows]),
        str(first.row.metadata.get("track_start", first.time)) if begins else first.time,
        str(last.row.metadata.get("track_end", last.time)) if ends else last.time,
    )


def _divided(rows: Sequence[_Scored], background: float, gap: float) -> list[list[_Scored]]:
    """The pictures above half of the peak, divided at gaps."""
    level = _level(rows, background)
    high = [item for item in rows if item.score >= level]
    runs = [[high[0]]]
    for before, after in pairwise(high):
        if _seconds(after.time) - _seconds(before.time) > gap:
            runs.append([])
        runs[-1].append(after)
    return runs


def _level(rows: Sequence[_Scored], background: float) -> float:
    peak = _peak(rows).score
    return peak if peak <= background else background + 0.5 * (peak - background)


def _peak(rows: Sequence[_Scored]) -> _Scored:
    return max(rows, key=lambda item: item.score)


def _mean_of_best(scores: Sequence[float]) -> float:
    return float(np.mean(sorted(scores, reverse=True)[:_BEST]))


def _chances(retriever: Retriever, vector: Vectors, runs: Sequence[_Run]) -> dict[int, float]:
    if retriever.calibration is None:
        return {}
    size = len(retriever.gallery)
    hits = [Hit(_peak(run.pictures).row.id, _peak(run.pictures).score) for run in runs]
    sample = retriever.scorer.sample.rows(size)
    return probabilities(retriever.calibration, Linear(vector), hits, sample, size)


def _moment(
    rank: int,
    run: _Run,
    chances: Mapping[int, float],
    thumbnails: Mapping[int, bytes],
    *,
    with_track: bool,
) -> Moment:
    peak = _peak(run.pictures)
    return Moment(
        rank=rank,
        score=run.score,
        probability=chances.get(peak.row.id),
        camera=peak.row.camera,
        track=peak.row.track if with_track else None,
        start=run.start,
        end=run.end,
        peak=peak.time,
        id=peak.row.id,
        image=peak.row.image,
        curve=tuple(Score(item.time, item.score) for item in run.pictures),
        metadata=peak.row.metadata,
        thumbnail=thumbnails.get(peak.row.id),
    )


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()
