"""What a fashion dataset is to a recipe: a reader, a published size, and where to get it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from finegrain.records import Problem, Split


@dataclass(frozen=True, slots=True, kw_only=True)
class FashionDataset:
    """What is known of a fashion dataset.

    Attributes:
        name: What it is called by `finegrain doctor data`.
        title: In its paper.
        published: What is counted, in the words of a message, to how many there are.
        count: How many there are among some splits, of the same things.
        read: All splits of a folder; raises a DataError that says how to get the dataset.
        access: How to get it.
    """

    name: str
    title: str
    published: Mapping[str, int]
    count: Callable[[Mapping[str, Split]], Mapping[str, int]]
    read: Callable[[Path], dict[str, Split]]
    access: str

    def differences(self, splits: Mapping[str, Split]) -> tuple[Problem, ...]:
        """What is not of the published size: results on it are not comparable."""
        return tuple(self.differing(splits).values())

    def differing(self, splits: Mapping[str, Split]) -> dict[str, Problem]:
        """The same by what is counted."""
        counts = self.count(splits)
        return {
            what: Problem(
                where=self.title,
                why=f"has {counts.get(what, 0)} {what} where {published} are published",
            )
            for what, published in self.published.items()
            if counts.get(what, 0) != published
        }
