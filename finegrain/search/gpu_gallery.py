"""A gallery whose vectors are searched on a GPU.

The file, filters, groups and exact scores are the same as for any gallery. The GPU holds a copy of
the vectors in fp16 and selects the candidate rows.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from finegrain.errors import GalleryError, PlanError
from finegrain.gallery import Gallery, Hit
from finegrain.gallery.backend import Search
from finegrain.gallery.entries import checked_k
from finegrain.gallery.grouping import Thinning
from finegrain.gallery.milvus import MilvusAddress
from finegrain.gallery.sqlite.followed_store import FollowedStore
from finegrain.index.exact import Ids, VectorIndex, Vectors
from finegrain.index.gpu.faiss_scan import FaissScan
from finegrain.index.gpu.mirror import Mirror, Scan
from finegrain.index.gpu.tensorrt_scan import Answer, TensorRtScan
from finegrain.plan import SEARCH, Plan
from finegrain.runtime.base import RuntimeChoice
from finegrain.runtime.tensorrt.backend import BackendName

FEW_ROWS = 4096
"""A filter that allows at most this many rows is searched on the host: 8 MiB at width 512."""
LEAST_SPARE = 4096
"""Minimum number of spare rows on the GPU. It is an eighth of the present rows if that is more, so
that a growing gallery is rarely copied again."""

MakeScan = Callable[[int, int, int], Scan]
"""Creates an empty scan from the number of vectors, the number of spare rows and the width."""


@runtime_checkable
class CaptionScan(Protocol):
    """A scan that also embeds captions."""

    def ask(self, ids: NDArray[np.int32], eot: NDArray[np.int32]) -> list[Answer]: ...


class GpuGallery(Gallery):
    """A :class:`~finegrain.gallery.Gallery` in a file, searched on a GPU with equal results.

    The host keeps the vectors in memory, and the GPU keeps a copy in fp16: 1 KiB for a row of width
    512, plus spare rows. The copy follows the file. New vectors are appended; deleted, expired and
    filtered pictures are left out of the results at once. The vector of a deleted picture stays
    in GPU memory, without its id, until an eighth of all rows was removed or the gallery is closed.
    Searches run one at a time.

    The GPU estimates the scores. The host proves that the best rows are among the candidates, or
    reads further rows. The index on the host searches if a filter allows few pictures, if ``k`` is
    too large for the selection on the GPU, and if the scores cannot be distinguished in fp16.

    Args:
        path: Path of the file; a missing file is created.
        fingerprint: Fingerprint of the plan of the vectors.
        dim: Width of the vectors; required for a new gallery.
        make_scan: Result of :func:`scan_maker`.

    Raises:
        GalleryError: The gallery cannot be opened, or is not a file.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        fingerprint: str | None = None,
        dim: int | None = None,
        make_scan: MakeScan,
    ) -> None:
        # The constructor of Gallery is not called, because it would open another store.
        require_file(path)
        self._gpu = GpuStore(Path(path), fingerprint=fingerprint, dim=dim, make_scan=make_scan)
        self._store = self._gpu

    def search_caption(
        self,
        ids: NDArray[np.int32],
        eot: NDArray[np.int32],
        k: int,
        where: str | None = None,
        *,
        group_by: str | None = None,
        distinct: float | None = None,
    ) -> list[Hit] | None:
        """Embed a caption and search for it in the same launch; see :meth:`search`.

        Args:
            ids: Token ids of the caption, int32 ``[1, L]``.
            eot: Position of the end-of-text token, int32 ``[1]``.
            k, where, group_by, distinct: As in :meth:`search`.

        Returns:
            The hits; None if the scan cannot embed captions, or the gallery is empty.
        """
        depth = checked_k(k)
        thinning = Thinning(self._store, group_by=group_by, distinct=distinct)
        embedded = self._gpu.embed_and_search(ids, eot, where)
        if embedded is None:
            return None
        vector, search = embedded
        return thinning.search(search, vector, depth)[0]


class GpuStore(FollowedStore):
    """A store that searches a copy of its vectors on a GPU.

    Args:
        path, fingerprint, dim: As in :class:`GpuGallery`.
        make_scan: Creates a scan each time all vectors are copied again.
    """

    def __init__(
        self, path: Path, *, fingerprint: str | None, dim: int | None, make_scan: MakeScan
    ) -> None:
        super().__init__(path, fingerprint=fingerprint, dim=dim, create=True, index=None)
        self._make_scan = make_scan
        self._turn = threading.Lock()
        self._process = os.getpid()
        self._mirror: Mirror | None = None

    def searching(self, where: str | None) -> Search:
        allowed = None if where is None else self.ids_where(where)
        return lambda queries, depth: self._search(queries, depth, allowed)

    def embed_and_search(
        self, ids: NDArray[np.int32], eot: NDArray[np.int32], where: str | None
    ) -> tuple[Vectors, Search] | None:
        """Embed a caption and run its first search on the GPU.

        Returns:
            The embedding ``[1, D]`` and a search for it, which uses the result of the first
            search; None if the scan cannot embed captions, or the gallery is empty.
        """
        allowed = None if where is None else self.ids_where(where)
        with self._turn:
            mirror = self._followed(self._index())
            if mirror is None or not isinstance(mirror.scan, CaptionScan):
                return None
            (answer,) = mirror.scan.ask(ids, eot)
        query, rows, estimates = answer.query, answer.rows, answer.estimates

        def search(queries: Vectors, depth: int) -> list[list[Hit]]:
            with self._turn:
                error, shown = mirror.error(query, answer.sent), mirror.shown(allowed)
                hits = mirror.settled(query, rows, estimates, error, depth, shown)
            return self._search(queries, depth, allowed) if hits is None else [hits]

        return answer.embedding[None], search

    def close(self) -> None:
        with self._turn:
            self._drop()
        super().close()

    def _search(self, queries: Vectors, k: int, allowed: Ids | None) -> list[list[Hit]]:
        with self._turn:
            index = self._index()
            if allowed is not None and len(allowed) <= FEW_ROWS:
                return index.search(queries, k, allowed)
            mirror = self._followed(index)
            if mirror is None:
                return [[] for _ in queries]
            return mirror.search(queries, k, allowed)

    def _index(self) -> VectorIndex:
        if self._process != os.getpid():
            raise GalleryError(
                f"{self.path} is searched on a GPU, which a forked process cannot use. Open it in "
                "this process, or start it by spawn: multiprocessing.get_context('spawn')."
            )
        # There is no approximate index here, so this is the exact one.
        return cast(VectorIndex, self._follower.index())

    def _followed(self, index: VectorIndex) -> Mirror | None:
        """The mirror of the present index; None if the index is empty."""
        if not len(index):
            self._drop()
            return None
        try:
            if self._mirror is None or not self._mirror.follow(index):
                # The old copy is released first, so that the GPU never holds two.
                self._drop()
                spare = max(len(index) // 8, LEAST_SPARE)
                self._mirror = Mirror(index, self._make_scan(len(index), spare, self.dim))
                self._mirror.follow(index)
        except BaseException:
            # The rows of the mirror and their ids may not agree after an error.
            self._drop()
            raise
        return self._mirror

    def _drop(self) -> None:
        mirror, self._mirror = self._mirror, None
        if mirror is not None:
            mirror.scan.close()


def scan_maker(plan: Plan, runtime: RuntimeChoice, *, trust_engines: bool = False) -> MakeScan:
    """Choose how this machine scans the vectors of a plan.

    TensorRT is used if it runs the towers and the plan has ``search.onnx``; it also embeds
    captions. Otherwise FAISS for GPUs is used, or PyTorch if FAISS for GPUs is not installed.

    Args:
        plan: The plan; it is opened again for each scan.
        runtime: Runtime of the towers.
        trust_engines: As in :class:`~finegrain.runtime.tensorrt.TensorRtRuntime`.

    Returns:
        A function that creates an empty scan.

    Raises:
        PlanError: There is no GPU.
        MissingExtraError: Neither PyTorch nor FAISS for GPUs is installed.
    """
    match runtime:
        case "tensorrt" | "tensorrt-rtx" if SEARCH in plan.manifest.sha256:
            return _scan_maker_with_captions(plan, runtime, trust_engines=trust_engines)
    if find_spec("torch") is not None and not FaissScan.is_for_gpus():
        from finegrain.index.gpu.torch_scan import TorchScan

        TorchScan.require_gpu()
        return lambda rows, spare, dim: TorchScan(_no_vectors(dim), "cuda", capacity=rows + spare)
    FaissScan.require_gpu()
    return lambda rows, spare, dim: FaissScan.on_gpu(_no_vectors(dim), capacity=rows + spare)


def _scan_maker_with_captions(plan: Plan, backend: BackendName, *, trust_engines: bool) -> MakeScan:
    path, fingerprint = plan.path, plan.manifest.fingerprint

    def make(rows: int, spare: int, dim: int) -> Scan:
        reopened = Plan(path)
        if reopened.manifest.fingerprint != fingerprint:
            raise PlanError(f"{path} was replaced by another plan; open the searcher again")
        return TensorRtScan(
            reopened, rows, spare=spare, backend=backend, trust_engines=trust_engines
        )

    return make


def require_file(path: str | Path | Gallery) -> None:
    """Check that a gallery is given by the path of a file, so that it can be searched on a GPU.

    Raises:
        GalleryError: The gallery is at an address, or is open already with an index of its own.
    """
    if isinstance(path, Gallery):
        raise GalleryError(
            "expected the path of a gallery to search on a GPU, got an open one, which has an "
            f"index of its own, exact or approximate. Close it and pass {str(path.path)!r}."
        )
    address = MilvusAddress.of(path)
    if address is not None:
        raise GalleryError(
            f"expected a gallery in a file to search on a GPU, got the address {address.shown}, "
            "whose server searches. Leave out vectors='gpu'."
        )


def _no_vectors(dim: int) -> NDArray[np.float16]:
    return np.empty((0, dim), np.float16)
