"""Exact search on a GPU, with the results of the exact index on the host."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from finegrain.errors import GalleryError
from finegrain.index.backend import Launched, Truth
from finegrain.index.exact import Hit, Ids, VectorIndex, Vectors
from finegrain.index.gpu.mirror import Mirror
from finegrain.index.gpu.scans import MakeScan
from finegrain.index.gpu.tensorrt_scan import Answer

FEW_ROWS = 4096
"""A filter that allows at most this many rows is searched on the host: 8 MiB at width 512."""
LEAST_SPARE = 4096
"""Minimum number of spare rows on the GPU. It is an eighth of the present rows if that is more, so
that a growing gallery is rarely copied again."""


@runtime_checkable
class CaptionScan(Protocol):
    """A scan that also embeds captions."""

    def ask(self, ids: NDArray[np.int32], eot: NDArray[np.int32]) -> list[Answer]: ...


@dataclass(frozen=True, slots=True)
class Gpu:
    """Searches a gallery in a file on a GPU, with the hits of exact search.

    Args:
        make_scan: Result of :func:`~finegrain.index.gpu.scans.scan_maker`.
    """

    make_scan: MakeScan

    def over(self, truth: Truth) -> GpuIndex:
        return GpuIndex(truth.dim, self.make_scan)


class GpuIndex:
    """An exact index on the host with a copy on a GPU that selects the candidate rows.

    The host keeps the vectors in memory, and the GPU keeps a copy in fp16: 1 KiB for a row of width
    512, plus spare rows. A search first brings the copy up to date. New vectors are appended;
    removed and filtered rows are left out of the results at once. The vector of a removed row stays
    in GPU memory, without its id, until an eighth of all rows was removed or the index is closed.
    Searches run one at a time.

    The GPU estimates the scores. The host proves that the best rows are among the candidates, or
    reads further rows. The index on the host searches if a row has a bias, if a filter allows few
    rows, if ``k`` is too large for the selection on the GPU, and if the scores cannot be
    distinguished in fp16.

    Args:
        dim: Width of the vectors.
        make_scan: Creates a scan each time all vectors are copied again.
    """

    def __init__(self, dim: int, make_scan: MakeScan) -> None:
        self._dim = dim
        self._host = VectorIndex(dim)
        self._make_scan = make_scan
        self._turn = threading.Lock()
        self._process = os.getpid()
        self._mirror: Mirror | None = None
        self._closed = False

    @property
    def ids(self) -> Ids:
        """Ids in the index, ascending, ``[N]``."""
        return self._host.ids

    @property
    def last_id(self) -> int:
        """The highest id in the index, or 0."""
        return self._host.last_id

    def __len__(self) -> int:
        return len(self._host)

    def memory(self) -> dict[str, int]:
        """Bytes in memory by part; see :class:`~finegrain.index.backend.MeasuredIndex`."""
        mirror = self._mirror
        on_gpu = 0 if mirror is None else 2 * self._dim * mirror.scan.capacity
        return self._host.memory() | {"gpu": on_gpu}

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """Append vectors ``[N, D]`` under ascending ids greater than all before them."""
        self._host.add(ids, vectors)

    def remove(self, ids: Ids) -> None:
        """Remove the rows with these ids; ids that are not in the index are ignored."""
        self._host.remove(ids)

    def set_biases(self, ids: Ids, values: Vectors) -> None:
        """See :class:`~finegrain.index.backend.BiasedIndex`."""
        self._host.set_biases(ids, values)

    def search(self, queries: Vectors, k: int, allowed: Ids | None = None) -> list[list[Hit]]:
        """Same hits as :meth:`VectorIndex.search <finegrain.index.exact.VectorIndex.search>`.

        Raises:
            GalleryError: This is a forked process, or a number is outside the range of fp16.
            PlanError: The GPU failed.
        """
        self._check_process()
        with self._turn:
            is_few = allowed is not None and len(allowed) <= FEW_ROWS
            on_host = is_few or self._closed or self._host.is_biased
            mirror = None if on_host else self._followed()
            if mirror is None:
                return self._host.search(queries, k, allowed)
            return mirror.search(queries, k, allowed)

    def launch(self, ids: NDArray[np.int32], eot: NDArray[np.int32]) -> Launched | None:
        """Embed a caption and search for it in one launch.

        Returns:
            None if the scan cannot embed captions, a row has a bias, or the index is empty.
        """
        self._check_process()
        with self._turn:
            mirror = None if self._host.is_biased else self._followed()
            if mirror is None or not isinstance(mirror.scan, CaptionScan):
                return None
            (answer,) = mirror.scan.ask(ids, eot)
        query, rows, estimates = answer.query, answer.rows, answer.estimates

        def search(queries: Vectors, k: int, allowed: Ids | None) -> list[list[Hit]]:
            with self._turn:
                error, shown = mirror.error(query, answer.sent), mirror.shown(allowed)
                hits = mirror.settled(query, rows, estimates, error, k, shown)
            return self.search(queries, k, allowed) if hits is None else [hits]

        return Launched(answer.embedding[None], search)

    def close(self) -> None:
        """Free the memory of the GPU; a search that comes later runs on the host."""
        with self._turn:
            self._closed = True
            self._drop()

    def _check_process(self) -> None:
        if self._process != os.getpid():
            raise GalleryError(
                "The gallery is searched on a GPU, which a forked process cannot use. Open it in "
                "this process, or start it by spawn: multiprocessing.get_context('spawn')."
            )

    def _followed(self) -> Mirror | None:
        """The mirror of the present rows; None if there are none."""
        if not len(self._host):
            self._drop()
            return None
        try:
            if self._mirror is None or not self._mirror.follow(self._host):
                # The old copy is released first, so that the GPU never holds two.
                self._drop()
                count = len(self._host)
                spare = max(count // 8, LEAST_SPARE)
                self._mirror = Mirror(self._host, self._make_scan(count, spare, self._dim))
                self._mirror.follow(self._host)
        except BaseException:
            # The rows of the mirror and their ids may not agree after an error.
            self._drop()
            raise
        return self._mirror

    def _drop(self) -> None:
        mirror, self._mirror = self._mirror, None
        if mirror is not None:
            mirror.scan.close()
