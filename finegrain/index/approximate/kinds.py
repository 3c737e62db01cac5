"""The kinds of approximate index, each with one number that trades time for recall.

Embeddings of texts and of pictures are in different regions of the embedding space, and an index is
trained on pictures. It is therefore fast and accurate for image queries, and needs far more effort
for text queries.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import faiss
import numpy as np
import numpy.typing as npt

from finegrain.errors import GalleryError
from finegrain.index.backend import Truth
from finegrain.index.estimate import Vectors

if TYPE_CHECKING:
    from finegrain.index.approximate.index import ApproximateIndex

_faiss: Any = faiss  # its type stubs lack the keyword arguments

_LISTS_IN_PARALLEL = (
    1  # scan the lists of one query in parallel; the default is one thread per query
)
GATHER_ROWS = 8192
"""If fewer rows are allowed, their vectors are read instead of the index."""

_ROWS_A_CENTRE = 39  # with fewer training rows per centre, FAISS warns


class Approximate(ABC):
    """Description of an approximate index. Instances can be compared and printed."""

    def over(self, truth: Truth) -> ApproximateIndex:
        """An empty index of this kind over the vectors of a gallery's file."""
        from finegrain.index.approximate.index import ApproximateIndex  # it imports this module

        return ApproximateIndex(truth, self)

    @abstractmethod
    def trained_on(self, vectors: Vectors, rows: int) -> faiss.Index:
        """Train an empty index for inner products.

        Args:
            vectors: Random sample ``[n, D]`` of the vectors to be added.
            rows: Number of vectors to be added.
        """

    @abstractmethod
    def depth(self, k: int) -> int:
        """Number of candidates that get exact scores for ``k`` hits."""

    @abstractmethod
    def parameters(
        self, index: faiss.Index, selector: faiss.IDSelector | None, share: float
    ) -> faiss.SearchParameters:
        """Search parameters.

        Args:
            index: The index to search.
            selector: Rows that may be returned; None for all.
            share: Share of the rows that may be returned, above 0 to 1.
        """

    def gathered_rows(self, share: float) -> int:
        """Largest number of allowed rows for which reading their vectors is faster than the index.

        Args:
            share: Share of the rows that is allowed, above 0 to 1.
        """
        return GATHER_ROWS

    @abstractmethod
    def ladder(self) -> list[Self]:
        """The same kind with increasing effort, for tuning."""


@dataclass(frozen=True, slots=True)
class RaBitQ(Approximate):
    """Codes of a few bits per number: little memory and high recall, also for text queries.

    RaBitQ (Gao and Long, SIGMOD 2024, https://arxiv.org/abs/2405.12497; with several bits,
    SIGMOD 2025, https://arxiv.org/abs/2409.09913) rotates the vectors randomly and stores a few
    bits of each number, here of the difference to the nearest of 64 centres. At width 512, two
    bits per number take about 170 bytes per row; exact search takes 2,560. A query scans all
    codes, so its time is proportional to the size of the gallery, as for exact search.

    Attributes:
        candidates: Number of rows that get exact scores, per hit.
        bits: Bits per number, 1 to 9. Part of the index, and not tuned.

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
    """An inverted file with the codes of :class:`RaBitQ`; a query scans only the nearest lists.

    The number of lists is the square root of the number of rows, up to about three thousand.
    With a filter, a query scans more lists, because fewer rows of each list are allowed.

    Attributes:
        share: Share of the lists that a query scans, above 0 to 1.
        candidates: Number of rows that get exact scores, per hit. Not tuned.

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
    """A graph over codes of one byte per number: the fastest search, and slow to build.

    Hierarchical navigable small world graphs (Malkov and Yashunin, 2018,
    https://arxiv.org/abs/1603.09320). Building takes minutes per million rows. The links may not
    reach every row, so no effort guarantees a recall of 1. With a filter, a search visits more
    rows, because fewer of the visited rows are allowed.

    Attributes:
        ef: Size of the list of the best rows during a search (``efSearch``).

    Raises:
        GalleryError: The number is out of its range.
    """

    _LADDER: ClassVar = (32, 64, 128, 256, 512, 1024, 2048)
    _LINKS: ClassVar = 32
    _CANDIDATES: ClassVar = 4  # codes of a byte per number keep the order nearly
    _STEP: ClassVar = 4  # cost of visiting a row, in vectors read

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
        parameters: faiss.SearchParameters = _faiss.SearchParametersHNSW(sel=selector, efSearch=ef)
        return parameters

    def gathered_rows(self, share: float) -> int:
        # Visiting a row costs more than reading a vector. With 1% of a million rows allowed, a
        # search of the graph took 13 s, and reading the allowed vectors 30 ms.
        return max(GATHER_ROWS, self._STEP * self._widened(share))

    def ladder(self) -> list[Self]:
        return [replace(self, ef=ef) for ef in self._LADDER]

    def _widened(self, share: float) -> int:
        return math.ceil(self.ef / share)


def selecting(rows: npt.NDArray[np.bool_]) -> faiss.IDSelector:
    """A selector of the rows that are True, with one value for each row of an index."""
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
    """Search parameters for scanning a share of the lists."""
    probes = math.ceil(share * _faiss.extract_index_ivf(index).nlist)
    inner = _faiss.IVFRaBitQSearchParameters(sel=selector, nprobe=probes)
    parameters: faiss.SearchParameters = _faiss.SearchParametersPreTransform(index_params=inner)
    return parameters


def _trained(description: str, vectors: Vectors) -> faiss.Index:
    index = faiss.index_factory(vectors.shape[1], description, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    return index


def _check(name: str, value: Any, *, whole: bool, most: int) -> None:
    numeric = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not (numeric and 0 < value <= most):
        kind = f"a whole number from 1 to {most}" if whole else f"a number above 0, up to {most}"
        raise GalleryError(f"{name} is {kind}; got {value!r:.40}.")
