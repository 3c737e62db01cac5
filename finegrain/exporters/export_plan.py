"""Export of a run: the graphs, the parity check, and the plan."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch

from finegrain.data.datasets import Dataset
from finegrain.data.person_datasets import CUHK_PEDES
from finegrain.data.person_json import read_people
from finegrain.encoder import Encoder
from finegrain.errors import DataError, ExportError, require
from finegrain.evaluation.fitted import Fitted, fitted
from finegrain.exporters.calibration import calibration_batches
from finegrain.exporters.gpu_members import gpu_members, require_backends
from finegrain.exporters.match_export import MatchExport
from finegrain.exporters.parity import MIN_QUERIES, ParityReport, compare
from finegrain.exporters.precision import Fp32, Precision
from finegrain.exporters.profile import ExportProfile
from finegrain.exporters.shortening import Shortening, check_dim
from finegrain.exporters.to_onnx import image_graph, image_graph_with_tokens, text_graph
from finegrain.methods import TwoTowers
from finegrain.methods.dual_embedding import DualEmbedding
from finegrain.methods.match_head import Matcher
from finegrain.methods.two_towers import Logits
from finegrain.models.trained_rows import keep_trained_rows
from finegrain.plan import BACKGROUND, IMAGE, MATCH, TEXT, TOKENIZER, Manifest, Plan, write_plan
from finegrain.preprocess.vocabulary import VOCABULARY, Vocabulary
from finegrain.recipe import Recipe, override
from finegrain.records import Sample, Split
from finegrain.runs.checkpoint import MODEL
from finegrain.runs.run import eager_encoder, load_run
from finegrain.runs.vocabulary import read_vocabulary
from finegrain.synthetic import write_people
from finegrain.zoo.hub import digest

VALIDATION = "val split"
RENDERED = 116
"""Number of synthetic people that replace a dataset that is not here: 400 pictures to compare, and
64 more for calibration."""
FEWEST_RENDERED = 5
"""Number of synthetic people for a plan in fp32, which is not calibrated: 20 pictures with 40
captions."""


def export(
    run: str | Path,
    profile: ExportProfile,
    out: str | Path = "model.plan",
    *,
    data: Dataset | None = None,
    dim: int | None = None,
    global_share: float | None = None,
) -> ParityReport:
    """Export the selected checkpoint of a run to a plan.

    The plan is written only if the exported graphs agree with the eager model within the
    profile's bounds, on at least 200 captions and ten pictures of the dataset.

    Args:
        run: The run folder.
        profile: The target and its bounds.
        out: Path of the plan.
        data: The dataset of the parity check. The default is the run's dataset, or synthetic
            people where that cannot be read.
        dim: Width to which embeddings are shortened; None for that of the profile. The projection
            is fitted on the validation split, and on the training split if that is small.
        global_share: Share of the global embedding in the score of RDE or ITSELF. None keeps the
            share of the run. :func:`~finegrain.evaluation.global_share.measure_shares` measures
            shares on the validation split.

    Returns:
        The result of the parity check, which the plan's manifest also contains.

    Raises:
        ExportError: The model cannot be exported, or its graphs do not agree, or it has no global
            share. Nothing is written.
        CheckpointError: The run has no checkpoint.
        DataError: ``data`` cannot be read.
        MissingExtraError: The profile's runtime is not installed.
        PlanError: The plan cannot be written.
    """
    _require_runtime(profile)
    if dim is not None:
        profile = replace(profile, dim=dim)
    recipe, method, checkpoint = load_run(Path(run))
    if profile.dim is not None:
        check_dim(profile.dim, recipe.method.embed_dim)  # before a dataset is read
    if global_share is not None:
        recipe = _with_share(recipe, method, global_share)
    with tempfile.TemporaryDirectory() as folder:
        chosen = _chosen_data(recipe, data, Path(folder) / "people")
        return export_method(
            recipe,
            method,
            profile,
            Path(out),
            checkpoint=digest(checkpoint / MODEL),
            samples=chosen.split.samples,
            compared_on=chosen.description,
            is_validation=chosen.description.startswith(VALIDATION),
            training_captions=chosen.training_captions,
            own_samples=chosen.own_samples,
            vocabulary=read_vocabulary(Path(run)),
        )


def _with_share(recipe: Recipe, method: TwoTowers, share: float) -> Recipe:
    """Set the share of the global embedding in a method; return its recipe with that share."""
    if not isinstance(method, DualEmbedding):
        raise ExportError(
            "expected a run with two embeddings, of RDE or ITSELF, to set the global share; got "
            f"one of the method {recipe.method.method_name}. Export it without the option"
        )
    method.config = replace(method.config, global_share=share)
    return override(recipe, [f"method.global_share={share}"])


def export_method(
    recipe: Recipe,
    method: TwoTowers,
    profile: ExportProfile,
    out: Path,
    *,
    checkpoint: str,
    samples: Sequence[Sample],
    compared_on: str,
    is_validation: bool = False,
    training_captions: Sequence[str] = (),
    own_samples: Sequence[Sample] = (),
    source: Mapping[str, str] | None = None,
    weights: Mapping[str, str] | None = None,
    prompt: str = "{}",
    vocabulary: Vocabulary | None = None,
) -> ParityReport:
    """Export a method that is in memory; see :func:`export`.

    ``source``, ``weights`` and ``prompt`` are those of :class:`~finegrain.plan.Manifest`. The
    comparison has no prompt. If the samples are the validation split of the model's own data,
    the probability of a match is fitted on them, and hub correction is chosen on them with a bank
    of training captions. Shorter embeddings are fitted on ``own_samples``, which are of the model's
    own data and not for tests. With a ``vocabulary`` the text tower keeps only the rows of its
    tokens: the method is changed, and other tokens share one row.
    """
    if vocabulary is not None:
        keep_trained_rows(method.text_tower, vocabulary.tokens)
    full = eager = eager_encoder(recipe, method.cpu(), torch.device("cpu"))
    shortening, logits = None, method.logits
    if profile.dim is not None:
        shortening = Shortening.fitted(full, own_samples, samples, profile.dim)
        eager, logits = shortening.encoder(full, method), Logits(None, None)
    transform = eager.transform
    context_length = recipe.method.text.context_length
    text = text_graph(method, context_length=context_length, opset=profile.opset)
    options = {"height": transform.height, "width": transform.width, "opset": profile.opset}
    match_export = None
    if profile.match is not None and isinstance(method, Matcher):
        match_export = MatchExport(method, eager, samples)
        image = image_graph_with_tokens(method, **options)
    else:
        image = image_graph(method, **options)
    graphs = {TEXT: (profile.text, text), IMAGE: (profile.image, image)}
    if match_export is not None and profile.match is not None:
        match = match_export.graph(context_length=context_length, opset=profile.opset)
        graphs[MATCH] = (profile.match, match)
    batches = calibration_batches(eager, samples)
    members = {
        name: precision.lower(graph, batches.get(name, ()))
        for name, (precision, graph) in graphs.items()
    }
    precisions = {
        name: _name(precision, changed=members[name] != graph)
        for name, (precision, graph) in graphs.items()
    }
    if shortening is not None:
        members |= {name: shortening.appended(name, members[name]) for name in (TEXT, IMAGE)}
    members[TOKENIZER] = eager.tokenizer.to_json().encode()
    if vocabulary is not None:
        members[VOCABULARY] = vocabulary.to_json()
    norm = method.image_tower.pixel_norm
    manifest = Manifest(
        method=recipe.method.method_name,
        embed_dim=eager.embed_dim,
        height=transform.height,
        width=transform.width,
        fit=transform.fit,
        interpolation=transform.interpolation,
        antialias=transform.antialias,
        mean=tuple((norm.mean / 255).flatten().tolist()),
        std=tuple((norm.std / 255).flatten().tolist()),
        context_length=context_length,
        cleaning=eager.tokenizer.cleaning.stated(),
        precision=precisions,
        checkpoint=checkpoint,
        recipe=recipe.to_dict(),
        parity={},
        made_by=version("finegrain"),
        sha256={},
        compared_on=compared_on,
        source=source or {},
        weights=weights or {},
        logit_scale=logits.scale,
        logit_bias=logits.bias,
        match=None if match_export is None else match_export.manifest,
    )
    report = _compared(eager, manifest, members, samples, profile, match_export)
    if shortening is not None:
        report = replace(report, shortening=shortening.report(full, samples))
    failures = report.failures(profile)
    if failures:
        raise ExportError(
            f"{profile.name}: the exported model does not agree with the eager one, and was not "
            f"written: {'; '.join(failures)}.\ncompared on {compared_on}\n{report}"
        )
    known = Fitted()
    if is_validation:
        source_of_bank = f"training captions of {compared_on.rpartition(' of ')[2]}"
        known = fitted(eager, samples, training_captions, source=source_of_bank)
    probability = known.match_probability
    manifest = replace(
        manifest,
        parity=report.to_dict(),
        prompt=prompt,
        match_probability=None if probability is None else probability.to_dict(),
    )
    if known.background is not None:
        members[BACKGROUND] = known.background.to_bytes()
    write_plan(out, manifest, members | gpu_members(profile, manifest, members))
    return report


def _name(precision: Precision, *, changed: bool) -> str:
    """The precision of a graph. A graph that a precision did not change is still fp32."""
    return precision.name if changed else Fp32.name


def _compared(
    eager: Encoder,
    manifest: Manifest,
    members: Mapping[str, bytes],
    samples: Sequence[Sample],
    profile: ExportProfile,
    match_export: MatchExport | None,
) -> ParityReport:
    """Compare a plan that is written and read back, on the runtime of its profile."""
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "draft.plan"
        write_plan(draft, manifest, members)
        exported = Encoder.from_plan(Plan(draft), runtime=profile.runtime)
        report = compare(eager, exported, samples, profile)
        return (
            report
            if match_export is None
            else replace(report, match=match_export.compare(exported))
        )


def _require_runtime(profile: ExportProfile) -> None:
    """Fail before minutes of work if the profile's runtime is not installed."""
    if profile.runtime == "openvino":
        require("openvino", "openvino")
    require_backends(profile)


class _Data(NamedTuple):
    """What an export compares on, and the training captions of the same dataset.

    Attributes:
        split: The split to compare on.
        description: Its description.
        training_captions: Captions for hub correction; none if the split has them itself.
        own_samples: Samples of the validation split, then those of the training split; none if
            the dataset is not here.
    """

    split: Split
    description: str
    training_captions: Sequence[str] = ()
    own_samples: Sequence[Sample] = ()


def _chosen_data(recipe: Recipe, data: Dataset | None, folder: Path) -> _Data:
    """The first of validation, test and train with enough captions.

    A run made from a released checkpoint may name a dataset that is not on this machine, and a
    user's own table may be small. Then synthetic people are written into ``folder``.
    """
    wanted = data or recipe.data
    kind = type(wanted).__name__
    try:
        splits = wanted.splits()
    except DataError:
        if data is not None:
            raise
        return _Data(draw_people(folder), f"synthetic people: {kind} of the recipe is not here")
    enough = [name for name in splits if splits[name].num_captions >= MIN_QUERIES]
    own = [sample for name in ("val", "train") if name in splits for sample in splits[name].samples]
    for name in ("val", "test", "train"):
        if name in enough:
            others = splits["train"].samples if name != "train" and "train" in splits else ()
            captions = [caption for sample in others for caption in sample.captions]
            return _Data(splits[name], f"{name} split of {kind}", captions, own)
    if data is None:
        return _Data(
            draw_people(folder), f"synthetic people: {kind} has fewer than {MIN_QUERIES} captions"
        )
    raise ExportError(
        f"the parity check needs a split of {MIN_QUERIES} captions or more, got: "
        + "; ".join(str(split) for split in splits.values())
    )


def draw_people(folder: Path, num_people: int = RENDERED) -> Split:
    """Draw synthetic people into a folder, for the parity check of a model without a dataset."""
    written = write_people(
        folder, identities=num_people, splits={"val": num_people}, workers=1, progress=False
    )
    return read_people(written, CUHK_PEDES)["val"]
