from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "compare.py"

PEER, CALIBRATION = "ratio", "calibration_ms"


SAME = {"machine": "x86_64", "instructions": ["AVX2"]}


def compare(tmp_path, before, after, *options, machines=(SAME, SAME)):
    """Runs the script on two results, each given as name -> (median in s, references)."""
    paths = []
    for name, run, machine in zip(("before", "after"), (before, after), machines, strict=True):
        benchmarks = [
            {"name": f"test_{n}", "stats": {"median": s}, "extra_info": extra}
            for n, (s, extra) in run.items()
        ]
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps({"machine_info": machine, "benchmarks": benchmarks}))
    command = [sys.executable, str(SCRIPT), *map(str, paths), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("before", "after"),
    [({PEER: 5.0}, {PEER: 4.5}), ({CALIBRATION: 5.0}, {CALIBRATION: 13.5})],
    ids=["peer", "calibration"],
)
def test_a_slower_machine_does_not_mean_a_slower_finegrain(tmp_path, before, after):
    done = compare(tmp_path, {"query": (0.010, before)}, {"query": (0.030, after)})
    assert done.returncode == 0
    assert "no benchmark became slower" in done.stdout
    assert "-10 %" in done.stdout


def test_a_smaller_ratio_is_reported(tmp_path):
    before = {"query": (0.010, {PEER: 5.0}), "search": (0.002, {PEER: 3.0})}
    after = {"query": (0.020, {PEER: 2.5}), "search": (0.002, {PEER: 3.1})}
    done = compare(tmp_path, before, after)
    assert done.returncode == 1
    assert "slower: query" in done.stdout
    assert compare(tmp_path, before, after, "--tolerance", "0.6").returncode == 0


def test_a_smaller_calibrated_speed_is_reported(tmp_path):
    before = {"add": (0.010, {CALIBRATION: 5.0}), "render": (0.010, {CALIBRATION: 5.0})}
    after = {"add": (0.020, {CALIBRATION: 5.0}), "render": (0.010, {CALIBRATION: 5.1})}
    done = compare(tmp_path, before, after)
    assert done.returncode == 1
    assert "slower: add\n" in done.stdout
    assert "-50 %" in done.stdout


def test_the_peer_has_priority_over_the_calibration(tmp_path):
    before = {"query": (0.010, {PEER: 5.0, CALIBRATION: 5.0})}
    after = {"query": (0.030, {PEER: 5.0, CALIBRATION: 5.0})}
    done = compare(tmp_path, before, after)
    assert done.returncode == 0
    (row,) = (line.split() for line in done.stdout.splitlines() if line.startswith("query"))
    assert row == ["query", "10.00", "30.00", "peer", "5", "5", "+0", "%"]


def test_a_new_peer_is_ignored_if_one_run_lacks_it(tmp_path):
    before = {"query": (0.010, {CALIBRATION: 5.0})}
    after = {"query": (0.010, {PEER: 5.0, CALIBRATION: 5.5})}
    done = compare(tmp_path, before, after)
    assert "calibration" in done.stdout
    assert "+10 %" in done.stdout


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({"a": (1.0, {PEER: 2.0})}, {}, "gone"),
        ({}, {"a": (1.0, {PEER: 2.0})}, "new"),
        ({"a": (1.0, {})}, {"a": (9.0, {})}, "not judged"),
        ({"a": (1.0, {PEER: 2.0})}, {"a": (9.0, {CALIBRATION: 5.0})}, "not judged"),
    ],
)
def test_benchmarks_without_a_common_reference_are_shown(tmp_path, before, after, told):
    done = compare(tmp_path, before, after)
    assert done.returncode == 0
    assert told in done.stdout


@pytest.mark.parametrize(
    "other",
    [
        {"machine": "x86_64", "instructions": ["AVX2", "AVX-512", "VNNI"]},
        {"machine": "aarch64", "instructions": ["AVX2"]},
        {"machine": "x86_64", "instructions": []},
    ],
)
def test_two_types_of_processors_are_refused(tmp_path, other):
    run = {"query": (0.010, {PEER: 5.0})}
    for machines in ((SAME, other), (other, SAME)):
        done = compare(tmp_path, run, run, machines=machines)
        assert done.returncode == 2
        assert done.stdout == ""
        assert "expected two runs on one type of processor" in done.stderr
        assert "x86_64 with AVX2" in done.stderr
    assert compare(tmp_path, run, run, machines=(other, other)).returncode == 0


def test_a_run_that_does_not_state_its_instructions_is_refused(tmp_path):
    run = {"query": (0.010, {PEER: 5.0})}
    done = compare(tmp_path, run, run, machines=(SAME, {"machine": "x86_64"}))
    assert done.returncode == 1
    assert "after.json does not state the processor's instruction sets" in done.stderr


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "other.json"
    path.write_text("{}")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(path), str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "is not a result of pytest --benchmark-json" in done.stderr
