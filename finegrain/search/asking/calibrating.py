"""Fits the probability of a match, and hub correction, on judged queries of the user's gallery."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from finegrain.bounded.file import read_bounded
from finegrain.encoder import Encoder
from finegrain.errors import DataError, EvaluationError, FilterError, GalleryError
from finegrain.evaluation.background import Background, bank_of
from finegrain.evaluation.fitted import MIN_BANK
from finegrain.evaluation.match_probability import MatchProbability, fit
from finegrain.gallery import Gallery
from finegrain.plan import BACKGROUND, Plan
from finegrain.search.asking.scores import Scorer
from finegrain.search.queries import check_query

TEXT = "text"
_MAX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedQuery:
    """A text, and the ids of all pictures of the gallery that are right; none if nobody fits."""

    text: str
    right: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """The probability of a match that was fitted on judged queries.

    Attributes:
        coefficients: The coefficients.
        num_queries: Number of queries.
        num_answered: Number of queries with right pictures.
        num_pictures: Number of pictures that were scored.
        background: The hub correction, with the probability by corrected scores; None if the plan
            has none and no bank was given.
    """

    coefficients: MatchProbability
    num_queries: int
    num_answered: int
    num_pictures: int
    background: Background | None = None

    def write(self, plan: str | Path, out: str | Path | None = None) -> None:
        """Store the coefficients in a plan. Embeddings do not change, so its galleries stay valid.

        Args:
            plan: The plan.
            out: Where to write the new plan; by default it replaces the old one.

        Raises:
            PlanError: The plan cannot be read or written.
        """
        opened = Plan(plan)
        manifest = replace(opened.manifest, match_probability=self.coefficients.to_dict())
        members = {} if self.background is None else {BACKGROUND: self.background.to_bytes()}
        opened.rewrite(opened.path if out is None else Path(out), manifest, members)

    def __str__(self) -> str:
        fitted = (
            f"fitted on {self.num_queries} queries, {self.num_answered} of them with right "
            f"pictures, and {self.num_pictures:,} pictures"
        )
        return fitted if self.background is None else f"{fitted}; hubs: {self.background}"


def calibrate(
    encoder: Encoder,
    scorer: Scorer,
    queries: Sequence[JudgedQuery],
    *,
    bank: Sequence[str] | None = None,
    background: Background | None = None,
) -> Calibrated:
    """Fit the probability on a sample of the gallery and all right pictures.

    Args:
        encoder: The encoder of the plan.
        scorer: Makes the scores of the gallery.
        queries: Queries whose right pictures are known.
        bank: Texts for hub correction, whose settings are then chosen on the queries.
        background: The hub correction of the plan, which stays without ``bank``.
    """
    if bank is not None and len(different := bank_of(bank)) < MIN_BANK:
        raise EvaluationError(
            f"expected a bank of {MIN_BANK} different texts or more, got {len(different)}. Add "
            "captions, or texts that users have searched for."
        )
    gallery = scorer.gallery
    if not len(gallery):
        raise GalleryError(f"the gallery {gallery.path} is empty; add pictures first")
    sample = scorer.sample.rows()
    judged = {id_ for query in queries for id_ in query.right}
    others = gallery.vectors(sorted(judged - set(scorer.sample.ids.tolist())))
    ids = np.concatenate([scorer.sample.ids, np.array(list(others), np.int64)])
    rows = np.concatenate([sample, *(vector[None] for vector in others.values())])
    texts = encoder.encode_texts([query.text for query in queries])
    right = np.array([np.isin(ids, list(query.right)) for query in queries])
    right = right.reshape(len(queries), len(ids))
    scores = texts.astype(np.float64) @ rows.T
    coefficients = fit(scores, right)
    if bank is not None:
        captions = encoder.encode_texts(different)
        background = Background.chosen(captions, rows, scores, right, source="own texts")
    return Calibrated(
        background=None if background is None else background.fitted(rows, scores, right),
        coefficients=coefficients,
        num_queries=len(queries),
        num_answered=int(np.count_nonzero(right.any(axis=1))),
        num_pictures=len(ids),
    )


def read_judged(path: Path, gallery: Gallery) -> list[JudgedQuery]:
    """Read judged queries from a CSV file.

    The column ``text`` has the query. Every other column is one of the gallery, such as ``pid`` or
    ``image``: the pictures with all these values are right. A row with none of them states that
    nobody fits. Rows of one text are joined.

    Raises:
        DataError: The file cannot be read, has no such columns, or a row is invalid.
    """
    right: dict[str, set[int]] = defaultdict(set)
    for line, row in _rows(path, gallery):
        text = row.pop(TEXT)
        try:
            check_query(text)
            values = {name: value for name, value in row.items() if value}
            right[text] |= set(gallery.ids_where(_filter(values, gallery))) if values else set()
        except (FilterError, ValueError) as error:
            raise DataError(f"{path}, line {line}: {error}") from error
    return [JudgedQuery(text=text, right=frozenset(ids)) for text, ids in right.items()]


def read_bank(path: Path) -> list[str]:
    """Read the texts of a bank, one a line.

    Raises:
        DataError: The file cannot be read, is too large, or is not text in UTF-8.
    """
    try:
        lines = read_bounded(path, _MAX_BYTES, DataError).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} cannot be read as text in UTF-8: {error}") from error
    return [line.strip() for line in lines if line.strip()]


def _rows(path: Path, gallery: Gallery) -> list[tuple[int, dict[str, str]]]:
    """Lines and cells of a file."""
    try:
        content = read_bounded(path, _MAX_BYTES, DataError).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(content, newline=""), strict=True)
        _check_columns(path, list(reader.fieldnames or ()), gallery)
        rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV in UTF-8: {error}") from error
    for line, row in rows:
        if None in row or None in row.values():
            raise DataError(
                f"{path}, line {line}: expected as many cells as in the first line, got another "
                "number. Quote cells that have commas."
            )
    return rows


def _check_columns(path: Path, names: Sequence[str], gallery: Gallery) -> None:
    known = gallery.columns()
    others = [name for name in names if name != TEXT]
    if TEXT not in names or not others or any(name not in known for name in others):
        raise DataError(
            f"{path}: expected the column 'text' and columns of the gallery, such as pid, got "
            f"{', '.join(names) or 'none'}. The gallery has: {', '.join(known)}."
        )


def _filter(values: Mapping[str, str], gallery: Gallery) -> str:
    """A filter for pictures with these values."""
    kinds = gallery.columns()
    return " and ".join(
        _quoted(name, '"') + " = " + _value(value, kinds[name]) for name, value in values.items()
    )


def _value(value: str, kind: str) -> str:
    if kind == "boolean":
        return value.lower()
    if kind != "number":
        return _quoted(value, "'")
    return repr(int(value)) if value.strip().lstrip("+-").isdecimal() else repr(float(value))


def _quoted(text: str, mark: str) -> str:
    return f"{mark}{text.replace(mark, 2 * mark)}{mark}"
