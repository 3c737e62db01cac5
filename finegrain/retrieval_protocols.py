"""The two protocols of fashion retrieval, whose figures must never be compared.

*Sampled* (Gao et al., "FashionBERT", SIGIR 2020): 1,000 queries, each with one right answer
among 100 others of the same sub-category. Published lists of candidates differ or were never
fixed, so here they are drawn once from hashes, kept in a file, and bound to the pictures.
*Full gallery*: every text against every picture of the split, and back.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tabulate import tabulate

from finegrain.encoder import Encoder
from finegrain.errors import DataError, EvaluationError
from finegrain.metrics import RetrievalMetrics, ranks_of, retrieval_metrics
from finegrain.records import Problem, Sample, Split

FORMAT = "finegrain-candidates"
FORMAT_VERSION = 1
SUBCATEGORY = "subcategory"
"""Column of a sample's metadata from which candidates come."""

DEPTHS = (1, 5, 10)


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


@dataclass(frozen=True, kw_only=True)
class ProtocolMetrics:
    """Metrics in both directions, never without the protocol that they belong to.

    Attributes:
        protocol: Its name with all that figures depend on.
        text_to_image, image_to_text: The metrics, in percent.
        chance: Direction to what guessing gives at ranks 1, 5 and 10, in percent.
    """

    protocol: str
    text_to_image: RetrievalMetrics
    image_to_text: RetrievalMetrics
    chance: Mapping[str, Mapping[int, float]]

    def to_dict(self) -> dict[str, object]:
        return asdict(self)

    def __str__(self) -> str:
        rows = []
        for name in ("text_to_image", "image_to_text"):
            metrics: RetrievalMetrics = getattr(self, name)
            found = (metrics.rank1, metrics.rank5, metrics.rank10)
            queries, gallery = metrics.num_queries, metrics.num_gallery
            rows.append([name.replace("_", " "), *found, metrics.mAP, queries, gallery])
            rows.append(["  by chance", *(self.chance[name][k] for k in DEPTHS)])
        headers = ["direction", "rank1", "rank5", "rank10", "mAP", "queries", "candidates"]
        table = tabulate(rows, headers=headers, floatfmt=".2f")
        return f"{self.protocol}\n\n{table}"


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
    return Candidates(dataset=_digest(ids), seed=seed, lists=lists, problems=tuple(problems))


def evaluate_sampled(
    encoder: Encoder, split: Split, candidates: Candidates, *, progress: bool = False
) -> ProtocolMetrics:
    """Rank each query's candidates, texts for pictures and pictures for texts.

    A sample's text is its first caption.

    Raises:
        EvaluationError: The candidates were drawn from other samples.
        ImageError: A picture cannot be read.
    """
    ids = sample_ids(split.samples)
    if _digest(ids) != candidates.dataset:
        raise EvaluationError(
            f"expected the samples that the candidates were drawn from ({candidates.dataset}), "
            f"got others ({_digest(ids)}). Take the same split, or draw candidates from this one."
        )
    needed = set().union(*candidates.lists.values())
    if unknown := sorted(needed.difference(ids)):
        raise EvaluationError(
            f"expected candidates among the samples, got {unknown[0]!r} and "
            f"{len(unknown) - 1} more that are none. Draw the candidates anew."
        )
    used = [(name, s) for name, s in zip(ids, split.samples, strict=True) if name in needed]
    place = {name: row for row, (name, _) in enumerate(used)}
    images = encoder.encode_images([sample.image for _, sample in used], progress=progress)
    texts = encoder.encode_texts([sample.captions[0] for _, sample in used], progress=progress)
    sizes = [len(names) for names in candidates.lists.values()]

    def ranked(
        queries: npt.NDArray[np.float32], gallery: npt.NDArray[np.float32]
    ) -> RetrievalMetrics:
        ranks = []
        for query, names in candidates.lists.items():
            scores = gallery[[place[name] for name in names]] @ queries[place[query]]
            ranks.append(ranks_of(np.array([names.index(query)]), scores))
        return RetrievalMetrics.from_ranks(ranks, num_gallery=max(sizes))

    by_chance = chance(np.ones(len(sizes), np.int64), np.array(sizes))
    short = sum(size < max(sizes) for size in sizes)
    return ProtocolMetrics(
        protocol=f"sampled: 1 right of {max(sizes)} candidates of one {SUBCATEGORY}, "
        f"{len(sizes)} queries"
        + (f" ({short} with fewer candidates)" if short else "")
        + f", seed {candidates.seed}, lists {candidates.digest}",
        text_to_image=ranked(texts, images),
        image_to_text=ranked(images, texts),
        chance={"text_to_image": by_chance, "image_to_text": by_chance},
    )


def evaluate_full_gallery(
    encoder: Encoder, split: Split, *, progress: bool = False
) -> ProtocolMetrics:
    """Every product's text searches all pictures, and every picture all texts.

    A product's text is the first caption of its first sample; any of its pictures is right.

    Raises:
        EvaluationError: The split is empty.
        ImageError: A picture cannot be read.
    """
    if not split.samples:
        raise EvaluationError(f"expected samples in split {split.name}, got none.")
    pids = np.array([sample.pid for sample in split.samples])
    products, first, views = np.unique(pids, return_index=True, return_counts=True)
    images = encoder.encode_images([sample.image for sample in split.samples], progress=progress)
    captions = [split.samples[row].captions[0] for row in first]
    texts = encoder.encode_texts(captions, progress=progress)
    return ProtocolMetrics(
        protocol=f"full gallery: {len(products)} texts, one a product, and {len(pids)} pictures "
        f"of {split.name}, samples {_digest(sample_ids(split.samples))}",
        text_to_image=retrieval_metrics(texts, images, products, pids),
        image_to_text=retrieval_metrics(images, texts, pids, products),
        chance={
            "text_to_image": chance(views, np.full(len(views), len(pids))),
            "image_to_text": chance(
                np.ones(len(pids), np.int64), np.full(len(pids), len(products))
            ),
        },
    )


def chance(right: npt.NDArray[np.int64], gallery: npt.NDArray[np.int64]) -> dict[int, float]:
    """What guessing gives: the odds, in percent, of a right answer among the first k.

    1 - C(G - P, k) / C(G, k) for a query with P right answers among G, the mean over queries.

    Args:
        right: P of each query ``[Q]``.
        gallery: G of each query ``[Q]``.

    Returns:
        k of `DEPTHS` to percent.
    """
    found = {}
    for k in DEPTHS:
        missed = np.ones(len(right))
        for i in range(k):
            missed *= np.maximum(gallery - right - i, 0) / np.maximum(gallery - i, 1)
        found[k] = 100.0 * float(np.mean(1.0 - missed))
    return found


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


def _products(
    ids: Sequence[str], samples: Sequence[Sample], seed: int
) -> tuple[dict[str, list[str]], list[Problem]]:
    """One sample of each product, by sub-category; and the samples without one."""
    views: dict[tuple[str, int], list[str]] = defaultdict(list)
    problems = []
    for name, sample in zip(ids, samples, strict=True):
        subcategory = sample.metadata.get(SUBCATEGORY)
        if subcategory is None or subcategory == "":
            problems.append(Problem(where=name, why=f"has no {SUBCATEGORY}"))
        else:
            views[str(subcategory), sample.pid].append(name)
    products: dict[str, list[str]] = defaultdict(list)
    for (subcategory, _), names in views.items():
        products[subcategory].append(min(names, key=_order(seed, "picture")))
    return products, problems


def _shuffled(products: Mapping[str, Sequence[str]], seed: int) -> list[tuple[str, str]]:
    """Sub-category and sample of every product, in the order that queries are taken."""
    order = _order(seed, "query")
    pairs = [(subcategory, name) for subcategory, names in products.items() for name in names]
    return sorted(pairs, key=lambda pair: order(pair[1]))


def _digest(ids: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(ids).encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _order(seed: int, purpose: str) -> Callable[[str], bytes]:
    """An order that a seed shuffles, for sorting by.

    Unlike a generator's, it depends on no version of a library and on no other item.
    """

    def order(name: str) -> bytes:
        text = f"{seed}\n{purpose}\n{name}"
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()

    return order
