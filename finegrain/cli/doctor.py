"""Reports the software and processor of this machine, and checks plans, galleries and datasets."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from tabulate import tabulate

from finegrain.cli.index_report import unpacked_lines
from finegrain.data import person_datasets
from finegrain.data.count_survey import COUNTED_DATASETS, CountSurvey, survey_counts
from finegrain.data.leaks import Leaks, find_leaks
from finegrain.data.person_datasets import PersonDataset
from finegrain.data.published_dataset import PublishedDataset
from finegrain.data.survey import Survey, survey
from finegrain.encoder import Encoder
from finegrain.errors import DataError, GalleryError
from finegrain.gallery import Gallery
from finegrain.gallery.picture_files import is_there
from finegrain.plan import Manifest, Plan
from finegrain.runtime.byte_products import products_saturate
from finegrain.runtime.instructions import X86, Processor, this_processor

_SHOWN = 10


def machine_report() -> str:
    """Report Python, the processor, a suitable export profile, and all dependencies by extra."""
    head = (
        f"finegrain {version('finegrain')}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    )
    rows = sorted(
        {(_extra_of(r), r.name, str(r.specifier), _installed(r)) for r in _requirements()}
    )
    packages = tabulate(rows, headers=["extra", "package", "needed", "installed"])
    return f"{head}\n{_database()}\n{processor_report(this_processor())}\n\n{packages}"


def processor_report(processor: Processor) -> str:
    """Report the instruction sets of a processor and a suitable export profile."""
    products = "saturate; plans of finegrain 0.1 take slower kernels that are exact"
    if not products_saturate():
        products = "are exact for any weights"
    profile, why = suggested_profile(processor)
    return (
        f"processor: {processor.name}, {processor.machine}\n"
        f"  instruction sets: {', '.join(processor.instructions) or 'none that speed depends on'}\n"
        f"  missing: {', '.join(processor.missing) or 'none'}\n"
        f"  products of 8-bit weights in ONNX Runtime: {products}\n"
        f"  export profile for this machine: {profile} ({why})"
    )


def suggested_profile(processor: Processor) -> tuple[str, str]:
    """The fastest export profile on a processor, and the reason."""
    fastest_first: tuple[str, ...] = ("AMX", "VNNI", "AVX-512", "AVX2")
    if processor.machine not in X86:
        fastest_first = ("i8mm", "dotprod")
    for name in fastest_first:
        if name in processor.instructions:
            return "cpu_int8", f"int8 products by {name}; see export/README.md"
    needed = fastest_first[-1]
    return "onnx_fp32", f"int8 products are slow without {needed}"


def _database() -> str:
    """The version of SQLite, and whether it has the known bug in its write-ahead log."""
    text = f"SQLite {sqlite3.sqlite_version}"
    version = sqlite3.sqlite_version_info
    is_patched = (3, 44, 6) <= version < (3, 45) or (3, 50, 7) <= version < (3, 51)
    if is_patched or version >= (3, 51, 3):
        return text
    return (
        f"{text}: before 3.51.3, a checkpoint during a commit may damage a file; galleries never "
        "run both at once. A newer Python or system has a newer SQLite"
    )


def is_gallery(path: Path) -> bool:
    """Whether a file is a gallery, or one of the files of a gallery, whatever its name ends in."""
    if path.suffix == ".gallery":
        return True
    with suppress(OSError), path.open("rb") as file:
        return file.read(16) in (b"SQLite format 3\0", b"finegrainvectors")
    return False


def examine(path: Path) -> str:
    """Check a plan with its graphs, or a gallery, and describe it.

    Raises:
        FinegrainError: The plan or gallery is invalid; the message states the reason.
    """
    if is_gallery(path):
        with Gallery(path, create=False) as gallery:
            report = gallery.check()
            if not report.is_valid:
                raise GalleryError(str(report))
            return "\n  ".join(
                [
                    str(report),
                    repr(gallery),
                    *_old_pids(gallery),
                    *_missing_files(gallery),
                    *unpacked_lines(gallery),
                ]
            )
    plan = Plan(path)
    Encoder.from_plan(plan)
    parity = ", ".join(f"{name} {value:.6g}" for name, value in plan.manifest.parity.items())
    return "\n  ".join(
        [
            f"{path}: valid; {plan!r}",
            f"made by finegrain {plan.manifest.made_by}",
            *_origin(plan.manifest),
            f"fingerprint {plan.manifest.fingerprint[:12]}",
            f"parity: {parity or 'not stated'}",
        ]
    )


def _origin(manifest: Manifest) -> list[str]:
    """Lines about where a published model came from."""
    stated = [f"{name}: {value}" for name, value in manifest.source.items()]
    return stated + [f"{name}: SHA-256 {digest}" for name, digest in manifest.weights.items()]


def _old_pids(gallery: Gallery) -> list[str]:
    """A line about pids that an older version wrote, if there are any."""
    if not gallery.has_numbered_pids():
        return []
    return [
        "an older version wrote pids here, which for catalogues are row numbers instead of "
        "keys; index such catalogues again with --replace --pid-column NAME"
    ]


def _missing_files(gallery: Gallery) -> list[str]:
    """Lines about pictures whose files do not exist any more."""
    missing = [place.image for place in gallery.places() if not is_there(place.image)]
    if not missing:
        return []
    num_more = len(missing) - _SHOWN
    return [
        f"the files of {len(missing)} pictures are gone; if a folder has moved, run: "
        "finegrain gallery move GALLERY OLD NEW",
        *missing[:_SHOWN],
        *([f"... and {num_more} more"] if num_more > 0 else []),
    ]


def dataset_names() -> tuple[str, ...]:
    """Names of the datasets that can be examined."""
    return tuple(d.name for d in (*person_datasets.PERSON_DATASETS, *COUNTED_DATASETS))


def known_dataset(name: str) -> PersonDataset | PublishedDataset:
    """The dataset with a name.

    Raises:
        DataError: There is no such dataset.
    """
    for dataset in (*person_datasets.PERSON_DATASETS, *COUNTED_DATASETS):
        if dataset.name == name:
            return dataset
    raise DataError(
        f"there is no dataset {name!r} to examine; expected one of {', '.join(dataset_names())}"
    )


def examine_datasets(
    datasets: Sequence[tuple[PersonDataset | PublishedDataset, Path]], *, progress: bool = True
) -> Iterator[Survey | CountSurvey | Leaks]:
    """Survey datasets; for several person datasets, also find pictures that their splits share.

    Raises:
        DataError: A picture cannot be read.
        MissingExtraError: A package for reading a dataset is not installed.
    """
    surveys = []
    for dataset, root in datasets:
        if isinstance(dataset, PublishedDataset):
            yield survey_counts(root, dataset)
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
        installed = version(requirement.name)
    except PackageNotFoundError:
        return "no"
    is_accepted = requirement.specifier.contains(installed, prereleases=True)
    return installed if is_accepted else f"{installed} (!)"
