"""The biases of pictures: numbers that are added to their inner products.

Only pictures that were given a bias have a row. A change has the next number of the gallery
(``bias_revision``), so that other processes read only changes; zero stays as a row for that reason.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finegrain.gallery.sqlite.rows import AMONG, Run
from finegrain.index.estimate import Ids, Vectors


class StoredBiases(NamedTuple):
    """Biases as they are stored.

    Attributes:
        ids: Ids of pictures with an intact bias, ascending, ``[n]``.
        values: Their biases, ``[n]``.
        damaged: Ids of pictures whose bias does not agree with its checksum.
    """

    ids: Ids
    values: Vectors
    damaged: list[int]


def write_biases(connection: sqlite3.Connection, ids: Sequence[int], values: Vectors) -> int:
    """Set the biases of those ids that are stored; return their number."""
    (revision,) = connection.execute(
        "UPDATE gallery SET bias_revision = bias_revision + 1 RETURNING bias_revision"
    ).fetchone()
    checksums = _checksums(np.array(ids, np.int64), values).tolist()
    cursor = connection.executemany(
        "INSERT OR REPLACE INTO bias SELECT id, ?, ?, ? FROM picture WHERE id = ?",
        (
            (value, checksum, revision, id_)
            for id_, value, checksum in zip(ids, values.tolist(), checksums, strict=True)
        ),
    )
    return cursor.rowcount


def bias_revision(run: Run) -> int:
    """The number of the last change of biases."""
    return int(run("SELECT bias_revision FROM gallery").fetchone()[0])


def biases_since(run: Run, revision: int) -> StoredBiases:
    """The biases that were changed after a revision."""
    return _stored(run("SELECT picture, value, checksum FROM bias WHERE revision > ?", (revision,)))


def biases_of(run: Run, ids: Iterable[int]) -> StoredBiases:
    """The biases of some pictures; those that were never given one are left out."""
    return _stored(
        run(f"SELECT picture, value, checksum FROM bias WHERE picture {AMONG}",
            (json.dumps(list(ids)),))
    )  # fmt: skip


def _stored(rows: Iterable[tuple[int, object, object]]) -> StoredBiases:
    valid, damaged = [], []
    for id_, value, checksum in rows:
        if isinstance(value, float) and isinstance(checksum, int):
            valid.append((id_, value, checksum))
        else:
            damaged.append(id_)
    ids = np.array([id_ for id_, _, _ in valid], np.int64)
    with np.errstate(over="ignore"):
        values = np.array([value for _, value, _ in valid], np.float32)
    intact = _checksums(ids, values) == np.array([sum_ for _, _, sum_ in valid], np.int64)
    damaged += ids[~intact].tolist()
    order = np.flatnonzero(intact)[np.argsort(ids[intact])]
    return StoredBiases(ids[order], values[order], damaged)


def _checksums(ids: Ids, values: Vectors) -> npt.NDArray[np.int64]:
    """Hashes of 32 bits of ids and biases. CRC-32 would need a call for each."""
    mixed = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= values.view(np.uint32).astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    hashes: npt.NDArray[np.int64] = (mixed >> np.uint64(32)).astype(np.int64)
    return hashes
