"""A plan from published PyTorch weights."""

from __future__ import annotations

import tempfile
from pathlib import Path

from finegrain.exporters.export_plan import drawn_samples, export_method
from finegrain.exporters.parity import ParityReport
from finegrain.exporters.profile import ExportProfile
from finegrain.runs.published import read_published
from finegrain.zoo.fetching import Fetched


def export_published(
    fetched: Fetched, out: Path, profile: ExportProfile | None = None
) -> ParityReport:
    """Export published weights to a plan, compared with the eager model on synthetic people.

    Args:
        fetched: The files of the model.
        out: Path of the plan.
        profile: Precision of the plan; None is fp32.

    Raises:
        WeightsError: The weights are damaged, or their layout is not supported.
        ExportError: The plan does not give the embeddings of the weights.
        PlanError: The plan cannot be written.
    """
    weights = fetched.choice.weights[0]
    published = read_published(fetched.folder, weights)
    with tempfile.TemporaryDirectory() as folder:
        return export_method(
            published.recipe,
            published.method,
            profile or ExportProfile(name="onnx_fp32"),
            out,
            checkpoint=fetched.digests[weights],
            samples=drawn_samples(Path(folder) / "people"),
            compared_on="synthetic people",
            source=fetched.source,
            weights=fetched.digests,
        )
