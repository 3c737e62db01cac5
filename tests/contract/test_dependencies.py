"""setup.cfg declares every package that the code imports."""

from __future__ import annotations

import ast
import configparser
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
OWN = {
    "finegrain", "fixtures", "tests",
    # of benchmarks
    "bench_gallery_growth", "bench_gallery_storage", "benchmarks", "compare", "composed_queries",
    "conftest", "denied_words", "everyday_words", "explanation", "late_interaction", "plots",
    "rendered_people", "tables",
}  # fmt: skip
BROUGHT_BY = {
    "cuda": {"cuda-python"},  # a metapackage, whose parts have the modules
    "cpuinfo": {"pytest-benchmark"},  # it depends on pillow for the same purpose
    # all builds of OpenCV have the module cv2
    "cv2": {"opencv-contrib-python-headless"},
    "tensorrt": {"tensorrt"},
}
"""Modules that the metadata of installed packages does not list."""


@cache
def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def requirements(text: str) -> set[str]:
    """Canonical names of a list of requirements, including those of finegrain's own extras."""
    names: set[str] = set()
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            requirement = Requirement(line)
            if requirement.name == "finegrain":
                names |= set().union(*(extra(name) for name in requirement.extras))
            else:
                names.add(canonicalize_name(requirement.name))
    return names


def base() -> set[str]:
    return requirements(setup_cfg()["options"]["install_requires"])


def extra(name: str) -> set[str]:
    return requirements(setup_cfg()["options.extras_require"][name])


def extras() -> list[str]:
    return list(setup_cfg()["options.extras_require"])


@cache
def installed_modules() -> Mapping[str, list[str]]:
    # Cached, since it reads the file list of every installed package.
    return packages_distributions()


def distributions(module: str) -> set[str]:
    """Canonical names of the distributions that contain a module."""
    top = module.partition(".")[0]
    installed = set(installed_modules().get(top, ()))
    return {canonicalize_name(name) for name in installed | BROUGHT_BY.get(top, set())}


def imported(path: Path) -> Iterator[str]:
    """Third-party modules in the import statements of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        else:
            continue
        tops = {name.partition(".")[0] for name in names}
        yield from tops - OWN - set(sys.stdlib_module_names)


def required(path: Path) -> Iterator[tuple[str, str]]:
    """``(module, extra)`` of each call of ``require`` with literal arguments."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "require":
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            values = [arg.value for arg in given if isinstance(arg, ast.Constant)]
            if len(values) == 2:
                yield values[0], values[1]


def files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize(
    ("folders", "allowed"),
    [
        (("finegrain", "recipes", "export"), [name for name in extras() if name != "dev"]),
        (("tests", "benchmarks"), extras()),
    ],
    ids=["package", "tests"],
)
def test_every_import_is_declared(folders, allowed):
    declared = base().union(*(extra(name) for name in allowed))
    undeclared = {
        f"{path.relative_to(ROOT)}: {module}"
        for path in files(*folders)
        for module in imported(path)
        if not distributions(module) & declared
    }
    assert undeclared == set()


def test_the_error_of_a_missing_module_names_an_extra_that_has_it():
    calls = [(path, *call) for path in files("finegrain") for call in required(path)]
    assert len(calls) > 20
    wrong = {
        f"{path.relative_to(ROOT)}: require({module!r}, {name!r})"
        for path, module, name in calls
        if not distributions(module) & extra(name)
    }
    assert wrong == set()


def test_the_extras_equal_those_of_setup_cfg():
    named = {name for path in files("finegrain") for _, name in required(path)}
    assert named <= set(extras())


def test_the_base_install_does_not_depend_on_the_training_wing():
    assert not base() & {"torch", "torchvision", "timm", "onnx", "opencv-python-headless"}
