"""Reports the results of the verb ``index``, and where unpacked pictures are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from finegrain.cli.exit_status import IncompleteError
from finegrain.errors import ImageError
from finegrain.gallery import Gallery
from finegrain.records import Problem
from finegrain.search.ingest import Added, described


def report_index(total: Added, names: Path, *, sources: Sequence[Path]) -> None:
    """Print the total of all sources, and write the list of all problems to a file.

    Args:
        total: Results of all sources.
        names: Path of the list. If there are no problems, a list of an earlier call is removed.
        sources: Paths of the sources.

    Raises:
        ImageError: There were sources, and nothing of them is in the gallery.
        IncompleteError: A source could not be read, or pictures that are gone were kept.
    """
    num_sources = len(sources)
    if num_sources:
        lines = [
            f"in all: added {total.num_new}, updated {total.num_updated + total.num_reencoded}, "
            f"moved {total.num_moved}, unchanged {total.num_known}, removed {total.num_removed}, "
            f"left out {len(total.problems)}"
            + (f", added by another run {total.num_overtaken}" if total.num_overtaken else "")
        ]
        if num_sources > 1:
            lines += described(total.problems)
        print("\n  ".join(lines))
    if total.problems:
        _write_names(names, total.problems)
        print(f"all {len(total.problems)} that were left out are listed in {names}")
    elif num_sources and not total.is_plan:
        names.unlink(missing_ok=True)
    if num_sources and not total.num_given and not total.num_removed:
        first = f"; {total.problems[0]}" if total.problems else ""
        raise ImageError(f"nothing was added{first}")
    paths = {*map(str, sources)}
    num_bad = len({problem.where for problem in total.problems} & paths)
    if num_bad:
        raise IncompleteError(f"{num_bad} of {num_sources} inputs could not be read")
    if total.refused and not total.is_plan:
        raise IncompleteError(f"kept {len(total.refused)} pictures that are gone")


def unpacked_lines(gallery: Gallery) -> list[str]:
    """Lines about pictures that were unpacked from archives and tables."""
    folders = [str(folder) for folder in gallery.unpacked()]
    return ["unpacked pictures, deleted with their rows:", *folders] if folders else []


def _write_names(path: Path, problems: Sequence[Problem]) -> None:
    """Write one line for each: kind, place and reason.

    File names may identify people, so only the owner may read the file.
    """
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
            for problem in problems:
                cells = (problem.kind.value, problem.where, problem.why)
                file.write("\t".join(" ".join(cell.split()) for cell in cells) + "\n")
    except OSError as error:
        raise ImageError(f"the list of what was left out cannot be written: {error}") from error
