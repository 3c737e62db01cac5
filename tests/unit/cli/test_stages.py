from __future__ import annotations

import re

import pytest

import finegrain.cli.stages
from finegrain.cli.stages import Stages


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""

    class Clock:
        now = 0.0

        def perf_counter(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(finegrain.cli.stages, "time", clock)
    return clock


def test_each_stage_shows_its_number_and_the_remaining_time(clock, capsys):
    stages = Stages({"draw": 40, "train": 200, "search": 10})
    for name, seconds in (("draw", 80), ("train", 400), ("search", 5)):
        with stages.stage(name, f"about {name}"):
            clock.now += seconds
    assert re.findall(r"\[.*", capsys.readouterr().out) == [
        "[1/3] draw: about draw (about 4 min left in all)",
        "[2/3] train: about train (about 7 min left in all)",  # twice as slow as the reference
        "[3/3] search: about search (about 20 s left in all)",
    ]
    assert stages.seconds == {"draw": 80, "train": 400, "search": 5}
    assert stages.left == 0


def test_stages_of_an_earlier_run_are_not_in_the_remaining_time(clock):
    stages = Stages({"draw": 40, "train": 200, "search": 10}, done={"draw": 1.0, "train": 0.75})
    assert stages.left == 60
    with stages.stage("draw", ""):
        clock.now += 1
    assert stages.left == 60  # a stage without work tells nothing about the speed of the machine


def test_processor_time_is_counted(clock):
    stages = Stages({"work": 1})
    with stages.stage("work", ""):
        sum(range(10**6))
    assert stages.cpu_seconds["work"] > 0
