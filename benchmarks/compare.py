"""Compare two runs of the benchmarks.

    pytest benchmarks --benchmark-json=before.json
    pytest benchmarks --benchmark-json=after.json
    python benchmarks/compare.py before.json after.json

Times are not compared directly, but relative to a reference that was timed in the same run on the
same machine. The reference is the peer of the benchmark. Without a peer it is the calibration,
which is a fixed computation. A slow or busy machine changes both times, so their ratio changes
little. If a relative speed fell by more than ``--tolerance``, finegrain became slower, and the exit
status is 1. Benchmarks that are in one run only, or have no reference, are shown without a verdict.

Relative speeds depend on the type of processor: AMX makes products of bytes several times as fast
and does not change the rest. Runs on processors with different instruction sets are therefore not
compared, and the exit status is 2.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

REFERENCES = ("peer", "calibration")
"""References for speeds, the better first: a peer does the same kind of work."""


@dataclass(frozen=True, slots=True)
class Timing:
    """A benchmark of one run: the median in ms, and the speed relative to each reference."""

    median: float
    speed: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Run:
    """Timings by name, and the type of processor on which they were taken."""

    processor: str
    timings: Mapping[str, Timing]


def read(path: Path) -> Run:
    """Read a run from a file of pytest-benchmark."""
    try:
        stated = json.loads(path.read_text())
        timings = {
            one["name"]: _timing(one["stats"], one["extra_info"]) for one in stated["benchmarks"]
        }
        machine = stated["machine_info"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"{path} is not a result of pytest --benchmark-json: {error!r}")
    if "instructions" not in machine:
        sys.exit(
            f"{path} does not state the processor's instruction sets; run the benchmarks again"
        )
    return Run(f"{machine['machine']} with {' '.join(machine['instructions']) or 'none'}", timings)


def _timing(stats: Mapping[str, float], extra: Mapping[str, Any]) -> Timing:
    median = 1e3 * stats["median"]
    speed: dict[str, float] = {}
    if ratio := extra.get("ratio"):
        speed["peer"] = ratio
    if calibration := extra.get("calibration_ms"):
        speed["calibration"] = calibration / median
    return Timing(median, speed)


def rows(before: Mapping[str, Timing], after: Mapping[str, Timing]) -> list[list[str]]:
    return [_row(name, before.get(name), after.get(name)) for name in {**before, **after}]


def slower(
    before: Mapping[str, Timing], after: Mapping[str, Timing], tolerance: float
) -> list[str]:
    """Names of benchmarks whose speed fell by more than ``tolerance``."""
    fallen = []
    for name in before.keys() & after.keys():
        change = _change(before[name], after[name])
        if change is not None and change < -tolerance:
            fallen.append(name.removeprefix("test_"))
    return sorted(fallen)


def _reference(*timings: Timing) -> str | None:
    """The best reference that all of the timings have."""
    return next((other for other in REFERENCES if all(other in one.speed for one in timings)), None)


def _change(was: Timing, now: Timing) -> float | None:
    """Relative change of the speed: -0.1 is 10 % slower."""
    other = _reference(was, now)
    return None if other is None else now.speed[other] / was.speed[other] - 1


def _row(name: str, was: Timing | None, now: Timing | None) -> list[str]:
    other = _reference(*(one for one in (was, now) if one))
    return [
        name.removeprefix("test_"),
        *(f"{one.median:.2f}" if one else "" for one in (was, now)),
        other or "",
        *(f"{one.speed[other]:.3g}" if one and other else "" for one in (was, now)),
        _verdict(was, now),
    ]


def _verdict(was: Timing | None, now: Timing | None) -> str:
    if was is None or now is None:
        return "gone" if now is None else "new"
    change = _change(was, now)
    return "not judged" if change is None else f"{100 * change:+.0f} %"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.25,
        help="largest accepted decrease of a relative speed (default: 0.25)",
    )
    arguments = parser.parse_args()
    runs = read(arguments.before), read(arguments.after)
    if runs[0].processor != runs[1].processor:
        was, now = (run.processor for run in runs)
        print(f"expected two runs on one type of processor, got {was}, and {now}", file=sys.stderr)
        return 2
    before, after = (run.timings for run in runs)
    head = ["benchmark", "ms before", "ms after", "relative to", "before", "after", "change"]
    print(tabulate(rows(before, after), headers=head, disable_numparse=True))
    fallen = slower(before, after, arguments.tolerance)
    print(f"\nslower: {', '.join(fallen)}" if fallen else "\nno benchmark became slower")
    return 1 if fallen else 0


if __name__ == "__main__":
    sys.exit(main())
