"""Render synthetic people on one core."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import cv2
import pytest

from finegrain.synthetic import identities, render, view_of

SIZE = (128, 64)
NUM_PEOPLE = 25


@pytest.fixture
def _one_core() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


@pytest.mark.usefixtures("_one_core")
def test_render(benchmark: Any, rounds: Callable[[int], int]) -> None:
    scenes = [(one.person, view_of(one, picture=0)) for one in identities(NUM_PEOPLE)]

    def draw_all() -> int:
        return sum(render(*scene, size=SIZE).shape == (*SIZE, 3) for scene in scenes)

    drawn = benchmark.pedantic(draw_all, rounds=rounds(30), warmup_rounds=1)
    assert drawn == NUM_PEOPLE
    if benchmark.enabled:
        benchmark.extra_info["pictures_per_second"] = NUM_PEOPLE / benchmark.stats["median"]
