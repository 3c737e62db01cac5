from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from finegrain.records import Problem, ProblemKind, Sample, Split, identities, pid_of


def sample(pid: int, *captions: str) -> Sample:
    return Sample(image=Path(f"{pid}.jpg"), captions=captions, pid=pid)


def test_a_split_prints_its_counts():
    split = Split(name="val", samples=(sample(3, "a", "b"), sample(3, "c"), sample(5, "d")))
    assert (len(split), split.num_captions, split.num_pids) == (3, 4, 2)
    assert str(split) == "val: 3 pictures, 4 captions, 2 identities"


def test_a_split_may_be_empty():
    split = Split(name="test", samples=())
    assert (len(split), split.num_captions, split.num_pids) == (0, 0, 0)


def test_problems_are_counted():
    problem = Problem(where="row 3", why="no picture")
    split = Split(name="train", samples=(sample(1, "a"),), problems=(problem,))
    assert str(split).endswith("1 identities, 1 left out")
    assert str(problem) == "row 3: no picture"


def test_identities_are_numbered_by_number_then_text_then_missing_pids():
    pids = [10, "b", None, "9", 2, "10", None, "007", 7, -1]
    assert identities(pids).tolist() == [4, 6, 7, 3, 1, 4, 8, 5, 2, 0]
    assert identities([]).tolist() == []


@pytest.mark.parametrize(
    ("cell", "pid"),
    [
        (7, 7), ("007", "007"), ("7", "7"), (7.0, 7), (7.5, "7.5"), (True, "true"), (None, None),
        ("", None), (2**63, str(2**63)), (1e300, str(int(1e300))), (float("nan"), "nan"),
    ],
)  # fmt: skip
def test_a_pid_is_read_from_a_cell(cell, pid):
    assert pid_of(cell) == pid
    assert type(pid_of(cell)) is type(pid)


def test_metadata_is_not_shared():
    assert sample(1, "a").metadata is not sample(2, "b").metadata
    assert sample(1, "a").camera is None


def test_records_are_immutable():
    with pytest.raises(FrozenInstanceError):
        sample(1, "a").pid = 2


def test_a_dropped_value_does_not_count_as_a_lost_row():
    problems = [
        Problem(where=f"t.csv:{line}", why="is odd", kind=kind)
        for line, kind in enumerate(ProblemKind, start=2)
    ]
    losses = {problem.kind.value for problem in problems if problem.is_loss}
    assert losses == {"unreadable picture", "missing picture", "bad row"}
    assert str(Split(name="all", samples=(), problems=tuple(problems))).endswith("3 left out")
