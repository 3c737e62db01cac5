"""What this machine has, and whether plans, galleries and datasets are sound."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from tabulate import tabulate

from finegrain.data import person_datasets
from finegrain.data.fashion_datasets import FashionDataset
from finegrain.data.fashion_survey import FASHION_DATASETS, FashionSurvey, survey_fashion
from finegrain.data.leaks import Leaks, find_leaks
from finegrain.data.person_datasets import PersonDataset
from finegrain.data.survey import Survey, survey
from finegrain.encoder import Encoder
from finegrain.errors import DataError
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


def dataset_names() -> tuple[str, ...]:
    """Names of the datasets that can be examined."""
    return tuple(d.name for d in (*person_datasets.PERSON_DATASETS, *FASHION_DATASETS))


def known_dataset(name: str) -> PersonDataset | FashionDataset:
    """The dataset of a name.

    Raises:
        DataError: There is none.
    """
    for dataset in (*person_datasets.PERSON_DATASETS, *FASHION_DATASETS):
        if dataset.name == name:
            return dataset
    raise DataError(
        f"there is no dataset {name!r} to examine; there are {', '.join(dataset_names())}"
    )


def examine_datasets(
    datasets: Sequence[tuple[PersonDataset | FashionDataset, Path]], *, progress: bool = True
) -> Iterator[Survey | FashionSurvey | Leaks]:
    """Survey datasets; of several for person search, also what their splits share.

    Raises:
        DataError: A picture cannot be read.
        MissingExtraError: Reading a dataset needs what is not installed.
    """
    surveys = []
    for dataset, root in datasets:
        if isinstance(dataset, FashionDataset):
            yield survey_fashion(root, dataset)
        else:
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
