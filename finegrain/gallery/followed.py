"""A gallery's file together with its index in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from finegrain.gallery import times
from finegrain.gallery.approximate import Approximate, Tuned, tune
from finegrain.gallery.backend import Search
from finegrain.gallery.entries import Entry, OnDuplicate, paths_once
from finegrain.gallery.follower import Follower
from finegrain.gallery.index import Vectors
from finegrain.gallery.reindex import PictureEncoder, Reindexed, reindex
from finegrain.gallery.store import Store
from finegrain.gallery.tokens import forget_tokens


class FollowedStore(Store):
    """A :class:`Store` whose vectors are searched in memory, kept equal to the file.

    Tokens that a match head made of pictures lie in a file beside it, and go with them.
    """

    def __init__(
        self,
        path: Path,
        *,
        fingerprint: str | None,
        dim: int | None,
        create: bool,
        index: Approximate | None,
    ) -> None:
        super().__init__(path, fingerprint=fingerprint, dim=dim, create=create)
        self._follower = Follower(self, index)
        self._tokens = path.with_name(f"{path.name}.tokens")

    def searching(self, where: str | None) -> Search:
        """A search of what is in the file now and matches a filter.

        Raises:
            FilterError: The filter does not parse or does not fit its columns.
            GalleryError: The file cannot be read, or was reindexed with another plan.
        """
        allowed = None if where is None else self.ids_where(where)
        index = self._follower.index()
        return lambda queries, depth: index.search(queries, depth, allowed)

    def tune(self, queries: Vectors, k: int, min_recall: float) -> Tuned:
        return tune(self._follower.index(), queries, k=k, min_recall=min_recall)

    def insert(
        self, vectors: Vectors, entries: Sequence[Entry], on_duplicate: OnDuplicate = "add"
    ) -> list[int]:
        if on_duplicate != "replace":
            return super().insert(vectors, entries, on_duplicate)
        replaced = list(chain.from_iterable(self.known(paths_once(entries)).values()))
        try:
            return super().insert(vectors, entries, on_duplicate)
        finally:
            self._forget(replaced)

    def delete(self, ids: Iterable[int]) -> int:
        deleted = list(ids)
        try:
            return super().delete(deleted)
        finally:
            self._forget(deleted)

    def expire(self) -> int:
        expired = self.ids_expired("", times.utc_text(times.now())).tolist()
        try:
            return super().expire()
        finally:
            self._forget(expired)

    def reindex(
        self,
        encoder: PictureEncoder,
        fingerprint: str,
        *,
        drop_unreadable: bool,
        progress: bool,
    ) -> Reindexed:
        return reindex(
            self, encoder, fingerprint, drop_unreadable=drop_unreadable, progress=progress
        )

    def _forget(self, ids: list[int]) -> None:
        """Follow a deletion, also one that failed: an error may come after the rows are gone."""
        self._follower.distrust()
        forget_tokens(self._tokens, ids)
