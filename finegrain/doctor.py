"""What this machine has, and whether plans, galleries and datasets are sound."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from tabulate import tabulate

from finegrain.data.leaks import Leaks, find_leaks
from finegrain.data.person_datasets import PersonDataset
from finegrain.data.survey import Survey, survey
from finegrain.encoder import Encoder
from finegrain.gallery import Gallery
from finegrain.plan import Plan


def machine_report() -> str:
    """Versions of Python, the processor's kind, and every dependency by extra."""
    head = (
        f"finegrain {version('finegrain')}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    )
    rows = sorted(
        {(_extra_of(r), r.name, str(r.specifier), _installed(r)) for r in _requirements()}
    )
    return f"{head}\n\n" + tabulate(rows, headers=["extra", "package", "needed", "installed"])


def examine(path: Path) -> str:
    """Open a plan with its graphs, or a gallery, and say what it is.

    Raises:
        FinegrainError: It is not sound; the message says why.
    """
    if path.suffix == ".gallery":
        with Gallery(path, create=False) as gallery:
            return f"{path}: sound; {gallery!r}"
    plan = Plan(path)
    Encoder.from_plan(plan)
    parity = ", ".join(f"{name} {value:.6g}" for name, value in plan.manifest.parity.items())
    return (
        f"{path}: sound; {plan!r}\n  made by finegrain {plan.manifest.made_by}"
        f"\n  fingerprint {plan.manifest.fingerprint[:12]}\n  parity: {parity or 'not stated'}"
    )


def examine_datasets(
    datasets: Sequence[tuple[PersonDataset, Path]], *, progress: bool = True
) -> Iterator[Survey | Leaks]:
    """Survey person-search datasets; of several, also what their splits share.

    Raises:
        DataError: A picture cannot be read.
    """
    surveys = []
    for dataset, root in datasets:
        surveys.append(survey(root, dataset))
        yield surveys[-1]
    if len(surveys) > 1:
        yield find_leaks(surveys, progress=progress)


def _requirements() -> list[Requirement]:
    parsed = [Requirement(text) for text in requires("finegrain") or []]
    return [r for r in parsed if r.name != "finegrain"]


def _extra_of(requirement: Requirement) -> str:
    marker = str(requirement.marker or "")
    return marker.partition('extra == "')[2].partition('"')[0]


def _installed(requirement: Requirement) -> str:
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return "no"
    return found if requirement.specifier.contains(found, prereleases=True) else f"{found} (!)"
