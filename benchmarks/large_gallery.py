"""Fills a gallery of ten million rows once, and measures exact search over it.

    python benchmarks/large_gallery.py /data/ten_million.gallery [--rows 10000000] [--check 2]

Filling continues where an earlier call stopped, and a filled gallery is only measured. Ten million
rows of width 512 take 28 GB on disk, and a search keeps 5.4 GB in memory, so that a machine with 24
GB holds the codes twice while they are packed, and the rest is a cache of the file. The vectors of
a chunk are drawn from its number, so ``--check`` compares the hits of some queries with inner
products over all chunks, drawn again.

The first answer is measured in a process that has just started, with the cache of files as it is;
call the script twice. Writes ``large_gallery_ROWS.json`` to ``--results``.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from bench_gallery_storage import CHUNK, WIDTH, K, drawn, private_bytes, seconds

import finegrain
from finegrain.index.codes import multiplies_bytes

NUM_CAMERAS = 100
NUM_QUERIES = 20
NUM_ADDED = 100
FILTER = "camera = 'gate-3'"  # one row in a hundred


def vectors_of(number: int) -> np.ndarray:
    """The vectors of a chunk."""
    return drawn(CHUNK, number)


def fill(gallery: finegrain.Gallery, rows: int) -> float:
    """Add the rows that are missing; return the seconds."""
    taken = 0.0
    start = len(gallery)
    while start < rows:
        number, first = divmod(start, CHUNK)
        vectors = vectors_of(number)[first : first + rows - start]
        ids = range(start, start + len(vectors))
        add = partial(
            gallery.add,
            vectors,
            [image_of(row) for row in ids],
            cameras=[f"gate-{row % NUM_CAMERAS}" for row in ids],
        )
        taken += seconds(add)
        start = ids.stop
        print(f"{start} of {rows} rows", end="\r", flush=True)
    return taken


def image_of(row: int) -> str:
    return f"crops/{row:08d}.jpg"


def measure(path: Path, rows: int, num_checked: int) -> dict[str, Any]:
    """Open a filled gallery, search and change it. It holds the same rows afterwards."""
    queries = [drawn(1, seed=rows + 1 + number) for number in range(NUM_QUERIES)]
    multiplies_bytes()  # imports ONNX Runtime
    before = private_bytes()
    opened: list[finegrain.Gallery] = []
    result: dict[str, Any] = {"load_average_before": round(os.getloadavg()[0], 1)}
    result["open_s"] = seconds(lambda: opened.append(finegrain.Gallery(path)))
    (gallery,) = opened
    result["first_answer_s"] = seconds(lambda: gallery.search(queries[0], K))
    result["second_answer_s"] = seconds(lambda: gallery.search(queries[1], K))
    wait_until_packed(gallery)
    result["memory_bytes_a_row"] = round((private_bytes() - before) / rows)
    for name, where in (("query_s", None), ("filtered_s", FILTER)):
        gallery.search(queries[0], K, where)
        result[name] = median(
            seconds(partial(gallery.search, query, K, where)) for query in queries
        )
    added: list[int] = []

    def add_one() -> None:
        added.extend(gallery.add(queries[0], [None]))

    result["add_one_s"] = median(seconds(add_one) for _ in range(NUM_ADDED))
    result[f"delete_{NUM_ADDED}_s"] = seconds(lambda: gallery.delete(added))
    for query in queries[:num_checked]:
        (hits,) = gallery.search(query, K)
        images = [row.image for row in gallery.rows(hit.id for hit in hits)]
        assert images == literal_best(query, rows)
    return result | {"queries_checked": num_checked}


def wait_until_packed(gallery: finegrain.Gallery) -> None:
    """Wait until the codes are in their final form, which they get in the background."""
    size = -1
    while size != (size := gallery.stats().memory.get("codes", 0)):
        time.sleep(2)


def literal_best(query: np.ndarray, rows: int) -> list[str]:
    """The images of the best rows, by inner products in float64 with every vector."""
    best: list[tuple[float, str]] = []
    for start in range(0, rows, CHUNK):
        scores = vectors_of(start // CHUNK)[: rows - start].astype(np.float64) @ query[0]
        order = np.argsort(-scores)[:K]
        best = sorted([*best, *((-float(scores[row]), image_of(start + row)) for row in order)])[:K]
    return [image for _, image in best]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("gallery", type=Path)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--check", type=int, default=0, metavar="QUERIES")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    with finegrain.Gallery(arguments.gallery, dim=WIDTH) as gallery:
        if len(gallery) > arguments.rows:
            parser.error(f"{arguments.gallery} holds {len(gallery)} rows already")
        filled = fill(gallery, arguments.rows)
    result = {"rows": arguments.rows, "width": WIDTH, "k": K, "filled_now_s": round(filled, 1)}
    result |= measure(arguments.gallery, arguments.rows, arguments.check)
    print(json.dumps(result, indent=2))
    target = arguments.results / f"large_gallery_{arguments.rows}.json"
    target.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
