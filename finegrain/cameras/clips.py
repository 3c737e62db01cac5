"""Writes a part of a video to another file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from finegrain.errors import ImageError, require
from finegrain.preprocess.frames import VideoReader

_TICKS = 1000  # a second
_HALF_TICK = 0.0005


def write_clip(video: str | Path, target: str | Path, start: float, stop: float) -> None:
    """Write the frames of a video between two times as MP4, with the same times between them.

    Args:
        video: Path of the video.
        target: A new file.
        start, stop: Seconds from the first frame.

    Raises:
        ImageError: The video cannot be read, has no frame at that time, or the file exists.
        MissingExtraError: PyAV is not installed.
    """
    av = require("av", "cameras")
    path = Path(target)
    if path.exists():
        raise ImageError(f"{path} exists already. Choose another name.")

    def due(time: float) -> float | None:
        wanted = max(start, 0.0) if time < start or time < 0 else time + 2 * _HALF_TICK
        return wanted if wanted <= stop else None

    with VideoReader(video) as reader:
        frames = reader.frames(due)
        first = next(frames, None)
        if first is None:
            raise ImageError(f"{video}: there is no frame from {start:.1f} s to {stop:.1f} s.")
        with av.open(str(path), "w", format="mp4") as container:
            stream = container.add_stream("mpeg4", rate=25)
            height, width = (side - side % 2 for side in first.pixels.shape[:2])
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            stream.codec_context.time_base = Fraction(1, _TICKS)
            stream.codec_context.qmin, stream.codec_context.qmax = 2, 6
            frame, last = first, -1
            while frame is not None and frame.time <= stop + _HALF_TICK:
                picture = av.VideoFrame.from_ndarray(
                    frame.pixels[:height, :width].copy(), format="rgb24"
                )
                last = max(last + 1, round((frame.time - first.time) * _TICKS))
                picture.pts, picture.time_base = last, Fraction(1, _TICKS)
                container.mux(stream.encode(picture))
                following = next(frames, None)
                if following is None:
                    break
                frame = following
            container.mux(stream.encode())
