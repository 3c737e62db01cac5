"""Streams and files that break, stall, jump, turn, and change their resolution."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import count, cycle
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from fixtures.camera_servers import file_server, jpeg, mjpeg_camera, rtsp_camera

from finegrain.cameras import feed as feeds
from finegrain.cameras import stream as streams
from finegrain.cameras.address import Address
from finegrain.cameras.camera import Camera
from finegrain.cameras.counters import Counters
from finegrain.cameras.feed import Feed, videos_in
from finegrain.cameras.mailbox import Mailbox
from finegrain.cameras.stream import Frame

av = pytest.importorskip("av")

START = datetime(2026, 5, 1, 8, tzinfo=UTC)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(feeds, "_POLL_SECONDS", 0.02)


class Run:
    """A feed that ran to its end, or until it gave enough frames."""

    def __init__(self, address: str | Path, *, most: int = 10_000, every: float = 0.0, **more):
        self.camera = Camera(
            name="gate", address=Address.of(address), start=more.pop("start", None)
        )
        self.counters, self.messages, stop = Counters(), [], Event()
        mailbox: Mailbox[Frame] = Mailbox(4)
        feed = Feed(
            self.camera,
            mailbox,
            self.counters,
            stop,
            every=every,
            tell=self.messages.append,
            **more,
        )
        thread = threading.Thread(target=feed.run)
        thread.start()
        self.frames: list[Frame] = []
        for frame in mailbox:
            self.frames.append(frame)
            if len(self.frames) == most:
                stop.set()
                mailbox.abandon()
        thread.join()

    @property
    def seconds(self) -> list[float]:
        return [round(frame.seconds, 3) for frame in self.frames]


def gray(level: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    return np.full((*size, 3), level, np.uint8)


def write_film(
    path: Path,
    pts: list[int | None],
    *,
    turn: int = 0,
    form: str | None = None,
    codec: str = "mpeg4",
) -> Path:
    """A film of brighter and brighter frames with time stamps in tenths of a second."""
    with av.open(path, "w", format=form) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        if turn:
            stream.set_display_rotation(turn)
        stream.codec_context.options = {"tune": "zerolatency"} if codec == "libx264" else {}
        for number, stamp in enumerate(pts):
            frame = av.VideoFrame.from_ndarray(gray(10 * number % 250), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            for packet in stream.encode(frame):
                packet.pts = packet.dts = stamp
                packet.time_base = Fraction(1, 10)
                container.mux(packet)
    return path


def test_the_frames_of_a_file_have_its_times(tmp_path: Path):
    run = Run(write_film(tmp_path / "gate.mp4", list(range(8))), start=START)
    assert run.seconds == [round(0.1 * n, 3) for n in range(8)]
    assert run.frames[3].time == START + timedelta(seconds=0.3)
    assert {frame.clock for frame in run.frames} == {"stream"}
    assert not run.counters.failed


def test_a_file_that_begins_at_100_s_starts_at_its_start(tmp_path: Path):
    run = Run(write_film(tmp_path / "gate.ts", [1000 + n for n in range(5)]), start=START)
    assert run.seconds == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert run.frames[0].time == START


def test_the_start_of_a_file_is_its_last_change_less_its_duration(tmp_path: Path):
    path = write_film(tmp_path / "gate.mp4", list(range(10)))
    changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    (first, *_) = Run(path).frames
    assert first.time == pytest.approx(changed - timedelta(seconds=1), abs=timedelta(seconds=0.01))


def test_frames_in_between_are_skipped(tmp_path: Path):
    run = Run(write_film(tmp_path / "gate.mp4", list(range(10))), every=0.3)
    assert run.seconds == [0.0, 0.3, 0.6, 0.9]
    assert run.counters["frames"] == 10


def test_a_variable_rate_keeps_its_times(tmp_path: Path):
    run = Run(write_film(tmp_path / "gate.mkv", [0, 1, 2, 9, 10, 40]))
    assert run.seconds == [0.0, 0.1, 0.2, 0.9, 1.0, 4.0]
    assert run.counters["jumps"] == 0


def test_a_jump_of_the_clock_continues_one_frame_later(tmp_path: Path):
    stamps = [0, 1, 2, 500_000, 500_001]
    run = Run(write_film(tmp_path / "gate.mkv", stamps))
    assert run.seconds == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert run.counters["jumps"] == 1


def test_a_file_without_time_stamps_has_the_times_of_its_rate(tmp_path: Path):
    run = Run(write_film(tmp_path / "gate.h264", list(range(5)), form="h264", codec="libx264"))
    assert len(run.frames) == 5
    assert np.diff(run.seconds) == pytest.approx([run.seconds[1]] * 4)
    assert run.seconds[1] > 0


def test_a_turned_film_is_upright(tmp_path: Path):
    if not hasattr(av.VideoStream, "set_display_rotation"):
        path = Path(__file__).parents[1] / "preprocess"
        pytest.skip(f"this PyAV cannot write a rotation; {path} tests reading it")
    run = Run(write_film(tmp_path / "gate.mp4", [0, 1], turn=90))
    assert run.frames[0].pixels.shape == (64, 48, 3)


def test_decoding_falls_back_to_the_processor(tmp_path: Path):
    from av.codec.hwaccel import hwdevices_available

    devices = hwdevices_available()
    path = write_film(tmp_path / "gate.mp4", [0, 1, 2])
    wrong = Run(path, hardware="abacus")
    assert wrong.counters.failed
    assert "expected a decoding device" in wrong.messages[0]
    if devices:
        pixels = [frame.pixels for frame in Run(path).frames]
        run = Run(path, hardware=devices[0])
        assert run.counters.failed or np.array_equal(pixels, [f.pixels for f in run.frames])


def test_garbage_gives_one_message_about_its_camera(tmp_path: Path):
    path = tmp_path / "gate.mp4"
    path.write_bytes(bytes(range(256)) * 40)
    run = Run(path)
    assert run.counters.failed
    assert run.messages == [f"gate: {path} cannot be read: it does not send a video."]


def test_a_missing_codec_is_named_with_the_remedy(tmp_path: Path):
    path = write_film(tmp_path / "gate.mkv", [0, 1, 2])
    data = path.read_bytes()
    assert b"V_MPEG4/ISO/ASP" in data
    path.write_bytes(data.replace(b"V_MPEG4/ISO/ASP", b"V_UNKNOWN/CODEC"))
    run = Run(path)
    assert run.counters.failed
    assert "there is no decoder for its video. Set the camera to H.264" in run.messages[0]


def test_a_film_that_ends_early_gives_the_frames_before(tmp_path: Path):
    whole = write_film(tmp_path / "gate.ts", list(range(40)))
    cut = tmp_path / "cut.ts"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    run = Run(cut)
    assert 5 < len(run.frames) < 40


def test_a_folder_gives_each_complete_film_once(tmp_path: Path):
    camera = Camera(name="gate", address=Address.of(tmp_path))
    growing = write_film(tmp_path / "2.mp4", [0, 1])
    whole = growing.read_bytes()
    write_film(tmp_path / "1.mp4", [0, 1])
    (tmp_path / "notes.txt").write_text("no film")
    stop = Event()
    films = videos_in(camera, lambda file: file.name == "1.mp4", stop, follow=True)
    growing.write_bytes(whole[:100])
    threading.Timer(0.03, growing.write_bytes, [whole]).start()
    assert Path(next(films).address.text) == growing
    later = write_film(tmp_path / "3.mp4", [0, 1])
    assert Path(next(films).address.text) == later
    stop.set()
    assert list(films) == []


def pictures(levels: Iterator[int] | range, pause: float = 0.01) -> Iterator[bytes]:
    for level in levels:
        yield jpeg(gray(level))
        time.sleep(pause)


def test_mjpeg_frames_have_the_time_of_their_arrival():
    before = datetime.now(UTC)
    with mjpeg_camera(lambda n: pictures(cycle(range(0, 200, 20)))) as address:
        run = Run(address, most=6)
    assert all(frame.clock == "arrival" for frame in run.frames)
    assert before <= run.frames[0].time <= run.frames[-1].time <= datetime.now(UTC)
    assert run.frames[1].pixels.mean() == pytest.approx(run.frames[0].pixels.mean() + 20, abs=3)


def test_a_camera_that_breaks_off_is_connected_again():
    with mjpeg_camera(lambda n: pictures(range(4) if n < 2 else count())) as address:
        run = Run(address, most=10)
    assert run.counters["reconnects"] >= 2
    assert run.seconds == sorted(run.seconds)
    assert run.messages[0].startswith("gate: http://127.0.0.1")


def test_a_stall_ends_the_connection(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(streams, "READ_SECONDS", 0.3)

    def connection(number: int) -> Iterator[bytes]:
        if number == 0:
            yield from pictures(range(3))
            time.sleep(5)
        yield from pictures(count())

    with mjpeg_camera(connection) as address:
        run = Run(address, most=6)
    assert run.counters["reconnects"] == 1
    assert len(run.frames) == 6


def test_a_camera_may_change_its_resolution():
    def connection(number: int) -> Iterator[bytes]:
        for size in cycle([(48, 64), (96, 128), (120, 64)]):
            yield jpeg(gray(90, size))
            time.sleep(0.005)

    with mjpeg_camera(connection) as address:
        run = Run(address, most=6)
    assert len({frame.pixels.shape for frame in run.frames}) == 3


def test_a_wrong_password_is_not_tried_again_and_not_shown():
    with mjpeg_camera(lambda n: pictures(count()), login="admin:hunter2") as address:
        wrong = Run(address.replace("hunter2", "guessed"))
        right = Run(address, most=2)
    assert wrong.counters.failed
    assert wrong.counters["reconnects"] == 0
    (message,) = wrong.messages
    assert "the user name or the password is wrong" in message
    assert not any(secret in message for secret in ("admin", "guessed"))
    assert len(right.frames) == 2


def test_a_wrong_address_is_told_once_and_given_up_after_the_attempts():
    run = Run("http://user:secret@127.0.0.1:9/video", attempts=3)
    assert run.counters.failed
    assert run.counters["reconnects"] == 2
    (message,) = run.messages
    assert "http://127.0.0.1:9/video cannot be read: connection refused" in message
    assert "secret" not in message


def test_a_live_camera_that_is_too_fast_drops_the_oldest_frames():
    frames: Mailbox[Frame] = Mailbox(2, drops=True)
    counters, stop = Counters(), Event()
    with mjpeg_camera(lambda n: pictures(range(0, 200, 5), pause=0.002)) as address:
        camera = Camera(name="gate", address=Address.of(address))
        Feed(camera, frames, counters, stop, every=0, attempts=1).run()
    kept = list(frames)
    assert len(kept) == 2
    assert counters["dropped"] == counters["frames"] - 2 > 20
    assert kept[-1].pixels.mean() == pytest.approx(195, abs=3)


def test_hls_over_http_is_read(tmp_path: Path):
    write_film(tmp_path / "live.m3u8", list(range(12)), form="hls", codec="libx264")
    with file_server(tmp_path) as address:
        run = Run(f"{address}/live.m3u8", attempts=1)
    assert len(run.frames) == 12
    assert np.diff(run.seconds) == pytest.approx([0.1] * 11, abs=0.01)


def test_a_playlist_from_the_network_does_not_open_local_files(tmp_path: Path):
    local = write_film(tmp_path / "private.ts", list(range(12)))
    served = tmp_path / "served"
    served.mkdir()
    (served / "live.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{local}\n#EXT-X-ENDLIST\n"
    )
    with file_server(served) as address:
        run = Run(f"{address}/live.m3u8", attempts=1)
    assert run.frames == []
    assert run.counters.failed


def test_rtsp_is_read_and_its_login_is_not_shown():
    pytest.importorskip("rtsp", reason="the RTSP server is the package rtsp-rs")
    with rtsp_camera((gray(20 * n % 200) for n in count()), rate=20) as address:
        run = Run(address, most=5)
    assert {frame.pixels.shape for frame in run.frames} == {(48, 64, 3)}
    assert {frame.clock for frame in run.frames} == {"stream"}
    assert np.diff(run.seconds) == pytest.approx([0.05] * 4, abs=0.011)
    assert "rtsp-secret" not in repr(run.camera)
