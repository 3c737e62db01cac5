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
def test_one_class_catches_them_all(kind):
    assert issubclass(kind, FinegrainError)
    assert kind.__doc__
    with pytest.raises(FinegrainError, match="what came"):
        raise kind("what came")


@pytest.mark.parametrize(("name", "built_in"), BUILT_IN.items())
def test_who_expects_the_built_in_kind_catches_it_too(name, built_in):
    assert issubclass(getattr(errors, name), built_in)


def test_a_module_that_is_there_is_imported():
    import json

    assert require("json", "train") is json


def test_a_missing_module_is_answered_with_its_extra():
    with pytest.raises(MissingExtraError, match=r"no_such_module_here is needed") as caught:
        require("no_such_module_here.inner", "gpu")
    assert 'pip install "finegrain[gpu]"' in str(caught.value)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_what_a_module_lacks_itself_is_not_blamed_on_the_extra(tmp_path, monkeypatch):
    (tmp_path / "needs_another.py").write_text("import not_there_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="not_there_at_all") as caught:
        require("needs_another", "train")
    assert not isinstance(caught.value, MissingExtraError)
