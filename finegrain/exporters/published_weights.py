"""A plan from published PyTorch weights."""

from __future__ import annotations

import tempfile
from pathlib import Path

from finegrain.exporters.export_plan import FEWEST_RENDERED, RENDERED, draw_people, export_method
from finegrain.exporters.parity import ParityReport
from finegrain.exporters.profile import ExportProfile
from finegrain.methods.match_head import Matcher
from finegrain.runs.published import read_published
from finegrain.zoo.fetching import Fetched
from finegrain.zoo.hub import joint_digest
from finegrain.zoo.recognition import TITLES


def export_published(
    fetched: Fetched, out: Path, profile: ExportProfile | None = None, prompt: str = "{}"
) -> ParityReport:
    """Export published weights to a plan, compared with the eager model on synthetic people.

    Args:
        fetched: The files of the model.
        out: Path of the plan.
        profile: Precision of the plan; None is fp32.
        prompt: Template around texts.

    Raises:
        WeightsError: The weights are damaged, or their layout is not supported.
        ExportError: The plan does not give the embeddings of the weights.
        PlanError: The plan cannot be written.
    """
    weights = fetched.choice.weights[0]
    published = read_published(fetched.folder, weights)
    # A lower precision is calibrated, and the weight of a match head is selected, on more pictures.
    is_simple = profile is None and not isinstance(published.method, Matcher)
    num_people = FEWEST_RENDERED if is_simple else RENDERED
    with tempfile.TemporaryDirectory() as folder:
        return export_method(
            published.recipe,
            published.method,
            profile or ExportProfile(name="onnx_fp32"),
            out,
            checkpoint=joint_digest(fetched.digests.values()),
            samples=draw_people(Path(folder) / "people", num_people).samples,
            compared_on="synthetic people",
            source={**fetched.source, "model": TITLES[published.layout]},
            weights=fetched.digests,
            prompt=prompt,
        )
