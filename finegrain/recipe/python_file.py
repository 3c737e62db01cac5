"""Python files that define one function: recipes and export profiles."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TypeVar

from finegrain.errors import FinegrainError

Made = TypeVar("Made")


def call_in_file(
    path: Path, function: str, wanted: type[Made], error: type[FinegrainError]
) -> Made:
    """Execute a Python file and return the result of one of its functions.

    Args:
        path: An existing file. It is executed, so it must be trusted.
        function: Name of the function. It is called without arguments.
        wanted: The class of the function's result.
        error: The class of error to raise.

    Raises:
        FinegrainError: The file is not Python, or does not define such a function. The error is
            of the class ``error``.
    """
    spec = importlib.util.spec_from_file_location(f"finegrain_{function}_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise error(f"{path} cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as problem:
        raise error(f"{path} is not Python: {problem}") from problem
    make = getattr(module, function, None)
    made = make() if callable(make) else None
    if not isinstance(made, wanted):
        raise error(
            f"{path} must define `def {function}() -> {wanted.__name__}`; got {type(made).__name__}"
        )
    return made
