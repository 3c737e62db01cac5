"""Encoding very many pictures on several machines, into files that a gallery loads.

Ray Data spreads the work; this module says what a shard is and how it is written. The result
is a folder that :meth:`Gallery.load` reads::

    gallery.json                    plan and width
    bulk.json                       what the shards are of
    img_emb/img_emb_0.npy           float32 [n, D]
    metadata/metadata_0.parquet     n rows: image_path and the columns of the source
    problems/problems_0.parquet     where and why, of the pictures that cannot be read

A shard is written last of all as its ``.npy``, so one that is there is whole.
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

from finegrain.encoder import Encoder
from finegrain.errors import DataError, require
from finegrain.gallery.pictures import name_problem, path_of, pictures_in, unknown
from finegrain.plan import Plan
from finegrain.preprocess import Crop, ImageSource
from finegrain.records import Problem
from finegrain.runtime.base import RuntimeChoice

IMAGE_PATH = "image_path"

_BLOCKS_AN_ACTOR = 64  # few enough to keep track of, many enough that none waits for the last

Source = str | Path | Sequence[str | Path | Crop]


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """What an embedding of a dataset did.

    Attributes:
        out: The folder; :meth:`Gallery.load` reads it.
        num_encoded: Pictures encoded by this call.
        num_problems: Pictures that it could not read, which ``problems/`` names.
        num_known_shards: Shards that were there already.
    """

    out: Path
    num_encoded: int
    num_problems: int
    num_known_shards: int

    def __str__(self) -> str:
        lines = [f"encoded {self.num_encoded} pictures into {self.out}"]
        if self.num_known_shards:
            lines.append(f"passed over {self.num_known_shards} shards that were there already")
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

    Plan, pictures and ``out`` have to be at the same paths on all of them, as on a network
    disk. After a stop the same call goes on with the shards that are missing.

    Args:
        plan: Path of a ``model.plan``; every actor opens it once.
        source: A folder, several paths or :class:`~finegrain.preprocess.Crop`, or a ``.parquet``
            file with a row per picture, whose further columns are kept. Of a folder or paths the
            list passes through this process: from some ten millions on, give Parquet.
        out: Folder of the results, which a stopped call may have left.
        image_column: Of Parquet: paths, relative ones to the file's folder.
        rows_per_shard: Pictures in a shard: what is lost by a stop, for each actor.
        batch_size: Pictures that go through the tower together.
        concurrency: Actors.
        threads: Processor cores of each actor.
        num_gpus: Graphics processors of each actor, or a share of one.
        runtime: What runs the tower.
        address: Of the cluster; by default ``RAY_ADDRESS``, else this machine alone. Where Ray
            was started by the caller already, that is used.
        progress: Show a bar with rate and time left.

    Raises:
        DataError: The source does not fit, or ``out`` is of another source, plan or cut.
        ImageError: There is no such file or folder, or no picture in it.
        PlanError: The plan cannot be read.
        MissingExtraError: Ray or pyarrow is not installed.
    """
    for module in ("ray", "pyarrow"):
        require(module, "ray")
    if min(rows_per_shard, batch_size, concurrency, threads) < 1 or num_gpus < 0:
        raise DataError("rows_per_shard, batch_size, concurrency and threads are 1 or more")
    folder, plan = Path(os.path.realpath(out)), Path(os.path.realpath(plan))
    shards = list(_shards(source, image_column, rows_per_shard))
    _claim(folder, Plan(plan), shards)
    missing = [shard for shard in shards if not _vectors_path(folder, shard.number).exists()]
    num_encoded = num_problems = 0
    with (
        _connected(address),
        tqdm(total=sum(s.num_rows for s in missing), unit=" pictures", disable=not progress) as bar,
    ):
        for done in _spread(
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


# --- what a shard is --------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Some of the pictures of a source.

    Attributes:
        number: From 0; by which its files are named.
        num_rows: How many there are.
        paths: Of the pictures themselves; None where they are rows of a file.
        file, row_group, first, column: Where these rows are in a Parquet file.
    """

    number: int
    num_rows: int
    paths: tuple[str, ...] | None = None
    file: str = ""
    row_group: int = 0
    first: int = 0
    column: str = IMAGE_PATH

    def table(self) -> Any:
        """A row per picture, with its absolute path as ``image_path``.

        Raises:
            DataError: The file was changed meanwhile, or does not hold paths as text.
        """
        arrow = require("pyarrow", "ray")
        if self.paths is not None:
            return arrow.table({IMAGE_PATH: arrow.array(self.paths, arrow.string())})
        try:
            rows = _parquet().ParquetFile(self.file).read_row_group(self.row_group)
            rows = rows.slice(self.first, self.num_rows)
            paths = [_beside(self.file, path) for path in rows.column(self.column).to_pylist()]
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise DataError(
                f"{self.file}: the paths in column {self.column!r} cannot be read ({error}). "
                "Was the file changed meanwhile? Then begin with a new folder."
            ) from error
        kept = rows.drop_columns([n for n in (self.column, "vector") if n in rows.column_names])
        return kept.append_column(IMAGE_PATH, arrow.array(paths, arrow.string()))


def _shards(source: Source, image_column: str, rows_per_shard: int) -> Iterator[Shard]:
    if isinstance(source, str | Path) and Path(source).suffix == ".parquet":
        yield from _shards_of_parquet(Path(os.path.realpath(source)), image_column, rows_per_shard)
        return
    given = pictures_in(source)
    if given.left_out:
        warnings.warn(
            f"{len(given.left_out)} files and folders of {source} are no pictures, the first: "
            f"{given.left_out[0]}",
            stacklevel=3,
        )
    pictures = given.pictures
    for picture in pictures:
        if (problem := name_problem(picture)) is not None:
            raise DataError(str(problem))
    addresses = [path_of(picture) for picture in pictures]
    paths = [path for i in unknown(addresses, set()) if (path := addresses[i]) is not None]
    for number, first in enumerate(range(0, len(paths), rows_per_shard)):
        some = tuple(paths[first : first + rows_per_shard])
        yield Shard(number=number, num_rows=len(some), paths=some)


def _shards_of_parquet(path: Path, column: str, rows_per_shard: int) -> Iterator[Shard]:
    try:
        about = _parquet().ParquetFile(path).metadata
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no Parquet file that can be read: {error}") from error
    names = [about.schema.column(i).path for i in range(about.num_columns)]
    if column not in names:
        raise DataError(
            f"{path} has no column {column!r}; it has {', '.join(names[:20])}. "
            "Name that of the paths by image_column."
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


def _beside(file: str, path: str) -> str:
    # Joining leaves absolute paths as they are.
    return path_of(Path(file).parent / path) or path


def _claim(folder: Path, plan: Plan, shards: Sequence[Shard]) -> None:
    """Say what a folder is of, or see that it is of the same.

    Raises:
        DataError: It is of something else.
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
                raise DataError(f"{folder} holds other files. Give a new folder.")
            stated.write_text(json.dumps(claim))
        if json.loads(stated.read_text()) != claim:
            raise DataError(
                f"{folder} holds vectors of another source, plan or size of shards. Give a new "
                "folder, or call with what it was begun with."
            )
        (folder / "gallery.json").write_text(json.dumps(about))
        for name in ("img_emb", "metadata", "problems"):
            (folder / name).mkdir(exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error}. Choose another place.") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{stated} is damaged. Remove the folder and begin again.") from error


# --- encoding one -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How many pictures of a shard were encoded, and how many could not be read."""

    num_encoded: int
    num_problems: int


def embed_shard(encoder: Encoder, shard: Shard, folder: Path) -> Done:
    """Encode the pictures of one shard and write its files."""
    arrow, parquet = require("pyarrow", "ray"), _parquet()
    rows = shard.table()
    sources: list[ImageSource] = [Path(path) for path in rows.column(IMAGE_PATH).to_pylist()]
    vectors = np.empty((len(sources), encoder.embed_dim), np.float32)
    places: list[int] = []
    problems: list[Problem] = []
    for batch in encoder.stream_images(sources):
        vectors[len(places) : len(places) + len(batch.positions)] = batch.embeddings
        places += batch.positions
        problems += batch.problems
    if problems:
        table = arrow.Table.from_pylist([asdict(problem) for problem in problems])
        parquet.write_table(table, folder / "problems" / f"problems_{shard.number}.parquet")
    metadata = rows.take(arrow.array(places, arrow.int64()))
    parquet.write_table(metadata, folder / "metadata" / f"metadata_{shard.number}.parquet")
    target = _vectors_path(folder, shard.number)
    # Its ending is another one, so that no reader takes it for a shard.
    unfinished = target.with_suffix(f".{os.getpid()}.tmp")
    with unfinished.open("wb") as file:
        np.save(file, vectors[: len(places)], allow_pickle=False)
    os.replace(unfinished, target)
    return Done(num_encoded=len(places), num_problems=len(problems))


def _vectors_path(folder: Path, number: int) -> Path:
    return folder / "img_emb" / f"img_emb_{number}.npy"


def _parquet() -> ModuleType:
    require("pyarrow", "ray")
    return require("pyarrow.parquet", "ray")


# --- on many machines -------------------------------------------------------------------


class _Actor:
    """A process that holds the model; Ray starts it on some machine."""

    def __init__(
        self, plan: Path, folder: Path, runtime: RuntimeChoice, threads: int, batch_size: int
    ) -> None:
        self._folder = folder
        self._encoder = Encoder.from_plan(Plan(plan), runtime=runtime, threads=threads)
        self._encoder.batch_size = batch_size

    def __call__(self, row: dict[str, str]) -> dict[str, int]:
        return asdict(embed_shard(self._encoder, Shard(**json.loads(row["shard"])), self._folder))


def _spread(
    shards: Sequence[Shard],
    of_actors: tuple[Path, Path, RuntimeChoice, int, int],
    *,
    concurrency: int,
    threads: int,
    num_gpus: float,
) -> Iterator[Done]:
    """Encode shards by actors; what each did, in the order that they finish."""
    if not shards:
        return
    work = (
        require("ray.data", "ray")
        .from_items(
            [{"shard": json.dumps(asdict(shard))} for shard in shards],
            override_num_blocks=min(len(shards), concurrency * _BLOCKS_AN_ACTOR),
        )
        .map(
            _Actor,
            fn_constructor_args=of_actors,
            concurrency=min(concurrency, len(shards)),
            num_cpus=threads,
            num_gpus=num_gpus,
        )
    )
    work.context.enable_progress_bars = False  # ours counts pictures
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
