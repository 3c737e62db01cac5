"""Output of the command line on any destination, and exit statuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from finegrain.cli.parser import main
from finegrain.encoder import Encoder
from finegrain.gallery import Gallery
from finegrain.plan import Plan

STEERING = "a\x1b[31m\x07\x7f\x9b2J\u202e\U000e0001b"
"""Escape sequences of 7 and 8 bits, delete, right-to-left override, and a tag character."""

posix = pytest.mark.skipif(os.name != "posix", reason="limits, names and shells of POSIX")


@pytest.fixture
def filled(plan: Path) -> Path:
    """A plan with a gallery whose names and values have characters of every kind."""
    manifest = Plan(plan).manifest
    with Gallery(
        plan.with_suffix(".gallery"), fingerprint=manifest.fingerprint, dim=manifest.embed_dim
    ) as gallery:
        gallery.add(
            np.eye(3, manifest.embed_dim),
            [f"/crops/{STEERING}.jpg", "/crops/Größe 日本 😀.jpg", "/crops/" + "x" * 3000],
            pids=[STEERING, 1, None],
            cameras=[STEERING, None, None],
            tracks=[STEERING, None, None],
            metadata=[{STEERING: STEERING, "line\nbreak": "a\nb"}, {"long" * 64: "y" * 9000}, {}],
        )
    return plan


def is_safe(text: str) -> bool:
    return all(c.isprintable() or c == "\n" for c in text)


def test_a_table_and_html_and_a_grid_show_no_control_characters(
    filled: Path, tmp_path: Path, capsys
):
    grid = tmp_path / "grid.png"
    assert main(["query", str(filled), "coat", "--grid", str(grid)]) == 0
    assert grid.stat().st_size
    shown = capsys.readouterr()
    assert "3 matches" in shown.out
    assert is_safe(shown.out)
    assert is_safe(shown.err)


def test_json_escapes_control_characters_and_keeps_every_value(filled: Path, capsys):
    assert main(["query", str(filled), "coat", "--json"]) == 0
    shown = capsys.readouterr().out
    assert is_safe(shown)
    assert "Größe 日本 😀" in shown
    (match,) = [m for m in json.loads(shown) if m["pid"] == STEERING]
    assert match["metadata"] == {STEERING: STEERING, "line\nbreak": "a\nb"}


@pytest.mark.parametrize(
    "words",
    [
        ["gallery", "check", "{gallery}"],
        ["gallery", "set", "{gallery}", f"{STEERING}={STEERING}", "--where", "id = 1"],
        ["gallery", "delete", "{gallery}", "--where", "id > 0", "--dry-run"],
        ["gallery", "delete", "{gallery}", "--where", f"camera = 'x{STEERING}'", "--yes"],
        ["gallery", "delete", "{gallery}", "--where", f"{STEERING} = 1", "--yes"],
        ["gallery", "backup", "{gallery}", f"{{gallery}}{STEERING}"],
        ["doctor", "{gallery}"],
        ["doctor", STEERING],
    ],
)
def test_no_verb_prints_control_characters(filled: Path, words: list[str], capsys):
    gallery = str(filled.with_suffix(".gallery"))
    main([word.replace("{gallery}", gallery) for word in words])
    shown = capsys.readouterr()
    assert is_safe(shown.out + shown.err)


def run(*words: object, code: str = "", **options) -> subprocess.CompletedProcess[str]:
    start = f"{code}\nfrom finegrain.__main__ import main; raise SystemExit(main())"
    command = [sys.executable, "-c", start, *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, errors="surrogateescape", **options
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_valid_in_any_encoding(filled: Path, encoding: str):
    done = run("query", filled, "coat", "--json", env={**os.environ, "PYTHONIOENCODING": encoding})
    assert (done.returncode, done.stderr) == (0, "")
    assert any(m["image"] == "/crops/Größe 日本 😀.jpg" for m in json.loads(done.stdout))


@posix
def test_names_that_are_not_unicode_are_reported_in_the_c_locale(
    plan: Path, crops: Path, tmp_path: Path
):
    folder = tmp_path / "crops"
    folder.mkdir()
    shutil.copy(crops / "00.jpg", folder / "Größe.jpg")
    shutil.copy(crops / "01.jpg", os.fsencode(folder) + b"/bad\xff.jpg")
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = run("index", plan, folder, env=env)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0
    assert "added 1" in done.stdout
    assert "its name is not valid Unicode" in done.stdout
    done = run("query", plan, "coat", "--json", env=env)
    assert done.returncode == 0
    assert [Path(m["image"]).name for m in json.loads(done.stdout)] == ["Größe.jpg"]


@posix
@pytest.mark.parametrize(
    ("redirection", "status"), [("| head -c 1", 141), (">&-", 0), ("> /dev/full", 1)]
)
def test_unwritable_output_is_a_one_line_error(filled: Path, redirection: str, status: int):
    if "full" in redirection and not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    line = f'"{sys.executable}" -m finegrain query "{filled}" coat --json {redirection}'
    done = subprocess.run(
        ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True
    )
    # `head` may end before or after all output was written.
    assert done.returncode in ({status, 0} if status == 141 else {status})
    expected = "finegrain: [Errno 28] No space left on device\n" if status == 1 else ""
    assert done.stderr == expected


# --- interruptions ----------------------------------------------------------------------


def many(crops: Path, folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        shutil.copy(crops / f"{number % 12:02d}.jpg", folder / f"{number:03d}.jpg")
    return folder


def test_ctrl_c_during_index_keeps_encoded_pictures(
    plan: Path, crops: Path, tmp_path: Path, monkeypatch, capsys
):
    folder = many(crops, tmp_path / "many", 200)
    stream_images = Encoder.stream_images

    def interrupted(self, *words, **options):
        for number, batch in enumerate(stream_images(self, *words, **options)):
            if number:
                raise KeyboardInterrupt
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "stream_images", interrupted)
        assert main(["index", str(plan), str(folder)]) == 130
    assert capsys.readouterr().err.endswith("finegrain: stopped\n")
    with Gallery(plan.with_suffix(".gallery")) as gallery:
        before = set(gallery)
        assert 0 < len(before) < 200
        assert gallery.check().is_valid
    assert main(["index", str(plan), str(folder)]) == 0
    with Gallery(plan.with_suffix(".gallery")) as gallery:
        assert len(gallery) == 200
        assert before < set(gallery)


def test_ctrl_c_during_a_query_is_a_one_line_message(filled: Path, monkeypatch, capsys):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Encoder, "encode_texts", interrupted)
    assert main(["query", str(filled), "coat"]) == 130
    assert capsys.readouterr() == ("", "finegrain: stopped\n")


@posix
def test_a_full_disk_is_a_one_line_error_and_loses_nothing(plan: Path, crops: Path, tmp_path: Path):
    folder = many(crops, tmp_path / "many", 40)
    assert main(["index", str(plan), str(folder / "000.jpg")]) == 0
    size = plan.with_suffix(".gallery").stat().st_size
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"
    done = run("index", plan, folder, "--metadata", f"note={'x' * 8000}", code=limit)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    assert "finegrain: " in done.stderr.splitlines()[-1]
    with Gallery(plan.with_suffix(".gallery")) as gallery:
        assert len(gallery) == 1
        assert gallery.check().is_valid
    assert main(["index", str(plan), str(folder)]) == 0


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_a_read_only_folder_can_be_searched_but_not_indexed(filled: Path, crops: Path, capsys):
    filled.parent.chmod(0o500)
    try:
        assert main(["query", str(filled), "coat"]) == 0
        assert main(["index", str(filled), str(crops)]) == 1
    finally:
        filled.parent.chmod(0o700)
    assert "open for reading only" in capsys.readouterr().err
