"""Conversion of FAISS indexes to arrays, and back.

FAISS reads its own files without checking each number, so a damaged file could make it read memory
that is not its own. Here each array has a known type, and its numbers are checked before FAISS
gets them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt

from finegrain.index.approximate.code_file import Bytes, CodesInvalidError, Floats, Numbers
from finegrain.index.estimate import Vectors

_faiss: Any = faiss  # its type stubs lack much of what follows

LISTS_IN_PARALLEL = 1
"""Scan the lists of one query in parallel; the default is one thread per query."""

_METRIC = faiss.METRIC_INNER_PRODUCT

Places = npt.NDArray[np.int64]


class CodedRows(NamedTuple):
    """Consecutive rows of an index, in the order in which their codes are stored.

    Attributes:
        places: Numbers of the rows in the index, ``[n]``.
        codes: Codes ``[n, C]``.
        arrangement: What the structure needs besides codes, ``[m]``.
    """

    places: Places
    codes: Bytes
    arrangement: Numbers


class Structure(ABC):
    """How an index arranges its codes."""

    @abstractmethod
    def code_bytes(self, width: int) -> int:
        """Bytes of the code of a vector of some width."""

    @abstractmethod
    def learned(self, index: faiss.Index) -> Floats:
        """The numbers that training has learned, ``[m]``."""

    @abstractmethod
    def rows(self, index: faiss.Index, start: int, stop: int) -> CodedRows:
        """Some rows of an index."""

    @abstractmethod
    def restored(self, width: int, learned: Floats, batches: Iterable[CodedRows]) -> faiss.Index:
        """An index from what :meth:`learned` and :meth:`rows` returned.

        Raises:
            CodesInvalidError: The numbers do not describe an index.
        """

    @property
    @abstractmethod
    def is_appended_to(self) -> bool:
        """Whether more rows leave the arrays of earlier rows as they are."""

    @property
    def deleted_code(self) -> int:
        """Byte that replaces those of the code of a deleted row."""
        return 0


@dataclass(frozen=True, slots=True)
class Lists(Structure):
    """Lists of RaBitQ codes of vectors that are multiplied by a matrix first.

    Attributes:
        bits: Bits of a number.
        dim: Width after the multiplication; None for that of the vectors.
    """

    bits: int
    dim: int | None = None

    @property
    def is_appended_to(self) -> bool:
        return True

    def code_bytes(self, width: int) -> int:
        return int(_faiss.RaBitQuantizer(self.dim or width, _METRIC, self.bits).code_size)

    def trained(self, matrix: Floats, centres: Floats) -> faiss.Index:
        """An index without rows.

        Args:
            matrix: What vectors are multiplied by, ``[d, D]``, with orthonormal rows.
            centres: Centres of the lists, ``[L, d]``.
        """
        dim, width = matrix.shape
        flat = _faiss.IndexFlatIP(dim)
        flat.add(np.ascontiguousarray(centres))
        lists = _faiss.IndexIVFRaBitQ(flat, dim, len(centres), _METRIC, True, self.bits)
        flat.this.disown()
        lists.own_fields = True
        lists.is_trained = True
        lists.parallel_mode = LISTS_IN_PARALLEL
        multiplied = _faiss.LinearTransform(width, dim, False)
        _fill(multiplied.A, matrix.reshape(-1))
        multiplied.is_trained = True
        multiplied.set_is_orthonormal()
        index = _faiss.IndexPreTransform(lists)
        index.prepend_transform(multiplied)
        lists.this.disown()
        multiplied.this.disown()
        index.own_fields = True
        trained: faiss.Index = index
        return trained

    def learned(self, index: faiss.Index) -> Floats:
        lists = _lists_of(index)
        centres = lists.quantizer.reconstruct_n(0, lists.nlist)
        matrix = _faiss.vector_to_array(_faiss.downcast_VectorTransform(index.chain.at(0)).A)  # type: ignore[attr-defined]
        return np.concatenate([matrix, centres.reshape(-1)])

    def rows(self, index: faiss.Index, start: int, stop: int) -> CodedRows:
        lists = _lists_of(index)
        counts = np.zeros(lists.nlist, np.int32)
        places, codes = [], []
        for number in range(lists.nlist):
            size = lists.invlists.list_size(number)
            if not size:
                continue
            held = _faiss.rev_swig_ptr(lists.invlists.get_ids(number), size)  # ascending
            first, last = np.searchsorted(held, [start, stop])
            counts[number] = last - first
            data = _faiss.rev_swig_ptr(
                lists.invlists.get_codes(number), size * lists.code_size
            ).reshape(size, lists.code_size)
            places.append(held[first:last].copy())
            codes.append(data[first:last].copy())
        return CodedRows(np.concatenate(places), np.concatenate(codes), counts)

    def restored(self, width: int, learned: Floats, batches: Iterable[CodedRows]) -> faiss.Index:
        dim = self.dim or width
        matrix, centres = learned[: dim * width], learned[dim * width :]
        if len(matrix) < dim * width or not len(centres) or len(centres) % dim:
            raise CodesInvalidError("the centres of the lists do not have the width of the vectors")
        _check_finite(learned)
        index = self.trained(matrix.reshape(dim, width), centres.reshape(-1, dim))
        lists = _lists_of(index)
        for places, codes, counts in batches:
            if len(counts) != lists.nlist or (counts < 0).any() or counts.sum() != len(places):
                raise CodesInvalidError("the lists do not hold the rows")
            ends = np.cumsum(counts).tolist()
            for number, (count, end) in enumerate(zip(counts.tolist(), ends, strict=True)):
                if count:
                    own = slice(end - count, end)
                    lists.invlists.add_entries(
                        number, count, _pointer(places[own]), _pointer(codes[own])
                    )
            index.ntotal = lists.ntotal = lists.ntotal + len(places)
        return index


@dataclass(frozen=True, slots=True)
class Graph(Structure):
    """A navigable graph over codes of one byte per number.

    Attributes:
        links: Links of a row on each level; twice as many on the lowest.
    """

    links: int

    @property
    def is_appended_to(self) -> bool:
        return False

    @property
    def deleted_code(self) -> int:
        return 128  # the middle of a range: near to no query, so that few searches lead over it

    def code_bytes(self, width: int) -> int:
        return width

    def learned(self, index: faiss.Index) -> Floats:
        learned: Floats = _faiss.vector_to_array(_storage_of(index).sq.trained)
        return learned

    def rows(self, index: faiss.Index, start: int, stop: int) -> CodedRows:
        graph = index.hnsw  # type: ignore[attr-defined]
        offsets = _faiss.vector_to_array(graph.offsets)
        neighbors = _faiss.vector_to_array(graph.neighbors)
        levels = _faiss.vector_to_array(graph.levels)
        codes = _faiss.vector_to_array(_storage_of(index).codes).reshape(index.ntotal, -1)
        arranged = [
            np.array([graph.entry_point], np.int32),
            levels[start:stop],
            neighbors[int(offsets[start]) : int(offsets[stop])],
        ]
        return CodedRows(np.arange(start, stop), codes[start:stop], np.concatenate(arranged))

    def restored(self, width: int, learned: Floats, batches: Iterable[CodedRows]) -> faiss.Index:
        index = _faiss.IndexHNSWSQ(width, _faiss.ScalarQuantizer.QT_8bit, self.links, _METRIC)
        storage, graph = _storage_of(index), index.hnsw
        if len(learned) != 2 * width:
            raise CodesInvalidError("the ranges of the codes do not have the width of the vectors")
        _check_finite(learned)
        rows = list(batches)
        capacities = _faiss.vector_to_array(graph.cum_nneighbor_per_level).astype(np.int64)
        entry, levels, offsets, neighbors = self._checked(rows, capacities)
        _fill(storage.sq.trained, learned)
        codes = [some.codes for some in rows]
        _fill(storage.codes, np.concatenate(codes).reshape(-1))
        _fill(graph.levels, levels)
        _fill(graph.offsets, offsets.astype(np.uint64))
        _fill(graph.neighbors, neighbors)
        graph.entry_point, graph.max_level = entry, int(levels.max()) - 1
        index.is_trained = storage.is_trained = True
        index.ntotal = storage.ntotal = len(levels)
        restored: faiss.Index = index
        return restored

    def _checked(
        self, rows: Sequence[CodedRows], capacities: Places
    ) -> tuple[int, Numbers, Places, Numbers]:
        """Entry point, levels, offsets and links, of which all point into the graph."""
        for some in rows:
            if len(some.arrangement) <= len(some.places):
                raise CodesInvalidError("the graph lacks rows")
        levels = np.concatenate([some.arrangement[1 : 1 + len(some.places)] for some in rows])
        neighbors = np.concatenate([some.arrangement[1 + len(some.places) :] for some in rows])
        entry, count = int(rows[0].arrangement[0]), len(levels)
        if (levels < 1).any() or (levels >= len(capacities)).any():
            raise CodesInvalidError("the levels of the graph are out of their range")
        offsets = np.concatenate([[0], np.cumsum(capacities[levels])])
        if (
            offsets[-1] != len(neighbors)
            or (neighbors < -1).any()
            or (neighbors >= count).any()
            or not 0 <= entry < count
            or levels[entry] != levels.max()
        ):
            raise CodesInvalidError("the links of the graph do not point to its rows")
        for level in range(1, int(levels.max())):
            tall = np.flatnonzero(levels > level)
            own = np.arange(int(capacities[level]), int(capacities[level + 1]))
            ends = neighbors[offsets[tall][:, None] + own]
            if (levels[ends[ends >= 0]] <= level).any():
                raise CodesInvalidError("the links of the graph leave their level")
        return entry, levels, offsets, neighbors


def _lists_of(index: faiss.Index) -> Any:
    return _faiss.downcast_index(_faiss.extract_index_ivf(index))


def _storage_of(index: faiss.Index) -> Any:
    return _faiss.downcast_index(index.storage)  # type: ignore[attr-defined]


def _fill(vector: Any, array: npt.NDArray[np.generic]) -> None:
    _faiss.copy_array_to_vector(np.ascontiguousarray(array), vector)


def _pointer(array: npt.NDArray[np.generic]) -> Any:
    return _faiss.swig_ptr(np.ascontiguousarray(array))


def _check_finite(numbers: Vectors) -> None:
    if not np.isfinite(numbers).all():
        raise CodesInvalidError("a number that training has learned is not finite")
