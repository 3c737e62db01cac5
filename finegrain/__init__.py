"""Fine-grained text-to-person and text-to-fashion image search.

>>> import finegrain
>>> searcher = finegrain.Searcher("model.plan")           # doctest: +SKIP
>>> searcher.query("woman in red coat", k=10)             # doctest: +SKIP
"""

from __future__ import annotations

import importlib

from finegrain import telemetry

TYPE_CHECKING = False  # the import of typing would delay the answer to Ctrl-C

__version__ = "0.1.0"

# Set the switches before any dependency is imported: each reads its own at import.
telemetry.turn_off()
del telemetry

# Names are loaded on first use, so that `import finegrain` takes less than 0.2 s and searching
# does not import torch.
_MODULES = {
    "Client": "finegrain.serve.client",
    "ExportProfile": "finegrain.exporters",
    "FinegrainError": "finegrain.errors",
    "Gallery": "finegrain.gallery",
    "Match": "finegrain.search.matches",
    "Recipe": "finegrain.recipe",
    "RetrievalMetrics": "finegrain.metrics",
    "Searcher": "finegrain.search.searcher",
    "evaluate": "finegrain.evaluation.evaluation",
    "export": "finegrain.exporters",
    "load_recipe": "finegrain.recipe",
    "pull": "finegrain.exporters.pulling",
    "train": "finegrain.training",
}

__all__ = [
    "Client",
    "ExportProfile",
    "FinegrainError",
    "Gallery",
    "Match",
    "Recipe",
    "RetrievalMetrics",
    "Searcher",
    "__version__",
    "evaluate",
    "export",
    "load_recipe",
    "pull",
    "train",
]

if TYPE_CHECKING:
    from typing import Any

    from finegrain.errors import FinegrainError
    from finegrain.evaluation.evaluation import evaluate
    from finegrain.exporters import ExportProfile, export
    from finegrain.exporters.pulling import pull
    from finegrain.gallery import Gallery
    from finegrain.metrics import RetrievalMetrics
    from finegrain.recipe import Recipe, load_recipe
    from finegrain.search.matches import Match
    from finegrain.search.searcher import Searcher
    from finegrain.serve.client import Client
    from finegrain.training import train


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'finegrain' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(_MODULES[name]), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("finegrain"):
            raise
        from finegrain.errors import MissingExtraError

        raise MissingExtraError(
            f"finegrain.{name} needs {error.name}, which is not installed. "
            'Install it with: pip install "finegrain[train]"'
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
