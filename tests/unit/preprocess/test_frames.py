from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finegrain.errors import ImageError, MissingExtraError
from finegrain.preprocess import Crop, load_image
from finegrain.preprocess import frames as reading
from finegrain.preprocess.frames import VideoReader, at_times, each, frame_at

av = pytest.importorskip("av")

RATE = 10
SIZE = (96, 64)


def shade(second: float) -> int:
    return round(second * 20) % 240


def write_film(
    path: Path,
    times: Iterable[float],
    *,
    size: tuple[int, int] = SIZE,
    codec: str = "libx264",
    gop: int = 10,
    turn: int = 0,
    options: dict[str, str] | None = None,
) -> Path:
    """A video whose grey level encodes the time, with a red corner at the upper left."""
    with av.open(path, "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.bit_rate = 2_000_000
        if turn:
            stream.set_display_rotation(turn)
        for time in times:
            pixels = np.full((size[1], size[0], 3), shade(time), np.uint8)
            pixels[:16, :16] = (255, 0, 0)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(time * RATE), Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def tenths(seconds: float) -> list[float]:
    return [number / RATE for number in range(round(seconds * RATE))]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("films") / "film.mp4", tenths(12))


def seen(path: Path, due: Callable[[float], float | None]) -> list[float]:
    """Times of the frames; the picture of each is checked."""
    with VideoReader(path) as video:
        result = []
        for frame in video.frames(due):
            assert abs(int(np.median(frame.pixels)) - shade(frame.time)) <= 4, frame.time
            result.append(round(frame.time, 3))
        assert video.problems == []
    return result


@pytest.mark.parametrize("step", [0.1, 0.3, 1.0, 2.5, 5.0, 100.0])
def test_frames_are_read_at_the_given_rate(film: Path, step: float):
    wanted = [round(number * step, 3) for number in range(200) if number * step < 11.95]
    assert seen(film, each(step)) == wanted


@given(st.floats(0.001, 100), st.integers(0, 10_000))
def test_the_next_frame_is_always_later(step: float, number: int):
    due = each(step)
    first = due(number * step)
    assert first is not None
    assert number * step < first <= (number + 1.5) * step + 0.001


@pytest.mark.parametrize("gop", [1, 10, 500])
def test_seeking_gives_the_same_frames_as_decoding_everything(
    tmp_path: Path, monkeypatch, gop: int
):
    path = write_film(tmp_path / "film.mp4", tenths(20), gop=gop)
    times = [0.0, 0.1, 4.0, 4.1, 9.9, 10.0, 17.3, 19.9]
    sought = seen(path, at_times(times))
    monkeypatch.setattr(reading, "_SEEK_GAP", float("inf"))
    assert sought == seen(path, at_times(times)) == times


def test_distant_key_frames_are_sought_once(tmp_path: Path, monkeypatch):
    path = write_film(tmp_path / "film.mp4", tenths(8), gop=500)
    seeks = []
    skip = VideoReader._skipped_to
    monkeypatch.setattr(
        VideoReader, "_skipped_to", lambda self, *given: seeks.append(given) or skip(self, *given)
    )
    assert seen(path, each(2.5)) == [0, 2.5, 5, 7.5]
    assert len(seeks) == 1


@pytest.mark.parametrize("name", ["film.mkv", "film.avi", "film.ts", "film.mov"])
def test_other_containers_are_read(tmp_path: Path, name: str):
    if name.endswith("ts"):  # this container has no MPEG-4 with ten frames a second
        with av.open(tmp_path / name, "w") as container:
            stream = container.add_stream("mpeg2video", rate=25)
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
            for number in range(300):
                pixels = np.full((64, 96, 3), shade(number / 25), np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    else:
        write_film(tmp_path / name, tenths(12), codec="mpeg4" if "avi" in name else "libx264")
    assert seen(tmp_path / name, each(4.0)) == [0, 4, 8]
    assert seen(tmp_path / name, at_times([10.4])) == [10.4]


def test_time_stamps_are_used_if_frames_are_irregular(tmp_path: Path):
    times = [0.0, 0.1, 0.2, 1.7, 1.8, 5.0, 5.1, 8.0]
    path = write_film(tmp_path / "film.mp4", times)
    assert seen(path, each(1.0)) == [0.0, 1.7, 5.0, 8.0]
    assert seen(path, at_times([0.15, 0.2, 3.0, 7.9])) == [0.2, 5.0, 8.0]


@pytest.mark.parametrize(("turn", "corner"), [(90, (-1, 0)), (180, (-1, -1)), (-90, (0, -1))])
def test_frames_are_upright(tmp_path: Path, turn: int, corner: tuple[int, int]):
    # Rotations are anticlockwise: by 90 degrees, the upper left corner becomes the lower left one.
    path = write_film(tmp_path / "film.mp4", tenths(1), turn=turn)
    pixels = frame_at(path, 0, longest_side=None).pixels
    assert pixels.shape == ((64, 96, 3) if turn == 180 else (96, 64, 3))
    red, green, _ = map(int, pixels[corner])
    assert red > 150 > 80 > green
    cv2 = pytest.importorskip("cv2")
    again = cv2.VideoCapture(str(path)).read()[1][:, :, ::-1]
    assert np.abs(again.astype(int) - pixels).mean() < 3


def test_a_frame_opens_like_a_picture(film: Path):
    for time in (0.0, 3.3, 11.9):
        whole = np.asarray(load_image(Crop(film, time=time).address))
        assert abs(int(np.median(whole)) - shade(time)) <= 4
        part = np.asarray(load_image(Crop(film, (8, 4, 20, 30), time).address))
        assert np.array_equal(part, whole[4:34, 8:28])
    with pytest.raises(ImageError, match=r"no frame at 99\.000 s"):
        load_image(Crop(film, time=99).address)


def test_the_parts_of_a_frame_are_decoded_once_until_the_file_changes(tmp_path: Path, monkeypatch):
    path = write_film(tmp_path / "film.mp4", tenths(2))
    opened = []
    real = VideoReader._open
    monkeypatch.setattr(VideoReader, "_open", lambda self: opened.append(self) or real(self))
    parts = [load_image(Crop(path, (x, 0, 8, 8), 1.0).address) for x in (0, 40, 80)]
    assert len(opened) == 1
    parts[1].paste((0, 0, 0), (0, 0, 8, 8))
    again = load_image(Crop(path, (40, 0, 8, 8), 1.0).address)
    assert np.median(again) > 10 > np.median(parts[1])
    write_film(path, [time + 5 for time in tenths(3)])
    later = load_image(Crop(path, (40, 0, 8, 8), 1.0).address)
    assert len(opened) == 2
    assert abs(int(np.median(later)) - shade(6.0)) <= 4


def test_large_frames_are_reduced_but_their_crops_are_not(tmp_path: Path):
    path = write_film(tmp_path / "film.mp4", [0.0, 0.1], size=(1536, 96))
    assert load_image(Crop(path, time=0).address).size == (1024, 64)
    assert load_image(Crop(path, (1400, 0, 136, 96), 0).address).size == (136, 96)


def cut_off(path: Path, share: float) -> Path:
    data = path.read_bytes()
    cut = path.with_stem("cut")
    cut.write_bytes(data[: int(len(data) * share)])
    return cut


@pytest.mark.parametrize("name", ["film.mkv", "film.mp4"])
def test_a_truncated_film_is_read_to_its_end(tmp_path: Path, name: str):
    options = {"movflags": "faststart"} if name.endswith("mp4") else {}
    path = cut_off(write_film(tmp_path / name, tenths(30), options=options), 0.6)
    for step in (0.5, 5.0):  # the second frame by seeking
        with VideoReader(path) as video:
            times = [frame.time for frame in video.frames(each(step))]
            assert 9 < times[-1] < 29
            assert f"of {30.0:.1f} s; it is truncated" in str(video.problems[0])
            assert str(path) in str(video.problems[0])


def test_damaged_frames_are_counted_and_skipped(tmp_path: Path):
    path = write_film(tmp_path / "film.mkv", tenths(30))
    data = bytearray(path.read_bytes())
    for place in range(len(data) // 2, len(data) // 2 + 60):
        data[place] ^= 0x5A
    path.write_bytes(data)
    with VideoReader(path) as video:
        times = [frame.time for frame in video.frames(each(0.1))]
        assert times[-1] > 29
        assert len(times) < 300
        assert "damaged pieces were skipped" in str(video.problems[-1])


@pytest.mark.parametrize("seed", range(12))
def test_any_damage_is_a_finegrain_error_or_a_problem(film: Path, tmp_path: Path, seed: int):
    rng = np.random.default_rng(seed)
    data = bytearray(film.read_bytes())
    for place in rng.integers(0, len(data), 40):
        data[place] = int(rng.integers(256))
    path = tmp_path / "film.mp4"
    path.write_bytes(data)
    with suppress(ImageError), VideoReader(path) as video:
        assert len(list(itertools.islice(video.frames(each(0.5)), 1000))) < 1000


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:12\n#EXTINF:12,\nfile://{film}\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize("name", ["list.m3u8", "list.mp4", "list.ts"])
def test_a_file_cannot_refer_to_another_file(film: Path, tmp_path: Path, name: str):
    for text in (PLAYLIST, "ffconcat version 1.0\nfile '{film}'\n"):
        (tmp_path / name).write_text(text.format(film=film))
        with pytest.raises(ImageError, match="not a video that can be read"):
            VideoReader(tmp_path / name)


def test_a_network_address_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("http://localhost:9/film.mp4", "concat:a.mp4|b.mp4", "pipe:0", "tcp:x"):
        with pytest.raises(ImageError, match="does not exist"):
            VideoReader(name)
        with pytest.raises(ImageError, match="does not exist"):
            load_image(f"{name}#t=1.000")


def test_a_file_name_may_have_a_colon(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_film(tmp_path / "film.mp4", tenths(1)).rename("tcp:film.mp4")
    assert seen(Path("tcp:film.mp4"), each(0.5)) == [0.0, 0.5]


@pytest.mark.parametrize("content", [b"", b"no film" * 100, b"\0" * 1000])
def test_other_files_are_refused(tmp_path: Path, content: bytes):
    (tmp_path / "film.mp4").write_bytes(content)
    with pytest.raises(ImageError, match=r"not a video that can be read .*\.mp4"):
        VideoReader(tmp_path / "film.mp4")


def test_folders_and_audio_files_are_refused(tmp_path: Path):
    with pytest.raises(ImageError, match="is not a file"):
        VideoReader(tmp_path)
    with av.open(tmp_path / "sound.mp4", "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(ImageError, match="only other streams"):
        VideoReader(tmp_path / "sound.mp4")


def test_frames_that_are_too_large_are_refused(film: Path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_PIXELS", 96 * 64 - 1)
    with pytest.raises(ImageError, match="frames of 96 x 64 are too large"):
        VideoReader(film)


def test_a_missing_extra_is_named(film: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"finegrain\[video\]"):
        load_image(Crop(film, time=1).address)
