"""Additions of many messages, of which no reader sees a part.

A server writes one message at once, and nothing holds several together. A writer therefore stores a
note with the ids of such an addition before it writes them, and marks the note as done afterwards.
A reader leaves out the ids of notes that are not done. Notes stay for a while, so that a reader
which looks at them after a search sees every addition that was in progress during the search.

A note that is not done, and that its writer has not renewed for an hour, is of a process that was
killed. The next opening removes what that process had written.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple, TypeVar

from finegrain import times
from finegrain.errors import GalleryError
from finegrain.gallery.milvus.connection import Connection
from finegrain.gallery.milvus.documents import note
from finegrain.gallery.milvus.identifiers import first_id_at
from finegrain.index.exact import Hit
from finegrain.records import Scalar

KEPT = timedelta(minutes=2)
"""How long the note of a complete addition stays; a search takes at most 30 seconds."""

ABANDONED = timedelta(hours=1)
"""Age at which the note of an incomplete addition is of a process that was killed."""

CLOCKS_AGREE = timedelta(hours=1)
"""How far the clocks of writers may differ; new ids are of a later time than before this."""

NOTES_BELOW = -(2**62) - 2**32
"""Notes of additions have ids below this, and notes of other kinds above."""

_BELOW_ALL = -(2**63) + 1
_MOST_BYTES = 65_000  # metadata of a document have at most 65,535
_MOST_SETTLED = 100_000

T = TypeVar("T")

Span = tuple[int, int]
"""First and last of consecutive ids."""


class Addition(NamedTuple):
    """An addition that a note describes.

    Attributes:
        note_id: Id of the note.
        spans: Ids of the pictures.
        is_done: Whether all pictures are written.
        at: When the note was written.
    """

    note_id: int
    spans: tuple[Span, ...]
    is_done: bool
    at: str

    def holds(self, id_: int) -> bool:
        return any(first <= id_ <= last for first, last in self.spans)


class Batches:
    """The additions to a collection that take several messages.

    Args:
        connection: Connection to the server or file.
        collection: Name of the collection.
        width: Width of the field ``vector``.
    """

    def __init__(self, connection: Connection, collection: str, width: int) -> None:
        self._connection = connection
        self._collection = collection
        self._width = width
        self._settled: set[int] = set()
        self._settled_until = 0

    @contextmanager
    def writing(self, undo: Callable[[], object]) -> Generator[Callable[[Sequence[int]], None]]:
        """Hide an addition from readers until the block ends.

        The block calls the function that it is given with the ids of each message before it writes
        them.

        Args:
            undo: Removes what the block has written, if it fails.
        """
        self._remove_old()
        note_id = NOTES_BELOW - 1 - secrets.randbits(60)
        ids: list[int] = []

        def announce(new_ids: Sequence[int]) -> None:
            ids.extend(new_ids)
            self._store(note_id, ids, is_done=False)

        try:
            yield announce
        except BaseException:
            undo()
            self._connection.remove(self._collection, [note_id])
            raise
        self._store(note_id, ids, is_done=True)

    def additions(self) -> list[Addition]:
        """Additions in progress, and those that were completed a short time ago."""
        pages = self._connection.pages(
            self._collection, f"id < {NOTES_BELOW}", ["metadata"], after=_BELOW_ALL
        )
        return [
            Addition(
                document["id"],
                tuple(map(tuple, json.loads(document["metadata"]["spans"]))),
                bool(document["metadata"]["done"]),
                document["metadata"]["at"],
            )
            for page in pages
            for document in page
        ]

    def search(self, searched: Callable[[str], list[list[Hit]]]) -> list[list[Hit]]:
        """Search so that each addition counts completely or not at all.

        Args:
            searched: Searches the documents that match one more condition.
        """
        hidden = ""
        while True:
            hits = searched(hidden)
            new = {hit.id for row in hits for hit in row if hit.id >= self._settled_until}
            new -= self._settled
            if not new:
                return hits
            # An addition that was in progress during the search still has its note.
            additions = self.additions()
            pending = [one for one in additions if not one.is_done]
            partial = {id_ for id_ in new if any(one.holds(id_) for one in additions)}
            self._settle(
                {id_ for id_ in new if not any(one.holds(id_) for one in pending)}, pending
            )
            if not partial:
                return hits
            hidden = _hiding(pending)

    def consistent(self, read: Callable[[str], T]) -> T:
        """Read so that each addition counts completely or not at all.

        Args:
            read: Reads the documents that match one more condition.
        """
        after = self.additions()
        while True:
            before = after
            answer = read(_hiding(one for one in before if not one.is_done))
            after = self.additions()
            if {(one.note_id, one.is_done) for one in before} >= {
                (one.note_id, one.is_done) for one in after
            }:
                return answer

    def remove_abandoned(self) -> None:
        """Remove what killed processes have written."""
        limit = times.utc_text(times.now() - ABANDONED)
        for one in self.additions():
            if not one.is_done and one.at < limit:
                for first, last in one.spans:
                    self._connection.remove(self._collection, range(first, last + 1))
                self._connection.remove(self._collection, [one.note_id])

    def _settle(self, ids: set[int], pending: Sequence[Addition]) -> None:
        """Note that pictures belong to complete additions, and so do all old ones."""
        others = self._settled if len(self._settled) < _MOST_SETTLED else set()
        self._settled = others | ids
        firsts = [first for one in pending for first, _ in one.spans]
        limit = first_id_at(times.now() - CLOCKS_AGREE)
        self._settled_until = max(self._settled_until, min([limit, *firsts]))

    def _remove_old(self) -> None:
        limit = times.utc_text(times.now() - KEPT)
        old = [one.note_id for one in self.additions() if one.is_done and one.at < limit]
        if old:
            self._connection.remove(self._collection, old)

    def _store(self, note_id: int, ids: Sequence[int], *, is_done: bool) -> None:
        spans = json.dumps(_spans(ids))
        if len(spans) > _MOST_BYTES:
            raise GalleryError(
                "expected an addition of at most about five million pictures to a gallery on "
                f"Milvus, got more than {len(ids)}; add them in parts"
            )
        about: dict[str, Scalar] = {
            "spans": spans,
            "done": is_done,
            "at": times.utc_text(times.now()),
        }
        self._connection.write(self._collection, [note(note_id, self._width, about)])


def _spans(ids: Sequence[int]) -> list[Span]:
    spans: list[Span] = []
    for id_ in sorted(ids):
        if spans and id_ == spans[-1][1] + 1:
            spans[-1] = spans[-1][0], id_
        else:
            spans.append((id_, id_))
    return spans


def _hiding(additions: Iterable[Addition]) -> str:
    """A condition that leaves out the pictures of additions."""
    terms = [f"(id < {first} or id > {last})" for one in additions for first, last in one.spans]
    return " and ".join(terms)
