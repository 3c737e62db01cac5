"""Watching cameras: tracks are stored, and one bad camera does not stop the others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from fixtures.camera_servers import jpeg, mjpeg_camera

from finegrain.cameras import feed as feeds
from finegrain.cameras import tracks as tracking
from finegrain.cameras.address import Address
from finegrain.cameras.boxes import Box
from finegrain.cameras.camera import Camera
from finegrain.cameras.zones import Line, Point
from finegrain.errors import CameraError
from finegrain.search.searcher import Searcher
from finegrain.synthetic.film_writer import write_film

pytest.importorskip("av")
pytest.importorskip("trackers")

START = datetime(2026, 5, 1, 8, tzinfo=UTC)
SIZE = (160, 240)
RATE = 5


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(feeds, "_POLL_SECONDS", 0.02)


def picture(red: int | None, blue: int | None = None) -> np.ndarray:
    """A frame with a red person at a column, and a blue one."""
    pixels = np.random.default_rng(0).integers(90, 110, (*SIZE, 3)).astype(np.uint8)
    for column, color in ((red, (220, 30, 30)), (blue, (30, 30, 220))):
        if column is not None and -30 < column < SIZE[1]:
            x0, x1 = max(0, column), min(SIZE[1], column + 30)
            pixels[40:130, x0:x1] = color
            pixels[40:130:6, x0:x1] = 20  # stripes, so that it is sharp
    return pixels


def walk(seconds: float = 6.0) -> Iterator[np.ndarray]:
    """A red person walks to the right during the first half, and a blue one to the left."""
    for number in range(round(seconds * RATE)):
        share = number / (seconds * RATE)
        yield picture(round(480 * share - 30), round(450 - 480 * share))


def detect(pixels: np.ndarray) -> list[Box]:
    """Finds red and blue people."""
    boxes = []
    for channel, other in ((0, 2), (2, 0)):
        hits = pixels[..., channel].astype(int) - pixels[..., other] > 90
        if hits.sum() > 200:
            rows, columns = np.flatnonzero(hits.any(1)), np.flatnonzero(hits.any(0))
            x, y = columns[0], rows[0]
            boxes.append(Box(x, y, columns[-1] + 1 - x, rows[-1] + 1 - y, score=0.9))
    return boxes


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("films") / "gate.mp4"
    write_film(path, walk(), RATE)
    return path


def rows(searcher: Searcher):
    return searcher.gallery.rows(searcher.gallery)


def of_track(searcher: Searcher) -> dict[str, list]:
    tracks: dict[str, list] = {}
    for row in rows(searcher):
        tracks.setdefault(row.track, []).append(row)
    return tracks


def watch(searcher: Searcher, *sources, **more):
    messages: list[str] = []
    result = searcher.watch(
        list(sources), **{"detector": detect, "start": START, "tell": messages.append} | more
    )
    return result, messages


def test_a_track_is_stored_as_its_best_crops_and_their_mean(searcher: Searcher, film: Path):
    result, messages = watch(searcher, film, best=3)
    assert messages == []
    assert result.failed == []
    tracks = of_track(searcher)
    assert len(tracks) == 2
    for track, own in tracks.items():
        camera, number, start = track.split("/")
        assert (camera, start) == ("gate", own[0].metadata["track_start"])
        assert number.isdigit()
        assert [row.metadata["vector"] for row in own] == ["mean", "crop", "crop", "crop"]
        assert own[0].image is None
        times = [row.time for row in own[1:]]
        assert times == sorted(set(times))
        assert own[0].metadata["track_start"] <= times[0]
        assert times[-1] <= own[0].metadata["track_end"]
        stored = searcher.gallery.vectors([row.id for row in own])
        mean = np.mean([stored[row.id] for row in own[1:]], axis=0)
        assert stored[own[0].id] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)
        again = searcher._encoder.encode_images([Path(str(own[1].image))])
        assert stored[own[1].id] == pytest.approx(again[0], abs=1e-5)
    counts = result.cameras["gate"].counts
    assert (counts["tracks"], counts["crops"], counts["frames"]) == (2, 6, 30)
    assert result.cameras["gate"].seconds["detect"] > 0
    assert "gate: " in repr(result)


def test_a_second_run_adds_nothing(searcher: Searcher, film: Path):
    watch(searcher, film)
    before = [row.id for row in rows(searcher)]
    watch(searcher, film)
    assert [row.id for row in rows(searcher)] == before


def test_an_interrupted_run_continues_and_loses_nothing(
    searcher: Searcher, film: Path, monkeypatch: pytest.MonkeyPatch
):
    """The second of the two tracks is not stored: as after a kill between two batches."""
    from finegrain.cameras import pipeline

    real, calls = pipeline.store, iter(range(100))

    def fails(*arguments, **more):
        if next(calls) == 1:
            raise MemoryError("killed")
        return real(*arguments, **more)

    monkeypatch.setattr(pipeline, "store", fails)
    monkeypatch.setattr(pipeline, "_TRACKS_WAITING", 1)
    monkeypatch.setattr(searcher._encoder, "batch_size", 1)
    with pytest.raises(MemoryError):
        watch(searcher, film)
    assert len(of_track(searcher)) == 1
    watch(searcher, film)
    tracks = of_track(searcher)
    assert len(tracks) == 2
    assert all(len(own) == 5 for own in tracks.values())


def test_the_films_of_a_folder_are_watched_once(searcher: Searcher, tmp_path: Path):
    folder = tmp_path / "entrance"
    folder.mkdir()
    write_film(folder / "1.mp4", walk(), RATE)
    (folder / "2.mp4").write_bytes(b"garbage")
    first, messages = watch(searcher, folder, start=None)
    assert [m.startswith("entrance: ") for m in messages] == [True]
    assert first.cameras["entrance"].counts["tracks"] == 2
    assert {row.camera for row in rows(searcher)} == {"entrance"}
    again, _ = watch(searcher, folder, start=None)
    assert "frames" not in again.cameras["entrance"].counts
    write_film(folder / "3.mp4", walk(), RATE)
    third, _ = watch(searcher, folder, start=None)
    assert third.cameras["entrance"].counts["frames"] == 30
    assert len(of_track(searcher)) == 4
    finished = searcher.gallery.path.with_name("model.gallery.films")
    assert finished.stat().st_mode & 0o077 == 0
    assert len(finished.read_text().split()) >= 3


def test_bad_cameras_are_named_and_the_others_go_on(searcher: Searcher, film: Path, tmp_path: Path):
    garbage = tmp_path / "garbage.mp4"
    garbage.write_bytes(bytes(5000))
    calls = count()

    def sometimes(pixels: np.ndarray) -> list[Box]:
        if pixels.shape[0] == 96:
            raise RuntimeError("out of memory")
        boxes = detect(pixels)
        return [*boxes, Box(1e9, -4, np.nan, 5)] if next(calls) % 3 == 0 else boxes

    write_film(tmp_path / "small.mp4", (np.zeros((96, 96, 3), np.uint8) for _ in range(9)), RATE)
    result, messages = watch(
        searcher, film, garbage, tmp_path / "small.mp4", "http://u:secret@127.0.0.1:9/",
        attempts=2, detector=sometimes,
    )  # fmt: skip
    assert sorted(result.failed) == ["127.0.0.1-9", "garbage", "small"]
    text = "\n".join(sorted(messages))
    assert "127.0.0.1-9: http://127.0.0.1:9/ cannot be read: connection refused" in text
    assert f"garbage: {garbage} cannot be read" in text
    assert "small: the detector failed: RuntimeError: out of memory" in text
    assert "gate: the detector gave the box (1e+09, -4, nan, 5)" in text
    assert "secret" not in text
    assert len(messages) == 4
    assert len(of_track(searcher)) == 2
    assert result.cameras["gate"].counts["invalid_boxes"] >= 8


def test_a_live_camera_is_watched_until_its_time_is_over(searcher: Searcher):
    def connection(number: int) -> Iterator[bytes]:
        for pixels in walk(4):
            yield jpeg(pixels)
            time.sleep(0.02)
        while True:
            yield jpeg(picture(None))
            time.sleep(0.02)

    before = datetime.now(UTC)
    with mjpeg_camera(connection) as address:
        camera = Camera(name="yard", address=Address.of(address))
        result, _ = watch(searcher, camera, every=0.02, seconds=1.2, start=None)
    assert result.failed == []
    assert len(of_track(searcher)) >= 2  # a pause of a busy machine may end a track early
    for row in rows(searcher):
        assert row.image is None
        assert before <= datetime.fromisoformat(row.time) <= datetime.now(UTC)
        assert searcher.gallery.thumbnail(row.id) is not None


def test_zones_hours_masks_and_retention_of_a_camera(searcher: Searcher, film: Path):
    right = (Point(0.4, 0), Point(1, 0), Point(1, 1), Point(0.4, 1))
    camera = Camera(
        name="gate",
        address=Address.of(film),
        start=START,
        zones={"right": right},
        lines={"middle": Line(Point(0.5, 1), Point(0.5, 0))},
        expire_after=timedelta(days=20_000),
    )
    watch(searcher, camera)
    red, blue = sorted(of_track(searcher).values(), key=lambda own: own[0].track)
    crossed = {own[0].metadata["crossed_middle"] for own in (red, blue)}
    assert crossed == {"in", "out"}
    assert all(own[0].metadata["entered_right"] for own in (red, blue))
    assert red[0].expires_at.startswith("2081-")
    searcher.gallery.delete(searcher.gallery)

    from dataclasses import replace

    from finegrain.cameras.hours import Hours

    result, _ = watch(searcher, replace(camera, hours=Hours.of(["09:00-10:00"])))
    assert result.cameras["gate"].counts == {"frames": 30, "out_of_hours": 30}
    whole = (Point(0, 0), Point(1, 0), Point(1, 1), Point(0, 1))
    watch(searcher, replace(camera, masks=(whole,)))
    assert len(searcher.gallery) == 0


def test_blurred_thumbnails_replace_the_pictures(searcher: Searcher, film: Path):
    import io

    from PIL import Image

    def sharpness(id_: int) -> float:
        pixels = np.asarray(Image.open(io.BytesIO(searcher.gallery.thumbnail(id_))), float)
        return float(np.abs(np.diff(pixels, axis=0)).mean())

    camera = Camera(name="blurred", address=Address.of(film), start=START, blur=True)
    watch(searcher, film, camera)
    by_camera: dict[str, list] = {}
    for row in rows(searcher):
        by_camera.setdefault(row.camera, []).append(row)
    assert all(row.image is None for row in by_camera["blurred"])
    sharp = np.mean([sharpness(row.id) for row in by_camera["gate"]])
    assert np.mean([sharpness(row.id) for row in by_camera["blurred"]]) < 0.3 * sharp


def test_long_tracks_are_stored_in_parts_with_one_name(
    searcher: Searcher, film: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tracking, "LONGEST_SECONDS", 1.0)
    watch(searcher, film, best=2)
    tracks = of_track(searcher)
    assert len(tracks) == 2
    for own in tracks.values():
        ends = {row.metadata["track_end"] for row in own}
        assert len(ends) > 1
        assert len({row.metadata["track_start"] for row in own}) == 1


def test_invalid_arguments_are_refused(searcher: Searcher, film: Path):
    for wrong in ({"every": 0}, {"best": 0}, {"attempts": 0}, {"seconds": -1}):
        with pytest.raises(CameraError, match=f"expected {next(iter(wrong))} from"):
            watch(searcher, film, **wrong)
