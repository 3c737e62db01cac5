"""`finegrain index` on videos."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from finegrain.cli.parser import main
from finegrain.gallery import Gallery

av = pytest.importorskip("av")


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "gate.MP4"
    with av.open(path, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 128, "yuv420p"
        for number in range(40):
            pixels = np.full((128, 64, 3), 6 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_frames_of_a_video_are_indexed(plan: Path, film: Path, crops: Path, capsys):
    words = ["index", plan, film, crops, "--every", "1.5", "--start", "2026-05-01T08:00+02:00"]
    assert main([*map(str, words), "--metadata", "camera=gate-3", "--expire-days", "90000"]) == 0
    assert "added 3 pictures" in capsys.readouterr().out
    with Gallery(plan.with_suffix(".gallery")) as gallery:
        rows = gallery.rows(gallery)
    assert len(rows) == 3 + 12
    assert [row.time for row in rows[:3]] == [
        "2026-05-01T06:00:00.000Z", "2026-05-01T06:00:01.500Z", "2026-05-01T06:00:03.000Z"
    ]  # fmt: skip
    assert rows[0].camera == "gate-3"
    assert rows[0].expires_at is not None


def test_a_broken_video_does_not_stop_the_others(plan: Path, film: Path, tmp_path: Path, capsys):
    broken = tmp_path / "broken.mkv"
    broken.write_bytes(b"no film")
    assert main(["index", str(plan), str(broken)]) == 1
    assert "not a video that can be read" in capsys.readouterr().err
    assert main(["index", str(plan), str(broken), str(film)]) == 3
    shown = capsys.readouterr()
    assert "added 4 pictures" in shown.out
    assert f"{broken}: not a video" in shown.err
    assert "left out 1 (1 unreadable input):" in shown.out
