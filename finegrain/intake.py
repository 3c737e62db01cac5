"""Taking pictures into a gallery: encoded batch by batch, each durable when it is done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from finegrain.encoder import Encoder
from finegrain.errors import GalleryError
from finegrain.gallery import Gallery, OnDuplicate
from finegrain.gallery.pictures import name_problem, path_of, pictures_in, thumbnail, unknown
from finegrain.preprocess import Crop, ImageSource
from finegrain.records import Problem, Sample, Scalar

_GALLERY_COLUMNS = ("pid", "camera", "time", "track")

Metadata = Mapping[str, Scalar]


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What :meth:`Searcher.add` did.

    Attributes:
        ids: Ids of the new pictures, in the order given.
        num_known: Files that the gallery held already, and that were passed over.
        problems: Pictures that could not be read.
    """

    ids: list[int]
    num_known: int
    problems: list[Problem]

    def __str__(self) -> str:
        lines = [f"added {len(self.ids)} pictures"]
        lines += [f"passed over {self.num_known} that were there already"] if self.num_known else []
        lines += [f"left out {len(self.problems)} that cannot be read:"] if self.problems else []
        return "\n  ".join(lines + [str(problem) for problem in self.problems[:10]])


def take_in(
    encoder: Encoder,
    gallery: Gallery,
    pictures: ImageSource | Crop | Iterable[ImageSource | Crop],
    metadata: Metadata | Sequence[Metadata] | None,
    *,
    expire_after: timedelta | float | None,
    replace: bool,
    progress: bool,
) -> Added:
    """Encode pictures and keep them; see :meth:`Searcher.add`."""
    given = pictures_in(pictures)
    sources = given.pictures
    columns = _columns(metadata, len(sources))
    misnamed = {i: problem for i, s in enumerate(sources) if (problem := name_problem(s))}
    paths = [path_of(source) for source in sources]
    asked = [path for i, path in enumerate(paths) if path is not None and i not in misnamed]
    known = set() if replace else gallery.known(asked)
    new = list(unknown(paths, known))
    todo = [i for i in new if i not in misnamed]
    ids: list[int] = []
    problems = [*given.left_out, *misnamed.values()]
    for batch in encoder.stream_images([sources[i] for i in todo], progress=progress):
        rows = [todo[position] for position in batch.positions]
        ids += keep(
            gallery,
            batch.embeddings,
            [paths[i] for i in rows],
            [thumbnail(sources[i]) if paths[i] is None else None for i in rows],
            [columns[i] for i in rows],
            expire_after=expire_after,
            on_duplicate="replace" if replace else "add",
        )
        problems += batch.problems
    return Added(ids=ids, num_known=len(sources) - len(new), problems=problems)


def columns_of(sample: Sample, metadata: Metadata) -> Metadata:
    """What a gallery keeps of a sample, beside its picture."""
    camera = {"camera": sample.camera} if sample.camera is not None else {}
    return {
        **({"caption": sample.captions[0]} if sample.captions else {}),
        **metadata,
        **sample.metadata,
        **({} if sample.pid is None else {"pid": sample.pid}),
        **camera,
    }


def keep(
    gallery: Gallery,
    embeddings: NDArray[np.float32],
    paths: Sequence[str | None],
    thumbnails: Sequence[bytes | None],
    columns: Sequence[Metadata],
    *,
    expire_after: timedelta | float | None,
    on_duplicate: OnDuplicate,
) -> list[int]:
    """Add ``N`` encoded pictures, those columns that are a gallery's own as such; their ids."""
    return gallery.add(
        embeddings,
        paths,
        pids=[row.get("pid") for row in columns],  # type: ignore[misc]  # checked by add
        cameras=[row.get("camera") for row in columns],  # type: ignore[misc]
        times=[row.get("time") for row in columns],  # type: ignore[misc]
        tracks=[row.get("track") for row in columns],  # type: ignore[misc]
        metadata=[{n: v for n, v in row.items() if n not in _GALLERY_COLUMNS} for row in columns],
        thumbnails=thumbnails,
        expire_after=expire_after,
        on_duplicate=on_duplicate,
    )


def _columns(
    metadata: Metadata | Sequence[Metadata] | None, num_pictures: int
) -> Sequence[Metadata]:
    if metadata is None or isinstance(metadata, Mapping):
        return [metadata or {}] * num_pictures
    if len(metadata) != num_pictures:
        raise GalleryError(
            f"expected metadata for each of the {num_pictures} pictures, got {len(metadata)}"
        )
    return metadata
