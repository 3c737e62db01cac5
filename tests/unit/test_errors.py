from __future__ import annotations

import inspect

import pytest

from finegrain import errors
from finegrain.errors import FinegrainError, MissingExtraError, require

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, Exception) and not issubclass(kind, Warning)
]
BUILT_IN = {
    "MissingExtraError": ImportError,
    "ImageError": ValueError,
    "QueryError": ValueError,
    "FilterError": ValueError,
    "DataError": ValueError,
    "RecipeError": ValueError,
    "WeightsError": ValueError,
    "EvaluationError": ValueError,
    "TrainingError": RuntimeError,
    "ExportError": RuntimeError,
}


def test_there_are_errors_to_test():
    assert len(KINDS) > len(BUILT_IN)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_finegrain_error_catches_all_errors(kind):
    assert issubclass(kind, FinegrainError)
    assert kind.__doc__
    with pytest.raises(FinegrainError, match="what came"):
        raise kind("what came")


@pytest.mark.parametrize(("name", "built_in"), BUILT_IN.items())
def test_errors_are_also_built_in_errors(name, built_in):
    assert issubclass(getattr(errors, name), built_in)


def test_an_installed_module_is_imported():
    import json

    assert require("json", "train") is json


def test_the_error_of_a_missing_module_names_its_extra():
    with pytest.raises(MissingExtraError, match=r"no_such_module_here is needed") as caught:
        require("no_such_module_here.inner", "gpu")
    assert 'pip install "finegrain[gpu]"' in str(caught.value)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_missing_dependency_of_a_module_does_not_name_the_extra(tmp_path, monkeypatch):
    (tmp_path / "needs_another.py").write_text("import not_there_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="not_there_at_all") as caught:
        require("needs_another", "train")
    assert not isinstance(caught.value, MissingExtraError)
