"""Opens the searcher of a verb that takes a plan, and defines the options for it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

import finegrain
from finegrain.gallery.backend import Memory
from finegrain.rerank import RerankBy
from finegrain.runtime.base import RuntimeName
from finegrain.search.retriever import VectorPlace
from finegrain.search.searcher import RERANK_K

RERANK_BY = (
    "the order: both uses cosine and match probability, match uses the match head alone, "
    "as in RaSa's paper (default: %(default)s)"
)
"""Help of the option ``--rerank-by``."""


def add_opening_options(to: argparse.ArgumentParser) -> None:
    """Add the options for opening a plan and its gallery."""
    to.add_argument(
        "--runtime", default="onnxruntime", metavar="NAME",
        help=f"{', '.join(get_args(RuntimeName))} or triton://HOST:PORT/NAME "
        "(default: onnxruntime)",
    )  # fmt: skip
    to.add_argument("--gallery", help="file or address (default: next to the plan)")
    to.add_argument(
        "--vectors", default="memory", choices=get_args(VectorPlace),
        help="also keep the vectors on a GPU and search there (default: memory)",
    )  # fmt: skip
    to.add_argument(
        "--memory", default="codes", choices=get_args(Memory),
        help="what an exact search keeps in memory; vectors are faster for rare filters, and take "
        "five times as much (default: codes)",
    )  # fmt: skip
    to.add_argument(
        "--trust-engines", action="store_true",
        help="load the TensorRT engines of the plan, which are code: only from trusted sources",
    )  # fmt: skip
    to.add_argument(
        "--rerank", action="store_true",
        help="re-rank the first pictures with the match head of the plan",
    )  # fmt: skip
    to.add_argument(
        "--rerank-k", type=int, default=RERANK_K, metavar="K",
        help="how many pictures to re-rank (default: %(default)s)",
    )  # fmt: skip
    to.add_argument(
        "--no-hub-correction", action="store_true",
        help="do not lower the scores of pictures that are near many queries",
    )  # fmt: skip
    to.add_argument("--rerank-by", choices=get_args(RerankBy), default="both", help=RERANK_BY)


def open_searcher(arguments: argparse.Namespace, plan: Path | None = None) -> finegrain.Searcher:
    """Open the searcher of a verb that takes a plan, or several."""
    return finegrain.Searcher(
        plan or arguments.plan,
        gallery=arguments.gallery,
        runtime=arguments.runtime,
        trust_engines=arguments.trust_engines,
        vectors=arguments.vectors,
        memory=arguments.memory,
        rerank="match" if arguments.rerank else None,
        rerank_k=arguments.rerank_k,
        rerank_by=arguments.rerank_by,
        hub_correction=not arguments.no_hub_correction,
    )
