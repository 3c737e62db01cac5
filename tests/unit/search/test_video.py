from __future__ import annotations

import io
import math
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from finegrain.cameras.boxes import inside
from finegrain.errors import GalleryError, ImageError
from finegrain.preprocess import Crop, load_image
from finegrain.search.searcher import Searcher
from finegrain.search.video import Box

av = pytest.importorskip("av")

START = datetime(2026, 5, 1, 8, tzinfo=UTC)
WIDTH, HEIGHT = 96, 128
LEFT, RIGHT = Box(8, 16, 32, 64, track=7, score=0.9), Box(48, 16, 32, 64, track="b")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds with ten frames each; only the colours change."""
    path = tmp_path_factory.mktemp("films") / "gate.mp4"
    rng = np.random.default_rng(0)
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(60):
            if number % 10 == 0:
                blocks = rng.integers(0, 256, (8, 6, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
            frame = av.VideoFrame.from_ndarray(blocks, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def rows(searcher: Searcher):
    return searcher.gallery.rows(searcher.gallery)


def vectors(searcher: Searcher) -> np.ndarray:
    kept = searcher.gallery._store.vectors(searcher.gallery)
    return np.stack([kept[id_] for id_ in sorted(kept)])


def test_rows_of_frames_have_their_time(searcher: Searcher, film: Path):
    added = searcher.add_video(
        film, every=2, camera="gate-3", start=START, metadata={"site": "a"}, progress=False
    )
    assert added.problems == []
    assert [row.image for row in rows(searcher)] == [
        f"{film.resolve()}#t={second}.000" for second in (0, 2, 4)
    ]
    assert [row.time for row in rows(searcher)] == [
        f"2026-05-01T08:00:0{second}.000Z" for second in (0, 2, 4)
    ]
    assert {(row.camera, row.metadata["site"], row.track) for row in rows(searcher)} == {
        ("gate-3", "a", None)
    }


def test_the_address_of_a_row_opens_the_embedded_picture(searcher: Searcher, film: Path):
    searcher.add_video(film, boxes=lambda frame: [LEFT, RIGHT], progress=False)
    searcher.add_video(film, every=3, progress=False)
    assert len(searcher.gallery) == 12 + 2
    again = searcher._encoder.encode_images([Path(str(row.image)) for row in rows(searcher)])
    assert np.allclose(vectors(searcher), again, atol=1e-6)


def test_boxes_of_a_detector_are_embedded(searcher: Searcher, film: Path):
    shapes = []

    def detect(frame: np.ndarray) -> list[Box]:
        shapes.append((frame.shape, frame.dtype))
        return [LEFT, RIGHT]

    added = searcher.add_video(film, every=3, boxes=detect, camera="gate-3", progress=False)
    assert shapes == [((HEIGHT, WIDTH, 3), np.uint8)] * 2
    assert len(added.ids) == 4
    first, second = rows(searcher)[:2]
    assert first.image == f"{film.resolve()}#t=0.000&xywh=8,16,32,64"
    assert (first.track, second.track) == ("gate-3/7", "b")
    assert (first.metadata, second.metadata) == ({"box_score": 0.9}, {})
    assert first.time is None
    thumbnail = searcher.gallery.thumbnail(first.id)
    assert thumbnail is not None
    assert Image.open(io.BytesIO(thumbnail)).size == (32, 64)


def test_given_boxes_determine_the_frames(searcher: Searcher, film: Path):
    result = {3.14: [(0, 0, 10, 20)], 1.0: [(0, 0, 9, 9), LEFT], 1.02: [RIGHT], 77.0: [RIGHT]}
    added = searcher.add_video(film, boxes=result, progress=False)
    addresses = [str(row.image).rpartition("#")[2] for row in rows(searcher)]
    assert addresses == [
        "t=1.000&xywh=0,0,9,9",
        "t=1.000&xywh=8,16,32,64",
        "t=1.100&xywh=48,16,32,64",
        "t=3.200&xywh=0,0,10,20",
    ]
    assert rows(searcher)[1].track == "gate/7"
    assert [problem.why for problem in added.problems] == ["it ends before the last 1 boxes"]


def test_known_boxes_are_skipped_without_detection(searcher: Searcher, film: Path):
    looked = []

    def detect(frame: np.ndarray) -> list[Box]:
        looked.append(frame)
        return [LEFT, RIGHT]

    searcher.add_video(film, every=1, boxes=detect, progress=False)
    searcher.gallery.delete([row.id for row in rows(searcher) if "#t=4." in str(row.image)])
    assert len(looked) == 6
    again = searcher.add_video(film, every=1, boxes=detect, progress=False)
    assert len(looked) == 7
    assert (len(again.ids), again.num_known) == (2, 10)
    whole = searcher.add_video(film, every=1, progress=False)
    assert (len(whole.ids), whole.num_known) == (6, 0)
    assert searcher.add_video(film, every=1, progress=False).num_known == 6


def test_after_an_interruption_a_frame_is_complete_or_absent(searcher: Searcher, film: Path):
    searcher._encoder.batch_size = 3
    calls = iter(range(100))

    def detect(frame: np.ndarray) -> list[Box]:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return [LEFT, RIGHT]

    with pytest.raises(KeyboardInterrupt):
        searcher.add_video(film, every=1, boxes=detect, progress=False)
    kept = len(searcher.gallery)
    assert 0 < kept < 12
    assert kept % 2 == 0
    again = searcher.add_video(film, every=1, boxes=detect, progress=False)
    assert (again.num_known, len(searcher.gallery)) == (kept, 12)


def test_boxes_are_clipped_and_those_outside_are_named(searcher: Searcher, film: Path):
    outside = [
        (WIDTH, 0, 5, 5),
        (-9, 0, 9, 5),
        (0, 0, 0, 5),
        (0, 0, 5, math.nan),
        (0, HEIGHT, 1, 1),
    ]
    added = searcher.add_video(film, boxes={0.0: [(-10, -10, 30, 1e9), *outside]}, progress=False)
    assert [str(row.image).rpartition("=")[2] for row in rows(searcher)] == ["0,0,20,128"]
    assert len(added.problems) == len(outside)
    assert "holds nothing of the frame of 96 x 128 pixels" in str(added.problems[0])


NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_a_box_is_clipped_to_the_frame(x: float, y: float, width: float, height: float):
    visible = inside(Box(x, y, width, height), 40, 30)
    if visible is None:
        return
    left, top, w, h = visible
    assert 0 <= left < left + w <= 40
    assert 0 <= top < top + h <= 30
    assert left <= max(0, x) < left + 1
    assert left + w >= min(40, x + width) > left + w - 1


@pytest.mark.parametrize("box", [(1, 2, 3), (1, 2, 3, "w"), (1, 2, 3, None), 5, (1,) * 9])
def test_boxes_of_another_form_are_refused(searcher: Searcher, film: Path, box):
    with pytest.raises(ImageError, match="expected a box as x, y, width, height"):
        searcher.add_video(film, boxes={0.0: [box]}, progress=False)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"every": 0}, ImageError, "every of 0.001 seconds or more"),
        ({"every": math.nan}, ImageError, "expected every of"),
        ({"every": math.inf}, ImageError, "expected every of"),
        ({"start": "noon"}, GalleryError, "start is a datetime"),
        ({"boxes": {-1.0: [LEFT]}}, ImageError, "0 or more"),
        ({"metadata": {"a": [1]}}, GalleryError, "metadata"),
    ],
)
def test_invalid_options_are_refused(searcher, film, options, error, message):
    with pytest.raises(error, match=message):
        searcher.add_video(film, progress=False, **options)
    assert len(searcher.gallery) == 0


def test_files_that_are_not_videos_are_refused(searcher: Searcher, crops: Path, tmp_path: Path):
    with pytest.raises(ImageError, match="does not exist"):
        searcher.add_video(tmp_path / "gone.mp4", progress=False)
    with pytest.raises(ImageError, match="not a video"):
        searcher.add_video(crops / "00.jpg", progress=False)
    with pytest.raises(ImageError, match="does not exist"):
        searcher.add_video("film\0.mp4", progress=False)
    with pytest.raises(ImageError, match="rename it"):
        searcher.add_video(tmp_path / "film\udcff.mp4", progress=False)


def test_frames_expire_by_their_recording_time(searcher: Searcher, film: Path):
    searcher.add_video(film, every=2, start=START, expire_after=timedelta(9999), progress=False)
    ends = [row.expires_at for row in rows(searcher)]
    assert ends == [f"2053-09-15T08:00:0{second}.000Z" for second in (0, 2, 4)]


def test_matches_of_a_video_open_and_have_a_time(searcher: Searcher, film: Path, tmp_path: Path):
    moved = tmp_path / "gate.mp4"
    moved.write_bytes(film.read_bytes())
    searcher.add_video(moved, boxes={2.0: [LEFT]}, start=START, progress=False)
    match = searcher.query("a person", k=1)[0]
    assert (match.time, match.track) == ("2026-05-01T08:00:02.000Z", "gate/7")
    exact = match.open()
    assert np.array_equal(exact, load_image(Crop(moved, (8, 16, 32, 64), 2.0).address))
    moved.unlink()
    assert np.abs(np.asarray(match.open(), int) - np.asarray(exact, int)).mean() < 12


def test_parts_of_pictures_are_separate_rows(searcher: Searcher, crops: Path):
    parts = [Crop(crops / "00.jpg", (0, 0, 32, 64)), Crop(crops / "00.jpg", (32, 0, 32, 64))]
    added = searcher.add([*parts, crops / "00.jpg", *parts], progress=False)
    assert (len(added.ids), added.num_known) == (3, 2)
    assert np.abs(np.diff(vectors(searcher), axis=0)).max(1).min() > 1e-3
    assert searcher.add(parts[0], progress=False).num_known == 1
    assert searcher.add(Path(parts[1].address), progress=False).num_known == 1
    with pytest.raises(ImageError, match="no picture or folder"):
        searcher.add(crops / "gone.jpg#xywh=0,0,8,8", progress=False)
    outside = searcher.add(Crop(crops / "00.jpg", (64, 0, 1, 1)), progress=False)
    assert "outside the picture" in str(outside.problems[0])


def test_reindexing_uses_thumbnails_of_missing_videos(
    searcher: Searcher, film: Path, crops: Path, tmp_path: Path
):
    lost = tmp_path / "lost.mp4"
    lost.write_bytes(film.read_bytes())
    searcher.add(Crop(crops / "00.jpg", (0, 0, 32, 64)), progress=False)
    searcher.add_video(film, boxes={1.0: [LEFT]}, progress=False)
    searcher.add_video(lost, boxes={1.0: [LEFT]}, progress=False)
    before = vectors(searcher)
    lost.unlink()
    done = searcher.gallery.reindex(searcher._encoder, "another plan", progress=False)
    assert (done.num_encoded, done.problems, done.switched) == (3, [], True)
    after = vectors(searcher)
    assert np.allclose(before[:2], after[:2], atol=1e-6)
    assert before[2] @ after[2] > 0.9
