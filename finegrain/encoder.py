"""Encodes captions and pictures into embeddings.

The encoder combines the preprocessing with a runtime. Evaluation, export checks and search all
use it, so they see the same vectors.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
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
from finegrain.preprocess.text import checked_prompt
from finegrain.records import Matched, PictureTokens, Problem
from finegrain.runtime.base import (
    TRITON,
    MatchRuntime,
    Reopening,
    Runtime,
    RuntimeChoice,
    RuntimeName,
)

# Decoding releases the interpreter lock. Two threads decode faster than a model on a CPU encodes.
DECODERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A batch of encoded pictures, and the pictures that could not be read.

    Attributes:
        positions: Position in the sources of each row of ``embeddings``, length ``N``.
        embeddings: float32 ``[N, D]``.
        problems: Sources of this batch that could not be read.
        tokens: Picture tokens for a match head; None unless they were requested.
    """

    positions: list[int]
    embeddings: NDArray[np.float32]
    problems: list[Problem]
    tokens: PictureTokens | None = None


class Encoder:
    """Encodes captions and pictures with the preprocessing and runtime of a model.

    Args:
        runtime: Runs the towers.
        tokenizer: Turns captions into ids.
        transform: Resizes pictures to the input size of the image tower.
        batch_size: Number of pictures or captions that a tower encodes at once.
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
        """Create the encoder that a plan describes.

        Args:
            plan: A freshly opened plan; its graphs are moved into the runtime.
            runtime: Name of the runtime, or the address of a Triton server.
            threads: Number of CPU threads; by default one per physical core.
            trust_engines: Load the TensorRT engines inside the plan. An engine is executable
                code: enable this only for plans from a source that you trust.

        Raises:
            PlanError: A member cannot be loaded, or ``runtime`` is unknown.
            MissingExtraError: ``runtime`` is not installed.
        """
        manifest = plan.manifest
        tokenizer = Tokenizer.from_json(
            plan.take(TOKENIZER),
            context_length=manifest.context_length,
            cleaning=Cleaning.from_dict(manifest.cleaning),
            prompt=manifest.prompt,
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

    def with_prompt(self, prompt: str) -> Encoder:
        """An encoder with the same runtime that puts each text into a template.

        Raises:
            QueryError: The template does not have one ``{}``.
        """
        changed = copy(self)
        changed.tokenizer = copy(self.tokenizer)
        changed.tokenizer.prompt = checked_prompt(prompt)
        return changed

    @property
    def runtime(self) -> Runtime:
        """The runtime; it is loaded again if this process was forked after the start.

        Raises:
            PlanError: The runtime cannot be used in a forked process.
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
        """Release the runtime, unless it belongs to the parent process."""
        if self._process == os.getpid():
            self._runtime.close()

    @property
    def embed_dim(self) -> int:
        """Width ``D`` of the embeddings."""
        return self._runtime.embed_dim

    def encode_texts(
        self, captions: Sequence[str], *, progress: bool = False
    ) -> NDArray[np.float32]:
        """Encode captions.

        Captions of similar length share a batch. A causal tower that runs at the length of the
        batch gives exact results, several times faster than at the full context length.

        Args:
            captions: ``N`` texts.
            progress: Show a progress bar.

        Returns:
            L2-normalised embeddings, float32 ``[N, D]``.

        Raises:
            QueryError: ``captions`` is a single string, or an item is not a string.
            PlanError: The output of the text graph has the wrong shape.
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
        """Encode pictures.

        Args:
            sources: ``N`` pictures.
            progress: Show a progress bar.

        Returns:
            L2-normalised embeddings, float32 ``[N, D]``.

        Raises:
            ImageError: A picture cannot be read.
            PlanError: The output of the image graph has the wrong shape.
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
        """Encode pictures batch by batch; unreadable pictures are skipped and reported.

        Args:
            sources: Pictures.
            tokens: Also compute the picture tokens for the match head.
            progress: Show a progress bar.

        Yields:
            Batches in the order of ``sources``, of at most ``batch_size`` pictures each.

        Raises:
            PlanError: ``tokens`` is true and the model has no match head.
        """
        with tqdm(total=len(sources), unit=" pictures", disable=not progress) as bar:
            decoded = self._decode(sources)
            while chunk := list(islice(decoded, self.batch_size)):
                readable = [(i, pixels) for i, pixels in chunk if not isinstance(pixels, Problem)]
                embeddings, picture_tokens = self._encoded(
                    [pixels for _, pixels in readable], tokens=tokens
                )
                yield Encoded(
                    positions=[i for i, _ in readable],
                    embeddings=embeddings,
                    problems=[p for _, p in chunk if isinstance(p, Problem)],
                    tokens=picture_tokens,
                )
                bar.update(len(chunk))

    def matching(self, caption: str) -> Callable[[PictureTokens], Matched]:
        """Create a function that scores picture tokens against a caption with the match head.

        Args:
            caption: The text.

        Returns:
            A function from the tokens of ``N`` pictures to their logits and scores, ``[N]`` each.

        Raises:
            PlanError: The model has no match head.
        """
        runtime = self.require_match_head()
        tokens = self.tokenizer.encode([caption])
        ids = np.ascontiguousarray(tokens.ids[:, : tokens.eot[0] + 1])

        def match(pictures: PictureTokens) -> Matched:
            matched = runtime.match(ids, tokens.eot, pictures)
            for values in matched:
                _check_rows(values, len(pictures.scales))
            return matched

        return match

    def _encoded(
        self, pixels: Sequence[NDArray[np.uint8]], *, tokens: bool
    ) -> tuple[NDArray[np.float32], PictureTokens | None]:
        if not pixels:
            return np.empty((0, self.embed_dim), np.float32), None
        if tokens:
            runtime = self.require_match_head()
            embeddings, picture_tokens = runtime.encode_with_tokens(np.stack(pixels))
            for array in (picture_tokens.codes, picture_tokens.scales):
                _check_rows(array, len(pixels))
            return self._checked(embeddings, len(pixels)), picture_tokens
        return self._checked(self.runtime.encode_images(np.stack(pixels)), len(pixels)), None

    def _checked(self, embeddings: NDArray[np.float32], rows: int) -> NDArray[np.float32]:
        """Check that embeddings have one row of width ``D`` for each input, and return them."""
        _check_rows(embeddings, rows)
        if embeddings.shape[1:] != (self.embed_dim,):
            raise PlanError(
                f"expected embeddings of width {self.embed_dim} as the plan states, got shape "
                f"{list(embeddings.shape)} from a graph. Export the plan again."
            )
        return embeddings

    def require_match_head(self) -> MatchRuntime:
        """Return the runtime if it has a match head.

        Raises:
            PlanError: The model has no match head, or the runtime cannot run it.
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
        """Positions and pixels in order; a bounded number of pictures is decoded ahead."""
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
            # The message begins with the path, which `where` holds already.
            return Problem(where=where, why=str(error).removeprefix(where).lstrip(": "))


def _check_rows(array: NDArray[np.generic], rows: int) -> None:
    if array.shape[:1] != (rows,):
        raise PlanError(
            f"expected one row for each of {rows} inputs from a graph of the plan, got shape "
            f"{list(array.shape)}. Export the plan again."
        )


def _start(
    runtime: RuntimeChoice, plan: Plan, threads: int | None, *, trust_engines: bool
) -> Runtime:
    """Start the runtime of that name; its module is imported only when it is needed."""
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
                f"{TRITON}HOST:PORT/NAME, got {runtime!r}. The default is onnxruntime."
            )
