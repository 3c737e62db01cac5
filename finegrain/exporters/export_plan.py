"""Exporting a run: graphs, the parity gate, then the plan."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch

from finegrain.checkpoint import MODEL
from finegrain.data.datasets import Dataset
from finegrain.encoder import Encoder
from finegrain.errors import ExportError
from finegrain.exporters.parity import MIN_QUERIES, ParityReport, compare
from finegrain.exporters.profile import ExportProfile
from finegrain.exporters.to_onnx import image_graph, text_graph
from finegrain.methods import TwoTowers
from finegrain.plan import IMAGE, TEXT, TOKENIZER, Manifest, Plan, write_plan
from finegrain.recipe import Recipe
from finegrain.records import Split
from finegrain.run import eager_encoder, load_run

MAX_COMPARED = 400
"""Captions, and pictures, of the dataset that the parity check takes."""


def export(
    run: str | Path,
    profile: ExportProfile,
    out: str | Path = "model.plan",
    *,
    data: Dataset | None = None,
) -> ParityReport:
    """Export the selected checkpoint of a run to a plan.

    The plan is written only when the exported graphs agree with the eager model within the
    profile's bounds, on at least 200 captions and pictures of the dataset.

    Args:
        run: The run folder.
        profile: The target, and its bounds.
        out: Where the plan goes.
        data: What is compared on; by default the run's dataset.

    Returns:
        The comparison, which the plan's manifest also holds.

    Raises:
        ExportError: The graphs do not agree; nothing is written.
        CheckpointError: The run has no checkpoint.
    """
    recipe, method, checkpoint = load_run(Path(run))
    digest = hashlib.sha256((checkpoint / MODEL).read_bytes()).hexdigest()
    split = _split_to_compare_on(data or recipe.data)
    return export_method(
        recipe,
        method,
        profile,
        Path(out),
        checkpoint=digest,
        captions=[c for s in split.samples for c in s.captions][:MAX_COMPARED],
        pictures=[s.image for s in split.samples][:MAX_COMPARED],
    )


def export_method(
    recipe: Recipe,
    method: TwoTowers,
    profile: ExportProfile,
    out: Path,
    *,
    checkpoint: str,
    captions: Sequence[str],
    pictures: Sequence[Path],
) -> ParityReport:
    """Export a method in memory; see :func:`export`."""
    eager = eager_encoder(recipe, method.cpu(), torch.device("cpu"))
    transform = eager.transform
    context_length = recipe.method.text.context_length
    members = {
        TEXT: text_graph(method, context_length=context_length, opset=profile.opset),
        IMAGE: image_graph(
            method, height=transform.height, width=transform.width, opset=profile.opset
        ),
        TOKENIZER: eager.tokenizer.to_json().encode(),
    }
    norm = method.image_tower.pixel_norm
    manifest = Manifest(
        method="clip",
        embed_dim=recipe.method.embed_dim,
        height=transform.height,
        width=transform.width,
        fit=transform.fit,
        mean=tuple((norm.mean / 255).flatten().tolist()),
        std=tuple((norm.std / 255).flatten().tolist()),
        context_length=context_length,
        precision={TEXT: "fp32", IMAGE: "fp32"},
        checkpoint=checkpoint,
        recipe=recipe.to_dict(),
        parity={},
        made_by=version("finegrain"),
        sha256={},
    )
    with tempfile.TemporaryDirectory() as folder:
        # Compared is what a user will open: the plan itself, read back.
        draft = Path(folder) / "draft.plan"
        write_plan(draft, manifest, members)
        report = compare(eager, Encoder.from_plan(Plan(draft)), captions, pictures, profile)
    failures = report.failures(profile)
    if failures:
        raise ExportError(
            f"{profile.name}: the exported model does not agree with the eager one, and was not "
            f"written: {'; '.join(failures)}.\n{report}"
        )
    write_plan(out, replace(manifest, parity=report.to_dict()), members)
    return report


def _split_to_compare_on(data: Dataset) -> Split:
    """The validation split, or the first that has captions enough."""
    splits = data.splits()
    for name in ("val", "test", "train"):
        if name in splits and splits[name].num_captions >= MIN_QUERIES:
            return splits[name]
    raise ExportError(
        f"the parity check needs {MIN_QUERIES} captions, and no split has as many: "
        + "; ".join(str(split) for split in splits.values())
    )
