"""Checks the arguments of a call that watches cameras, and runs it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime, timedelta

from finegrain.cameras.detection import DetectorChoice, detector_of
from finegrain.cameras.feed import Tell
from finegrain.cameras.pipeline import Pipeline, Watched, WatchOptions
from finegrain.cameras.sources import Source, cameras_of
from finegrain.encoder import Encoder
from finegrain.errors import CameraError
from finegrain.gallery import Gallery
from finegrain.gallery.entries import checked_retention, checked_time


def watch(
    encoder: Encoder,
    gallery: Gallery,
    sources: Source | Iterable[Source],
    *,
    detector: DetectorChoice,
    every: float,
    best: int,
    start: datetime | str | None,
    follow: bool,
    attempts: int | None,
    seconds: float | None,
    expire_after: timedelta | float | None,
    hardware: str | None,
    tell: Tell,
) -> Watched:
    """Watch cameras; see :meth:`finegrain.search.searcher.Searcher.watch`."""
    _check("every", every, 0.01, 3600.0)
    _check("best", best, 1, 64)
    if attempts is not None:
        _check("attempts", attempts, 1, 1_000_000)
    if seconds is not None:
        _check("seconds", seconds, 0.0, math.inf)
    first = checked_time("start", start)
    cameras = cameras_of(sources, start=None if first is None else datetime.fromisoformat(first))
    options = WatchOptions(
        every=every,
        best=best,
        follow=follow,
        attempts=attempts,
        seconds=seconds,
        expire_after=checked_retention(expire_after),
        hardware=hardware,
    )
    return Pipeline(encoder, gallery, cameras, detector_of(detector), options, tell).run()


def _check(name: str, value: float, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise CameraError(f"expected {name} from {least:g} to {most:g}, got {value!r:.40}")
