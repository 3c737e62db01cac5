"""Two runs of the benchmarks, side by side, and a verdict.

    pytest benchmarks --benchmark-json=before.json
    pytest benchmarks --benchmark-json=after.json
    python benchmarks/compare.py before.json after.json

Compared are ratios: how many times as long the peer took as finegrain, in one run on one
machine. A ratio moves little when the machine is slower or busy, which moves both. Where a
ratio fell by more than ``--tolerance``, finegrain became slower beside its peer, and the exit
status is 1. Benchmarks without a peer are shown and not judged.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate


@dataclass(frozen=True, slots=True)
class Timing:
    """A benchmark of one run: median in ms, and peer over finegrain where there is a peer."""

    median: float
    ratio: float | None


def read(path: Path) -> dict[str, Timing]:
    """Timings by name, from a file of pytest-benchmark."""
    try:
        benchmarks = json.loads(path.read_text())["benchmarks"]
        return {
            one["name"]: Timing(1e3 * one["stats"]["median"], one["extra_info"].get("ratio"))
            for one in benchmarks
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"{path} is no result of pytest --benchmark-json: {error!r}")


def rows(before: Mapping[str, Timing], after: Mapping[str, Timing]) -> list[list[str]]:
    return [
        [
            name.removeprefix("test_"),
            *(f"{run[name].median:.2f}" if name in run else "" for run in (before, after)),
            *(_ratio(run.get(name)) for run in (before, after)),
            _change(before.get(name), after.get(name)),
        ]
        for name in {**before, **after}
    ]


def slower(
    before: Mapping[str, Timing], after: Mapping[str, Timing], tolerance: float
) -> list[str]:
    """Names of benchmarks whose ratio fell by more than ``tolerance``."""
    fallen = []
    for name in before.keys() & after.keys():
        was, now = before[name].ratio, after[name].ratio
        if was and now and now < (1 - tolerance) * was:
            fallen.append(name.removeprefix("test_"))
    return sorted(fallen)


def _ratio(timing: Timing | None) -> str:
    return f"{timing.ratio:.2f}" if timing and timing.ratio else ""


def _change(was: Timing | None, now: Timing | None) -> str:
    if was is None or now is None:
        return "gone" if now is None else "new"
    return f"{100 * (now.ratio / was.ratio - 1):+.0f} %" if was.ratio and now.ratio else "no peer"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument(
        "--tolerance", type=float, default=0.25, help="of a ratio's fall (default: a quarter)"
    )
    arguments = parser.parse_args()
    before, after = read(arguments.before), read(arguments.after)
    head = ["benchmark", "ms before", "ms after", "ratio before", "ratio after", "change"]
    print(tabulate(rows(before, after), headers=head, disable_numparse=True))
    fallen = slower(before, after, arguments.tolerance)
    print(f"\nslower: {', '.join(fallen)}" if fallen else "\nno benchmark became slower")
    return 1 if fallen else 0


if __name__ == "__main__":
    sys.exit(main())
