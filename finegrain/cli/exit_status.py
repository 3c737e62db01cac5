"""Turns errors of the command line into one line on standard error and an exit status."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable
from typing import TextIO

from finegrain.errors import FinegrainError, FinegrainWarning
from finegrain.records import printable


class IncompleteError(FinegrainError):
    """A verb has done a part of what was asked. The exit status is 3."""


def run_to_status(run: Callable[[], None]) -> int:
    """Run a verb, print an error as one line, and return the exit status."""
    _make_output_safe()
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            run()
            sys.stdout.flush()
        except FinegrainError as error:
            _say(str(error))
            return 3 if isinstance(error, IncompleteError) else 1
        except RecursionError:
            _say("the input is nested too deeply to be read. Flatten it.")
            return 1
        except KeyboardInterrupt:
            _say("stopped")
            return 130
        except BrokenPipeError:
            # The reader of the output has ended, as `head` does.
            _discard_output()
            return 141
        except OSError as error:
            _say(str(error))
            try:
                sys.stdout.flush()
            except OSError:  # for example, the disk is full
                _discard_output()
            return 1
    return 0


def _make_output_safe() -> None:
    """Let any text be printed, also to a closed stream and in a narrow encoding."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed before Python started
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Discard what could not be written; otherwise Python tries again at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(message: str) -> None:
    print(f"finegrain: {printable(message)}", file=sys.stderr)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a warning of finegrain to the user, without the line of code."""
    if issubclass(category, FinegrainWarning):
        _say(f"warning: {message}")
    else:
        print(warnings.formatwarning(message, category, filename, lineno, line), file=sys.stderr)
