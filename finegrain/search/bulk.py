"""Encodes large numbers of pictures on several machines, into files that a gallery loads.

Ray Data distributes the work. This module defines the shards and writes them. The result is a
folder that :meth:`Gallery.load` reads::

    gallery.json                    fingerprint of the plan and width of the vectors
    bulk.json                       identifies the source and the division into shards
    img_emb/img_emb_0.npy           float32 [n, D]
    metadata/metadata_0.parquet     n rows: image_path and the columns of the source
    problems/problems_0.parquet     pictures that cannot be read, and the reasons

The ``.npy`` file of a shard is written last, so a shard with this file is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from finegrain.bounded.parquet import (
    MAX_BATCH_BYTES,
    check_footer,
    rows_at_once,
    unpacked_bytes,
)
from finegrain.encoder import Encoder
from finegrain.errors import DataError, FinegrainWarning, require
from finegrain.gallery.pictures import name_problem, path_of, pictures_in, unknown
from finegrain.plan import Plan
from finegrain.preprocess import Crop, ImageSource
from finegrain.records import Problem
from finegrain.runtime.base import RuntimeChoice

IMAGE_PATH = "image_path"

# Many blocks balance the load of the actors; fewer blocks cost Ray less to manage.
_BLOCKS_PER_ACTOR = 64

Source = str | Path | Sequence[str | Path | Crop]


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """Result of :func:`embed_dataset`.

    Attributes:
        out: Output folder; :meth:`Gallery.load` reads it.
        num_encoded: Number of pictures that this call encoded.
        num_problems: Number of pictures that this call could not read; ``problems/`` lists them.
        num_known_shards: Number of shards that an earlier call wrote.
    """

    out: Path
    num_encoded: int
    num_problems: int
    num_known_shards: int

    def __str__(self) -> str:
        lines = [f"encoded {self.num_encoded} pictures into {self.out}"]
        if self.num_known_shards:
            lines.append(f"skipped {self.num_known_shards} shards that were there already")
        if self.num_problems:
            lines.append(f"left out {self.num_problems} that cannot be read; see problems/")
        return "\n  ".join(lines)


def embed_dataset(
    plan: str | Path,
    source: Source,
    out: str | Path,
    *,
    image_column: str = IMAGE_PATH,
    rows_per_shard: int = 8192,
    batch_size: int = 32,
    concurrency: int = 1,
    threads: int = 1,
    num_gpus: float = 0,
    runtime: RuntimeChoice = "onnxruntime",
    address: str | None = None,
    progress: bool = True,
) -> Embedded:
    """Encode pictures on all machines of a Ray cluster.

    The plan, the pictures and ``out`` must have the same paths on all machines, for example on a
    network disk. After an interruption, the same call encodes the missing shards.

    Args:
        plan: Path of a ``model.plan``; every actor opens it once.
        source: A folder, several paths or :class:`~finegrain.preprocess.Crop`, or a ``.parquet``
            file with a row for each picture, whose further columns are kept. This process lists a
            folder or paths in memory; from about ten million pictures on, use Parquet.
        out: Output folder: a new one, or that of an interrupted call.
        image_column: Parquet column of the paths; relative paths start at the folder of the file.
        rows_per_shard: Pictures per shard. An interruption loses at most one shard per actor.
        batch_size: Number of pictures that the tower encodes at once.
        concurrency: Number of actors.
        threads: CPU cores of each actor.
        num_gpus: GPUs of each actor; a fraction shares a GPU.
        runtime: Runtime of the image tower.
        address: Address of the cluster; by default ``RAY_ADDRESS``, else this machine alone. If
            the caller has started Ray, that instance is used.
        progress: Show a progress bar.

    Raises:
        DataError: The source is invalid, or ``out`` belongs to another source, plan or shard size.
        ImageError: The file or folder does not exist, or holds no picture.
        PlanError: The plan cannot be read.
        MissingExtraError: Ray or pyarrow is not installed.
    """
    for module in ("ray", "pyarrow"):
        require(module, "ray")
    if min(rows_per_shard, batch_size, concurrency, threads) < 1 or num_gpus < 0:
        raise DataError(
            "expected rows_per_shard, batch_size, concurrency and threads of 1 or more and "
            f"num_gpus of 0 or more, got {rows_per_shard}, {batch_size}, {concurrency}, {threads} "
            f"and {num_gpus}"
        )
    folder, plan = Path(os.path.realpath(out)), Path(os.path.realpath(plan))
    shards = list(_shards(source, image_column, rows_per_shard))
    _claim(folder, Plan(plan), shards)
    missing = [shard for shard in shards if not _vectors_path(folder, shard.number).exists()]
    num_encoded = num_problems = 0
    with (
        _connected(address),
        tqdm(total=sum(s.num_rows for s in missing), unit=" pictures", disable=not progress) as bar,
    ):
        for done in _distributed(
            missing,
            (plan, folder, runtime, threads, batch_size),
            concurrency=concurrency,
            threads=threads,
            num_gpus=num_gpus,
        ):
            num_encoded += done.num_encoded
            num_problems += done.num_problems
            bar.update(done.num_encoded + done.num_problems)
    return Embedded(
        out=folder,
        num_encoded=num_encoded,
        num_problems=num_problems,
        num_known_shards=len(shards) - len(missing),
    )


# --- shards -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A part of the pictures of a source.

    Attributes:
        number: Number of the shard from 0; part of its file names.
        num_rows: Number of pictures.
        paths: Paths of the pictures; None if they are rows of a Parquet file.
        file, row_group, first, column: Location of the rows in a Parquet file.
    """

    number: int
    num_rows: int
    paths: tuple[str, ...] | None = None
    file: str = ""
    row_group: int = 0
    first: int = 0
    column: str = IMAGE_PATH

    def table(self) -> Any:
        """Read the rows of the shard, with absolute paths in the column ``image_path``.

        Raises:
            DataError: The file has changed since, or the column does not hold paths as text.
        """
        arrow = require("pyarrow", "ray")
        if self.paths is not None:
            return arrow.table({IMAGE_PATH: arrow.array(self.paths, arrow.string())})
        try:
            rows = _rows_of(Path(self.file), self.row_group, self.first, self.num_rows)
            paths = [_beside(self.file, path) for path in rows.column(self.column).to_pylist()]
        except (arrow.ArrowException, OSError, ValueError, LookupError, TypeError) as error:
            raise DataError(
                f"{self.file}: the paths in column {self.column!r} cannot be read ({error}). "
                "If the file has changed since, start again with a new folder."
            ) from error
        others = rows.drop_columns([self.column])
        return others.append_column(IMAGE_PATH, arrow.array(paths, arrow.string()))


def _shards(source: Source, image_column: str, rows_per_shard: int) -> Iterator[Shard]:
    if isinstance(source, str | Path) and Path(source).suffix == ".parquet":
        yield from _shards_of_parquet(Path(os.path.realpath(source)), image_column, rows_per_shard)
        return
    listing = pictures_in(source)
    if listing.left_out:
        warnings.warn(
            f"skipped {len(listing.left_out)} files and folders of {source} that are not pictures, "
            f"the first: {listing.left_out[0]}",
            FinegrainWarning,
            stacklevel=3,
        )
    pictures = listing.pictures
    for picture in pictures:
        if (problem := name_problem(picture)) is not None:
            raise DataError(str(problem))
    addresses = [path_of(picture) for picture in pictures]
    paths = [path for i in unknown(addresses, set()) if (path := addresses[i]) is not None]
    for number, first in enumerate(range(0, len(paths), rows_per_shard)):
        part = tuple(paths[first : first + rows_per_shard])
        yield Shard(number=number, num_rows=len(part), paths=part)


def _shards_of_parquet(path: Path, column: str, rows_per_shard: int) -> Iterator[Shard]:
    try:
        check_footer(path)
        with _parquet().ParquetFile(path) as file:
            about = file.metadata
        rows_at_once(path, about, rows_per_shard)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}. Check the file.") from error
    names = [about.schema.column(i).path for i in range(about.num_columns)]
    if column not in names:
        raise DataError(
            f"{path} has no column {column!r}; it has {', '.join(names[:20])}. "
            "Set image_column to the column of the paths."
        )
    number = 0
    for group in range(about.num_row_groups):
        num_rows = about.row_group(group).num_rows
        for first in range(0, num_rows, rows_per_shard):
            count = min(rows_per_shard, num_rows - first)
            yield Shard(
                number=number,
                num_rows=count,
                file=str(path),
                row_group=group,
                first=first,
                column=column,
            )
            number += 1


def _rows_of(path: Path, group: int, first: int, count: int) -> Any:
    """Rows of a row group of a Parquet file, without its vectors.

    Raises:
        ValueError: There are fewer rows, or they take too much memory.
    """
    arrow = require("pyarrow", "ray")
    check_footer(path)
    parts = []
    num_bytes = begin = 0
    with _parquet().ParquetFile(path) as file:
        names = [name for name in file.schema_arrow.names if name != "vector"]
        batch_rows = rows_at_once(path, file.metadata, count, [group])
        for batch in file.iter_batches(batch_rows, row_groups=[group], columns=names):
            start = min(max(first - begin, 0), batch.num_rows)
            part = batch.slice(start, first + count - begin - start)
            begin += batch.num_rows
            num_bytes += sum(map(unpacked_bytes, part.columns))
            if num_bytes > MAX_BATCH_BYTES:
                raise ValueError(
                    f"{count:,} rows take more than {MAX_BATCH_BYTES:,} bytes; give fewer "
                    "rows_per_shard"
                )
            parts.append(part)
            if begin >= first + count:
                break
    rows = arrow.Table.from_batches(parts)
    if rows.num_rows != count:
        raise ValueError(f"expected {count} rows, got {rows.num_rows}")
    return rows


def _beside(file: str, path: str) -> str:
    # Joining leaves absolute paths as they are.
    return path_of(Path(file).parent / path) or path


def _claim(folder: Path, plan: Plan, shards: Sequence[Shard]) -> None:
    """Record the plan and source of a new folder, or check those of an existing one.

    Raises:
        DataError: The folder belongs to another plan or source, or cannot be written.
    """
    about = {"fingerprint": plan.manifest.fingerprint, "dim": plan.manifest.embed_dim}
    digest = hashlib.sha256()
    for shard in shards:
        digest.update(json.dumps(asdict(shard)).encode())
    claim = {**about, "num_shards": len(shards), "shards_sha256": digest.hexdigest()}
    stated = folder / "bulk.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not stated.exists():
            if any(folder.iterdir()):
                raise DataError(f"{folder} holds other files. Choose a new folder.")
            stated.write_text(json.dumps(claim))
        if json.loads(stated.read_text()) != claim:
            raise DataError(
                f"{folder} holds vectors of another source, plan or shard size. Choose a new "
                "folder, or pass the same arguments as in the first call."
            )
        (folder / "gallery.json").write_text(json.dumps(about))
        for name in ("img_emb", "metadata", "problems"):
            (folder / name).mkdir(exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error}. Choose another place.") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{stated} is damaged. Remove the folder and begin again.") from error


# --- encoding ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How many pictures of a shard were encoded, and how many could not be read."""

    num_encoded: int
    num_problems: int


def embed_shard(encoder: Encoder, shard: Shard, folder: Path) -> Done:
    """Encode the pictures of a shard and write its files."""
    arrow, parquet = require("pyarrow", "ray"), _parquet()
    rows = shard.table()
    sources: list[ImageSource] = [Path(path) for path in rows.column(IMAGE_PATH).to_pylist()]
    vectors = np.empty((len(sources), encoder.embed_dim), np.float32)
    positions: list[int] = []
    problems: list[Problem] = []
    for batch in encoder.stream_images(sources):
        vectors[len(positions) : len(positions) + len(batch.positions)] = batch.embeddings
        positions += batch.positions
        problems += batch.problems
    if problems:
        table = arrow.Table.from_pylist([asdict(problem) for problem in problems])
        parquet.write_table(table, folder / "problems" / f"problems_{shard.number}.parquet")
    metadata = rows.take(arrow.array(positions, arrow.int64()))
    parquet.write_table(metadata, folder / "metadata" / f"metadata_{shard.number}.parquet")
    target = _vectors_path(folder, shard.number)
    # With another suffix, no reader mistakes the unfinished file for a shard.
    unfinished = target.with_suffix(f".{os.getpid()}.tmp")
    with unfinished.open("wb") as file:
        np.save(file, vectors[: len(positions)], allow_pickle=False)
    os.replace(unfinished, target)
    return Done(num_encoded=len(positions), num_problems=len(problems))


def _vectors_path(folder: Path, number: int) -> Path:
    return folder / "img_emb" / f"img_emb_{number}.npy"


def _parquet() -> ModuleType:
    require("pyarrow", "ray")
    return require("pyarrow.parquet", "ray")


# --- distribution -----------------------------------------------------------------------


class _Actor:
    """A process that holds the model; Ray starts it on a machine of the cluster."""

    def __init__(
        self, plan: Path, folder: Path, runtime: RuntimeChoice, threads: int, batch_size: int
    ) -> None:
        self._folder = folder
        self._encoder = Encoder.from_plan(Plan(plan), runtime=runtime, threads=threads)
        self._encoder.batch_size = batch_size

    def __call__(self, row: dict[str, str]) -> dict[str, int]:
        return asdict(embed_shard(self._encoder, Shard(**json.loads(row["shard"])), self._folder))


def _distributed(
    shards: Sequence[Shard],
    actor_arguments: tuple[Path, Path, RuntimeChoice, int, int],
    *,
    concurrency: int,
    threads: int,
    num_gpus: float,
) -> Iterator[Done]:
    """Encode shards on the actors; yields the result of each shard as it finishes."""
    if not shards:
        return
    work = (
        require("ray.data", "ray")
        .from_items(
            [{"shard": json.dumps(asdict(shard))} for shard in shards],
            override_num_blocks=min(len(shards), concurrency * _BLOCKS_PER_ACTOR),
        )
        .map(
            _Actor,
            fn_constructor_args=actor_arguments,
            concurrency=min(concurrency, len(shards)),
            num_cpus=threads,
            num_gpus=num_gpus,
        )
    )
    work.context.enable_progress_bars = False  # embed_dataset shows one that counts pictures
    for row in work.iter_rows():
        yield Done(**row)


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    ray = require("ray", "ray")
    if ray.is_initialized():
        yield
        return
    ray.init(address=address, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()
