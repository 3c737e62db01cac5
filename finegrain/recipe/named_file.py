"""Finds recipes and export profiles by name.

The files are in the folders ``recipes`` and ``export`` of a checkout. A wheel has them inside the
package, as ``finegrain/_recipes`` and ``finegrain/_export``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Folder = Literal["recipes", "export"]

_PACKAGE = Path(__file__).parents[1]


def find_file(path: Path, folder: Folder) -> Path | None:
    """Find the file that a path or a name means.

    A file, or a run folder, is taken first. A plain name, with or without ``.py``, is searched in
    ``folder`` of the working directory, and then among the files that come with finegrain.

    Returns:
        The file or folder, or None if there is none.
    """
    if path.is_file() or (path / "recipe.json").is_file():
        return path
    is_name = len(path.parts) == 1 and path.suffix in ("", ".py")
    named = named_files(folder).get(path.stem) if is_name else None
    return path if named is None and path.exists() else named


def named_files(folder: Folder) -> dict[str, Path]:
    """All files that have a name: name to file. Those of the working directory take precedence."""
    return {
        path.stem: path
        for place in (shipped_folder(folder), Path(folder))
        for path in sorted(place.glob("*.py"))
    }


def shipped_folder(folder: Folder) -> Path:
    """The folder of the files that come with finegrain."""
    installed = _PACKAGE / f"_{folder}"
    return installed if installed.is_dir() else _PACKAGE.parent / folder
