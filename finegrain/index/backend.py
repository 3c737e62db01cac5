"""The interface of an index, and how a gallery is given one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from finegrain.index.estimate import Ids, Vectors
from finegrain.index.exact import Hit


class Truth(Protocol):
    """Source of all vectors by id, such as the gallery's file."""

    @property
    def dim(self) -> int:
        """Width of the vectors."""

    def ids(self) -> Ids:
        """All ids, ascending."""

    def vectors(self, ids: Iterable[int]) -> dict[int, Vectors]:
        """Vectors ``[D]`` by id; an id that is not stored is left out."""

    def vectors_after(self, last_id: int) -> Generator[tuple[Ids, Vectors], None, None]:
        """Ids above ``last_id`` with their vectors ``[n, D]``, ascending, in chunks."""


class SearchIndex(Protocol):
    """Vectors by id. One thread at a time adds or removes; any number may search meanwhile."""

    @property
    def ids(self) -> Ids:
        """Ids in the index, ascending, ``[N]``."""
        ...

    @property
    def last_id(self) -> int:
        """The highest id that was added, or 0."""
        ...

    def __len__(self) -> int: ...

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """Append vectors ``[N, D]`` under ascending ids greater than all before them."""
        ...

    def remove(self, ids: Ids) -> None:
        """Remove the rows with these ids; ids that are not in the index are ignored."""
        ...

    def search(self, queries: Vectors, k: int, allowed: Ids | None = None) -> list[list[Hit]]:
        """The ``k`` best rows of each query, best first; equal scores by ascending id.

        Args:
            queries: Queries ``[Q, D]``.
            k: Number of hits per query.
            allowed: If set, search only these ids, ascending.
        """
        ...

    def close(self) -> None:
        """Free what the index holds outside the memory of Python."""
        ...


class SearchBackend(Protocol):
    """A kind of index, which a gallery is given to search its vectors with."""

    def over(self, truth: Truth) -> SearchIndex:
        """An empty index, which the gallery fills.

        Args:
            truth: Source of all vectors by id, the gallery's file.
        """
        ...


class Launched(NamedTuple):
    """A caption that an index has embedded and searched for in one launch.

    Attributes:
        vector: Its embedding, ``[1, D]``.
        search: Searches for it like :meth:`SearchIndex.search`, beginning with the result of the
            launch.
    """

    vector: Vectors
    search: Callable[[Vectors, int, Ids | None], list[list[Hit]]]


@runtime_checkable
class BiasedIndex(Protocol):
    """An index whose rows may have a bias, a number that is added to their inner product."""

    def set_biases(self, ids: Ids, values: Vectors) -> None:
        """Set the biases of ids ``[n]``, ascending, some of which may be added later."""
        ...


@runtime_checkable
class MeasuredIndex(Protocol):
    """An index that states its memory."""

    def memory(self) -> dict[str, int]:
        """Bytes by part: ``ids``, ``codes``, ``vectors``, ``places``, ``biases`` and ``gpu``."""
        ...


@runtime_checkable
class CaptionIndex(Protocol):
    """An index that may also embed captions."""

    def launch(self, ids: NDArray[np.int32], eot: NDArray[np.int32]) -> Launched | None:
        """Embed a caption and search for it; None if this index cannot, or is empty.

        Args:
            ids: Token ids, int32 ``[1, L]``.
            eot: Position of the end-of-text token, int32 ``[1]``.
        """
        ...
