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
from finegrain.index.approximate.code_file import Floats
from finegrain.index.approximate.structures import Graph, Lists, Structure
from finegrain.index.backend import Truth
from finegrain.index.estimate import Vectors

if TYPE_CHECKING:
    from finegrain.index.approximate.index import ApproximateIndex

_faiss: Any = faiss  # its type stubs lack the keyword arguments

GATHER_ROWS = 8192
"""If fewer rows are allowed, their vectors are read instead of the index."""

_ROWS_A_CENTRE = 39  # with fewer training rows per centre, FAISS warns
_SEED = 12345


class Approximate(ABC):
    """Description of an approximate index. Instances can be compared and printed."""

    def over(self, truth: Truth) -> ApproximateIndex:
        """An empty index of this kind over the vectors of a gallery's file."""
        from finegrain.index.approximate.index import ApproximateIndex  # it imports this module

        self.check_width(truth.dim)
        return ApproximateIndex(truth, self)

    def check_width(self, width: int) -> None:  # noqa: B027
        """Check that vectors of a width can be indexed.

        Raises:
            GalleryError: They cannot.
        """

    @abstractmethod
    def trained_on(self, vectors: Vectors, rows: int) -> faiss.Index:
        """Train an empty index for inner products.

        Args:
            vectors: Random sample ``[n, D]`` of the vectors to be added.
            rows: Number of vectors to be added.
        """

    @property
    @abstractmethod
    def structure(self) -> Structure:
        """How the index arranges its codes."""

    def settings(self, width: int) -> bytes:
        """What kept codes depend on, at most 256 bytes; an effort is none of it."""
        return f"{type(self).__name__} over width {width}: {self.structure}".encode()

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
        dim: Number of principal components that are coded; None codes all numbers. With
            ``dim=128, bits=1`` a row takes 24 bytes. Scores stay exact, because candidates are
            scored by their full vectors. Recall depends on the data: measure it with
            :func:`tune`. Part of the index, and not tuned.

    Raises:
        GalleryError: A number is out of its range.
    """

    _LADDER: ClassVar = (4, 8, 16, 32, 64, 128)
    _CUT_LADDER: ClassVar = (*_LADDER, 256, 512, 1024)
    _CENTRES: ClassVar = 64

    candidates: int = 32
    bits: int = 2
    dim: int | None = None

    def __post_init__(self) -> None:
        _check("candidates", self.candidates, whole=True, most=1024)
        _check("bits", self.bits, whole=True, most=9)
        if self.dim is not None:
            _check("dim", self.dim, whole=True, most=65536)

    def __repr__(self) -> str:
        dim = "" if self.dim is None else f", dim={self.dim}"
        return f"RaBitQ(candidates={self.candidates}, bits={self.bits}{dim})"

    @property
    def structure(self) -> Lists:
        return Lists(self.bits, self.dim)

    def check_width(self, width: int) -> None:
        if self.dim is not None and self.dim > width:
            raise GalleryError(
                f"expected dim= of at most the width of the vectors, {width}, got {self.dim}; "
                "leave it out to code all numbers"
            )

    def trained_on(self, vectors: Vectors, rows: int) -> faiss.Index:
        return _lists_of_codes(self._CENTRES, self.structure, vectors)

    def depth(self, k: int) -> int:
        return self.candidates * k

    def parameters(
        self, index: faiss.Index, selector: faiss.IDSelector | None, share: float
    ) -> faiss.SearchParameters:
        return _reading(1.0, index, selector)

    def ladder(self) -> list[Self]:
        ladder = self._LADDER if self.dim is None else self._CUT_LADDER
        return [replace(self, candidates=candidates) for candidates in ladder]


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

    @property
    def structure(self) -> Lists:
        return Lists(self._BITS)

    def trained_on(self, vectors: Vectors, rows: int) -> faiss.Index:
        return _lists_of_codes(math.isqrt(rows), self.structure, vectors)

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

    @property
    def structure(self) -> Graph:
        return Graph(self._LINKS)

    def trained_on(self, vectors: Vectors, rows: int) -> faiss.Index:
        width = vectors.shape[1]
        description = f"HNSW{self._LINKS},SQ8"
        index = faiss.index_factory(width, description, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors)
        return index

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


def _lists_of_codes(lists: int, structure: Lists, vectors: Vectors) -> faiss.Index:
    """An index without rows, whose matrix and centres fit the vectors."""
    lists = min(lists, max(1, len(vectors) // _ROWS_A_CENTRE))
    matrix = _random_rotation(structure.dim or vectors.shape[1])
    if structure.dim is not None:
        matrix = matrix @ _principal_components(vectors, structure.dim)
    description = f"IVF{lists},RaBitQ{structure.bits}"
    index = faiss.index_factory(len(matrix), description, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors @ matrix.T)
    centres = _faiss.extract_index_ivf(index).quantizer.reconstruct_n(0, lists)
    return structure.trained(matrix, centres)


def _random_rotation(dim: int) -> Floats:
    rotation = _faiss.RandomRotationMatrix(dim, dim)
    rotation.init(_SEED)
    matrix: Floats = _faiss.vector_to_array(rotation.A).reshape(dim, dim)
    return matrix


def _principal_components(vectors: Vectors, dim: int) -> Floats:
    """Directions in which vectors differ most, ``[d, D]``.

    Vectors are not centred when they are multiplied by it. What all rows have in common changes
    all scores of a query by one number, and a difference from their mean would not.
    """
    wide = vectors - vectors.mean(axis=0, dtype=np.float64)
    _, directions = np.linalg.eigh(wide.T @ wide)  # by ascending variance
    components: Floats = directions[:, : -dim - 1 : -1].T.astype(np.float32)
    return components


def _reading(
    share: float, index: faiss.Index, selector: faiss.IDSelector | None
) -> faiss.SearchParameters:
    """Search parameters for scanning a share of the lists."""
    probes = math.ceil(share * _faiss.extract_index_ivf(index).nlist)
    inner = _faiss.IVFRaBitQSearchParameters(sel=selector, nprobe=probes)
    parameters: faiss.SearchParameters = _faiss.SearchParametersPreTransform(index_params=inner)
    return parameters


def _check(name: str, value: Any, *, whole: bool, most: int) -> None:
    numeric = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not (numeric and 0 < value <= most):
        kind = f"a whole number from 1 to {most}" if whole else f"a number above 0, up to {most}"
        raise GalleryError(f"{name} is {kind}; got {value!r:.40}.")
