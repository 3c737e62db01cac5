"""Search: a plan, a gallery, and three lines of code."""

from __future__ import annotations

import io
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from PIL import Image

from finegrain.encoder import Encoder
from finegrain.errors import GalleryError, ImageError, QueryError
from finegrain.gallery import Gallery, Hit
from finegrain.matches import Match, Matches
from finegrain.plan import Plan
from finegrain.preprocess import ImageSource, load_image
from finegrain.records import Problem, Sample, Scalar

DEFAULT_K = 10
MAX_QUERY_CHARACTERS = 2_000
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
THUMBNAIL = (512, 512)

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


class Searcher:
    """Searches a gallery of pictures by text or by picture.

    Example:
        >>> import finegrain
        >>> searcher = finegrain.Searcher("model.plan")                  # doctest: +SKIP
        >>> searcher.add("crops/", metadata={"camera": "gate-3"})        # doctest: +SKIP
        >>> searcher.query("woman in red coat", k=5)                     # doctest: +SKIP

    Args:
        plan: Path of a ``model.plan``.
        gallery: Path of the gallery, or an open one. By default ``model.gallery`` beside the
            plan, which the first :meth:`add` creates.
        threads: Threads of the towers; by default one a physical core.

    Raises:
        PlanError: The plan cannot be read.
        GalleryError: The gallery is damaged or holds vectors of another plan.
    """

    def __init__(
        self,
        plan: str | Path,
        *,
        gallery: str | Path | Gallery | None = None,
        threads: int | None = None,
    ) -> None:
        opened = Plan(plan)
        self.manifest = opened.manifest
        self._encoder = Encoder.from_plan(opened, threads=threads)
        self._gallery: Gallery | None = None
        if isinstance(gallery, Gallery):
            self._path = gallery.path
            self._gallery = gallery
            self._refuse_foreign_vectors(gallery)
        else:
            self._path = (
                Path(gallery) if gallery is not None else opened.path.with_suffix(".gallery")
            )
            if self._path.exists():
                self._gallery = self._open()

    def _open(self) -> Gallery:
        return Gallery(
            self._path, fingerprint=self.manifest.fingerprint, dim=self.manifest.embed_dim
        )

    def _refuse_foreign_vectors(self, gallery: Gallery) -> None:
        if gallery.fingerprint != self.manifest.fingerprint:
            raise GalleryError(
                f"{gallery.path} holds vectors of plan {str(gallery.fingerprint)[:12]}, and this "
                f"is plan {self.manifest.fingerprint[:12]}; vectors of two plans do not compare"
            )

    @property
    def gallery(self) -> Gallery:
        """The open gallery.

        Raises:
            GalleryError: Nothing was added yet.
        """
        if self._gallery is None:
            raise GalleryError(
                f"there is no gallery at {self._path} yet. Add pictures with Searcher.add(folder) "
                "or: finegrain index PLAN FOLDER"
            )
        return self._gallery

    def add(
        self,
        pictures: ImageSource | Iterable[ImageSource],
        metadata: Metadata | Sequence[Metadata] | None = None,
        *,
        progress: bool = True,
    ) -> Added:
        """Encode pictures and keep them in the gallery.

        Each batch is durable when it is done: after an interruption, adding the same folder
        again goes on where it stopped, since files already there are passed over. A picture
        that cannot be read is named in the result and stops nothing.

        Args:
            pictures: A folder (searched through), a file, an array, a Pillow image, or
                several of the latter three. Of pictures without a file a thumbnail is kept.
            metadata: Columns for all pictures, or one mapping for each. ``camera`` and ``pid``
                are the gallery's own columns.
            progress: Show a bar with rate and time left.

        Raises:
            ImageError: There is no such file or folder, or no picture in it.
            GalleryError: Metadata does not fit.
        """
        sources = list(_sources(pictures))
        columns = _columns(metadata, len(sources))
        if self._gallery is None:
            self._gallery = self._open()
        misnamed = {i: problem for i, s in enumerate(sources) if (problem := _misnamed(s))}
        new = list(_unknown(sources, self._gallery.images()))
        todo = [i for i in new if i not in misnamed]
        ids: list[int] = []
        problems = list(misnamed.values())
        for batch in self._encoder.stream_images([sources[i] for i in todo], progress=progress):
            rows = [todo[position] for position in batch.positions]
            ids += self._keep(
                batch.embeddings, [sources[i] for i in rows], [columns[i] for i in rows]
            )
            problems += batch.problems
        return Added(ids=ids, num_known=len(sources) - len(new), problems=problems)

    def add_samples(
        self, samples: Sequence[Sample], metadata: Metadata | None = None, *, progress: bool = True
    ) -> Added:
        """Add the pictures of a dataset or catalogue with their pid, camera and columns.

        Args:
            samples: Their first caption becomes the column ``caption``.
            metadata: Further columns for all of them.
            progress: Show a bar with rate and time left.
        """
        rows = [
            {
                "caption": sample.captions[0],
                **(metadata or {}),
                **sample.metadata,
                "pid": sample.pid,
                **({"camera": sample.camera} if sample.camera is not None else {}),
            }
            for sample in samples
        ]
        return self.add([sample.image for sample in samples], rows, progress=progress)

    def query(
        self, query: str | ImageSource, k: int | None = None, *, where: str | None = None
    ) -> Matches:
        """Find the pictures that fit a text, or look like a picture.

        Args:
            query: A text. A path to a picture must be a :class:`~pathlib.Path`; arrays, bytes
                and Pillow images are pictures too.
            k: How many; by default ten, or all of a smaller gallery.
            where: Look only at pictures whose columns match, such as
                ``"camera = 'gate-3' and price < 80"``.

        Returns:
            Matches, best first; fewer than ``k`` where the filter leaves fewer.

        Raises:
            QueryError: The text is empty, too long, or not text; or ``k`` does not fit.
            ImageError: The query picture cannot be read.
            FilterError: The filter does not parse, or names no column.
            GalleryError: The gallery is empty.
        """
        vector = self._vector(query)
        gallery = self.gallery
        if len(gallery) == 0:
            raise GalleryError(f"the gallery {gallery.path} is empty; add pictures first")
        if k is not None and type(k) is int and k > len(gallery):
            raise QueryError(
                f"k is {k}, and the gallery holds {len(gallery)} pictures; ask for at most those"
            )
        hits = gallery.search(vector, min(DEFAULT_K, len(gallery)) if k is None else k, where)[0]
        return Matches(query if isinstance(query, str) else "<picture>", list(self._matches(hits)))

    def close(self) -> None:
        if self._gallery is not None:
            self._gallery.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        size = len(self._gallery) if self._gallery is not None else 0
        return f"Searcher({self.manifest.method}, {size} pictures in {str(self._path)!r})"

    def _keep(
        self,
        embeddings: np.ndarray[Any, np.dtype[np.float32]],
        sources: Sequence[ImageSource],
        columns: Sequence[dict[str, Scalar]],
    ) -> list[int]:
        paths = [_path_of(source) for source in sources]
        return self.gallery.add(
            embeddings,
            paths,
            pids=[row.get("pid") for row in columns],  # type: ignore[misc]  # checked by add
            cameras=[row.get("camera") for row in columns],  # type: ignore[misc]
            metadata=[
                {n: v for n, v in row.items() if n not in ("pid", "camera")} for row in columns
            ],
            thumbnails=[
                _thumbnail(source) if path is None else None
                for path, source in zip(paths, sources, strict=True)
            ],
        )

    def _vector(self, query: str | ImageSource) -> np.ndarray[Any, np.dtype[np.float32]]:
        if isinstance(query, str):
            return self._encoder.encode_texts([_checked_text(query)])
        if not isinstance(query, Path | bytes | np.ndarray | Image.Image):
            raise QueryError(
                f"expected a text or a picture to search for, got {type(query).__name__}"
            )
        return self._encoder.encode_images([query])

    def _matches(self, hits: Sequence[Hit]) -> Iterator[Match]:
        rows = {row.id: row for row in self.gallery.rows([hit.id for hit in hits])}
        for rank, hit in enumerate((hit for hit in hits if hit.id in rows), start=1):
            row = rows[hit.id]
            yield Match(
                rank=rank,
                score=hit.score,
                id=hit.id,
                image=row.image,
                pid=row.pid,
                camera=row.camera,
                metadata=row.metadata,
                thumbnail=self.gallery.thumbnail(hit.id) if row.image is None else None,
            )


def _checked_text(query: str) -> str:
    if not query.strip():
        raise QueryError("the query is empty; say what to look for, as in 'woman in red coat'")
    if len(query) > MAX_QUERY_CHARACTERS:
        raise QueryError(
            f"the query has {len(query)} characters, more than {MAX_QUERY_CHARACTERS}; "
            "a caption of a sentence or two searches best"
        )
    control = [c for c in query if unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\n\r"]
    if control:
        raise QueryError(f"the query holds the control character {control[0]!r}; remove it")
    return query


def _sources(pictures: ImageSource | Iterable[ImageSource]) -> Iterator[ImageSource]:
    if isinstance(pictures, str | Path):
        path = Path(pictures)
        # Other than Path's own, these are False for a name that no file can have.
        if not os.path.isdir(path):
            if not os.path.isfile(path):
                raise ImageError(f"there is no picture or folder at {path}")
            yield path
            return
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not found:
            raise ImageError(f"the folder {path} holds no picture ({', '.join(sorted(SUFFIXES))})")
        yield from found
    elif isinstance(pictures, bytes | np.ndarray | Image.Image):
        yield pictures
    elif isinstance(pictures, Iterable):
        yield from pictures
    else:
        raise ImageError(f"expected a folder or pictures, got {type(pictures).__name__}")


def _unknown(sources: Sequence[ImageSource], known: set[str]) -> Iterator[int]:
    """Positions of the pictures without a file, and of each file's first mention."""
    known = set(known)
    for position, source in enumerate(sources):
        path = _path_of(source)
        if path not in known:
            yield position
        if path is not None:
            known.add(path)


def _misnamed(source: ImageSource) -> Problem | None:
    """A file system may hold names that are no Unicode, and a gallery or JSON cannot."""
    path = _path_of(source) or ""
    shown = path.encode("utf-8", "backslashreplace").decode()
    return None if shown == path else Problem(where=shown, why="its name is no Unicode; rename it")


def _columns(
    metadata: Metadata | Sequence[Metadata] | None, num_pictures: int
) -> list[dict[str, Scalar]]:
    if metadata is None or isinstance(metadata, Mapping):
        return [dict(metadata or {})] * num_pictures
    if len(metadata) != num_pictures:
        raise GalleryError(
            f"expected metadata for each of the {num_pictures} pictures, got {len(metadata)}"
        )
    return [dict(row) for row in metadata]


def _path_of(source: ImageSource) -> str | None:
    # realpath refuses a name with a null character, which loading will name as a problem.
    if isinstance(source, str | Path) and "\0" not in str(source):
        return os.path.realpath(source)
    return None


def _thumbnail(source: ImageSource) -> bytes:
    image = load_image(source)
    image.thumbnail(THUMBNAIL)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
