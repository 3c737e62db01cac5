"""The kinds of approximate index, each with the one number that trades time for recall.

Texts lie apart from pictures in the space of the vectors, and an index learns where pictures
lie. It is therefore quick and accurate for queries by picture and needs far more effort for
queries by text.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import faiss
import numpy as np
import numpy.typing as npt

from finegrain.errors import GalleryError
from finegrain.index.estimate import Vectors

_faiss: Any = faiss  # its stubs know none of the keyword arguments

_LISTS_IN_PARALLEL = 1  # else FAISS gives one query one thread
GATHER_ROWS = 8192
"""Of fewer allowed rows the vectors themselves are read."""

_ROWS_A_CENTRE = 39  # FAISS warns of fewer


class Approximate(ABC):
    """A wish for an approximate index; the values of a subclass can be compared and printed."""

    @abstractmethod
    def trained_on(self, vectors: Vectors, rows: int) -> faiss.Index:
        """An empty index for inner products.

        Args:
            vectors: Drawn from those to come, ``[n, D]``.
            rows: How many are to come.
        """

    @abstractmethod
    def depth(self, k: int) -> int:
        """How many candidates get exact scores for ``k`` hits."""

    @abstractmethod
    def parameters(
        self, index: faiss.Index, selector: faiss.IDSelector | None, share: float
    ) -> faiss.SearchParameters:
        """How to search an index of which a ``share`` of the rows may be found, those selected."""

    def gathered_rows(self, share: float) -> int:
        """Of fewer rows, where a ``share`` may be found, reading all their vectors is cheaper."""
        return GATHER_ROWS

    @abstractmethod
    def ladder(self) -> list[Self]:
        """The same kind at rising effort."""


@dataclass(frozen=True, slots=True)
class RaBitQ(Approximate):
    """All rows at a few bits a number: little memory and little lost, for texts too.

    RaBitQ (Gao and Long, SIGMOD 2024; with several bits, SIGMOD 2025) rotates the vectors at
    random and keeps a few bits of each number, here of what remains after the nearest of some
    centres. At width 512 two bits take about 170 bytes a row, where exact search takes 2,560.
    A query reads all codes, so its time grows with the gallery as that of exact search does.

    Attributes:
        candidates: For each hit wanted, how many rows get exact scores.
        bits: Of each number, 1 to 9. It shapes the index and is not tuned.

    Raises:
        GalleryError: A number is out of its range.
    """

    _LADDER: ClassVar = (4, 8, 16, 32, 64, 128)
    _CENTRES: ClassVar = 64

    candidates: int = 32
    bits: int = 2

    def __post_init__(self) -> None:
        _check("candidates", self.candidates, whole=True, most=1024)
        _check("bits", self.bits, whole=True, most=9)

    def trained_on(self, vectors: Vectors, rows: int) -> faiss.Index:
        return _lists_of_codes(self._CENTRES, self.bits, vectors)

    def depth(self, k: int) -> int:
        return self.candidates * k

    def parameters(
        self, index: faiss.Index, selector: faiss.IDSelector | None, share: float
    ) -> faiss.SearchParameters:
        return _reading(1.0, index, selector)

    def ladder(self) -> list[Self]:
        return [replace(self, candidates=candidates) for candidates in self._LADDER]


@dataclass(frozen=True, slots=True)
class Ivf(Approximate):
    """The codes of :class:`RaBitQ` in lists of neighbours, of which a query reads the nearest.

    As many lists as the square root of the rows, up to some three thousand. A filter widens
    what is read, since fewer of the rows in each list count.

    Attributes:
        share: Of the lists, how much a query reads, above 0 to 1.
        candidates: For each hit wanted, how many rows get exact scores. It is not tuned.

    Raises:
        GalleryError: A number is out of its range.
    """

    _LADDER: ClassVar = (0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
    _BITS: ClassVar = 2

    share: float = 0.5
    candidates: int = 32

    def __post_init__(self) -> None:
        _check("share", self.share, whole=False, most=1)
        _check("candidates", self.candidates, whole=True, most=1024)

    def trained_on(self, vectors: Vectors, rows: int) -> faiss.Index:
        return _lists_of_codes(math.isqrt(rows), self._BITS, vectors)

    def depth(self, k: int) -> int:
        return self.candidates * k

    def parameters(
        self, index: faiss.Index, selector: faiss.IDSelector | None, share: float
    ) -> faiss.SearchParameters:
        return _reading(min(1.0, self.share / share), index, selector)

    def ladder(self) -> list[Self]:
        return [replace(self, share=share) for share in self._LADDER]


@dataclass(frozen=True, slots=True)
class Hnsw(Approximate):
    """Rows at a byte a number, each linked to its neighbours: the quickest, and slow to build.

    Hierarchical navigable small worlds (Malkov and Yashunin, 2018). Building takes minutes for
    each million rows. Links need not lead to every row, so no effort promises to find it. A
    filter widens what is visited, since fewer of the rows on the way count.

    Attributes:
        ef: How many of the best rows seen so far a search goes on from.

    Raises:
        GalleryError: The number is out of its range.
    """

    _LADDER: ClassVar = (32, 64, 128, 256, 512, 1024, 2048)
    _LINKS: ClassVar = 32
    _CANDIDATES: ClassVar = 4  # a byte a number misplaces few
    _STEP: ClassVar = 4  # in fetched vectors

    ef: int = 512

    def __post_init__(self) -> None:
        _check("ef", self.ef, whole=True, most=65536)

    def trained_on(self, vectors: Vectors, rows: int) -> faiss.Index:
        return _trained(f"HNSW{self._LINKS},SQ8", vectors)

    def depth(self, k: int) -> int:
        return self._CANDIDATES * k

    def parameters(
        self, index: faiss.Index, selector: faiss.IDSelector | None, share: float
    ) -> faiss.SearchParameters:
        ef = min(index.ntotal, self._widened(share))
        found: faiss.SearchParameters = _faiss.SearchParametersHNSW(sel=selector, efSearch=ef)
        return found

    def gathered_rows(self, share: float) -> int:
        # A step along the links costs more than a vector that is fetched: at one picture in a
        # hundred of a million, 13 s were measured where fetching takes 30 ms.
        return max(GATHER_ROWS, self._STEP * self._widened(share))

    def ladder(self) -> list[Self]:
        return [replace(self, ef=ef) for ef in self._LADDER]

    def _widened(self, share: float) -> int:
        return math.ceil(self.ef / share)


def selecting(rows: npt.NDArray[np.bool_]) -> faiss.IDSelector:
    """Lets a search find only the rows that are true, of all in an index."""
    selector: faiss.IDSelector = _faiss.IDSelectorBitmap(np.packbits(rows, bitorder="little"))
    return selector


def _lists_of_codes(lists: int, bits: int, vectors: Vectors) -> faiss.Index:
    lists = min(lists, max(1, len(vectors) // _ROWS_A_CENTRE))
    index = _trained(f"RR{vectors.shape[1]},IVF{lists},RaBitQ{bits}", vectors)
    _faiss.extract_index_ivf(index).parallel_mode = _LISTS_IN_PARALLEL
    return index


def _reading(
    share: float, index: faiss.Index, selector: faiss.IDSelector | None
) -> faiss.SearchParameters:
    """To read a share of the lists."""
    probes = math.ceil(share * _faiss.extract_index_ivf(index).nlist)
    inner = _faiss.IVFRaBitQSearchParameters(sel=selector, nprobe=probes)
    found: faiss.SearchParameters = _faiss.SearchParametersPreTransform(index_params=inner)
    return found


def _trained(description: str, vectors: Vectors) -> faiss.Index:
    index = faiss.index_factory(vectors.shape[1], description, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    return index


def _check(name: str, value: Any, *, whole: bool, most: int) -> None:
    numeric = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not (numeric and 0 < value <= most):
        kind = f"a whole number from 1 to {most}" if whole else f"a number above 0, up to {most}"
        raise GalleryError(f"{name} is {kind}; got {value!r:.40}.")
