"""``finegrain.pull``: from the name of a published model to a plan."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from finegrain.errors import ExportError, PlanError, require
from finegrain.exporters.onnx_pair import plan_from_pair
from finegrain.preprocess.text import checked_prompt
from finegrain.zoo.choice import Choice
from finegrain.zoo.fetching import Fetched, fetch

if TYPE_CHECKING:
    from finegrain.exporters.profile import ExportProfile


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """A plan that was made from a published model.

    Attributes:
        plan: Path of the plan.
        source: ``name``, ``repository``, ``revision`` and ``licence`` of the model, as far as
            they are known.
        digests: SHA-256 of each weight file.
    """

    plan: Path
    source: Mapping[str, str]
    digests: Mapping[str, str]

    def __str__(self) -> str:
        lines = [f"{key}: {value}" for key, value in self.source.items()]
        lines += [f"{name}: SHA-256 {digest}" for name, digest in self.digests.items()]
        return "\n".join([*lines, f"wrote {self.plan}"])


def pull(
    name: str | None = None,
    out: str | Path = "model.plan",
    *,
    source: str | Path | None = None,
    revision: str | None = None,
    file: str | None = None,
    accept_licence: bool = False,
    profile: ExportProfile | None = None,
    prompt: str | None = None,
    progress: bool = True,
) -> Pulled:
    """Make a plan from a published model.

    The files are downloaded from the Hugging Face hub into its cache; its variables ``HF_HOME``,
    ``HF_ENDPOINT``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` have an effect. Their digests are
    verified. No code and no pickle of the repository is run. The plan is written only if it
    gives the embeddings of the published model.

    Args:
        name: A name that ``finegrain pull`` lists, such as ``clip-vit-b16``; or the ``owner/name``
            of a repository, with ``@revision`` if it should not be the newest.
        out: Path of the plan.
        source: A folder or a weight file on this machine; nothing is downloaded then.
        revision: A branch, tag or commit of the repository; the default is the newest.
        file: The weight file, where a repository has several.
        accept_licence: Accept a licence other than MIT, Apache and BSD.
        profile: Precision of the plan; the default is fp32. Models that are published as ONNX
            have the precision of their files.
        prompt: Template into which search puts each text, such as ``a photo of {}``.
        progress: Show a progress bar of the download, and what is done after it.

    Returns:
        The plan, and where the model came from.

    Raises:
        WeightsError: The model is unknown, its layout is not supported, or its files cannot be
            had or are damaged.
        LicenceError: The licence has to be accepted first.
        ExportError: The plan would not give the embeddings of the published model.
        PlanError: The plan cannot be written.
        QueryError: ``prompt`` does not have one ``{}``.
        MissingExtraError: A package is not installed.

    Example:
        >>> import finegrain
        >>> finegrain.pull("clip-vit-b16", "model.plan")            # doctest: +SKIP
        >>> finegrain.Searcher("model.plan").add("photos/")         # doctest: +SKIP
    """
    out = Path(out)
    if prompt is not None:
        checked_prompt(prompt)
    if out.is_dir():
        raise PlanError(f"expected a file to write, such as {out / 'model.plan'}, got a folder")
    fetched = fetch(
        name,
        source=None if source is None else Path(source),
        revision=revision,
        file=file,
        accept_licence=accept_licence,
        has_torch=find_spec("torch") is not None,
        progress=progress,
    )
    if progress:
        print("making the plan, and comparing it with the published model ...", file=sys.stderr)
    plan_from_folder(fetched, out, profile, "{}" if prompt is None else prompt)
    return Pulled(plan=out, source=fetched.source, digests=fetched.digests)


def plan_from_folder(
    fetched: Fetched, out: Path, profile: ExportProfile | None = None, prompt: str = "{}"
) -> None:
    """Write a plan from the files of a published model, by the reader of their layout.

    Raises:
        WeightsError, ExportError, PlanError, MissingExtraError: See :func:`pull`.
    """
    choice: Choice = fetched.choice
    if choice.kind == "onnx":
        if profile is not None:
            raise ExportError(
                f"an export profile changes PyTorch weights, and {choice.weights[0]} is ONNX; "
                "choose a PyTorch file by --file, or leave out the profile"
            )
        plan_from_pair(
            fetched.folder, out, source=fetched.source, weights=fetched.digests, prompt=prompt
        )
        return
    require("torch", "train")
    # Imported here, because it needs torch.
    from finegrain.exporters.published_weights import export_published

    export_published(fetched, out, profile, prompt)
