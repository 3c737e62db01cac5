from __future__ import annotations

import builtins
import io
import sys

import pytest

from finegrain.cli.parser import main
from finegrain.search.searcher import Searcher

COLORS = ("red", "blue", "green", "black")


@pytest.fixture(scope="module")
def filled(tiny_plan, crops, tmp_path_factory):
    gallery = tmp_path_factory.mktemp("asking") / "g"
    pictures = sorted(crops.iterdir())
    with Searcher(tiny_plan, gallery=gallery, threads=1) as searcher:
        columns = [{"colour": COLORS[n % 4], "kind": ("a", "b")[n % 2]} for n in range(12)]
        searcher.add(pictures, columns, progress=False)
    return ["query", str(tiny_plan), "coat", "--gallery", str(gallery), "--ask"]


@pytest.fixture
def typed(monkeypatch):
    """``typed([...])`` makes a terminal on which these lines are typed."""

    def type_lines(lines):
        remaining = iter(lines)

        def read(prompt: str = "") -> str:
            try:
                return next(remaining)
            except StopIteration:
                raise EOFError from None

        monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
        monkeypatch.setattr(builtins, "input", read)

    monkeypatch.setattr(sys, "stdin", io.StringIO())
    return type_lines


def test_questions_are_asked_until_the_user_stops(filled, typed, capsys):
    typed(["mauve", "red", "undo", "not red", "", "green", "stop"])
    assert main(filled) == 0
    out, err = capsys.readouterr()
    assert "colour? (" in err
    assert "expected an answer out of" in err
    assert "colour: not red, kind: not known" in out


def test_the_end_of_the_input_stops(filled, typed, capsys):
    typed([])
    assert main(filled) == 0
    assert "12 matches for 'coat'" not in capsys.readouterr().err


def test_without_a_terminal_nothing_is_asked(filled, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("red\n"))
    assert main(filled) == 1
    assert "--ask asks questions on a terminal" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["dress"], "expected one text and no picture for --ask"),
        (["--image", "x.jpg"], "expected one text and no picture for --ask"),
        (["--json", "--offset", "3"], "--ask does not take --offset and --json"),
    ],
)
def test_options_that_do_not_suit_are_named(filled, typed, capsys, more, message):
    typed([])
    assert main([*filled, *more]) == 1
    assert message in capsys.readouterr().err
