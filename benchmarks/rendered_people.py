"""A gallery of rendered people whose attributes are known, for benchmarks of answers."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import finegrain
from finegrain.data.datasets import SyntheticPeople, take_split
from finegrain.records import Sample

Attributes = Mapping[str, Any]
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class People:
    """Pictures in a gallery, with their attributes.

    Attributes:
        searcher: Searches the gallery.
        samples: The pictures.
        attributes: What each picture shows, by its id in the gallery.
        paths: Path of each picture, by its id in the gallery.
    """

    searcher: finegrain.Searcher
    samples: Sequence[Sample]
    attributes: Mapping[int, Attributes]
    paths: Mapping[int, Path]


@contextmanager
def people(plan: Path, root: Path, split: str) -> Iterator[People]:
    """Index one split of :class:`SyntheticPeople` in a temporary gallery.

    Args:
        plan: A plan.
        root: Folder of the rendered people; they are rendered if it does not exist.
        split: Name of the split.
    """
    samples = take_split(SyntheticPeople(root=str(root)).splits(), split).samples
    with (root / "attributes.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    shown = {(root / "imgs" / row["file_path"]).resolve(): row["attributes"] for row in rows}
    with (
        TemporaryDirectory() as folder,
        finegrain.Searcher(plan, gallery=Path(folder) / "g") as searcher,
    ):
        added = searcher.add_samples(samples, progress=False)
        paths = dict(zip(added.ids, [sample.image.resolve() for sample in samples], strict=True))
        yield People(searcher, samples, {id_: shown[path] for id_, path in paths.items()}, paths)


def run(
    description: str | None,
    measure: Callable[[People], dict[str, Any]],
    table: Callable[[dict[str, Any]], str],
) -> None:
    """The command of a benchmark: measure on one split, print a table, and write the results.

    Args:
        description: The docstring of the benchmark.
        measure: Gives the results, whose ``what`` is the name of their file.
        table: The results as a table.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("plan", type=Path)
    parser.add_argument("--data", type=Path, default=Path("data/synthetic"))
    parser.add_argument("--split", default="test")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with people(arguments.plan, arguments.data, arguments.split) as of:
        measured = {**measure(of), "split": arguments.split, "gallery": len(of.samples)}
    print(table(measured))
    path = arguments.out / f"{measured['what']}.json"
    path.write_text(json.dumps(measured, indent=1) + "\n")
    print(f"wrote {path}")
