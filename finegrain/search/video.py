"""Adds videos to a gallery: frames at regular times, or detections in them."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from finegrain.cameras.boxes import Box, BoxLike, Detector, boxes_of, checked_box, inside
from finegrain.encoder import Encoder
from finegrain.errors import ImageError
from finegrain.gallery import Gallery
from finegrain.gallery.entries import checked_retention, checked_time, entry_from_mapping
from finegrain.gallery.pictures import name_problem, thumbnail
from finegrain.preprocess import Crop
from finegrain.preprocess.frames import LONGEST_SIDE, Frame, VideoReader, at_times, each
from finegrain.records import Problem
from finegrain.search.ingest import Added, Metadata

SHORTEST_STEP = 0.001
"""Minimum number of seconds between frames: the resolution of stored times."""

_FRAMES_AHEAD = 4


Boxes = Detector | Mapping[float, Sequence[BoxLike]]
"""A detector, or earlier detections: boxes by time in seconds from the first frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    address: str
    image: Image.Image
    columns: Metadata


def ingest_video(
    encoder: Encoder,
    gallery: Gallery,
    path: str | Path,
    *,
    step: float,
    boxes: Boxes | None,
    camera: str | None,
    start: datetime | str | None,
    metadata: Metadata | None,
    expire_after: timedelta | float | None,
    progress: bool,
) -> Added:
    """Encode frames of a video, or parts of them, and store them; see Searcher.add_video."""
    if not SHORTEST_STEP <= step < math.inf:
        raise ImageError(f"expected every of {SHORTEST_STEP} seconds or more, got {step!r}.")
    if (misnamed := name_problem(path)) is not None:
        raise ImageError(str(misnamed))
    first = checked_time("start", start)
    retention = checked_retention(expire_after)
    times = _Timeline(boxes) if isinstance(boxes, Mapping) else None
    detector = None if isinstance(boxes, Mapping) else boxes
    due = each(step) if times is None else at_times(times.all)
    ids: list[int] = []

    def pieces_of(film: _Film, frame: Frame) -> list[_Piece]:
        if times is not None:
            return film.parts(frame, times.until(frame.time))
        if detector is None:
            return film.whole(frame)
        return [] if film.is_known(frame) else film.parts(frame, boxes_of(detector(frame.pixels)))

    num_overtaken = 0

    def keep_all(pieces: Sequence[_Piece]) -> None:
        nonlocal num_overtaken
        inserted = gallery.add_entries(
            encoder.encode_images([piece.image for piece in pieces]),
            [
                entry_from_mapping(
                    piece.address,
                    piece.columns,
                    image=piece.address,
                    thumbnail=thumbnail(piece.image),
                    retention=retention,
                )
                for piece in pieces
            ],
            known={*ids},
        )
        ids.extend(inserted.ids)
        num_overtaken += inserted.num_overtaken

    waiting: list[_Piece] = []
    with (
        VideoReader(path, longest_side=LONGEST_SIDE if boxes is None else None) as video,
        # This is closed first, so that decoding ends before the file is closed.
        closing(_ahead(video.frames(due))) as frames,
        tqdm(total=_whole_seconds(video), unit=" s of video", disable=not progress) as bar,
    ):
        film = _Film(path, camera, first, metadata or {}, known=gallery.images())
        for frame in frames:
            waiting += pieces_of(film, frame)
            # All boxes of a frame are stored together, so a frame with stored boxes is complete.
            if len(waiting) >= encoder.batch_size:
                keep_all(waiting)
                waiting = []
            bar.update(round(frame.time) - bar.n)
        if waiting:
            keep_all(waiting)
        problems = film.problems + video.problems
    if times is not None and (unused := times.until(math.inf)):
        problems.append(film.problem(f"it ends before the last {len(unused)} boxes"))
    return Added(
        ids=ids,
        num_new=len(ids) - num_overtaken,
        num_overtaken=num_overtaken,
        num_known=film.num_known,
        problems=problems,
    )


class _Film:
    """Turns frames of a video into pieces with addresses and columns.

    Attributes:
        num_known: Number of pieces that were in the gallery already.
        problems: Boxes outside of their frame.
    """

    def __init__(
        self,
        path: str | Path,
        camera: str | None,
        start: str | None,
        metadata: Metadata,
        *,
        known: set[str],
    ) -> None:
        self._path = path
        self._start = None if start is None else datetime.fromisoformat(start)
        self._columns = metadata if camera is None else {**metadata, "camera": camera}
        self._tracker = camera or Path(path).stem
        name = Crop(path, time=0).address.rpartition("#")[0]
        self._known = {address for address in known if address.startswith(f"{name}#t=")}
        self._num_parts = Counter(a.rpartition("&xywh=")[0] for a in self._known if "&xywh=" in a)
        self.num_known = 0
        self.problems: list[Problem] = []

    def is_known(self, frame: Frame) -> bool:
        """Whether the gallery holds parts of a frame; they are added to ``num_known``."""
        num_parts = self._num_parts[Crop(self._path, time=frame.time).address]
        self.num_known += num_parts
        return num_parts > 0

    def whole(self, frame: Frame) -> list[_Piece]:
        return self._new(frame.time, None, frame.pixels, {})

    def parts(self, frame: Frame, boxes: Sequence[BoxLike]) -> list[_Piece]:
        height, width = frame.pixels.shape[:2]
        pieces: list[_Piece] = []
        for box_like in boxes:
            box = checked_box(box_like)
            visible = inside(box, width, height)
            if visible is None:
                self.problems.append(
                    self.problem(
                        f"the box {tuple(box[:4])} at {frame.time:.3f} s holds nothing of the "
                        f"frame of {width} x {height} pixels; boxes are x, y, width, height"
                    )
                )
                continue
            x, y, w, h = visible
            pixels = frame.pixels[y : y + h, x : x + w]
            pieces += self._new(frame.time, visible, pixels, self._box_columns(box))
        return pieces

    def problem(self, why: str) -> Problem:
        return Problem(where=str(self._path), why=why)

    def _new(
        self,
        time: float,
        box: tuple[int, int, int, int] | None,
        pixels: NDArray[np.uint8],
        columns: Metadata,
    ) -> list[_Piece]:
        address = Crop(self._path, box, time).address
        if address in self._known:
            self.num_known += 1
            return []
        self._known.add(address)
        taken = None if self._start is None else self._start + timedelta(seconds=round(time, 3))
        return [
            _Piece(
                address=address,
                # Without the copy, a small crop would keep its whole frame in memory.
                image=Image.fromarray(pixels.copy()),
                columns={
                    **self._columns,
                    **columns,
                    **({} if taken is None else {"time": taken.isoformat()}),
                },
            )
        ]

    def _box_columns(self, box: Box) -> Metadata:
        track = box.track
        if track is not None and not isinstance(track, str):
            track = f"{self._tracker}/{int(track)}"
        return {
            **({} if track is None else {"track": track}),
            **({} if box.score is None else {"box_score": float(box.score)}),
        }


class _Timeline:
    """Boxes by time; a frame gets all boxes since the previous frame."""

    def __init__(self, boxes: Mapping[float, Sequence[BoxLike]]) -> None:
        if not all(0 <= time < math.inf for time in boxes):
            raise ImageError(
                "expected boxes by time in seconds from the first frame, 0 or more; got "
                f"{next(time for time in boxes if not 0 <= time < math.inf)!r}"
            )
        self.all = sorted(boxes)
        self._remaining = deque((time, boxes[time]) for time in self.all)

    def until(self, time: float) -> list[BoxLike]:
        boxes: list[BoxLike] = []
        while self._remaining and self._remaining[0][0] <= time + SHORTEST_STEP / 2:
            boxes += self._remaining.popleft()[1]
        return boxes


def _whole_seconds(video: VideoReader) -> int | None:
    return None if video.duration is None else round(video.duration)


def _ahead(frames: Iterator[Frame]) -> Generator[Frame, None, None]:
    """The same frames; a few are decoded ahead while others are encoded."""
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(next, frames, None) for _ in range(_FRAMES_AHEAD))
        while (frame := waiting.popleft().result()) is not None:
            waiting.append(pool.submit(next, frames, None))
            yield frame
