"""An immutable snapshot of rows in a FAISS index."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, Self

import faiss
import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from finegrain.index.approximate.kinds import Approximate, selecting
from finegrain.index.approximate.truth import Chunk, everything, fetched
from finegrain.index.backend import Truth
from finegrain.index.estimate import Ids, Vectors

_faiss: Any = faiss  # its type stubs lack the writer

SAMPLE_ROWS = 131_072
"""Number of training rows: 256 MiB at width 512."""


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """An index and the ids of its rows. It is immutable, so that any thread may search it.

    Attributes:
        index: Index from :meth:`Approximate.trained_on`, with all rows added.
        ids: Ids of its rows, ascending, ``[n]``.
        alive: Mask of the rows that are not removed, ``[n]``.
        rows_then: Number of rows at training.
        num_alive: Number of rows that are not removed.
    """

    index: faiss.Index
    ids: Ids
    alive: npt.NDArray[np.bool_]
    rows_then: int
    num_alive: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_alive", int(self.alive.sum()))

    @property
    def live_ids(self) -> Ids:
        """Ids of the rows that are not removed."""
        return self.ids[self.alive]

    @classmethod
    def over(cls, truth: Truth, kind: Approximate) -> Self:
        """Train on a random sample and add all rows; takes minutes for millions of rows.

        A terminal shows the progress.
        """
        ids = truth.ids()
        draw = np.random.default_rng(0).permutation(len(ids))[:SAMPLE_ROWS]
        sample = np.concatenate([vectors for _, vectors in fetched(truth, np.sort(ids[draw]))])
        empty = cls(
            kind.trained_on(sample, len(ids)), ids[:0], np.ones(0, np.bool_), rows_then=len(ids)
        )
        with tqdm(
            total=len(ids), unit=" pictures", desc="coding", disable=None, leave=False
        ) as bar:
            return empty._filled(empty.index, _counted(everything(truth), bar))

    def with_rows(self, chunks: Iterable[Chunk]) -> Self:
        """A copy with more rows, whose ids are above those of all present rows."""
        return self._filled(faiss.clone_index(self.index), chunks)

    def _filled(self, index: faiss.Index, chunks: Iterable[Chunk]) -> Self:
        new = [self.ids]
        for ids, vectors in chunks:
            index.add(vectors)
            new.append(ids)
        ids = np.concatenate(new)
        alive = np.ones(len(ids), np.bool_)
        alive[: len(self.ids)] = self.alive
        return replace(self, index=index, ids=ids, alive=alive)

    def without(self, ids: Ids) -> Self:
        """The same index, but searches no longer return the rows with these ids."""
        if not len(places := self._places(ids)):
            return self
        alive = self.alive.copy()
        alive[places] = False
        return replace(self, alive=alive)

    def num_code_bytes(self) -> int:
        """Bytes of the index, measured by writing it to nowhere."""
        sizes: list[int] = []
        writer = _faiss.PyCallbackIOWriter(lambda data: sizes.append(len(data)))
        faiss.write_index(self.index, writer)
        return sum(sizes)

    def candidates(
        self, kind: Approximate, queries: Vectors, k: int, allowed: Ids | None
    ) -> list[Ids]:
        """Candidate ids for each query of ``[Q, D]``, ascending."""
        selected = self._selected(allowed)
        if not (count := int(selected.sum())):
            return [self.ids[:0]] * len(queries)
        selector = selecting(selected) if count < len(self.ids) else None
        parameters = kind.parameters(self.index, selector, count / len(self.ids))
        depth = min(kind.depth(k), count)
        rows = self.index.search(queries, depth, params=parameters)[1]
        return [self.ids[np.sort(hits[hits >= 0])] for hits in rows]

    def _selected(self, allowed: Ids | None) -> npt.NDArray[np.bool_]:
        if allowed is None:
            return self.alive
        selected = np.zeros(len(self.ids), np.bool_)
        selected[self._places(allowed)] = True
        selected &= self.alive
        return selected

    def _places(self, ids: Ids) -> npt.NDArray[np.intp]:
        places = np.searchsorted(self.ids, ids)
        places[places == len(self.ids)] = 0
        return places[self.ids[places] == ids] if len(self.ids) else places[:0]


def _counted(chunks: Iterable[Chunk], bar: tqdm[NoReturn]) -> Iterator[Chunk]:
    for chunk in chunks:
        yield chunk
        bar.update(len(chunk[0]))
