"""Shows the pictures of matches in the terminal."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Literal

from finegrain.errors import MissingExtraError, require
from finegrain.search.matches import Matches

PicturesChoice = Literal["auto", "always", "never"]

ADVICE = (
    'pictures: --grid matches.png writes them; pip install "finegrain[terminal]" shows them here'
)
_TILE = (160, 120)
"""Height and width of a tile, in pixels; terminals are small."""
_MAX_SHOWN = 20
"""Number of matches of a query that are shown; a screen has no room for more."""
_MIN_LINES = 4


def show_pictures(answers: Sequence[Matches], choice: PicturesChoice, *, advise: bool) -> None:
    """Show the grid of each answer in the terminal.

    The protocol is kitty's or sixel where the terminal says that it has one, and blocks of two
    pixels for each character elsewhere.

    Args:
        answers: The matches of each query.
        choice: ``auto`` shows pictures only if the output goes to a terminal and the library is
            installed.
        advise: Say how to see the pictures if they are not shown in a terminal.

    Raises:
        MissingExtraError: ``choice`` is ``always``, and the library is not installed.
    """
    can_ask = _can_ask()
    if choice == "never" or (choice == "auto" and not can_ask):
        return
    with nullcontext() if can_ask else _without_asking():
        try:
            library = require("textual_image.renderable", "terminal")
            console = require("rich.console", "terminal").Console
        except MissingExtraError:
            if choice == "always":
                raise
            if advise:
                print(ADVICE, file=sys.stderr)
            return
        picture = library.Image if can_ask else library.HalfcellImage
        screen = console(force_terminal=True, color_system="truecolor")
        for answer in answers:
            if answer:
                grid = answer[:_MAX_SHOWN].grid(columns=5, tile=_TILE)
                fitted = picture(grid, width="auto", height="auto")
                screen.print(fitted, height=max(_MIN_LINES, screen.height - 2))


@contextmanager
def _without_asking() -> Iterator[None]:
    """Let the library see no terminal. It asks the terminal at its import, and for sizes."""
    real, sys.__stdout__ = sys.__stdout__, io.StringIO()  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        sys.__stdout__ = real  # type: ignore[misc]


def _can_ask() -> bool:
    """Whether the output goes to a terminal whose answers reach this process.

    Answers come by the standard input. A process in the background is stopped if it changes the
    mode of its terminal.
    """
    if os.environ.get("TERM") == "dumb" or not (sys.stdout.isatty() and sys.stdin.isatty()):
        return False
    try:
        # Serial lines and some containers state no size.
        if not os.get_terminal_size(sys.stdout.fileno()).columns:
            return False
        if sys.platform == "win32":
            return True
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:
        return False
