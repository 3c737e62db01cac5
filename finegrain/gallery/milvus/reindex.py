"""Encoding all pictures of a gallery on Milvus again, into a second collection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Never

from tqdm.auto import tqdm

from finegrain.gallery.entries import checked_vectors
from finegrain.gallery.milvus.clock import copy_clock
from finegrain.gallery.milvus.connection import Connection, Document
from finegrain.gallery.milvus.documents import (
    ROW_FIELDS,
    THUMBNAIL_FIELDS,
    row_of,
    thumbnail_of,
    with_biases,
)
from finegrain.gallery.milvus.layout import Layout, ensure_collection, note_kinds, seen_kinds
from finegrain.gallery.pictures import source_of
from finegrain.gallery.sqlite.reindex import PictureEncoder, Reindexed
from finegrain.records import Problem

_CHUNK_ROWS = 256  # thumbnails of one chunk are in memory at once
_PICTURES = "id > 0"


def reindex(
    connection: Connection,
    name: str,
    old: str,
    layout: Layout,
    encoder: PictureEncoder,
    *,
    alive: Callable[[], str],
    drop_unreadable: bool,
    progress: bool,
) -> tuple[str, Reindexed]:
    """Encode the pictures that lack a vector of the new plan, then switch the gallery to it.

    The new collection keeps its vectors after an interruption, and a later call with the same
    plan continues with it. Pictures that another process adds during the switch are copied too.
    After the switch the old collection is deleted, so that process cannot add pictures until it
    opens the gallery again.

    Args:
        connection: Connection to the server or file.
        name: Name of the gallery.
        old: Name of the collection in use.
        layout: What the documents of the new plan hold. Their biases are zero.
        encoder: Encoder of the new plan.
        alive: Returns the condition for pictures that have not expired.
        drop_unreadable: Leave out pictures that can no longer be read.
        progress: Show a progress bar.

    Returns:
        Name of the new collection, and a summary.
    """
    new = ensure_collection(connection, name, layout)
    pass_ = _Pass(connection, old, new, encoder, alive)
    with tqdm(
        total=connection.count(old, alive()),
        initial=connection.count(new, _PICTURES),
        unit=" pictures",
        disable=not progress,
    ) as bar:
        while pass_.run(bar):
            pass
        switched = drop_unreadable or not pass_.problems
        if switched:
            note_kinds(connection, new, layout.width, seen_kinds(connection, old))
            copy_clock(connection, old, new, layout.width)
            connection.settle(new)
            connection.alter_alias(new, name)
            pass_.run(bar)
            connection.drop(old)
    problems = [pass_.problems[id_] for id_ in sorted(pass_.problems)]
    return new, Reindexed(num_encoded=pass_.num_encoded, problems=problems, switched=switched)


class _Pass:
    """Brings the new collection up to date with the old one.

    Attributes:
        num_encoded: Number of pictures encoded in all passes.
        problems: Pictures that cannot be read, by id.
    """

    def __init__(
        self,
        connection: Connection,
        old: str,
        new: str,
        encoder: PictureEncoder,
        alive: Callable[[], str],
    ) -> None:
        self._connection = connection
        self._old = old
        self._new = new
        self._encoder = encoder
        self._alive = alive
        self.num_encoded = 0
        self.problems: dict[int, Problem] = {}

    def run(self, bar: tqdm[Never]) -> bool:
        """Encode missing pictures and remove deleted ones; return whether any was encoded."""
        before = self.num_encoded
        for ids in self._lacking():
            pictures = list(
                self._connection.among(
                    self._old, ids, self._alive(), [*ROW_FIELDS, *THUMBNAIL_FIELDS]
                )
            )
            self._encode(pictures)
            bar.update(len(pictures))
        for ids in self._difference(self._new, self._old):
            self._connection.remove(self._new, ids)
        return self.num_encoded > before

    def _lacking(self) -> Iterator[list[int]]:
        for ids in self._difference(self._old, self._new):
            for start in range(0, len(ids), _CHUNK_ROWS):
                yield ids[start : start + _CHUNK_ROWS]

    def _difference(self, first: str, second: str) -> Iterator[list[int]]:
        """Pages of the ids of pictures that are in the first collection but not in the second."""
        for page in self._connection.pages(first, self._alive(), [], after=0):
            ids = [document["id"] for document in page]
            common = self._connection.among(second, ids, self._alive(), [])
            if lacking := sorted(set(ids) - {document["id"] for document in common}):
                yield lacking

    def _encode(self, pictures: Sequence[Document]) -> None:
        sources = [_source(picture) for picture in pictures]
        readable = [p for p, source in zip(pictures, sources, strict=True) if source is not None]
        for picture, source in zip(pictures, sources, strict=True):
            if source is None:
                self._report(picture, "it has no file and no thumbnail")
        failed = {picture["id"]: picture for picture in readable}
        faults: list[Problem] = []
        for batch in self._encoder.stream_images([s for s in sources if s is not None]):
            vectors = checked_vectors(batch.embeddings, self._encoder.embed_dim)
            vectors = with_biases(vectors, [0.0] * len(vectors))
            encoded = [readable[position] for position in batch.positions]
            self._connection.write(
                self._new,
                [{**p, "vector": v} for p, v in zip(encoded, vectors, strict=True)],
            )
            self.num_encoded += len(encoded)
            faults += batch.problems
            for picture in encoded:
                del failed[picture["id"]]
                self.problems.pop(picture["id"], None)  # readable again
        for picture, fault in zip(failed.values(), faults, strict=True):  # in the sources' order
            self._report(picture, fault.why)

    def _report(self, picture: Document, why: str) -> None:
        where = row_of(picture).image or f"picture {picture['id']}"
        self.problems[picture["id"]] = Problem(where=where, why=why)


def _source(picture: Document) -> Path | bytes | None:
    return source_of(row_of(picture).image, lambda: thumbnail_of(picture))
