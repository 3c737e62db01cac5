"""Watches several cameras at once.

Each camera has two threads: one decodes, and one detects, tracks and cuts out people. One thread
encodes the crops of all cameras in common batches, and the caller's thread stores them. The stages
are connected by bounded mailboxes. If a stage falls behind, live cameras drop frames, and files
wait.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from time import perf_counter

from finegrain.cameras.analysis import Analysis
from finegrain.cameras.camera import Camera
from finegrain.cameras.counters import Counters
from finegrain.cameras.detection import Detect
from finegrain.cameras.feed import Feed, Tell, videos_in
from finegrain.cameras.finished_files import FinishedFiles
from finegrain.cameras.mailbox import Mailbox
from finegrain.cameras.storing import EncodedSighting, Seen, encoded, store
from finegrain.cameras.stream import Frame
from finegrain.encoder import Encoder
from finegrain.errors import FinegrainError
from finegrain.gallery import Gallery

_FRAMES_WAITING, _TRACKS_WAITING = 3, 32


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchOptions:
    """How cameras are watched.

    Attributes:
        every: Seconds between the frames that are looked at.
        best: Number of crops to keep of each track.
        follow: Wait for more films in folders.
        attempts: How often a live camera is tried in a row before it is given up; None for ever.
        seconds: Stop after this time; None for never.
        expire_after: How long pictures are kept, unless their camera says it.
        hardware: Device that decodes, such as ``cuda``.
    """

    every: float = 0.2
    best: int = 4
    follow: bool = False
    attempts: int | None = None
    seconds: float | None = None
    expire_after: timedelta | None = None
    hardware: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraReport:
    """What happened to one camera.

    Attributes:
        counts: Counts by name; see :class:`~finegrain.cameras.counters.Counters`.
        seconds: Seconds spent in each stage.
        problem: The last problem; None if there is none.
        failed: Whether it was given up.
    """

    counts: dict[str, int]
    seconds: dict[str, float]
    problem: str | None
    failed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """The result of watching cameras.

    Attributes:
        cameras: Reports by the name of the camera.
        seconds: Wall-clock time.
    """

    cameras: dict[str, CameraReport] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def failed(self) -> list[str]:
        """Names of the cameras that were given up."""
        return [name for name, report in self.cameras.items() if report.failed]

    def __repr__(self) -> str:
        number = "1 camera" if len(self.cameras) == 1 else f"{len(self.cameras)} cameras"
        lines = [f"watched {number} for {self.seconds:.1f} s"]
        for name, report in self.cameras.items():
            counts = ", ".join(f"{count} {what}" for what, count in report.counts.items())
            problem = f"; {report.problem}" if report.problem else ""
            lines.append(f"  {name}: {counts or 'nothing'}{problem}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _FileEnd:
    """All sightings of a film of a folder were put into the mailbox."""

    file: Path


class Pipeline:
    """Watches cameras until they end or are stopped.

    Args:
        encoder: Encodes the crops.
        gallery: Stores them.
        cameras: The cameras, with names of their own.
        detect: Detects people in a frame; called from several threads.
        options: How to watch.
        tell: Receives messages about problems, each once.
    """

    def __init__(
        self,
        encoder: Encoder,
        gallery: Gallery,
        cameras: Sequence[Camera],
        detect: Detect,
        options: WatchOptions,
        tell: Tell,
    ) -> None:
        self._encoder = encoder
        self._gallery = gallery
        self._cameras = cameras
        self._detect = detect
        self._options = options
        self._tell = tell
        self._stop = threading.Event()
        self._counters = {camera.name: Counters() for camera in cameras}
        self._tracks: Mailbox[Seen | _FileEnd] = Mailbox(_TRACKS_WAITING)
        self._vectors: Mailbox[list[EncodedSighting | _FileEnd]] = Mailbox(2)
        self._finished = FinishedFiles(_list_beside(gallery))
        self._broken: list[BaseException] = []

    def run(self) -> Watched:
        """Watch; an interrupt from the keyboard ends it after what was seen is stored."""
        start = perf_counter()
        watching = [
            threading.Thread(target=self._watch, args=(camera,), name=f"camera {camera.name}")
            for camera in self._cameras
        ]
        encoding = threading.Thread(target=self._encode, name="encode")
        ending = threading.Thread(target=self._close_after, args=(watching,), name="end")
        timer = threading.Timer(self._options.seconds or 0, self._stop.set)
        for thread in (*watching, encoding, ending):
            thread.daemon = True
            thread.start()
        if self._options.seconds is not None:
            timer.start()
        try:
            self._store_all()
        finally:
            timer.cancel()
            self._stop.set()
            # After an error, nothing takes from the mailboxes, and the threads must not wait.
            self._tracks.abandon()
            self._vectors.abandon()
            for thread in (*watching, encoding, ending):
                thread.join()
        if self._broken:
            raise self._broken[0]
        return Watched(
            cameras={name: _report(counters) for name, counters in self._counters.items()},
            seconds=perf_counter() - start,
        )

    def stop(self) -> None:
        """End watching soon; what was seen is stored."""
        self._stop.set()

    def _watch(self, camera: Camera) -> None:
        counters = self._counters[camera.name]
        try:
            for part in self._parts(camera):
                self._watch_part(part, counters)
        except FinegrainError as error:
            self._give_up(counters, str(error))
        except Exception as error:  # a function of the user may raise anything
            self._give_up(
                counters, f"{camera.name}: the detector failed: {type(error).__name__}: {error}"
            )

    def _give_up(self, counters: Counters, message: str) -> None:
        counters.failed, counters.problem = True, message
        self._tell(message)

    def _parts(self, camera: Camera) -> Iterator[Camera]:
        """The camera itself, or the films of its folder."""
        if camera.address.kind != "folder":
            yield camera
            return
        for part in videos_in(
            camera, self._finished.__contains__, self._stop, follow=self._options.follow
        ):
            yield part
            if not self._stop.is_set():
                self._tracks.put(_FileEnd(Path(part.address.text)))

    def _watch_part(self, camera: Camera, counters: Counters) -> None:
        options = self._options
        frames: Mailbox[Frame] = Mailbox(_FRAMES_WAITING, drops=camera.address.is_live)
        feed = Feed(
            camera,
            frames,
            counters,
            self._stop,
            every=options.every,
            attempts=options.attempts,
            hardware=options.hardware,
            tell=self._tell,
        )
        analysis = Analysis(
            camera,
            self._detect,
            counters,
            every=options.every,
            best=options.best,
            tell=self._tell,
        )
        reading = threading.Thread(target=feed.run, name=f"decode {camera.name}", daemon=True)
        reading.start()
        try:
            for frame in frames:
                for sighting in analysis.sightings(frame):
                    self._tracks.put(Seen(camera=camera, sighting=sighting))
            for sighting in analysis.rest():
                self._tracks.put(Seen(camera=camera, sighting=sighting))
        finally:
            frames.abandon()
            feed.end()
            reading.join()

    def _close_after(self, watching: Sequence[threading.Thread]) -> None:
        for thread in watching:
            thread.join()
        self._tracks.close()

    def _encode(self) -> None:
        most = max(1, self._encoder.batch_size // self._options.best)
        try:
            while items := self._tracks.take(most):
                seen = [item for item in items if isinstance(item, Seen)]
                start = perf_counter()
                sightings: list[EncodedSighting | _FileEnd] = [*encoded(self._encoder, seen)]
                self._share("encode", seen, perf_counter() - start)
                # A film ends after its sightings, which may be in this batch.
                self._vectors.put([*sightings, *(i for i in items if isinstance(i, _FileEnd))])
        except BaseException as error:
            self._broken.append(error)
            self._stop.set()
            self._tracks.abandon()
        finally:
            self._vectors.close()

    def _store_all(self) -> None:
        while True:
            try:
                for items in self._vectors:
                    self._store(items)
                return
            except KeyboardInterrupt:
                if self._stop.is_set():
                    raise
                self._stop.set()

    def _store(self, items: Sequence[EncodedSighting | _FileEnd]) -> None:
        batch = [item for item in items if isinstance(item, EncodedSighting)]
        start = perf_counter()
        store(self._gallery, batch, expire_after=self._options.expire_after)
        self._share("store", [item.seen for item in batch], perf_counter() - start)
        for item in batch:
            self._counters[item.seen.camera.name].add("crops", len(item.vectors))
        for end in items:
            if isinstance(end, _FileEnd):
                self._finished.add(end.file)

    def _share(self, stage: str, seen: Sequence[Seen], seconds: float) -> None:
        """Divide the time of a common batch among its cameras."""
        for item in seen:
            self._counters[item.camera.name].add_seconds(stage, seconds / len(seen))


def _report(counters: Counters) -> CameraReport:
    return CameraReport(
        counts=counters.counts(),
        seconds=counters.seconds(),
        problem=counters.problem,
        failed=counters.failed,
    )


def _list_beside(gallery: Gallery) -> Path | None:
    path = gallery.path
    return path.with_name(f"{path.name}.films") if isinstance(path, Path) else None
