"""Writes a plan from a published pair of ONNX graphs."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from finegrain.encoder import Encoder
from finegrain.errors import ExportError, require
from finegrain.exporters.onnx_pair.compare import MIN_COSINE, Comparison, PairReport
from finegrain.exporters.onnx_pair.files import find_pair
from finegrain.exporters.onnx_pair.settings import (
    MASK,
    Captions,
    Pixels,
    is_pooled,
    read_captions,
    read_pixels,
)
from finegrain.plan import IMAGE, TEXT, TOKENIZER, Manifest, Plan, write_plan

if TYPE_CHECKING:  # needs onnx
    from finegrain.exporters.onnx_pair.tower import Tower

METHOD = "onnx_pair"
"""Name of the method in the manifest of a plan that was made from a published pair."""


def plan_from_pair(
    folder: str | Path,
    out: str | Path = "model.plan",
    *,
    source: Mapping[str, str] | None = None,
    weights: Mapping[str, str] | None = None,
    prompt: str = "{}",
) -> PairReport:
    """Write a plan from a published pair of ONNX graphs; see the module for the layouts.

    PyTorch is not needed. Pictures enter the plan as bytes and are normalised in its image graph.
    The embeddings are normalised. A tower that was exported for a batch of one runs once for each
    item. Captions run at their own length if that gives the same embeddings as padding them;
    otherwise the text graph pads them.

    Args:
        folder: The folder with the graphs, the tokenizer and the configurations.
        out: Path of the plan.
        source: Where the model came from, for the manifest.
        weights: SHA-256 of each published weight file, for the manifest.
        prompt: Template around texts, for the manifest.

    Returns:
        The comparison of the plan with the published graphs, which its manifest also contains.

    Raises:
        ExportError: The files are not a pair that a plan can be made from, or its embeddings do
            not agree with those of the published graphs. Nothing is written.
        PlanError: The plan cannot be written.
        MissingExtraError: ``onnx`` is not installed.
    """
    require("onnx", "pull")
    # Imported here, because they need onnx.
    from finegrain.exporters.onnx_pair.tensors import read_graph
    from finegrain.exporters.onnx_pair.tower import image_tower, text_tower
    from finegrain.exporters.onnx_pair.wrap import image_graph, text_graph

    files = find_pair(Path(folder))
    pixels = read_pixels(files)
    pooled = is_pooled(files)
    image = image_tower(read_graph(files.image), files.image, pooled=pooled)
    text = text_tower(read_graph(files.text), files.text, pooled=pooled)
    _check_size(pixels, image)
    captions = read_captions(files, fixed_length=text.fixed(1))
    pad_id = _padding(captions, text)
    comparison = Comparison.of_published(image, text, pixels, captions.tokenizer, pad_id)
    manifest = _manifest(image, text, pixels, captions, comparison)
    members = {
        IMAGE: image_graph(image, pixels, embed_dim=manifest.embed_dim),
        TOKENIZER: captions.tokenizer.to_json().encode(),
    }
    context_length = captions.tokenizer.context_length
    # A tower that is not causal and has no mask gives another embedding without the padding.
    for pad_to in [context_length] if text.fixed(1) else [None, context_length]:
        members[TEXT] = text_graph(text, pad_id=pad_id, pad_to=pad_to, embed_dim=manifest.embed_dim)
        report = comparison.with_plan(_encoder(manifest, members))
        if report.text_cosine >= MIN_COSINE[text.precision]:
            break
    failures = report.failures(text=text.precision, image=image.precision)
    if failures:
        raise ExportError(
            f"a plan would not give the embeddings of {files.text} and {files.image}, and was "
            f"not written: {'; '.join(failures)}"
        )
    complete = replace(
        manifest,
        parity=report.to_dict(),
        source=source or {},
        weights=weights or {},
        prompt=prompt,
    )
    write_plan(Path(out), complete, members)
    return report


def _check_size(pixels: Pixels, image: Tower) -> None:
    transform = pixels.transform
    for name, stated, axis in (("height", transform.height, 2), ("width", transform.width, 3)):
        fixed = image.fixed(axis)
        if fixed not in (None, stated):
            raise ExportError(
                f"{image.file} takes pictures of {name} {fixed}, and the configuration states "
                f"{stated}. These files are not of one model."
            )


def _padding(captions: Captions, text: Tower) -> int:
    if captions.pad_id is None and MASK not in text.others:
        raise ExportError(
            f"{text.file} needs padding, and the tokenizer and its configuration state no "
            "pad_token. Get tokenizer_config.json from where the graphs come from."
        )
    return captions.pad_id or 0


def _manifest(
    image: Tower, text: Tower, pixels: Pixels, captions: Captions, comparison: Comparison
) -> Manifest:
    transform, tokenizer = pixels.transform, captions.tokenizer
    digest = hashlib.sha256()
    for file in dict.fromkeys((text.file, image.file)):
        digest.update(file.read_bytes())
    return Manifest(
        method=METHOD,
        embed_dim=comparison.embed_dim,
        height=transform.height,
        width=transform.width,
        fit=transform.fit,
        interpolation=transform.interpolation,
        antialias=transform.antialias,
        mean=pixels.mean,
        std=pixels.std,
        context_length=tokenizer.context_length,
        cleaning=tokenizer.cleaning.stated(),
        precision={TEXT: text.precision, IMAGE: image.precision},
        checkpoint=digest.hexdigest(),
        recipe={},
        parity={},
        made_by=version("finegrain"),
        sha256={},
        compared_on=str(comparison),
    )


def _encoder(manifest: Manifest, members: Mapping[str, bytes]) -> Encoder:
    """The encoder of a plan that is written and read back."""
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "draft.plan"
        write_plan(draft, manifest, members)
        return Encoder.from_plan(Plan(draft))
