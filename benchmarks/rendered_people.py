"""A gallery of rendered people whose attributes are known, for benchmarks of answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import finegrain
from finegrain.data.datasets import SyntheticPeople, take_split
from finegrain.records import Sample

Attributes = Mapping[str, Any]


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
