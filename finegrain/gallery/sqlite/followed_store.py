"""A gallery's file together with its index in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from finegrain.gallery.backend import Search
from finegrain.gallery.sqlite.backup import tokens_of
from finegrain.gallery.sqlite.index_follower import Follower
from finegrain.gallery.sqlite.reindex import PictureEncoder, Reindexed, reindex
from finegrain.gallery.sqlite.store import Store
from finegrain.gallery.sqlite.tokens import forget_tokens, keep_tokens
from finegrain.index.approximate import Approximate, Tuned, tune
from finegrain.index.exact import Vectors


class FollowedStore(Store):
    """A :class:`Store` with an index in memory that follows the file.

    Tokens of a match head are in a second file next to it, and are deleted with their pictures.
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
        self._tokens = tokens_of(path)
        super().__init__(path, fingerprint=fingerprint, dim=dim, create=create)
        self._follower = Follower(self, index)

    def searching(self, where: str | None) -> Search:
        """Return a search over the present pictures that match a filter.

        Raises:
            FilterError: The filter does not parse, or compares a column with a wrong type.
            GalleryError: The file cannot be read, or was reindexed with another plan.
        """
        allowed = None if where is None else self.ids_where(where)
        index = self._follower.index()
        return lambda queries, depth: index.search(queries, depth, allowed)

    def tune(self, queries: Vectors, k: int, min_recall: float) -> Tuned:
        return tune(self._follower.index(), queries, k=k, min_recall=min_recall)

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

    def _check_at_opening(self, *, lost_log: bool) -> None:
        super()._check_at_opening(lost_log=lost_log)
        if not self.read_only and not self.erased():  # the token file may hold deleted pictures too
            keep_tokens(self._tokens, self._ids_stored())

    def _forget(self, ids: Sequence[int]) -> None:
        if ids:
            forget_tokens(self._tokens, ids)

    def _forget_plan(self) -> None:
        keep_tokens(self._tokens, [])

    def _ids_stored(self) -> list[int]:
        with self.reading() as run:
            return [id_ for (id_,) in run("SELECT id FROM picture")]
