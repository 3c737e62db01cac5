from __future__ import annotations

import pytest

from finegrain.errors import RecipeError
from finegrain.recipe.python_file import call_in_file


def test_the_result_of_the_function_is_checked(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def number():\n    return 3\n")
    assert call_in_file(path, "number", int, RecipeError) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must define `def number.. -> int`; got NoneType"),
        ("number = 3\n", "must define `def number.. -> int`; got NoneType"),
        ("def number():\n    return 'three'\n", "must define `def number.. -> int`; got str"),
        ("def number(:\n", "is not Python"),
    ],
)
def test_another_file_is_refused(tmp_path, text, message):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(RecipeError, match=rf"mine\.py {message}"):
        call_in_file(path, "number", int, RecipeError)


def test_a_file_that_is_not_python_is_refused(tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(RecipeError, match=r"mine\.txt cannot be loaded as Python"):
        call_in_file(tmp_path / "mine.txt", "number", int, RecipeError)
