"""Answers as files: a table as CSV, and a ZIP file with the table and the pictures."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterable

from finegrain.records import Scalar
from finegrain.search.matches import Matches

_FIRST = ("rank", "score", "id", "pid", "camera", "time", "track")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def as_csv(matches: Matches) -> bytes:
    """The matches as CSV in UTF-8 (https://www.rfc-editor.org/rfc/rfc4180).

    A text that a spreadsheet would run as a formula gets an apostrophe in front
    (https://owasp.org/www-community/attacks/CSV_Injection).
    """
    names = dict.fromkeys(name for match in matches for name in match.metadata)
    columns = [name for name in names if name not in _FIRST]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([_cell(name) for name in (*_FIRST, *columns)])
    for match in matches:
        values = [getattr(match, name) for name in _FIRST]
        values += [match.metadata.get(name) for name in columns]
        writer.writerow([_cell(value) for value in values])
    return text.getvalue().encode("utf-8", "replace")


def as_zip(matches: Matches, pictures: Iterable[tuple[int, bytes | None]]) -> bytes:
    """A ZIP file with ``matches.csv`` and one JPEG file for each picture.

    Args:
        matches: The matches.
        pictures: Id and JPEG file of each match; None for one that cannot be opened, whose id is
            then listed in ``not_available.txt``.
    """
    file = io.BytesIO()
    missing: list[int] = []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("matches.csv", as_csv(matches))
        for rank, (id_, jpeg) in enumerate(pictures, start=1):
            if jpeg is None:
                missing.append(id_)
            else:
                archive.writestr(f"pictures/{rank:04d}_{id_}.jpg", jpeg)
        if missing:
            lines = "".join(f"{id_}\n" for id_ in missing)
            archive.writestr("not_available.txt", lines)
    return file.getvalue()


def _cell(value: Scalar) -> Scalar:
    if isinstance(value, str) and value.startswith(_FORMULA_STARTS):
        return f"'{value}"
    return value
