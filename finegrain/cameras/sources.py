"""Turns the arguments of a call into cameras."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from finegrain.cameras.address import Address
from finegrain.cameras.camera import Camera
from finegrain.cameras.camera_file import read_camera_file
from finegrain.errors import CameraError

_LISTS = (".yaml", ".yml")

Source = str | Path | Camera
"""An address, a path, a pattern of paths, a YAML list of cameras, or a camera."""


def cameras_of(
    sources: Source | Iterable[Source], *, start: datetime | None = None
) -> list[Camera]:
    """The cameras of addresses, paths, patterns and lists.

    Args:
        sources: One or several sources. A pattern such as ``films/*.mp4`` is a camera for each
            file.
        start: Time of the first frame of files that have no start of their own.

    Raises:
        CameraError: There is nothing at a path, two cameras have one name, or a list is invalid.
    """
    given = [sources] if isinstance(sources, str | Path | Camera) else list(sources)
    cameras = [camera for source in given for camera in _expanded(source)]
    if not cameras:
        raise CameraError("there is nothing to watch: pass addresses, videos, folders or a list")
    _refuse_equal_names(cameras)
    return [
        replace(camera, start=start) if camera.start is None and start is not None else camera
        for camera in cameras
    ]


def _expanded(source: Source) -> Sequence[Camera]:
    if isinstance(source, Camera):
        return [source]
    address = Address.of(source)
    if address.kind not in ("file", "folder"):
        return [Camera(name=address.name, address=address)]
    path = Path(source)
    if path.suffix.lower() in _LISTS:
        return read_camera_file(path)
    if path.exists():
        return [Camera(name=address.name, address=address)]
    files = sorted(glob.glob(str(source), recursive=True)) if glob.has_magic(str(source)) else []
    if not files:
        raise CameraError(
            f"there is no video, folder or device at {source}. A network camera is "
            "rtsp://HOST/PATH or http://HOST/PATH."
        )
    return [Camera(name=Path(file).stem, address=Address.of(file)) for file in files]


def _refuse_equal_names(cameras: Sequence[Camera]) -> None:
    seen: dict[str, Camera] = {}
    for camera in cameras:
        if camera.name in seen:
            raise CameraError(
                f"expected a name of its own for each camera, got {camera.name!r:.60} for "
                f"{seen[camera.name].address} and {camera.address}. Name them in a YAML list."
            )
        seen[camera.name] = camera
