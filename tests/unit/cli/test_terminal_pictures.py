"""Pictures in the terminal, with a pseudo-terminal."""

from __future__ import annotations

import os
import select
import struct
import subprocess
import sys
import time

import pytest
from PIL import Image

from finegrain.cli import terminal_pictures
from finegrain.cli.terminal_pictures import ADVICE, show_pictures
from finegrain.errors import MissingExtraError

pty = pytest.importorskip("pty")
fcntl = pytest.importorskip("fcntl")
termios = pytest.importorskip("termios")

SHOW = """
import sys
from PIL import Image
from finegrain.cli.terminal_pictures import show_pictures

class Answer(list):
    def __getitem__(self, part):
        return Answer(list.__getitem__(self, part))

    def grid(self, **options):
        assert len(self) <= 20
        return Image.new("RGB", (300, 200), "red")

show_pictures([Answer([1] * 50), Answer()], sys.argv[1], advise=True)
print("done")
"""
SIXEL, KITTY, BLOCKS = "\x1bP", "\x1b_G", "▀"
ASKS_ATTRIBUTES = b"\x1b[c"


class Answer(list):
    def __getitem__(self, part):
        return Answer(list.__getitem__(self, part))

    def grid(self, **options):
        assert len(self) <= 20
        return Image.new("RGB", (300, 200), "red")


class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name == "textual_image":
            raise ModuleNotFoundError(name=name)


def in_terminal(choice, *, reply=b"", environment=(), stdin=None, columns=80):
    """Output that the terminal receives, if it answers a query of its attributes with ``reply``."""
    ours, theirs = pty.openpty()
    size = struct.pack("HHHH", 24, columns, 24 * 20, columns * 10)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
    process = subprocess.Popen(
        [sys.executable, "-c", SHOW, choice],
        stdin=theirs if stdin is None else stdin,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm-256color", **dict(environment)},
        preexec_fn=lambda: _own_terminal(theirs),
    )
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                data = os.read(ours, 1 << 16)
            except OSError:  # the terminal is closed
                break
            if not data:
                break
            if reply and ASKS_ATTRIBUTES in data:
                os.write(ours, reply)
            shown += data
        elif process.poll() is not None:
            break
    error = process.communicate()[1].decode()
    os.close(ours)
    assert process.returncode == 0, error
    assert "done" in shown.decode()
    return shown.decode(), error


def _own_terminal(terminal):
    """Make this process the foreground process of the terminal, as a shell does."""
    os.setsid()
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


def test_a_terminal_with_sixel_gets_sixel():
    shown, _ = in_terminal("auto", reply=b"\x1b[?62;4c")
    assert SIXEL in shown
    assert BLOCKS not in shown


def test_a_terminal_that_does_not_answer_gets_blocks():
    shown, _ = in_terminal("auto")
    assert BLOCKS in shown
    assert SIXEL not in shown


@pytest.mark.parametrize(("choice", "environment"), [("never", {}), ("auto", {"TERM": "dumb"})])
def test_pictures_can_be_switched_off(choice, environment):
    shown, _ = in_terminal(choice, environment=environment)
    assert "\x1b" not in shown


def test_the_terminal_is_not_queried_without_terminal_input():
    shown, _ = in_terminal("auto", stdin=subprocess.DEVNULL)
    assert "\x1b" not in shown
    shown, _ = in_terminal("always", stdin=subprocess.DEVNULL)
    assert BLOCKS in shown
    assert ASKS_ATTRIBUTES.decode() not in shown


def test_a_pipe_gets_text_only(capsys):
    show_pictures([Answer([1])], "auto", advise=True)
    assert capsys.readouterr() == ("", "")
    show_pictures([Answer([1])], "always", advise=True)
    assert BLOCKS in capsys.readouterr().out


def test_a_missing_library_is_an_error_only_on_request(monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("textual_image")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NotInstalled(), *sys.meta_path])
    monkeypatch.setattr(terminal_pictures, "_can_ask", lambda: True)
    show_pictures([Answer([1])], "auto", advise=True)
    assert capsys.readouterr() == ("", f"{ADVICE}\n")
    show_pictures([Answer([1])], "auto", advise=False)
    assert capsys.readouterr() == ("", "")
    with pytest.raises(MissingExtraError, match=r"finegrain\[terminal\]"):
        show_pictures([Answer([1])], "always", advise=False)


def test_a_terminal_without_a_size_gets_no_pictures():
    shown, _ = in_terminal("auto", columns=0)
    assert "\x1b" not in shown
