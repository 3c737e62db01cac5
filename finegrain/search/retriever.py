"""The first stage of a search: the pictures whose vectors are nearest to a query's."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from finegrain.encoder import Encoder
from finegrain.errors import GalleryError, QueryError
from finegrain.gallery import Gallery, Hit
from finegrain.plan import Plan
from finegrain.preprocess import ImageSource
from finegrain.runtime.base import RuntimeChoice
from finegrain.search.gpu_gallery import GpuGallery, require_file, scan_maker

MAX_QUERY_CHARACTERS = 2_000

VectorPlace = Literal["memory", "gpu"]
"""Where the vectors are that a search reads."""


class FirstStage:
    """The gallery of a plan, made when it is first needed, and what encodes queries for it.

    Args:
        plan: Its graphs are moved into the runtime.
        gallery: Path or address, or an open gallery; by default beside the plan.
        vectors, runtime, threads, trust_engines: As of :class:`~finegrain.Searcher`.

    Raises:
        PlanError: The plan cannot be run, or there is no GPU to search on.
        MissingExtraError: The runtime, or what searches on a GPU, is not installed.
        GalleryError: The gallery is damaged, holds vectors of another plan, or cannot be
            searched where it is asked for.
    """

    def __init__(
        self,
        plan: Plan,
        gallery: str | Path | Gallery | None,
        *,
        vectors: VectorPlace,
        runtime: RuntimeChoice,
        threads: int | None,
        trust_engines: bool,
    ) -> None:
        if vectors not in ("memory", "gpu"):
            raise QueryError(f"expected vectors='memory' or 'gpu', got {vectors!r:.40}")
        self._dim, self._fingerprint = plan.manifest.embed_dim, plan.manifest.fingerprint
        place = gallery_path(plan.path, gallery) if not isinstance(gallery, Gallery) else gallery
        self._make_scan = None
        if vectors == "gpu":
            # Before the minutes that towers may take to be built.
            require_file(place)
            self._make_scan = scan_maker(plan, runtime, trust_engines=trust_engines)
        self.encoder = Encoder.from_plan(
            plan, runtime=runtime, threads=threads, trust_engines=trust_engines
        )
        self.opened: Gallery | None = None
        if isinstance(place, Gallery):
            self.path = place.path
            self._refuse_foreign_vectors(place)
            self.opened = place
        else:
            self.path = place
            if Gallery.exists(place):
                self.made()

    @property
    def gallery(self) -> Gallery:
        """The open gallery.

        Raises:
            GalleryError: Nothing was added yet.
        """
        if self.opened is None:
            raise GalleryError(
                f"there is no gallery at {self.path} yet. Add pictures with Searcher.add(folder) "
                "or: finegrain index PLAN FOLDER"
            )
        return self.opened

    def made(self) -> Gallery:
        """The open gallery, which is made where there is none."""
        if self.opened is None:
            fingerprint, dim = self._fingerprint, self._dim
            self.opened = (
                Gallery(self.path, fingerprint=fingerprint, dim=dim)
                if self._make_scan is None
                else GpuGallery(
                    self.path, fingerprint=fingerprint, dim=dim, make_scan=self._make_scan
                )
            )
        return self.opened

    def hits(
        self,
        queries: Sequence[str | ImageSource],
        k: int,
        where: str | None,
        *,
        group_by: str | None,
        distinct: float | None,
    ) -> list[list[Hit]]:
        """The ``k`` best of each query; see :meth:`finegrain.gallery.Gallery.search`.

        Raises:
            ImageError: The query picture cannot be read.
        """
        gallery = self.gallery
        if len(queries) == 1 and isinstance(queries[0], str) and isinstance(gallery, GpuGallery):
            tokens = self.encoder.tokenizer.encode([queries[0]])
            ids = np.ascontiguousarray(tokens.ids[:, : tokens.eot[0] + 1])
            hits = gallery.search_caption(
                ids, tokens.eot, k, where, group_by=group_by, distinct=distinct
            )
            if hits is not None:
                return [hits]
        return gallery.search(
            self._encoded(queries), k, where, group_by=group_by, distinct=distinct
        )

    def _encoded(self, queries: Sequence[str | ImageSource]) -> NDArray[np.float32]:
        """Embeddings of texts and pictures, ``[Q, D]``."""
        vectors = np.empty((len(queries), self.encoder.embed_dim), np.float32)
        texts = {n: query for n, query in enumerate(queries) if isinstance(query, str)}
        pictures = {n: query for n, query in enumerate(queries) if not isinstance(query, str)}
        if texts:
            vectors[list(texts)] = self.encoder.encode_texts(list(texts.values()))
        if pictures:
            vectors[list(pictures)] = self.encoder.encode_images(list(pictures.values()))
        return vectors

    def close(self) -> None:
        self.encoder.close()
        if self.opened is not None:
            self.opened.close()

    def _refuse_foreign_vectors(self, gallery: Gallery) -> None:
        if gallery.fingerprint != self._fingerprint:
            raise GalleryError(
                f"{gallery.path} holds vectors of plan {str(gallery.fingerprint)[:12]}, and this "
                f"is plan {self._fingerprint[:12]}; vectors of two plans do not compare. "
                "Encode its pictures again: finegrain index PLAN PICTURES --reindex"
            )


def gallery_path(plan: Path, gallery: str | Path | None) -> str | Path:
    """Where the gallery of a plan is, unless it is said."""
    return plan.with_suffix(".gallery") if gallery is None else gallery


def check_query(query: object) -> None:
    """Refuse what cannot be searched for.

    Raises:
        QueryError: It is no picture, or a text that is empty, too long or not text.
    """
    if isinstance(query, str):
        _check_text(query)
    elif not isinstance(query, Path | bytes | np.ndarray | Image.Image):
        raise QueryError(f"expected a text or a picture to search for, got {type(query).__name__}")


def _check_text(query: str) -> None:
    if not query.strip():
        raise QueryError("the query is empty; say what to look for, as in 'woman in red coat'")
    if len(query) > MAX_QUERY_CHARACTERS:
        raise QueryError(
            f"the query has {len(query)} characters, more than {MAX_QUERY_CHARACTERS}; "
            "a caption of a sentence or two searches best"
        )
    control = [c for c in query if unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\n\r"]
    if control:
        raise QueryError(f"the query holds the control character {control[0]!r}; remove it")
