"""Every failure of the command line is one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from finegrain.__main__ import main as command_line
from finegrain.cli.parser import main
from finegrain.gallery import Gallery
from finegrain.records import Problem, printable
from tests.unit.gallery.damaging import flip_vector, vectors_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Gallery(tmp_path / "model.gallery", dim=4) as gallery:
        gallery.add(np.eye(3, 4), ["a", "b", "c"])
    return tmp_path / "model.gallery"


def test_a_gallery_is_backed_up_restored_and_checked(path: Path, tmp_path: Path, capsys):
    copy = tmp_path / "copy.gallery"
    assert main(["gallery", "backup", str(path), str(copy)]) == 0
    assert main(["gallery", "backup", str(path), str(copy)]) == 1
    assert "exists already" in capsys.readouterr().err
    with Gallery(path) as gallery:
        gallery.delete([1, 2])
    assert main(["gallery", "restore", str(copy), str(path), "--overwrite"]) == 0
    assert main(["gallery", "check", str(path)]) == 0
    assert "valid; 3 pictures" in capsys.readouterr().out
    assert main(["gallery", "compact", str(path)]) == 0
    assert capsys.readouterr().out == f"compacted {path}, which holds 3 pictures\n"
    assert main(["gallery", "expire", str(path)]) == 0
    assert capsys.readouterr().out == "deleted 0 pictures\n"


def test_a_damaged_gallery_is_reported(path: Path, capsys):
    flip_vector(path, 1)
    assert main(["gallery", "check", str(path)]) == 1
    shown = capsys.readouterr()
    assert "INVALID" in shown.out
    assert "vector of picture 2 does not agree with its checksum" in shown.out
    assert shown.err == f"finegrain: {path} is invalid\n"
    assert main(["doctor", str(path)]) == 1
    assert "does not agree with its checksum" in capsys.readouterr().out


def test_a_warning_is_one_line(path: Path, tmp_path: Path, capsys):
    with Gallery(path) as gallery:
        gallery.add(np.eye(1, 4), ["d"])
        (tmp_path / "copy").write_bytes(path.read_bytes())
        (tmp_path / "copy.vectors").write_bytes(vectors_file(path).read_bytes())
        assert main(["gallery", "check", str(tmp_path / "copy")]) == 0
    said = capsys.readouterr().err
    assert said.startswith(
        f"finegrain: warning: {tmp_path / 'copy'} was copied while it was in use"
    )
    assert said.count("\n") == 1


def test_input_that_nests_too_deeply_is_a_one_line_error(path: Path, capsys):
    deep = "x=" + "[" * 100_000
    assert main(["index", "none.plan", "a.jpg", "--metadata", deep]) == 1
    assert capsys.readouterr().err.startswith("finegrain: the input is nested too deeply")


def test_control_sequences_in_names_are_escaped(path: Path, capsys):
    assert main(["gallery", "check", f"{path}\x1b[2J\x07\x9b31m"]) == 1
    said = capsys.readouterr().err
    assert r"\x1b[2J\x07\x9b31m" in said
    assert str(Problem(where="a\x1b]0;x\x07.jpg", why="bad")) == r"a\x1b]0;x\x07.jpg: bad"
    assert printable("Größe\n日本\u202e") == "Größe\n日本\\u202e"


def test_a_closed_pipe_ends_the_command_without_a_message():
    command = [sys.executable, "-m", "finegrain", "doctor"]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert program.stdout is not None
    assert program.stderr is not None
    program.stdout.close()
    said = program.stderr.read()
    assert program.wait() == 141
    assert said == b""


_INTERRUPTED = """
import signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "finegrain.cli.parser":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder())
from finegrain.__main__ import main
raise SystemExit(main())
"""


# An extension module may turn Ctrl-C into another error.
_SWALLOWED = _INTERRUPTED.replace(
    "            signal.raise_signal(signal.SIGINT)",
    """            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                raise ImportError("initialization failed") from None""",
)


@pytest.mark.parametrize("code", [_INTERRUPTED, _SWALLOWED])
def test_ctrl_c_during_imports_is_a_one_line_message(code: str):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "finegrain: stopped\n")


def test_errors_without_ctrl_c_are_not_hidden(monkeypatch):
    def broken() -> int:
        raise ImportError("initialization failed")

    monkeypatch.setattr("finegrain.cli.parser.main", broken)
    with pytest.raises(ImportError, match="initialization failed"):
        command_line()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_little_is_imported_before_ctrl_c_is_handled():
    code = "import sys, finegrain.__main__; print(*sys.modules)"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-Sc", code], capture_output=True, text=True, cwd=root)
    loaded = set(done.stdout.split()) - {"__main__"}
    ours = {name for name in loaded if name.startswith("finegrain.")}
    assert ours == {"finegrain.__main__", "finegrain.telemetry"}
    assert {name.split(".")[0] for name in loaded - ours} <= sys.stdlib_module_names | {"finegrain"}
    assert not loaded & {"typing", "re", "argparse"}


@pytest.mark.skipif(os.name != "posix", reason="a signal of POSIX")
def test_ctrl_c_during_a_command_is_a_one_line_message(path: Path, monkeypatch, capsys):
    monkeypatch.setattr(Gallery, "check", lambda self: signal.raise_signal(signal.SIGINT))
    assert main(["gallery", "check", str(path)]) == 130
    assert capsys.readouterr().err == "finegrain: stopped\n"


@pytest.mark.parametrize("chosen", [None, "0"])
def test_large_tensors_use_huge_pages_unless_disabled(chosen, monkeypatch):
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", chosen or "")
    if chosen is None:
        monkeypatch.delenv("THP_MEM_ALLOC_ENABLE")
    monkeypatch.setattr("finegrain.cli.parser.main", lambda: 0)
    assert command_line() == 0
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == (chosen or "1")
