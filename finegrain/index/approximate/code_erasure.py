"""Erasing codes of deleted pictures, and files of codes that were not completed."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from finegrain.index.approximate.code_file import CodeFile, CodesInvalidError
from finegrain.index.estimate import Ids


@contextmanager
def draft(path: Path) -> Generator[Path]:
    """The path of a new file until it has replaced the present one; removed if it did not."""
    unfinished = draft_of(path)
    try:
        yield unfinished
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def draft_of(path: Path) -> Path:
    """Path of a new file of codes until it has replaced the present one."""
    return path.with_name(f"{path.name}.next")


def forget_codes(path: Path, ids: Ids) -> None:
    """Overwrite the codes of deleted pictures, ascending, if there is a file.

    Raises:
        OSError: The file cannot be written, and still holds the codes.
    """
    with _existing(path) as file:
        if file is not None:
            file.erase(ids)
            file.cut_off_rest()
    with _existing(draft_of(path)) as file:
        if file is not None:
            file.erase(ids)


def keep_codes(path: Path, ids: Ids) -> None:
    """Overwrite the codes of all pictures but these, ascending, and remove an unfinished file.

    Raises:
        OSError: The file cannot be written, and still holds the codes.
    """
    draft_of(path).unlink(missing_ok=True)
    with _existing(path) as file:
        if file is not None:
            file.keep(ids)
            file.cut_off_rest()


@contextmanager
def _existing(path: Path) -> Generator[CodeFile | None]:
    """A file to erase from. One whose header is damaged is removed instead."""
    try:
        file = CodeFile(path, writable=True)
    except FileNotFoundError:
        yield None
    except CodesInvalidError:
        path.unlink(missing_ok=True)
        yield None
    else:
        with file:
            yield file
