"""The verb ``watch``: counts, messages and exit statuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fixtures.onnx_detectors import write_detector

from finegrain.cli.parser import main
from finegrain.synthetic.film_writer import write_film

pytest.importorskip("av")
pytest.importorskip("trackers")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of a bright place that moves, and a file that is no film."""
    folder = tmp_path_factory.mktemp("films")
    frames = []
    for number in range(12):
        pixels = np.random.default_rng(0).integers(30, 70, (288, 384, 3), np.uint8)
        pixels[80:220, 60 + 12 * number : 130 + 12 * number] = 255
        frames.append(pixels)
    write_film(folder / "gate.mp4", frames, 5)
    (folder / "broken.mp4").write_bytes(bytes(3000))
    write_detector(folder / "detector.onnx", "end_to_end")
    return folder


def test_counts_are_printed_and_a_bad_camera_changes_the_status(
    plan: Path, films: Path, capsys: pytest.CaptureFixture[str]
):
    detector = ["--detector", str(films / "detector.onnx")]
    start = ["--start", "2026-05-01T08:00"]
    gate, broken = str(films / "gate.mp4"), str(films / "broken.mp4")
    assert main(["watch", str(plan), gate, *detector, *start, "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)["cameras"]["gate"]["counts"]
    assert counts["frames"] == 12
    assert counts["tracks"] >= 1
    assert counts["crops"] >= 1
    assert main(["watch", str(plan), gate, broken, *detector, *start]) == 3
    printed = capsys.readouterr()
    assert "watched 2 cameras" in printed.out
    assert printed.err.startswith(f"broken: {broken} cannot be read")
    assert "could not be read: broken" in printed.err
    assert main(["watch", str(plan), broken, *detector]) == 1
    assert "no camera could be read" in capsys.readouterr().err
    assert main(["watch", str(plan), "rstp://host/x", *detector]) == 1
    assert "Did you mean 'rtsp'" in capsys.readouterr().err
