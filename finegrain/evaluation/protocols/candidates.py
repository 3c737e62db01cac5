"""Lists of candidates that the queries of the sampled protocol search."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finegrain.errors import DataError, EvaluationError
from finegrain.records import Problem, Sample, Split, identities

FORMAT = "finegrain-candidates"
FORMAT_VERSION = 1
SUBCATEGORY = "subcategory"
"""The metadata column that a query and its candidates share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """The candidates of each query of the sampled protocol.

    Attributes:
        dataset: Digest of the ids of all samples that the lists were drawn from.
        seed: Seed of the draw.
        lists: Id of a query's sample to the ids of its candidates, which include the query.
        problems: Products that cannot be queries. The file does not store them.
    """

    dataset: str
    seed: int
    lists: Mapping[str, tuple[str, ...]]
    problems: tuple[Problem, ...] = ()

    @property
    def digest(self) -> str:
        """A digest of the lists: metrics with the same digest were measured on the same lists."""
        return hashlib.sha256(self._json().encode()).hexdigest()[:12]

    def save(self, path: Path) -> None:
        path.write_text(self._json(), encoding="utf-8")

    def _json(self) -> str:
        content = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "dataset": self.dataset,
            "seed": self.seed,
            "lists": {query: list(ids) for query, ids in self.lists.items()},
        }
        return json.dumps(content, indent=1) + "\n"

    @classmethod
    def load(cls, path: Path) -> Candidates:
        """Read a file that :meth:`save` wrote.

        Raises:
            DataError: The file cannot be read, or has another format.
        """
        try:
            content = json.loads(path.read_bytes())
            if (content["format"], content["version"]) != (FORMAT, FORMAT_VERSION):
                raise ValueError(f"it is {content['format']!r} {content['version']!r}")
            lists = {query: tuple(map(str, ids)) for query, ids in content["lists"].items()}
            wrong = [query for query, ids in lists.items() if ids.count(query) != 1]
            if wrong or not lists:
                raise ValueError(f"{wrong[:1] or 'no query'} is not among its own candidates once")
            return cls(dataset=str(content["dataset"]), seed=int(content["seed"]), lists=lists)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise DataError(
                f"expected lists of candidates at {path}, could not read them: "
                f"{type(error).__name__}: {error}. Draw them with draw_candidates."
            ) from error


def draw_candidates(
    split: Split, *, queries: int = 1000, negatives: int = 100, seed: int = 0
) -> Candidates:
    """Draw the lists of the sampled protocol, the same on every machine.

    A query is one picture of a product. Its wrong candidates are one picture each of other
    products of the same sub-category. A sub-category with fewer than ``negatives`` others gives
    a shorter list, and chance is computed from the length of the list.

    Args:
        split: A split whose samples have ``subcategory`` in their metadata.
        queries: The most queries to draw.
        negatives: The most wrong candidates of a query.
        seed: Seed of the draw.

    Raises:
        EvaluationError: A number is out of range, or no product can be a query.
    """
    if queries < 1 or negatives < 1:
        raise EvaluationError(
            f"expected 1 query and 1 negative or more, got {queries} and {negatives}"
        )
    ids = sample_ids(split.samples)
    products, problems = _products(ids, split.samples, seed)
    lists: dict[str, tuple[str, ...]] = {}
    for subcategory, query in _shuffled(products, seed):
        others = [name for name in products[subcategory] if name != query]
        if not others:
            why = f"is the only product of the {SUBCATEGORY} {subcategory!r}"
            problems.append(Problem(where=query, why=why))
        elif len(lists) < queries:
            drawn = sorted(others, key=_order(seed, query))[:negatives]
            # Sorted by another hash, so that the position on the list does not show the query.
            lists[query] = tuple(sorted([query, *drawn], key=_order(seed, "place")))
    if not lists:
        raise EvaluationError(
            f"expected products that share a {SUBCATEGORY} in their metadata, got none among "
            f"{len(split)} samples; {problems[0] if problems else 'the split is empty'}."
        )
    return Candidates(dataset=samples_digest(ids), seed=seed, lists=lists, problems=tuple(problems))


def sample_ids(samples: Sequence[Sample]) -> tuple[str, ...]:
    """Names of samples that are the same on every machine: product and file name.

    Files of the same name in several folders get a number.
    """
    seen: dict[str, int] = defaultdict(int)
    ids = []
    for sample in samples:
        name = f"{sample.pid}/{sample.image.name}"
        seen[name] += 1
        ids.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return tuple(ids)


def samples_digest(ids: Sequence[str]) -> str:
    """A digest of samples in the order of their ids."""
    return hashlib.sha256("\n".join(ids).encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _products(
    ids: Sequence[str], samples: Sequence[Sample], seed: int
) -> tuple[dict[str, list[str]], list[Problem]]:
    """Sub-category to one sample per product, and a problem per sample without a sub-category."""
    views: dict[tuple[str, int], list[str]] = defaultdict(list)
    identity = identities(sample.pid for sample in samples).tolist()
    problems = []
    for name, sample, product in zip(ids, samples, identity, strict=True):
        subcategory = sample.metadata.get(SUBCATEGORY)
        if subcategory is None or subcategory == "":
            problems.append(Problem(where=name, why=f"has no {SUBCATEGORY}"))
        else:
            views[str(subcategory), product].append(name)
    products: dict[str, list[str]] = defaultdict(list)
    for (subcategory, _), names in views.items():
        products[subcategory].append(min(names, key=_order(seed, "picture")))
    return products, problems


def _shuffled(products: Mapping[str, Sequence[str]], seed: int) -> list[tuple[str, str]]:
    """Sub-category and sample of every product, in the order in which queries are drawn."""
    order = _order(seed, "query")
    pairs = [(subcategory, name) for subcategory, names in products.items() for name in names]
    return sorted(pairs, key=lambda pair: order(pair[1]))


def _order(seed: int, purpose: str) -> Callable[[str], bytes]:
    """A sort key that shuffles by a hash of the seed, the purpose and the name.

    Unlike a random generator, it does not depend on a library's version or on other items.
    """

    def order(name: str) -> bytes:
        text = f"{seed}\n{purpose}\n{name}"
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()

    return order
