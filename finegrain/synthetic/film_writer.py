"""Writes films of synthetic people as video files with their ground truth."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from finegrain.errors import DataError, require
from finegrain.synthetic.canvas import Pixels
from finegrain.synthetic.films import FilmedScene, FilmFrame, film, seen_moments

TRUTH = "films.json"
"""Name of the file with the truth of all films of a folder."""


def write_films(folder: str | Path, scene: FilmedScene) -> list[Path]:
    """Write a film for each camera, such as ``cam_1.mp4``, and then their truth.

    ``films.json`` holds, for each camera, the boxes of the visible people in each frame and the
    moments at which each person is there.

    Returns:
        Paths of the films, in the order of the cameras.

    Raises:
        DataError: The folder holds films already.
        MissingExtraError: PyAV is not installed.
    """
    root = Path(folder)
    if (root / TRUTH).exists():
        raise DataError(f"{root} holds films already. Choose another folder, or delete it.")
    root.mkdir(parents=True, exist_ok=True)
    truth: dict[str, Any] = {}
    paths = []
    for camera in scene.cameras:
        frames: list[FilmFrame] = []
        path = root / f"{camera.name}.mp4"
        write_film(path, (frame.pixels for frame in _kept(film(scene, camera), frames)), scene.rate)
        paths.append(path)
        truth[camera.name] = {
            "frames": [
                {
                    "time": frame.time,
                    "people": [
                        {"walk": p.walk, "pid": p.pid, "box": p.box, "visible": p.visible}
                        for p in frame.people
                    ],
                }
                for frame in frames
            ],
            "moments": [m._asdict() for m in seen_moments(scene, frames, camera)],
        }
    (root / TRUTH).write_text(json.dumps(truth), encoding="utf-8")
    return paths


def write_film(path: str | Path, frames: Iterable[Pixels], rate: int) -> None:
    """Write RGB frames of one size as a video of MPEG-4, which every PyAV can decode.

    Raises:
        MissingExtraError: PyAV is not installed.
    """
    av = require("av", "video")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.pix_fmt = "yuv420p"
        stream.codec_context.qmin, stream.codec_context.qmax = 2, 4
        for number, pixels in enumerate(frames):
            if number == 0:
                stream.height, stream.width = pixels.shape[:2]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _kept(frames: Iterable[FilmFrame], kept: list[FilmFrame]) -> Iterator[FilmFrame]:
    """The same frames; their truth is kept without the pixels."""
    for frame in frames:
        kept.append(FilmFrame(time=frame.time, pixels=frame.pixels[:0, :0], people=frame.people))
        yield frame
