"""Recall and size of the codes of ``RaBitQ``, and what keeping them saves at opening.

    python benchmarks/coded_vectors.py

Drawn vectors of people are searched with drawn vectors of texts, by each kind of code and for
several numbers of candidates. The exact search gives the right hits. For each kind, the first
answer is timed twice: when the codes are made, and when they are opened. Writes
``benchmarks/results/coded_vectors.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

from bench_gallery_growth import CHUNK, WIDTH, Crowd, Vectors

from finegrain.gallery import Gallery
from finegrain.index.approximate import RaBitQ

ROOT = Path(__file__).parents[1]
K = 10
KINDS = (
    RaBitQ(bits=2),
    RaBitQ(bits=1),
    RaBitQ(bits=2, dim=128),
    RaBitQ(bits=1, dim=256),
    RaBitQ(bits=1, dim=128),
    RaBitQ(bits=1, dim=64),
)
CANDIDATES = (1, 16, 64, 256, 1024)


@contextmanager
def first_answer(path: Path, index: RaBitQ, text: Vectors) -> Iterator[tuple[Gallery, float]]:
    """An open gallery, and the CPU seconds from opening it to its first answer."""
    start = process_time()
    with Gallery(path, dim=WIDTH, index=index) as gallery:
        gallery.search(text[None], K)
        yield gallery, process_time() - start


def recall(gallery: Gallery, texts: Vectors, exact: Sequence[set[int]]) -> float:
    """Share of the exact hits that are returned."""
    answers = gallery.search(texts, K)
    shares = [
        len({hit.id for hit in hits} & best) / K for hits, best in zip(answers, exact, strict=True)
    ]
    return sum(shares) / len(shares)


def measure(path: Path, kind: RaBitQ, texts: Vectors, exact: Sequence[set[int]]) -> dict[str, Any]:
    """Size, recall by number of candidates, and CPU seconds of the first answer."""
    with first_answer(path, kind, texts[0]) as (_, making):
        pass
    with first_answer(path, kind, texts[0]) as (_, opening):
        pass
    recalls = {}
    for candidates in CANDIDATES:
        with Gallery(path, dim=WIDTH, index=replace(kind, candidates=candidates)) as gallery:
            recalls[str(candidates)] = recall(gallery, texts, exact)
    return {
        "index": f"RaBitQ(bits={kind.bits}{'' if kind.dim is None else f', dim={kind.dim}'})",
        "code_bytes": kind.structure.code_bytes(WIDTH),
        "recall": recalls,
        "cpu_seconds": {"codes are made": making, "codes are opened": opening},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10 * CHUNK)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    crowd = Crowd(arguments.rows // 16)
    texts = crowd.texts(100)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "drawn.gallery"
        with Gallery(path, dim=WIDTH) as gallery:
            for number in range(arguments.rows // CHUNK):
                gallery.add(crowd.pictures(number), [None] * CHUNK)
            exact = [{hit.id for hit in hits} for hits in gallery.search(texts, K)]
        kinds = []
        for kind in KINDS:
            kinds.append(measure(path, kind, texts, exact))
            print(json.dumps(kinds[-1]), flush=True)
    result = {
        "what": "coded_vectors",
        "rows": arguments.rows // CHUNK * CHUNK,
        "width": WIDTH,
        "texts": len(texts),
        "k": K,
        "kinds": kinds,
    }
    file = arguments.out / "coded_vectors.json"
    file.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {file}")


if __name__ == "__main__":
    main()
