"""Reads frames of video files with PyAV."""

from __future__ import annotations

import math
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from finegrain.errors import ImageError, require
from finegrain.preprocess.crop import MAX_SECONDS
from finegrain.preprocess.large import MAX_PIXELS
from finegrain.records import Problem

VIDEO_SUFFIXES = {".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts"}
"""Suffixes of video files. MPEG program streams are not accepted: not every frame has a time stamp,
so a frame could not be located again."""

LONGEST_SIDE = 1024
"""Maximum side of a whole frame, in pixels; larger than the input of any image tower."""

# Formats such as playlists could make the decoder open other files or the network.
_ONLY_THIS_FILE = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts",
}
_HALF_MILLISECOND = 0.0005
_BEFORE = -0.001  # a time before the first frame, which is at 0
_SEEK_GAP = 2.0  # seconds; about the distance of key frames, so a shorter seek would skip no frame
_STEPS_BACK = (0.0, 10.0, 60.0, math.inf)
_UPRIGHT_TURNS = {90: 1, -270: 1, 180: 2, -180: 2, 270: 3, -90: 3}

Due = Callable[[float], float | None]
"""Maps the time of a frame (below 0 before the first) to the time of the next frame to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One upright frame.

    Attributes:
        time: Seconds from the first frame, by its own time stamp.
        pixels: RGB, uint8 ``[H, W, 3]``.
    """

    time: float
    pixels: NDArray[np.uint8]


def each(seconds: float) -> Due:
    """Read frames at a fixed interval in seconds."""
    return lambda time: (math.floor((time + _HALF_MILLISECOND) / seconds) + 1) * seconds


def at_times(times: Sequence[float]) -> Due:
    """Read the first frame at or after each of the given times."""
    ordered = sorted(times)

    def due(time: float) -> float | None:
        i = bisect_right(ordered, time + _HALF_MILLISECOND)
        return ordered[i] if i < len(ordered) else None

    return due


def frame_at(path: str | Path, time: float, *, longest_side: int | None) -> Frame:
    """Read the first frame of a video at or after a time, with a tolerance of half a millisecond.

    Args:
        path: Path of the video.
        time: Seconds from the first frame.
        longest_side: Scale larger frames down to this side; None keeps their size.

    Raises:
        ImageError: The video cannot be read, or ends before the time.
        MissingExtraError: PyAV is not installed.
    """
    try:
        status = os.stat(path)
        version = (status.st_mtime_ns, status.st_size)
    except (OSError, ValueError):
        version = None  # VideoReader reports the error
    return _frame_at(path, version, time, longest_side)


# The people of a frame are opened one after another, and decoding a frame takes half a second.
@lru_cache(maxsize=2)
def _frame_at(
    path: str | Path, version: tuple[int, int] | None, time: float, longest_side: int | None
) -> Frame:
    with VideoReader(path, longest_side=longest_side) as video:
        for frame in video.frames(at_times([time])):
            frame.pixels.flags.writeable = False
            return frame
    raise ImageError(f"{path}: there is no frame at {time:.3f} s or later. Copy the video again.")


def upright(frame: Any, longest_side: int | None) -> NDArray[np.uint8]:
    """Pixels of a decoded frame of PyAV, turned as its file says, RGB uint8 ``[H, W, 3]``."""
    longest = max(frame.width, frame.height)
    scale = min(1.0, (longest_side or longest) / longest)
    rgb = frame.to_ndarray(
        format="rgb24",
        width=max(1, round(frame.width * scale)),
        height=max(1, round(frame.height * scale)),
        interpolation="AREA",
    )
    return np.ascontiguousarray(np.rot90(rgb, _UPRIGHT_TURNS.get(frame.rotation, 0)))


class VideoReader:
    """Reads frames of a local video file.

    Args:
        path: Path of the file.
        longest_side: Scale larger frames down to this side, in pixels.

    Attributes:
        duration: Duration in seconds, as the file states it; None if it does not.
        problems: Problems of the frames that were read so far.

    Raises:
        ImageError: The file cannot be read as a video of an accepted format, or is too large.
        MissingExtraError: PyAV is not installed.
    """

    def __init__(self, path: str | Path, *, longest_side: int | None = None) -> None:
        self._path = Path(path)
        self._longest_side = longest_side
        self._av = require("av", "video")
        self.problems: list[Problem] = []
        self._num_damaged = 0
        self._gap = _SEEK_GAP
        self._container = self._open()
        try:
            self._stream = self._video_stream()
        except ImageError:
            self._container.close()
            raise
        self.duration = self._stated_duration()

    def frames(self, due: Due) -> Iterator[Frame]:
        """Read the frames that are due, in order; the next frame replaces a damaged one."""
        position = _BEFORE
        wanted = due(position)
        decoded = self._decoded()
        while wanted is not None:
            if wanted - position > self._gap:
                decoded = self._skipped_to(wanted, position, decoded)
            result = None
            for time, frame in decoded:
                position = max(position, time)
                if time >= wanted - _HALF_MILLISECOND:
                    result = Frame(time=max(0.0, time), pixels=upright(frame, self._longest_side))
                    break
            if result is None:
                self._report_end(wanted, position)
                break
            yield result
            wanted = due(result.time)
        if self._num_damaged:
            self._report(f"{self._num_damaged} damaged pieces were skipped")

    def close(self) -> None:
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self) -> Any:
        if not self._path.is_file():
            reason = "is not a file" if self._path.exists() else "does not exist"
            raise ImageError(f"{self._path} {reason}. Pass the path of a video.")
        try:
            # The prefix prevents that a file name such as "tcp:..." opens a connection.
            return self._av.open(f"file:{self._path.resolve()}", options=_ONLY_THIS_FILE)
        except (self._av.error.FFmpegError, UnicodeError) as error:
            raise ImageError(
                f"{self._path}: not a video that can be read ({type(error).__name__}). Accepted "
                f"are whole files of {', '.join(sorted(VIDEO_SUFFIXES))}."
            ) from error

    def _video_stream(self) -> Any:
        if not self._container.streams.video:
            raise ImageError(f"{self._path}: there is no video in this file, only other streams.")
        stream = self._container.streams.video[0]
        if stream.codec_context is None:
            raise ImageError(
                f"{self._path}: there is no decoder for its video. Convert it to H.264."
            )
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > MAX_PIXELS:
            raise ImageError(
                f"{self._path}: frames of {width} x {height} are too large; up to {MAX_PIXELS:,} "
                "pixels are decoded. Make the video smaller first."
            )
        # Frames may be larger than the header states, so the decoder checks the limit, too.
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        stream.thread_type = "AUTO"
        return stream

    def _stated_duration(self) -> float | None:
        if self._stream.duration is not None:
            return float(self._stream.duration * self._stream.time_base)
        duration = self._container.duration
        return None if duration is None else duration / self._av.time_base

    def _decoded(self) -> Iterator[tuple[float, Any]]:
        """Times and frames from the current position to the end of the file."""
        packets = self._container.demux(self._stream)
        start = self._stream.start_time or 0
        while (packet := self._next(packets)) is not None:
            try:
                frames = packet.decode()
            except self._av.error.FFmpegError:
                self._num_damaged += 1
                continue
            for frame in frames:
                stamped = frame.pts is not None and not frame.is_corrupt
                time = float((frame.pts - start) * frame.time_base) if stamped else MAX_SECONDS
                if time < MAX_SECONDS:
                    yield time, frame
                else:
                    self._num_damaged += 1

    def _next(self, packets: Iterator[Any]) -> Any:
        try:
            return next(packets, None)
        except self._av.error.FFmpegError:
            self._num_damaged += 1
            return None  # the container itself is damaged, so nothing after it can be read

    def _skipped_to(
        self, wanted: float, position: float, decoded: Iterator[tuple[float, Any]]
    ) -> Iterator[tuple[float, Any]]:
        """Seek to a key frame before a time, so that the frames in between are not decoded."""
        start = self._stream.start_time or 0
        for back in _STEPS_BACK:
            target = max(0.0, wanted - back)
            try:
                self._container.seek(
                    start + int(target / self._stream.time_base), stream=self._stream
                )
            except self._av.error.FFmpegError:
                continue
            decoded = self._decoded()
            first = next(decoded, None)
            # In a container without an index, the seek may end after the target.
            if first is not None and (first[0] <= wanted + _HALF_MILLISECOND or not target):
                if first[0] <= position:
                    self._gap = math.inf  # key frames are too far apart for seeking to help
                return chain([first], decoded)
        return decoded

    def _report_end(self, wanted: float, position: float) -> None:
        # The last frame of an intact file may be slightly before its stated end.
        slack = max(1.0, 2 / float(self._stream.average_rate or 1))
        if self.duration is not None and wanted < self.duration - slack:
            self._report(
                f"its frames end at {max(position, 0):.1f} s of {self.duration:.1f} s; it is "
                "truncated or damaged. Copy it again from its source"
            )

    def _report(self, why: str) -> None:
        self.problems.append(Problem(where=str(self._path), why=why))
