"""The encoder: captions and pictures in, embeddings out.

It joins the one preprocessing to any runtime, so that evaluation, export checks and
search see the same vectors.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from finegrain.errors import ImageError, MissingExtraError, PlanError
from finegrain.plan import TOKENIZER, Plan
from finegrain.preprocess import Cleaning, ImageSource, ImageTransform, Tokenizer, load_image
from finegrain.records import Matched, PictureTokens, Problem
from finegrain.runtime.base import (
    TRITON,
    MatchRuntime,
    Reopening,
    Runtime,
    RuntimeChoice,
    RuntimeName,
)

# Decoding releases the interpreter lock, and two threads keep ahead of any CPU model here.
DECODERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A batch of pictures that were read and encoded, and those that were not.

    Attributes:
        positions: Which of the sources the rows are, ``[N]``.
        embeddings: float32 ``[N, D]``.
        problems: Sources of this batch that could not be read.
        tokens: What a match head looks at, where asked for.
    """

    positions: list[int]
    embeddings: NDArray[np.float32]
    problems: list[Problem]
    tokens: PictureTokens | None = None


class Encoder:
    """Preprocessing and a runtime.

    Args:
        runtime: Runs the towers.
        tokenizer: Turns captions into ids.
        transform: Brings pictures to the size of the image tower.
        batch_size: Pictures or captions that go through a tower together.
    """

    def __init__(
        self,
        runtime: Runtime,
        tokenizer: Tokenizer,
        transform: ImageTransform,
        *,
        batch_size: int = 32,
    ) -> None:
        self._runtime = runtime
        self._process = os.getpid()
        self.tokenizer = tokenizer
        self.transform = transform
        self.batch_size = batch_size

    @classmethod
    def from_plan(
        cls,
        plan: Plan,
        *,
        runtime: RuntimeChoice = "onnxruntime",
        threads: int | None = None,
        trust_engines: bool = False,
    ) -> Encoder:
        """The encoder that a plan describes.

        Args:
            plan: A freshly opened plan; its graphs are moved into the runtime.
            runtime: What runs them, or the address of the Triton server that does.
            threads: Threads of one run on a CPU; by default one a physical core.
            trust_engines: Load engines of TensorRT that came inside the plan. They are programs:
                do this only for a plan of your own, or of somebody whose programs you would run.

        Raises:
            PlanError: A member cannot be loaded, or ``runtime`` is none.
            MissingExtraError: ``runtime`` is not installed.
        """
        manifest = plan.manifest
        tokenizer = Tokenizer.from_json(
            plan.take(TOKENIZER),
            context_length=manifest.context_length,
            cleaning=Cleaning.from_dict(manifest.cleaning),
        )
        transform = ImageTransform(
            height=manifest.height,
            width=manifest.width,
            fit=manifest.fit,
            interpolation=manifest.interpolation,
            antialias=manifest.antialias,
        )
        started = _start(runtime, plan, threads, trust_engines=trust_engines)
        return cls(started, tokenizer, transform)

    @property
    def runtime(self) -> Runtime:
        """What runs the towers; loaded again where this process was forked since.

        Raises:
            PlanError: It cannot be used in a forked process.
        """
        if self._process != os.getpid():
            if not isinstance(self._runtime, Reopening):
                raise PlanError(
                    f"{type(self._runtime).__name__} was started before this process was forked, "
                    "and its threads are in the parent. Open a Searcher in this process, or start "
                    "it by spawn: multiprocessing.get_context('spawn')."
                )
            self._runtime.reopen()
            self._process = os.getpid()
        return self._runtime

    def close(self) -> None:
        """Give back what the runtime holds, unless it is a parent process's."""
        if self._process == os.getpid():
            self._runtime.close()

    @property
    def embed_dim(self) -> int:
        return self._runtime.embed_dim

    def encode_texts(
        self, captions: Sequence[str], *, progress: bool = False
    ) -> NDArray[np.float32]:
        """``N`` captions to float32 ``[N, D]``.

        Captions of like length share a batch: a causal tower run at the batch's own
        length is exact, and several times faster than at the full context.

        Raises:
            QueryError: ``captions`` is one bare text, or an item is not a text.
        """
        tokens = self.tokenizer.encode(captions)
        embeddings = np.empty((len(tokens.eot), self.embed_dim), np.float32)
        order = np.argsort(tokens.eot, kind="stable")
        with tqdm(total=len(order), unit=" captions", disable=not progress) as bar:
            for start in range(0, len(order), self.batch_size):
                rows = order[start : start + self.batch_size]
                ends = tokens.eot[rows]
                ids = np.ascontiguousarray(tokens.ids[rows, : ends[-1] + 1])
                embeddings[rows] = self._checked(self.runtime.encode_texts(ids, ends), len(rows))
                bar.update(len(rows))
        return embeddings

    def encode_images(
        self, sources: Sequence[ImageSource], *, progress: bool = False
    ) -> NDArray[np.float32]:
        """``N`` pictures to float32 ``[N, D]``.

        Raises:
            ImageError: A picture cannot be read.
        """
        embeddings = np.empty((len(sources), self.embed_dim), np.float32)
        for batch in self.stream_images(sources, progress=progress):
            if batch.problems:
                raise ImageError(str(batch.problems[0]))
            embeddings[batch.positions] = batch.embeddings
        return embeddings

    def stream_images(
        self, sources: Sequence[ImageSource], *, tokens: bool = False, progress: bool = False
    ) -> Iterator[Encoded]:
        """Encode pictures batch by batch; those that cannot be read are named and passed over.

        Raises:
            PlanError: ``tokens`` are asked for, and there is no match head.
        """
        with tqdm(total=len(sources), unit=" pictures", disable=not progress) as bar:
            decoded = self._decode(sources)
            while chunk := list(islice(decoded, self.batch_size)):
                kept = [(i, pixels) for i, pixels in chunk if not isinstance(pixels, Problem)]
                embeddings, found = self._encoded([pixels for _, pixels in kept], tokens=tokens)
                yield Encoded(
                    positions=[i for i, _ in kept],
                    embeddings=embeddings,
                    problems=[p for _, p in chunk if isinstance(p, Problem)],
                    tokens=found,
                )
                bar.update(len(chunk))

    def matching(self, caption: str) -> Callable[[PictureTokens], Matched]:
        """What asks the match head about a caption and the tokens of pictures.

        Raises:
            PlanError: There is no match head.
        """
        runtime = self.require_match_head()
        tokens = self.tokenizer.encode([caption])
        ids = np.ascontiguousarray(tokens.ids[:, : tokens.eot[0] + 1])

        def match(pictures: PictureTokens) -> Matched:
            matched = runtime.match(ids, tokens.eot, pictures)
            for given in matched:
                _check_rows(given, len(pictures.scales))
            return matched

        return match

    def _encoded(
        self, pixels: Sequence[NDArray[np.uint8]], *, tokens: bool
    ) -> tuple[NDArray[np.float32], PictureTokens | None]:
        if not pixels:
            return np.empty((0, self.embed_dim), np.float32), None
        if tokens:
            embeddings, found = self.require_match_head().encode_with_tokens(np.stack(pixels))
            for given in (found.codes, found.scales):
                _check_rows(given, len(pixels))
            return self._checked(embeddings, len(pixels)), found
        return self._checked(self.runtime.encode_images(np.stack(pixels)), len(pixels)), None

    def _checked(self, embeddings: NDArray[np.float32], rows: int) -> NDArray[np.float32]:
        """Embeddings, which are one row of the stated width for each input."""
        _check_rows(embeddings, rows)
        if embeddings.shape[1:] != (self.embed_dim,):
            raise PlanError(
                f"the plan says that its embeddings have width {self.embed_dim}, and a graph "
                f"gives {list(embeddings.shape)}. Export the plan again."
            )
        return embeddings

    def require_match_head(self) -> MatchRuntime:
        """The runtime, where it has a match head.

        Raises:
            PlanError: It has none, or cannot run one.
        """
        if not isinstance(self.runtime, MatchRuntime):
            raise PlanError(
                f"{type(self.runtime).__name__} runs no match head; re-rank with "
                "runtime='onnxruntime'"
            )
        if not self.runtime.has_match_head:
            raise PlanError(
                "the model has no match head, so it cannot re-rank; RaSa and FashionBERT have one"
            )
        return self.runtime

    def _decode(
        self, sources: Sequence[ImageSource]
    ) -> Iterator[tuple[int, NDArray[np.uint8] | Problem]]:
        """Pixels in order, decoded ahead in a bounded queue."""
        waiting: deque[Future[NDArray[np.uint8] | Problem]] = deque()
        with ThreadPoolExecutor(DECODERS) as pool:
            upcoming = iter(sources)
            waiting.extend(pool.submit(self._pixels, s) for s in islice(upcoming, self.batch_size))
            for position in range(len(sources)):
                pixels = waiting.popleft().result()
                waiting.extend(pool.submit(self._pixels, s) for s in islice(upcoming, 1))
                yield position, pixels

    def _pixels(self, source: ImageSource) -> NDArray[np.uint8] | Problem:
        try:
            return self.transform(load_image(source))
        except (ImageError, MissingExtraError) as error:
            where = str(source) if isinstance(source, str | Path) else type(source).__name__
            # The message opens with the path, which `where` says already.
            return Problem(where=where, why=str(error).removeprefix(where).lstrip(": "))


def _check_rows(given: NDArray[np.generic], rows: int) -> None:
    if given.shape[:1] != (rows,):
        raise PlanError(
            f"a graph of the plan gives {list(given.shape)} for {rows} inputs, and should give one "
            "row for each. Export the plan again."
        )


def _start(
    runtime: RuntimeChoice, plan: Plan, threads: int | None, *, trust_engines: bool
) -> Runtime:
    """The runtime of that name; each is imported only where it is asked for."""
    match runtime:
        case "onnxruntime":
            from finegrain.runtime.ort import OrtRuntime

            return OrtRuntime(plan, threads=threads)
        case "openvino":
            from finegrain.runtime.openvino import OpenVinoRuntime

            return OpenVinoRuntime(plan, threads=threads)
        case "tensorrt" | "tensorrt-rtx":
            from finegrain.runtime.tensorrt import TensorRtRuntime

            return TensorRtRuntime(plan, backend=runtime, trust_engines=trust_engines)
        case str() if runtime.startswith(TRITON):
            from finegrain.runtime.triton import TritonRuntime

            return TritonRuntime(plan, runtime)
        case _:
            raise PlanError(
                f"expected a runtime out of {', '.join(get_args(RuntimeName))}, or "
                f"{TRITON}HOST:PORT/NAME, got {runtime!r}. Without one named, onnxruntime is taken."
            )
