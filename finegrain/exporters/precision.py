"""Precisions of exported graphs, and how close to fp32 they must be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from numpy.typing import NDArray

Batches = Iterable[Mapping[str, NDArray[Any]]]
"""Batches of a graph's inputs by name. Only calibrated precisions read them, and only once."""


class Precision(Protocol):
    """The precision of a tower.

    Attributes:
        name: Name of the precision in the plan's manifest.
        min_cosine: Smallest cosine between an embedding of the exported tower and its eager twin.
    """

    @property
    def name(self) -> str: ...

    @property
    def min_cosine(self) -> float: ...

    def lower(self, graph: bytes, batches: Batches = ()) -> bytes:
        """Convert an fp32 ONNX graph. Its inputs and outputs stay the same.

        Args:
            graph: The graph in fp32.
            batches: Real inputs, for a precision whose scales depend on them.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Fp32:
    """Single precision: the graph stays as it is."""

    name: ClassVar[str] = "fp32"

    min_cosine: float = 0.9999

    def lower(self, graph: bytes, batches: Batches = ()) -> bytes:
        return graph
