"""Moments: when somebody who fits a query was in front of a camera."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from finegrain.cli.parser import main
from finegrain.errors import GalleryError, ImageError, QueryError
from finegrain.search.searcher import Searcher

START = datetime(2026, 5, 1, 8, tzinfo=UTC)
QUERY = "woman in red coat"
LOW = 0.05  # score of the background


def at(seconds: float) -> str:
    time = START + timedelta(seconds=seconds)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Scores:
    """Adds pictures that have given scores for the query."""

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher
        self._text = searcher._encoder.encode_texts([QUERY])[0].astype(np.float64)
        self._rng = np.random.default_rng(0)

    def vector(self, score: float) -> np.ndarray:
        side = self._rng.standard_normal(len(self._text))
        side -= side @ self._text * self._text
        side /= np.linalg.norm(side)
        return score * self._text + np.sqrt(1 - score**2) * side

    def add(
        self,
        camera: str,
        rows: Sequence[tuple[float, float]],
        *,
        track: str | None = None,
        **columns: str,
    ) -> list[int]:
        """Add ``(seconds, score)`` pictures."""
        return self._searcher._retriever.made().add(
            np.stack([self.vector(score) for _, score in rows]),
            [None] * len(rows),
            cameras=[camera] * len(rows),
            times=[at(seconds) for seconds, _ in rows],
            tracks=[track] * len(rows),
            metadata=[columns] * len(rows),
        )


@pytest.fixture(scope="module")
def filled(tiny_plan: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    """Tracks of two cameras and frames of a third one. Shared: do not change it."""
    with Searcher(tiny_plan, gallery=tmp_path_factory.mktemp("moments") / "g", threads=1) as opened:
        scores = Scores(opened)
        scores.add("noise", [(n, LOW) for n in range(60)])
        # One blurred crop of the wrong person scores best of all pictures.
        scores.add("gate", [(10, LOW), (11, 0.9), (12, LOW), (13, LOW)], track="gate/1/a")
        # The right person comes, is hidden for 20 s, and comes again under the same track.
        high = [(20 + n, 0.6) for n in range(4)]
        scores.add("gate", [*high, (24, 0.1), (45, 0.5), (46, 0.5)], track="gate/2/b")
        span = {"track_start": at(95), "track_end": at(160), "entered_door": at(97)}
        watched = [(100, 0.5), (120, 0.55), (150, 0.5)]
        scores.add("hall", watched, track="hall/1/c", vector="crop", **span)
        scores.add("hall", [(120, 0.99)], track="hall/1/c", vector="mean", **span)
        frames = [(n, 0.7 if n in (5, 6, 7, 9, 30, 31) else LOW) for n in range(40)]
        scores.add("frames", frames)
        yield opened


def test_the_mean_of_the_best_three_pictures_orders_tracks(filled: Searcher):
    moments = filled.moments(QUERY)
    assert [m.track for m in moments] == ["gate/2/b", "hall/1/c", "gate/1/a"]
    assert moments[0].score == pytest.approx(0.6, abs=1e-4)
    assert moments[2].score == pytest.approx((0.9 + 2 * LOW) / 3, abs=1e-4)


def test_a_moment_is_the_run_around_the_peak(filled: Searcher):
    gate = filled.moments(QUERY)[0]
    assert (gate.camera, gate.start, gate.end) == ("gate", at(20), at(23))
    assert at(20) <= gate.peak <= at(23)
    assert gate.seconds == 3
    assert [score for _, score in gate.curve] == pytest.approx([0.6] * 4, abs=1e-4)
    longer = filled.moments(QUERY, gap=30)[0]
    assert longer.end == at(46)


def test_a_track_of_watch_lasts_from_entering_to_leaving(filled: Searcher):
    hall = filled.moments(QUERY)[1]
    assert (hall.start, hall.peak, hall.end) == (at(95), at(120), at(160))
    assert len(hall.curve) == 3  # without the mean vector
    assert hall.metadata["entered_door"] == at(97)


def test_a_person_who_is_swapped_for_another_leaves_before_the_track_ends(searcher: Searcher):
    scores = Scores(searcher)
    scores.add("noise", [(n, LOW) for n in range(40)])
    span = {"track_start": at(0), "track_end": at(50)}
    scores.add("hall", [(5, 0.6), (15, 0.6), (30, LOW), (45, LOW)], track="hall/1/a", **span)
    (moment,) = searcher.moments(QUERY)
    assert (moment.start, moment.end) == (at(0), at(15))


def test_moments_per_time_join_frames_that_are_close(filled: Searcher):
    moments = filled.moments(QUERY, per="time", where="camera = 'frames'")
    assert [(m.start, m.end) for m in moments] == [(at(5), at(9)), (at(30), at(31))]
    assert moments[0].track is None


def test_moments_are_filtered(filled: Searcher):
    assert [m.track for m in filled.moments(QUERY, where="entered_door is not null")] == [
        "hall/1/c"
    ]
    assert len(filled.moments(QUERY, 1)) == 1
    none = filled.moments(QUERY, where="camera = 'frames'")
    assert list(none) == []
    assert "a time and a track" in none.notes[0]
    assert "no moments" in repr(none)


def test_a_picture_is_a_query_for_moments(filled: Searcher, crops: Path):
    picture = next(crops.iterdir())
    vector = filled._encoder.encode_images([picture])[0]
    (best, *_) = filled.moments(picture, 1)
    stored = filled.gallery.vectors([best.id])[best.id]
    assert best.curve[0].score <= float(stored @ vector) + 1e-5


def test_the_least_probability_needs_a_calibration(filled: Searcher):
    moments = filled.moments(QUERY, min_probability=0.5)
    assert len(moments) == 3
    assert "no calibration" in moments.notes[0]


def test_a_clip_of_a_stream_does_not_exist(filled: Searcher, tmp_path: Path):
    with pytest.raises(ImageError, match="which is not recorded"):
        filled.moments(QUERY)[0].save_clip(tmp_path / "clip.mp4")


def test_invalid_requests_are_refused(filled: Searcher, searcher: Searcher):
    for wrong in ({"per": "day"}, {"gap": 0}, {"k": 0}, {"min_probability": 2}):
        with pytest.raises(QueryError):
            filled.moments(QUERY, **wrong)
    with pytest.raises(GalleryError):
        searcher.moments(QUERY)
    Scores(searcher).add("frames", [(0, LOW)])
    with pytest.raises(QueryError, match="no picture has a track"):
        searcher.moments(QUERY)


def test_a_clip_holds_the_frames_around_a_moment(searcher: Searcher, tmp_path: Path):
    av = pytest.importorskip("av")
    from finegrain.cameras.boxes import Box
    from finegrain.synthetic.film_writer import write_film

    film = tmp_path / "gate.mp4"
    write_film(film, (np.full((64, 97, 3), 5 * n, np.uint8) for n in range(50)), 10)

    def detect(pixels: np.ndarray) -> list[Box]:
        return [Box(10, 0, 30, 60, track=1)] if 100 <= pixels.mean() <= 150 else []

    searcher.add_video(film, every=0.5, boxes=detect, start=START, progress=False)
    (moment,) = searcher.moments(QUERY)
    assert (moment.start, moment.end) <= (at(3), at(3))
    moment.save_clip(tmp_path / "clip.mp4", margin=0.5)
    first = moment_second(moment.start) - 0.5
    last = moment_second(moment.end) + 0.5
    with av.open(tmp_path / "clip.mp4") as clip:
        frames = [(f.time, f.to_ndarray(format="rgb24").mean()) for f in clip.decode(video=0)]
    assert len(frames) == round((last - first) * 10) + 1
    for time, level in frames:
        assert level == pytest.approx(50 * (first + time), abs=4)
    with pytest.raises(ImageError, match="exists already"):
        moment.save_clip(tmp_path / "clip.mp4")


def moment_second(time: str) -> float:
    return (datetime.fromisoformat(time) - START).total_seconds()


def test_the_command_prints_a_table_and_json(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with Searcher(plan, threads=1) as opened:
        Scores(opened).add("gate", [(n, 0.5) for n in range(3)], track="gate/1/a")
        Scores(opened).add("noise", [(n, LOW) for n in range(20)])
    assert main(["moments", str(plan), QUERY]) == 0
    printed = capsys.readouterr().out
    assert "2026-05-01 08:00:00" in printed
    assert "08:00:02" in printed
    clips = ["--clips", str(tmp_path / "clips")]
    assert main(["moments", str(plan), QUERY, "--json", *clips]) == 0
    out = capsys.readouterr()
    (moment,) = json.loads(out.out)
    assert (moment["camera"], moment["start"], moment["end"]) == ("gate", at(0), at(2))
    assert "wrote 0 of 1 clips" in out.err
