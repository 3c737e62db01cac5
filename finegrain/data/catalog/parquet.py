"""Reader of Parquet tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from finegrain.bounded import parquet as parquet_bounds
from finegrain.data.catalog.row import Row
from finegrain.errors import DataError, require

_MOST_ROWS = 256
"""Number of rows in memory at once; they may have embedded pictures."""


def read_parquet(table: Path) -> Iterator[Row]:
    """Yield the rows of a Parquet table. Embedded pictures are returned as they are stored.

    Raises:
        DataError: The file is damaged, or far larger after unpacking.
        MissingExtraError: pyarrow is not installed.
    """
    pyarrow = require("pyarrow", "parquet")
    parquet = require("pyarrow.parquet", "parquet")
    number = 0
    try:
        parquet_bounds.check_footer(table)
        with parquet.ParquetFile(table) as file:
            num_rows = parquet_bounds.rows_at_once(table, file.metadata, _MOST_ROWS)
            ratio = parquet_bounds.MAX_RATIO
            left = max(parquet_bounds.ALWAYS_READ, ratio * table.stat().st_size)
            short = [f.name for f in file.schema_arrow if str(f.type) in ("float", "halffloat")]
            for batch in file.iter_batches(batch_size=num_rows):
                left -= sum(map(parquet_bounds.unpacked_bytes, batch.columns))
                if left < 0:
                    raise ValueError(
                        f"expected at most {ratio} times its size after unpacking, got more"
                    )
                for cells in batch.to_pylist():
                    for name in short:
                        cells[name] = _shortest(cells[name])
                    number += 1
                    yield Row(f"{table.name} row {number}", cells)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"expected a Parquet table at {table}, could not read it: {error}. Write it again, or "
            "as CSV."
        ) from error


def _shortest(value: float | None) -> float | None:
    """The shortest decimal number of a 32-bit float: 0.1 instead of 0.10000000149011612."""
    return None if value is None else float(str(np.float32(value)))
