"""The description of a published dataset: a reader, its published sizes, and where to get it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finegrain.errors import DataError
from finegrain.records import Problem, Split


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedDataset:
    """The description of a published dataset with a reader of its own.

    Attributes:
        name: Name for ``finegrain doctor data``.
        title: Name in its paper.
        published: Names of counts, such as ``train pictures``, to the published numbers.
        count: A function that computes the same counts from splits.
        read: A function that reads all splits of a folder. It raises a DataError that says how
            to get the dataset.
        access: How to get the dataset.
    """

    name: str
    title: str
    published: Mapping[str, int]
    count: Callable[[Mapping[str, Split]], Mapping[str, int]]
    read: Callable[[Path], dict[str, Split]]
    access: str

    def differences(self, splits: Mapping[str, Split]) -> tuple[Problem, ...]:
        """Counts that differ from the published ones, so that results are not comparable."""
        return tuple(self.differing(splits).values())

    def differing(self, splits: Mapping[str, Split]) -> dict[str, Problem]:
        """The differing counts by name."""
        counts = self.count(splits)
        return {
            what: Problem(
                where=self.title,
                why=f"has {counts.get(what, 0)} {what} where {published} are published",
            )
            for what, published in self.published.items()
            if counts.get(what, 0) != published
        }


def read_annotations(file: Path, advice: str) -> Any:
    """Read a JSON file of annotations.

    Args:
        file: The file.
        advice: How to get the dataset, for errors.

    Raises:
        DataError: The file is missing or is not JSON.
    """
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"expected JSON at {file}, could not read it: {error}. {advice}") from error
