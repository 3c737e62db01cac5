"""The errors that finegrain raises on purpose.

A message says what was expected, what was received, and what to do. All of them derive from
:class:`FinegrainError`; any other exception is a bug in finegrain.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from difflib import get_close_matches
from types import ModuleType


class FinegrainError(Exception):
    """Base of all errors of this package."""


class MissingExtraError(FinegrainError, ImportError):
    """A feature needs an optional dependency that is not installed."""


class ImageError(FinegrainError, ValueError):
    """A picture is broken, too large, or of a kind that is not accepted."""


class QueryError(FinegrainError, ValueError):
    """A query text, a query picture or ``k`` is invalid."""


class FilterError(FinegrainError, ValueError):
    """A ``where=`` expression does not parse or does not fit its column."""


class GalleryError(FinegrainError):
    """A gallery is missing, damaged, or belongs to another plan."""


class CameraError(FinegrainError):
    """A camera cannot be read, or its settings are invalid."""


class FinegrainWarning(UserWarning):
    """An operation succeeded, but the user should know about a condition of its inputs."""


class GalleryWarning(FinegrainWarning):
    """A gallery operation succeeded, but the user should know about a condition of the gallery."""


class PlanError(FinegrainError):
    """A ``model.plan`` is damaged, unsafe, or of a format this version cannot read."""


class DataError(FinegrainError, ValueError):
    """A dataset or catalogue is missing or does not follow its format."""


class RecipeError(FinegrainError, ValueError):
    """A recipe or an override of one of its fields is wrong."""


class WeightsError(FinegrainError, ValueError):
    """Pretrained weights do not fit the model they are loaded into."""


class LicenceError(FinegrainError):
    """The licence of a published model must be accepted first."""


class CheckpointError(FinegrainError):
    """A checkpoint is missing, damaged, or belongs to another recipe."""


class TrainingError(FinegrainError, RuntimeError):
    """Training cannot go on, for example after a non-finite loss."""


class ExportError(FinegrainError, RuntimeError):
    """An export failed, or its result does not agree with the eager model."""


class EvaluationError(FinegrainError, ValueError):
    """Inputs of an evaluation do not fit each other."""


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Suggest the known name that is spelled most like ``wrong``, as the end of a message.

    >>> did_you_mean("--gird", ["--grid", "--json"])
    " Did you mean '--grid'?"
    >>> did_you_mean("--where", ["--grid", "--json"])
    ''
    """
    by_lower = {name.lower(): name for name in known}
    close = get_close_matches(wrong.lower(), by_lower, n=1, cutoff=0.6)
    return f" Did you mean {by_lower[close[0]]!r}?" if close else ""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or name the extra that installs it.

    Raises:
        MissingExtraError: ``module`` is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise MissingExtraError(
            f"{error.name} is needed here and is not installed. "
            f'Install it with: pip install "finegrain[{extra}]"'
        ) from error
