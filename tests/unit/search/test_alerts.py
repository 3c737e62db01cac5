"""Standing queries, and the score that few wrong pictures reach."""

from __future__ import annotations

import math

import numpy as np
import pytest

from finegrain.errors import FilterError, GalleryError, QueryError
from finegrain.gallery import Gallery
from finegrain.gallery.scoring import Linear
from finegrain.search.alerts import alert as alert_module
from finegrain.search.alerts.alert import Alert, Rate
from finegrain.search.alerts.threshold import Threshold, exceeded_by, fitted
from finegrain.search.searcher import Searcher

DIM = 8
LAWS = {
    "normal": (lambda random: random.normal(size=20_000), lambda x: math.erfc(x / 2**0.5) / 2),
    "gumbel": (lambda random: random.gumbel(size=20_000), lambda x: -math.expm1(-math.exp(-x))),
    "logistic": (lambda random: random.logistic(size=20_000), lambda x: 1 / (1 + math.exp(x))),
}
"""Laws of scores: how to draw them, and the share above a score."""


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def gallery(tmp_path):
    """A gallery of 400 random pictures, which tests add to."""
    with Gallery(tmp_path / "g", dim=DIM) as opened:
        opened.add(unit(np.random.default_rng(0).normal(size=(400, DIM))), [None] * 400)
        yield opened


@pytest.fixture
def query():
    return np.eye(DIM, dtype=np.float32)[0]


def alert_over(gallery, query, **arguments):
    given = arguments.pop("rate", {"min_score": 0.9})
    return Alert("red coat", Linear(query), gallery, Rate.checked(**given), **arguments)


def add(gallery, query, count=1, **columns):
    return gallery.add(np.stack([query] * count), [None] * count, **columns)


# --- the threshold -------------------------------------------------------------------------


def test_the_fit_is_that_of_the_formula():
    """Hosking and Wallis (1987), with a loop over plotting positions."""
    excess = np.sort(np.random.default_rng(1).pareto(10, size=400))
    mean = sum(excess) / len(excess)
    weighted = 0.0
    for place, value in enumerate(excess, start=1):
        weighted += (len(excess) - place) / (len(excess) - 1) * value / len(excess)
    shape, scale = fitted(excess)
    assert shape == pytest.approx(2 - mean / (mean - 2 * weighted))
    assert scale == pytest.approx(2 * mean * weighted / (mean - 2 * weighted))


def test_the_tail_is_the_quantile_of_the_distribution():
    scores = np.sort(np.random.default_rng(0).normal(size=2000))
    start = scores[-101]
    shape, scale = fitted(scores[-100:] - start)
    score = exceeded_by(scores, 1e-4)
    assert 0.05 * (1 + shape * (score - start) / scale) ** (-1 / shape) == pytest.approx(1e-4)


@pytest.mark.parametrize("share", [0.3, 0.01, 1e-3, 1e-4])
@pytest.mark.parametrize("law", LAWS)
def test_about_the_wanted_share_of_others_exceeds_it(law, share):
    draw, exceeding = LAWS[law]
    shares = [
        exceeding(exceeded_by(draw(np.random.default_rng(seed)), share)) for seed in range(20)
    ]
    assert 0.4 * share < np.mean(shares) < 1.6 * share


def test_equal_scores_are_not_exceeded():
    assert exceeded_by(np.full(500, 0.25), 1e-6) == pytest.approx(0.25)


def test_every_picture_is_an_alarm_if_more_are_allowed_than_come():
    scores = np.random.default_rng(0).normal(size=500)
    assert Threshold.of(scores, 1000, 100).score == scores.min()


def test_few_pictures_say_nothing_of_rare_scores(gallery, query):
    gallery.delete(range(1, 390))
    with pytest.raises(GalleryError, match=r"at least 200 pictures.*got 11.*--min-score"):
        alert_over(gallery, query, rate={})


# --- alarms --------------------------------------------------------------------------------


def test_only_pictures_that_are_added_later_raise_alarms(gallery, query):
    add(gallery, query)
    alert = alert_over(gallery, query)
    assert alert.new() == []
    with Gallery(gallery.path, create=False) as other:  # as another process
        added = add(other, query, cameras=["gate-3"])
    (match,) = alert.new()
    assert (match.id, match.camera, match.rank) == (added[0], "gate-3", 1)
    assert match.score == pytest.approx(1.0)
    assert alert.new() == []
    (again,) = [*add(gallery, query)]
    assert [(m.id, m.rank) for m in alert.new()] == [(again, 2)]


def test_a_track_raises_one_alarm(gallery, query):
    alert = alert_over(gallery, query)
    each = alert_over(gallery, query, per=None)
    add(gallery, query, 4, tracks=["a", "a", "b", None])
    add(gallery, query, 2, tracks=["b", None])
    assert [match.track for match in alert.new()] == ["a", "b", None, None]
    assert len(each.new()) == 6


def test_a_filter_and_deletions_are_kept(gallery, query):
    alert = alert_over(gallery, query, where="camera = 'gate-1'")
    ids = add(gallery, query, 3, cameras=["gate-1", "gate-2", "gate-1"])
    gallery.delete(ids[:1])
    assert [match.id for match in alert.new()] == ids[2:]
    with pytest.raises(FilterError):
        alert_over(gallery, query, where="colour = 'red'")


def test_biases_count_as_in_a_search(gallery, query):
    alert, without = alert_over(gallery, query), alert_over(gallery, query, biased=False)
    ids = gallery.add(np.stack([query, query]), [None] * 2, biases=[-0.5, 0.0])
    assert [match.id for match in alert.new()] == ids[1:]
    assert [match.id for match in without.new()] == ids


def test_the_rate_becomes_a_score_by_the_pictures_of_a_day(gallery, query):
    rare, frequent = (
        alert_over(gallery, query, rate={"false_alarms_per_day": 1, "pictures_per_day": per_day})
        for per_day in (100_000, 1000)
    )
    assert rare.min_score > frequent.min_score
    assert rare.threshold.background == 400
    counted = alert_over(gallery, query, rate={}).threshold
    assert (counted.false_alarms_per_day, counted.pictures_per_day) == (1, 400)


def test_the_scores_are_those_of_the_pictures_that_the_filter_keeps(gallery, query):
    near = unit(query + np.random.default_rng(1).normal(scale=0.1, size=(300, DIM)))
    gallery.add(near, [None] * 300, cameras=["near"] * 300)
    rate = {"pictures_per_day": 1000}
    inside = alert_over(gallery, query, rate=rate, where="camera = 'near'")
    assert inside.threshold.background == 300
    assert inside.min_score > 0.98
    few = alert_over(gallery, query, rate=rate, where="camera = 'nowhere'")
    assert few.threshold.background == 700


def test_the_threshold_follows_the_gallery(gallery, query, monkeypatch):
    alert = alert_over(gallery, query, rate={"pictures_per_day": 1000})
    before = alert.min_score
    near = unit(query + np.random.default_rng(1).normal(scale=0.1, size=(300, DIM)))
    gallery.add(near, [None] * 300)
    monkeypatch.setattr(alert_module, "REFIT_SECONDS", 0.0)
    alert.new()
    assert alert.min_score > before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"false_alarms_per_day": 0}, "above 0"),
        ({"pictures_per_day": -1}, "above 0"),
        ({"false_alarms_per_day": True}, "as a number"),
        ({"min_score": float("nan")}, "as a number"),
        ({"false_alarms_per_day": None}, "got neither"),
    ],
)
def test_an_invalid_rate_is_an_error(arguments, message):
    with pytest.raises(QueryError, match=message):
        Rate.checked(**arguments)


def test_a_searcher_alerts_of_what_it_adds(tiny_plan, crops, tmp_path):
    pictures = sorted(crops.iterdir())
    with Searcher(tiny_plan, gallery=tmp_path / "g", threads=1) as searcher:
        searcher.add(pictures[:6], progress=False)
        alert = searcher.alert("woman in red coat", min_score=-1.0, where="camera = 'gate-1'")
        by_picture = searcher.alert(pictures[8], min_score=0.999)
        searcher.add(pictures[6:], {"camera": "gate-1"}, progress=False)
        scores = {m.id: m.score for m in searcher.query("woman in red coat", 12)}
        alarms = next(iter(alert.follow())), *alert.new()
        assert [alarm.id for alarm in by_picture.new()] == [9]
    assert alarms[0].score == pytest.approx(scores[alarms[0].id], abs=1e-6)
