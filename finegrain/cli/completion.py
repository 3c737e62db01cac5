"""Completion of commands in a shell."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import get_args

from finegrain.errors import require
from finegrain.runtime.base import RuntimeName
from finegrain.zoo.catalog import KNOWN

SHELLS = ("bash", "zsh", "fish")

INSTALL = """\
  bash  finegrain completion bash > ~/.local/share/bash-completion/completions/finegrain
  zsh   finegrain completion zsh > ~/.zfunc/_finegrain         (with ~/.zfunc in $fpath)
  fish  finegrain completion fish > ~/.config/fish/completions/finegrain.fish"""


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """A script that completes verbs, options, their choices, names, and paths.

    Names are those of the recipes, export profiles, datasets, runtimes and published models that
    finegrain has when the script is made.

    Args:
        parser: The parser of the command line; its arguments of type ``Path`` complete files.
        shell: ``bash``, ``zsh`` or ``fish``.

    Raises:
        MissingExtraError: ``shtab`` is not installed.
    """
    shtab = require("shtab", "terminal")
    named = {
        "pull name": Named("model", [model.name for model in KNOWN], or_files=False),
        "runtime": Named("runtime", get_args(RuntimeName), or_files=False),
    }
    # Without the packages for training, recipes and export profiles cannot be used either.
    with suppress(ImportError):
        from finegrain.cli.doctor import dataset_names
        from finegrain.recipe.named_file import named_files

        recipes = Named("recipe", named_files("recipes"))
        named |= {"recipe": recipes, "recipes": recipes, "export data": recipes}
        named["evaluate data"] = Named("dataset", dataset_names(), or_files=False)
        named["profile"] = Named("profile", named_files("export"))
    used: dict[str, Named] = {}
    for verb, action in _actions(parser):
        names = named.get(f"{verb} {action.dest}") or named.get(action.dest)
        if names is not None and action.choices is None:
            used[names.function] = names
            action.complete = names.candidates()  # type: ignore[attr-defined]
        elif action.type is Path and action.choices is None:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    preamble = {
        "bash": "\n".join(names.in_bash() for names in used.values()),
        "zsh": "\n".join(names.in_zsh() for names in used.values()),
    }
    script: str = shtab.complete(parser, shell, preamble=preamble)
    return script


class Named:
    """Names that an argument takes, and how each shell completes them.

    Args:
        kind: What has the names, in one word.
        names: The names; each is one word.
        or_files: Whether the argument also takes a path.
    """

    def __init__(self, kind: str, names: Iterable[str], *, or_files: bool = True) -> None:
        self.kind = kind
        self.words = " ".join(sorted(names))
        self.or_files = or_files
        self.function = f"_finegrain_{kind}_names"

    def candidates(self) -> dict[str, str]:
        """What shtab writes for an argument in the script of each shell."""
        files = " (__fish_complete_path (commandline -ct))" if self.or_files else ""
        return {"bash": self.function, "zsh": self.function, "fish": f"{self.words}{files}"}

    def in_bash(self) -> str:
        """The function that bash calls with the unfinished word."""
        files = 'compgen -f -- "$1"; ' if self.or_files else ""
        return f'{self.function}() {{ compgen -W "{self.words}" -- "$1"; {files}}}'

    def in_zsh(self) -> str:
        """The function that zsh calls."""
        files = " 'files:file:_files'" if self.or_files else ""
        names = f"'{self.kind}s:{self.kind}:({self.words})'"
        return f"{self.function}() {{ _alternative {names}{files} }}"


def _actions(
    parser: argparse.ArgumentParser, verb: str = ""
) -> Iterator[tuple[str, argparse.Action]]:
    """All arguments of a parser and of its verbs, each with its verb."""
    for action in parser._actions:
        yield verb, action
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from _actions(inner, name)
