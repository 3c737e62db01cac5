from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "compare.py"


def compare(tmp_path, before, after, *options):
    """Runs the script on two results, each given as name -> (median in s, ratio)."""
    paths = []
    for name, run in (("before", before), ("after", after)):
        benchmarks = [
            {"name": f"test_{n}", "stats": {"median": s}, "extra_info": {"ratio": r} if r else {}}
            for n, (s, r) in run.items()
        ]
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps({"benchmarks": benchmarks}))
    command = [sys.executable, str(SCRIPT), *map(str, paths), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_slower_machine_is_no_slower_finegrain(tmp_path):
    done = compare(tmp_path, {"query": (0.010, 5.0)}, {"query": (0.030, 4.5)})
    assert done.returncode == 0
    assert "no benchmark became slower" in done.stdout
    assert "-10 %" in done.stdout


def test_a_ratio_that_fell_is_told(tmp_path):
    before = {"query": (0.010, 5.0), "search": (0.002, 3.0)}
    after = {"query": (0.020, 2.5), "search": (0.002, 3.1)}
    done = compare(tmp_path, before, after)
    assert done.returncode == 1
    assert "slower: query" in done.stdout
    assert compare(tmp_path, before, after, "--tolerance", "0.6").returncode == 0


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({"a": (1.0, 2.0)}, {}, "gone"),
        ({}, {"a": (1.0, 2.0)}, "new"),
        ({"a": (1.0, None)}, {"a": (9.0, None)}, "no peer"),
    ],
)
def test_what_cannot_be_compared_is_shown(tmp_path, before, after, told):
    done = compare(tmp_path, before, after)
    assert done.returncode == 0
    assert told in done.stdout


def test_another_file(tmp_path):
    path = tmp_path / "other.json"
    path.write_text("{}")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(path), str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "is no result of pytest --benchmark-json" in done.stderr
