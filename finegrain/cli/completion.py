"""Completion of commands in a shell."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from finegrain.errors import require

SHELLS = ("bash", "zsh", "fish")

INSTALL = """\
  bash  finegrain completion bash > ~/.local/share/bash-completion/completions/finegrain
  zsh   finegrain completion zsh > ~/.zfunc/_finegrain         (with ~/.zfunc in $fpath)
  fish  finegrain completion fish > ~/.config/fish/completions/finegrain.fish"""


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """A script that completes verbs, options, their choices, and paths.

    Args:
        parser: The parser of the command line; its arguments of type ``Path`` complete files.
        shell: ``bash``, ``zsh`` or ``fish``.

    Raises:
        MissingExtraError: ``shtab`` is not installed.
    """
    shtab = require("shtab", "terminal")
    for action in _actions(parser):
        if action.type is Path and action.choices is None:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    script: str = shtab.complete(parser, shell)
    return script


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All arguments of a parser and of its verbs."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for inner in dict.fromkeys(action.choices.values()):
                yield from _actions(inner)
