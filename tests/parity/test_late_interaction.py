"""Late interaction against literal loops over the formulas."""

from __future__ import annotations

import math

import pytest
import torch

from finegrain.methods.late_interaction import in_rounds, max_sim, scan


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def unit(a):
    length = math.sqrt(dot(a, a))
    return [x / length for x in a]


def literal_max_sim(words, places):
    return sum(max(dot(e, v) for v in places) for e in words) / len(words)


def literal_attended(words, places):
    s = [[dot(e, v) for v in places] for e in words]
    s = [[x if x > 0 else 0.1 * x for x in row] for row in s]
    for r in range(len(places)):
        length = math.sqrt(sum(row[r] ** 2 for row in s))
        for row in s:
            row[r] /= length
    attended = []
    for row in s:
        weights = [math.exp(9 * x) for x in row]
        total = sum(weights)
        mean = [0.0] * len(places[0])
        for weight, place in zip(weights, places, strict=True):
            mean = [m + weight / total * x for m, x in zip(mean, place, strict=True)]
        attended.append(mean)
    return attended


def literal_scan(words, places):
    attended = literal_attended(words, places)
    return sum(dot(e, unit(a)) for e, a in zip(words, attended, strict=True)) / len(words)


def literal_rounds(words, places):
    total = 0.0
    for _ in range(3):
        total += literal_scan(words, places)
        attended = literal_attended(words, places)
        words = [
            unit([x + y for x, y in zip(e, unit(a), strict=True)])
            for e, a in zip(words, attended, strict=True)
        ]
    return total


@pytest.mark.parametrize(
    ("score", "literal"),
    [(max_sim, literal_max_sim), (scan, literal_scan), (in_rounds, literal_rounds)],
)
def test_scores_equal_the_formula(score, literal):
    random = torch.Generator().manual_seed(0)
    words = torch.nn.functional.normalize(torch.randn(5, 7, generator=random), dim=-1)
    places = torch.nn.functional.normalize(torch.randn(4, 6, 7, generator=random), dim=-1)
    expected = [literal(words.tolist(), picture) for picture in places.tolist()]
    assert score(words, places).tolist() == pytest.approx(expected, abs=1e-5)
