"""What an exported graph computes in, and how near to fp32 that has to stay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from numpy.typing import NDArray

Batches = Iterable[Mapping[str, NDArray[Any]]]
"""Inputs of a graph by name, batch by batch; read once, and only by who calibrates."""


class Precision(Protocol):
    """A way to compute a tower.

    Attributes:
        name: As the plan's manifest states it.
        min_cosine: Least cosine between an embedding of the exported tower and its eager twin.
    """

    @property
    def name(self) -> str: ...

    @property
    def min_cosine(self) -> float: ...

    def lower(self, graph: bytes, batches: Batches = ()) -> bytes:
        """The twin of an fp32 ONNX graph: the same inputs and outputs.

        Args:
            graph: The graph in fp32.
            batches: Real inputs, for a precision whose scales depend on them.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Fp32:
    """The graph as it is."""

    name: ClassVar[str] = "fp32"

    min_cosine: float = 0.9999

    def lower(self, graph: bytes, batches: Batches = ()) -> bytes:
        return graph
