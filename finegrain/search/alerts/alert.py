"""A standing query: it scores the pictures that are added to a gallery from now on."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

import numpy as np

from finegrain import times
from finegrain.errors import QueryError
from finegrain.evaluation.match_probability import Level, MatchProbability
from finegrain.gallery import Gallery, Hit
from finegrain.gallery.filters.syntax import joined
from finegrain.gallery.row import Row, value_of
from finegrain.gallery.scoring import Scoring
from finegrain.index.exact import Ids, Vectors
from finegrain.search.alerts.threshold import LEAST_BACKGROUND, Scores, Threshold
from finegrain.search.asking.sample import chosen_ids
from finegrain.search.matches import Match

BACKGROUND_ROWS = 20_000
"""Largest number of pictures whose scores determine the threshold."""

REFIT_SECONDS = 3600.0
"""Seconds after which the threshold is computed again, from the gallery as it is then."""

_COUNTED_DAYS = 7.0
_LEAST_PER_DAY = 100.0
_MOST_REMEMBERED = 10_000
_LIKELY = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How rare false alarms are; create one with :meth:`checked`.

    Attributes:
        false_alarms_per_day: Mean number of false alarms in a day; None if ``min_score`` decides.
        min_score: The least score of an alarm.
        pictures_per_day: Number of pictures in a day; None counts those of the last seven days.
    """

    false_alarms_per_day: float | None = 1.0
    min_score: float | None = None
    pictures_per_day: float | None = None

    @classmethod
    def checked(
        cls, *, false_alarms_per_day: Any = 1.0, min_score: Any = None, pictures_per_day: Any = None
    ) -> Self:
        """Check the arguments.

        Raises:
            QueryError: An argument is not a number of its range.
        """
        rate = _number("false_alarms_per_day", false_alarms_per_day)
        score = _number("min_score", min_score)
        per_day = _number("pictures_per_day", pictures_per_day)
        for name, value in (("false_alarms_per_day", rate), ("pictures_per_day", per_day)):
            if value is not None and value <= 0:
                raise QueryError(f"expected {name} above 0, got {value:g}")
        if rate is None and score is None:
            raise QueryError("expected false_alarms_per_day or min_score, got neither")
        return cls(
            false_alarms_per_day=rate if score is None else None,
            min_score=score,
            pictures_per_day=per_day,
        )


def _number(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise QueryError(f"expected {name} as a number, got {value!r:.40}")
    return float(value)


class Alert:
    """Finds the pictures that fit a query among those that were added to a gallery.

    Pictures count however they were added, also by another process. Columns count as they are when
    a picture is examined. :meth:`finegrain.Searcher.alert` makes alerts.

    Args:
        query: The query as text, for people.
        scoring: Its score.
        gallery: The gallery.
        rate: How rare false alarms are.
        where: Filter on the columns.
        per: Column with one alarm for each value, such as ``"track"``; pictures without a value
            count by themselves. None gives an alarm for each picture.
        after: Id of the last picture that is not examined; by default the last of the gallery.
        biased: Whether scores include the biases of pictures, as those of a search do.
        calibration: Coefficients of the probability of a match. Pictures that probably match are
            then left out where the usual scores are computed.

    Attributes:
        threshold: The least score of an alarm and how it was computed; None with ``min_score``.
        after: Id of the last picture that was examined.
    """

    def __init__(
        self,
        query: str,
        scoring: Scoring,
        gallery: Gallery,
        rate: Rate,
        *,
        where: str | None = None,
        per: str | None = "track",
        after: int | None = None,
        biased: bool = True,
        calibration: MatchProbability | None = None,
    ) -> None:
        self.query = query
        self._scoring = scoring
        self._gallery = gallery
        self._rate = rate
        self._where = where
        self._per = per
        self._biased = biased
        self._calibration = calibration
        self._raised: OrderedDict[Any, None] = OrderedDict()
        self._num_alarms = 0
        if where is not None:
            gallery.rows([], where)  # raises for a filter that does not parse
        self.after = max(gallery, default=0) if after is None else after
        self.threshold: Threshold | None = None
        self._fit()

    @property
    def min_score(self) -> float:
        """The least score of an alarm."""
        if self.threshold is not None:
            return self.threshold.score
        assert self._rate.min_score is not None
        return self._rate.min_score

    def new(self) -> list[Match]:
        """The matches among the pictures that were added since the last call, oldest first.

        ``rank`` counts the alarms.
        """
        return [
            self._match(row, hit.score)
            for ids, vectors in self._gallery.added_after(self.after)
            for hit, row in self.examine(ids, vectors)
        ]

    def follow(self, every: float = 1.0) -> Iterator[Match]:
        """Wait for pictures that match, until the loop is left.

        Args:
            every: Seconds between two looks at the gallery.
        """
        while True:
            yield from self.new()
            time.sleep(every)

    def examine(self, ids: Ids, vectors: Vectors) -> list[tuple[Hit, Row]]:
        """Alarms among pictures with ascending ids ``[N]`` and vectors ``[N, D]``.

        Pictures up to :attr:`after` are left out.
        """
        is_new = ids > self.after
        if not is_new.any():
            return []
        if time.monotonic() - self._fitted >= REFIT_SECONDS:
            self._fit()
        scores = self._scores(ids[is_new], vectors[is_new])
        self.after = int(ids[-1])
        above = scores >= self.min_score
        hits = {
            id_: Hit(id_, score)
            for id_, score in zip(ids[is_new][above].tolist(), scores[above].tolist(), strict=True)
        }
        rows = self._gallery.rows(hits, self._where) if hits else []
        return [(hits[row.id], row) for row in rows if self._is_first(row)]

    def _is_first(self, row: Row) -> bool:
        """Whether no alarm was raised yet for the same value of the column ``per``."""
        value = None if self._per is None else value_of(row, self._per)
        if value is None:
            return True
        is_first = value not in self._raised
        self._raised[value] = None
        self._raised.move_to_end(value)
        if len(self._raised) > _MOST_REMEMBERED:
            self._raised.popitem(last=False)
        return is_first

    def _match(self, row: Row, score: float) -> Match:
        self._num_alarms += 1
        return Match(
            rank=self._num_alarms,
            score=score,
            id=row.id,
            image=row.image,
            pid=row.pid,
            camera=row.camera,
            time=row.time,
            track=row.track,
            metadata=row.metadata,
            thumbnail=self._gallery.thumbnail(row.id),
        )

    def _scores(self, ids: Ids, vectors: Vectors) -> Scores:
        scores: Scores = self._scoring.scores(vectors)
        if self._biased:
            biases = self._gallery.biases(ids.tolist())
            scores = scores + np.array([biases.get(id_, 0.0) for id_ in ids.tolist()])
        return scores

    # --- the threshold ------------------------------------------------------------------------

    def _fit(self) -> None:
        """Compute the threshold from the gallery as it is now."""
        self._fitted = time.monotonic()
        if self._rate.false_alarms_per_day is not None:
            self.threshold = Threshold.of(
                self._background(), self._rate.false_alarms_per_day, self._pictures_per_day()
            )

    def _background(self) -> Scores:
        """Scores of a sample of the pictures that the filter keeps; of all, if they are few."""
        ids = self._ids(self._where)
        if len(ids) < LEAST_BACKGROUND:
            ids = self._ids(None)
        vectors = self._gallery.vectors(chosen_ids(ids, BACKGROUND_ROWS).tolist())
        if not vectors:
            return np.empty(0)
        sampled = np.fromiter(vectors, np.int64)
        scores = self._scores(sampled, np.stack(list(vectors.values())))
        if self._calibration is None:
            return scores
        level = Level.of(scores, len(ids))
        likely = self._calibration.of(scores, float(scores.max()), level) >= _LIKELY
        return scores[~likely]

    def _ids(self, where: str | None) -> Ids:
        if where is None:
            return np.fromiter(self._gallery, np.int64)
        return np.array(self._gallery.ids_where(where), np.int64)

    def _pictures_per_day(self) -> float:
        """Pictures that were added in a day, over the last seven or since the first of them."""
        if self._rate.pictures_per_day is not None:
            return self._rate.pictures_per_day
        now = times.now()
        since = f"added_at >= '{times.utc_text(now - timedelta(days=_COUNTED_DAYS))}'"
        ids = self._gallery.ids_where(
            since if self._where is None else joined([since, self._where])
        )
        if not ids:
            return _LEAST_PER_DAY
        (first,) = self._gallery.rows(ids[:1]) or (None,)
        days = 1.0
        if first is not None:
            began = datetime.fromisoformat(first.added_at)
            days = min(max((now - began) / timedelta(days=1), 1.0), _COUNTED_DAYS)
        return max(len(ids) / days, _LEAST_PER_DAY)

    def __repr__(self) -> str:
        rate = self._rate.false_alarms_per_day
        stated = "" if rate is None else f", {rate:g} false alarms a day"
        return f"Alert({self.query!r}, score >= {self.min_score:.3f}{stated})"
