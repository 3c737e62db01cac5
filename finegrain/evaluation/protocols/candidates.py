"""Lists of candidates: what each query of the sampled protocol searches."""

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
"""Column of a sample's metadata from which candidates come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """What each query of the sampled protocol searches.

    Attributes:
        dataset: Digest of the ids of all samples that they were drawn from.
        seed: What they were drawn with.
        lists: Id of the query's sample to the ids of its candidates, itself among them.
        problems: Products that could not be queries; not kept in the file.
    """

    dataset: str
    seed: int
    lists: Mapping[str, tuple[str, ...]]
    problems: tuple[Problem, ...] = ()

    @property
    def digest(self) -> str:
        """Names these lists: figures with the same digest were measured on the same ones."""
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
        """Read what :meth:`save` wrote.

        Raises:
            DataError: It is something else.
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

    Queries are products, one picture of each; the others on its list are one picture each of
    other products of its sub-category. Where there are fewer than ``negatives`` the list is
    shorter, never filled from elsewhere, and chance is reckoned with its length.

    Args:
        split: Its samples' metadata have ``subcategory``.
        queries: How many; all that can be where there are fewer.
        negatives: Wrong answers on each list, at most.
        seed: Another gives other lists.

    Raises:
        EvaluationError: A number is out of range, or no product can be a query.
    """
    if queries < 1 or negatives < 1:
        raise EvaluationError(f"expected 1 query and 1 negative or more: {queries}, {negatives}.")
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
            # Sorted again, so that the place on the list says nothing of the right answer.
            lists[query] = tuple(sorted([query, *drawn], key=_order(seed, "place")))
    if not lists:
        raise EvaluationError(
            f"expected products that share a {SUBCATEGORY} in their metadata, got none among "
            f"{len(split)} samples; {problems[0] if problems else 'the split is empty'}."
        )
    return Candidates(dataset=samples_digest(ids), seed=seed, lists=lists, problems=tuple(problems))


def sample_ids(samples: Sequence[Sample]) -> tuple[str, ...]:
    """Names of samples that are the same on every machine: product and file name.

    Files of one name, in several folders, are told apart by a number.
    """
    seen: dict[str, int] = defaultdict(int)
    ids = []
    for sample in samples:
        name = f"{sample.pid}/{sample.image.name}"
        seen[name] += 1
        ids.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return tuple(ids)


def samples_digest(ids: Sequence[str]) -> str:
    """Names a set of samples in the order of their ids."""
    return hashlib.sha256("\n".join(ids).encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _products(
    ids: Sequence[str], samples: Sequence[Sample], seed: int
) -> tuple[dict[str, list[str]], list[Problem]]:
    """One sample of each product, by sub-category; and the samples without one."""
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
    """Sub-category and sample of every product, in the order that queries are taken."""
    order = _order(seed, "query")
    pairs = [(subcategory, name) for subcategory, names in products.items() for name in names]
    return sorted(pairs, key=lambda pair: order(pair[1]))


def _order(seed: int, purpose: str) -> Callable[[str], bytes]:
    """An order that a seed shuffles, for sorting by.

    Unlike a generator's, it depends on no version of a library and on no other item.
    """

    def order(name: str) -> bytes:
        text = f"{seed}\n{purpose}\n{name}"
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()

    return order
