"""Exporting a gallery to files that other tools read, and loading such files.

A path that ends in ``.parquet`` is one Parquet file with a row per picture. Any other path
is a folder in the layout of clip-retrieval; folders written by clip-retrieval load too::

    gallery.json                 plan and width
    img_emb/img_emb_0.npy        float32 [n, D]
    metadata/metadata_0.jsonl    n lines; metadata_0.parquet is read as well

Columns are ``id``, ``image_path``, ``pid``, ``camera``, ``time``, ``track``, ``added_at``,
``expires_at``, ``thumbnail``, ``metadata`` and ``score_bias``. JSON holds a thumbnail as base64. A
column of Parquet holds values of one type, so there ``metadata`` is JSON text, and a pid that is a
text is in ``pid_text``. Other columns, as exports of other tools have them, become metadata.
Loading ignores ids: the gallery assigns new ones.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from itertools import count, islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from finegrain.bounded.parquet import check_footer, rows_at_once
from finegrain.errors import GalleryError, require
from finegrain.gallery.backend import Backend
from finegrain.gallery.entries import checked_biases, checked_entry, checked_vectors, stored_length
from finegrain.gallery.row import Entry, Row
from finegrain.gallery.sqlite.schema import short
from finegrain.index.exact import Vectors
from finegrain.records import Pid

_ABOUT = "gallery.json"
_KEY = b"finegrain"
_CHUNK_ROWS = 8192
_BUILT_IN_FIELDS = {
    "image_path",
    "pid",
    "pid_text",
    "camera",
    "time",
    "track",
    "expires_at",
    "thumbnail",
    "metadata",
    "score_bias",
}
_IGNORED = {"id", "added_at", "vector"}
_TIMES = ("time", "added_at", "expires_at")

About = Mapping[str, Any]
Record = dict[str, Any]
"""A row in the exported form: values by the names above."""

Chunk = tuple[Vectors, list[Record]]


def export(store: Backend, target: Path) -> int:
    """Write all pictures to a new file or folder, in bounded memory; return their number.

    Raises:
        GalleryError: The path exists already, or cannot be written.
        MissingExtraError: The path ends in ``.parquet`` and pyarrow is not installed.
    """
    if target.exists():
        raise GalleryError(f"{target} exists already. Export to a new path, or remove it first.")
    about: Record = {"fingerprint": store.fingerprint, "dim": store.dim}
    if store.vectors_per_row > 1:
        about["vectors_per_row"] = store.vectors_per_row
    unfinished = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    write = _write_parquet if target.suffix == ".parquet" else _write_folder
    try:
        num_rows = write(unfinished, about, _chunks(store))
        _restrict_to_owner(unfinished)
        os.replace(unfinished, target)
    except OSError as error:
        raise GalleryError(
            f"{target} cannot be written: {error}. Make space, or choose another place."
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        if unfinished.is_file():
            unfinished.unlink()
    return num_rows


def _restrict_to_owner(export: Path) -> None:
    """Make an export readable by its owner only; it is as personal as the gallery."""
    for path in (export, *export.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)


def load(
    store: Backend, source: Path, finished: Callable[[Vectors, list[Entry]], Sequence[Entry]]
) -> list[int]:
    """Add all pictures of an export, in bounded memory, or none; return their new ids.

    Args:
        store: The gallery's storage.
        source: The export.
        finished: Completes the entries of some vectors.

    Raises:
        GalleryError: There is no export, it is damaged, or its vectors are of another plan or
            width; nothing was written.
        MissingExtraError: The export is Parquet and pyarrow is not installed.
    """
    about, chunks = (_read_parquet if source.is_file() else _read_folder)(source)
    fingerprint = about.get("fingerprint", store.fingerprint)
    if fingerprint != store.fingerprint:
        raise GalleryError(
            f"{source} holds vectors of plan {short(fingerprint)}, and {store.path} those of plan "
            f"{short(store.fingerprint)}; they do not compare. Load it into a gallery of its own."
        )
    vectors_per_row = about.get("vectors_per_row", 1)
    if vectors_per_row != store.vectors_per_row:
        raise GalleryError(
            f"{source} holds {vectors_per_row!r:.20} vectors a picture, and {store.path} "
            f"{store.vectors_per_row}. Load it into a gallery with the same vectors_per_row=."
        )
    numbers = count()
    checked = (
        (
            checked_vectors(vectors, store.dim, stored_length(store.vectors_per_row)),
            [_entry(next(numbers), record) for record in records],
        )
        for vectors, records in chunks
    )
    return store.insert_all((vectors, finished(vectors, entries)) for vectors, entries in checked)


def _chunks(store: Backend) -> Iterator[Chunk]:
    """All pictures in chunks; the gallery is not locked between two chunks."""
    last = 0
    while True:
        with closing(store.vectors_after(last)) as upcoming:
            chunk = next(upcoming, None)
        if chunk is None:
            return
        ids, vectors = chunk
        last = int(ids[-1])
        rows = store.rows(ids.tolist())
        thumbnails = store.thumbnails(rows)
        is_stored = [id_ in rows for id_ in ids.tolist()]  # some may just have been deleted
        biases = store.biases(rows)
        records = [
            _record(row, thumbnails.get(id_), biases.get(id_)) for id_, row in sorted(rows.items())
        ]
        yield vectors[is_stored], records


def _record(row: Row, thumbnail: bytes | None, bias: float | None) -> Record:
    return {
        "id": row.id,
        "image_path": row.image,
        "pid": row.pid,
        "camera": row.camera,
        "time": row.time,
        "track": row.track,
        "added_at": row.added_at,
        "expires_at": row.expires_at,
        "thumbnail": thumbnail,
        "metadata": dict(row.metadata),
        "score_bias": bias,
    }


def _entry(number: int, record: Record) -> Entry:
    other = {n: v for n, v in record.items() if n not in _BUILT_IN_FIELDS | _IGNORED}
    return checked_entry(
        lambda name: f"picture {number}: {name}",
        image=record.get("image_path"),
        pid=_pid(record),
        camera=record.get("camera"),
        time=record.get("time"),
        track=record.get("track"),
        metadata={**(record.get("metadata") or {}), **other},
        thumbnail=record.get("thumbnail"),
        expires_at=record.get("expires_at"),
        bias=float(checked_biases(record.get("score_bias") or 0.0, 1)[0]),
    )


def _pid(record: Record) -> Pid | None:
    text: str | None = record.get("pid_text")
    return record.get("pid") if text is None else text


# --- a folder ---------------------------------------------------------------------------


def _write_folder(folder: Path, about: About, chunks: Iterator[Chunk]) -> int:
    (folder / "img_emb").mkdir(parents=True)
    (folder / "metadata").mkdir()
    (folder / _ABOUT).write_text(json.dumps(about))
    num_rows = 0
    for number, (vectors, records) in enumerate(chunks):
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", vectors, allow_pickle=False)
        with (folder / "metadata" / f"metadata_{number}.jsonl").open("w", encoding="utf-8") as out:
            for record in records:
                if (jpeg := record["thumbnail"]) is not None:
                    record["thumbnail"] = base64.b64encode(jpeg).decode()
                out.write(json.dumps(record, ensure_ascii=False) + "\n")
        num_rows += len(records)
    return num_rows


def _read_folder(folder: Path) -> tuple[About, Iterator[Chunk]]:
    with _readable(folder):
        about = _about((folder / _ABOUT).read_bytes()) if (folder / _ABOUT).exists() else {}
        shards = sorted((folder / "img_emb").glob("*.npy"), key=_number)
        if not shards and not about:
            raise GalleryError(
                f"{folder} is no export: there are no img_emb/*.npy in it. Give a .parquet file "
                "or the folder that Gallery.export or clip-retrieval wrote."
            )
    return about, (chunk for shard in shards for chunk in _read_shard(folder, shard))


def _read_shard(folder: Path, shard: Path) -> Iterator[Chunk]:
    records = _read_records(folder / "metadata" / f"metadata_{_number(shard)}")
    with _readable(shard):
        vectors = np.load(shard, mmap_mode="r", allow_pickle=False)
        for start in range(0, len(vectors), _CHUNK_ROWS):
            part = np.asarray(vectors[start : start + _CHUNK_ROWS], np.float32)
            part_records = list(islice(records, len(part)))
            if len(part_records) < len(part):
                raise ValueError(f"its metadata ends after {start + len(part_records)} pictures")
            yield part, part_records
        if next(records, None) is not None:
            raise ValueError(f"its metadata has more than its {len(vectors)} pictures")


def _read_records(stem: Path) -> Iterator[Record]:
    lines, parquet = stem.with_suffix(".jsonl"), stem.with_suffix(".parquet")
    if parquet.exists():
        for batch in _batches(parquet, _open_parquet(parquet)):
            yield from map(_decoded, batch.to_pylist())
        return
    with lines.open(encoding="utf-8") as file:
        for line in file:
            record = _decoded(json.loads(line))
            if (text := record.get("thumbnail")) is not None:
                record["thumbnail"] = base64.b64decode(text, validate=True)
            yield record


def _number(shard: Path) -> int:
    """The number at the end of a shard's name; its metadata file has the same number."""
    match = re.search(r"(\d+)$", shard.stem)
    if match is None:
        raise ValueError(f"{shard.name} has no number, as in img_emb_0.npy")
    return int(match[1])


# --- a Parquet file ---------------------------------------------------------------------


def _write_parquet(path: Path, about: About, chunks: Iterator[Chunk]) -> int:
    arrow, parquet = require("pyarrow", "train"), _parquet()
    moment = arrow.timestamp("ms", "UTC")
    columns = arrow.schema(
        [
            ("id", arrow.int64()),
            ("image_path", arrow.string()),
            ("pid", arrow.int64()),
            ("pid_text", arrow.string()),
            ("camera", arrow.string()),
            ("time", moment),
            ("track", arrow.string()),
            ("added_at", moment),
            ("expires_at", moment),
            ("thumbnail", arrow.binary()),
            ("metadata", arrow.string()),
            ("score_bias", arrow.float32()),
        ]
    )
    vector = arrow.field("vector", arrow.list_(arrow.float32(), about["dim"]))
    schema = columns.append(vector).with_metadata({_KEY: json.dumps(about).encode()})
    num_rows = 0
    with parquet.ParquetWriter(path, schema) as writer:
        for vectors, records in chunks:
            for record in records:
                record["metadata"] = json.dumps(record["metadata"], ensure_ascii=False)
                record["pid_text"] = record["pid"] if isinstance(record["pid"], str) else None
                record["pid"] = None if isinstance(record["pid"], str) else record["pid"]
                for name in _TIMES:
                    record[name] = record[name] and datetime.fromisoformat(record[name])
            rows = arrow.RecordBatch.from_pylist(records, columns)
            flat = arrow.array(vectors.reshape(-1), arrow.float32())
            arrays = arrow.FixedSizeListArray.from_arrays(flat, about["dim"])
            writer.write_batch(arrow.record_batch([*rows.columns, arrays], schema=schema))
            num_rows += len(records)
    return num_rows


def _read_parquet(path: Path) -> tuple[About, Iterator[Chunk]]:
    with _readable(path):
        file = _open_parquet(path)
        about_json = (file.schema_arrow.metadata or {}).get(_KEY)
        about = {} if about_json is None else _about(about_json)
        if "vector" not in file.schema_arrow.names:
            raise ValueError("it has no column named vector")
    return about, _read_batches(path, file)


def _read_batches(path: Path, file: Any) -> Iterator[Chunk]:
    with _readable(path):
        for batch in _batches(path, file):
            flat = batch.column("vector").flatten().to_numpy(zero_copy_only=False)
            if len(flat) % batch.num_rows:
                raise ValueError("its vectors are of different widths")
            records = batch.drop_columns(["vector"]).to_pylist()
            yield (
                np.asarray(flat, np.float32).reshape(batch.num_rows, -1),
                [_decoded(record) for record in records],
            )


def _open_parquet(path: Path) -> Any:
    check_footer(path)
    return _parquet().ParquetFile(path)


def _batches(path: Path, file: Any) -> Iterator[Any]:
    batches: Iterator[Any] = file.iter_batches(rows_at_once(path, file.metadata, _CHUNK_ROWS))
    return batches


def _parquet() -> ModuleType:
    require("pyarrow", "train")
    return require("pyarrow.parquet", "train")


# --- both -------------------------------------------------------------------------------


def _decoded(record: Any) -> Record:
    if not isinstance(record, dict):
        raise ValueError(f"expected an object in each line of metadata, got {record!r:.60}")
    metadata = record.get("metadata")
    if isinstance(metadata, str):
        metadata = json.loads(metadata)
    if not isinstance(metadata, dict | None):
        raise ValueError(f"expected an object as metadata, got {metadata!r:.60}")
    return {**record, "metadata": metadata}


def _about(text: bytes) -> About:
    about = json.loads(text)
    match about:
        case {"fingerprint": str() | None, "dim": int(dim)} if dim > 0 and dim is not True:
            return dict(about)
    raise ValueError(f"expected a plan's fingerprint and a width, got {about!r:.80}")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn errors of the parsers into :class:`GalleryError`."""
    try:
        yield
    except (OSError, ValueError, EOFError, TypeError, RecursionError) as error:
        raise GalleryError(
            f"{path} is damaged or no export of a gallery: {error}. Export it again."
        ) from error
