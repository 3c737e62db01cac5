"""Reads one camera for as long as it is watched: connects again, and drops what comes too fast."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event
from time import perf_counter

from finegrain.cameras.address import Address
from finegrain.cameras.camera import Camera
from finegrain.cameras.clock import Clock
from finegrain.cameras.counters import Counters
from finegrain.cameras.mailbox import Mailbox
from finegrain.cameras.stream import Frame, LostStreamError, Stream
from finegrain.errors import CameraError
from finegrain.preprocess.frames import VIDEO_SUFFIXES

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before the first and the later attempts to connect again; each wait doubles."""

_POLL_SECONDS = 2.0

Tell = Callable[[str], None]
"""Tells the user about a problem of a camera, at most once until another one."""


class Feed:
    """Puts the frames of one live camera or file into a mailbox.

    Args:
        camera: The camera.
        frames: Receives a frame every ``every`` seconds. If it drops, dropped frames are counted.
        counters: Counts of the camera.
        stop: Set to end reading.
        every: Seconds between frames; those in between are decoded and not kept.
        attempts: How often a live camera is tried in a row before it is given up; None for ever.
        hardware: As for :class:`~finegrain.cameras.stream.Stream`.
        tell: Receives messages about problems.
    """

    def __init__(
        self,
        camera: Camera,
        frames: Mailbox[Frame],
        counters: Counters,
        stop: Event,
        *,
        every: float,
        attempts: int | None = None,
        hardware: str | None = None,
        tell: Tell = lambda message: None,
    ) -> None:
        self._camera = camera
        self._frames = frames
        self._counters = counters
        self._stop = stop
        self._every = every
        self._attempts = attempts
        self._hardware = hardware
        self._tell = tell
        self._clock: Clock | None = None
        self._due = 0.0
        self._failures = 0
        self._ended = False

    def end(self) -> None:
        """Stop reading this camera; others go on."""
        self._ended = True

    def run(self) -> None:
        """Read until the end of a file, the last attempt, or ``stop``; closes the mailbox."""
        try:
            while not (self._stop.is_set() or self._ended):
                try:
                    self._read_once()
                    break
                except LostStreamError as error:
                    self._report(str(error))
                    self._failures += 1
                    if self._attempts is not None and self._failures >= self._attempts:
                        self._counters.failed = True
                        break
                    self._counters.add("reconnects")
                    wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(self._failures - 1, 10))
                    self._stop.wait(wait)
        except CameraError as error:
            self._report(str(error))
            self._counters.failed = True
        finally:
            self._frames.close()

    def _read_once(self) -> None:
        with closing(Stream(self._camera, hardware=self._hardware)) as stream:
            if self._clock is None:
                self._clock = Clock(stream.start, stream.step)
            else:
                self._clock.restart()
            before, jumps = perf_counter(), self._clock.num_jumps
            for stamp, decoded in stream.decoded(self._clock):
                if self._stop.is_set() or self._ended:
                    return
                self._counters.add("frames")
                self._counters.problem = None
                self._failures = 0
                if self._clock.num_jumps > jumps:
                    self._counters.add("jumps")
                    jumps = self._clock.num_jumps
                if stamp.seconds + self._clock.tolerance >= self._due:
                    self._due = stamp.seconds + self._every
                    frame = stream.frame(stamp, decoded)
                    self._counters.add_seconds("decode", perf_counter() - before)
                    if self._frames.put(frame):
                        self._counters.add("dropped")
                else:
                    self._counters.add_seconds("decode", perf_counter() - before)
                before = perf_counter()

    def _report(self, message: str) -> None:
        if message != self._counters.problem:
            self._tell(message)
        self._counters.problem = message


def videos_in(
    camera: Camera, known: Callable[[Path], bool], stop: Event, *, follow: bool
) -> Iterator[Camera]:
    """The videos of the folder of a camera, the oldest first, each once and when it is complete.

    A file is complete if its size did not change between two looks.

    Args:
        camera: The camera, whose address is a folder.
        known: Whether a file was read in an earlier run.
        stop: Set to end looking.
        follow: Wait for more files; otherwise end with those that are there.
    """
    seen: set[Path] = set()
    sizes: dict[Path, int] = {}
    while not stop.is_set():
        files = _video_files(Path(camera.address.text))
        ready = [file for file in files if not follow or sizes.get(file) == files[file]]
        for file in ready:
            if file not in seen and not stop.is_set():
                seen.add(file)
                if not known(file):
                    yield replace(camera, address=Address.of(file))
        if not follow:
            return
        sizes = files
        stop.wait(_POLL_SECONDS)


def _video_files(folder: Path) -> dict[Path, int]:
    try:
        entries = [e for e in os.scandir(folder) if e.is_file()]
    except OSError as error:
        raise CameraError(f"{folder} cannot be read: {error.strerror}.") from error
    videos = [e for e in entries if Path(e.name).suffix.lower() in VIDEO_SUFFIXES]
    status = sorted((e.stat().st_mtime, e.name, e.stat().st_size) for e in videos)
    return {folder / name: size for _, name, size in status}
