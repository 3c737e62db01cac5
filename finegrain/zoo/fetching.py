"""The files of a published model, from a hub or from this machine, with their origin checked."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finegrain.errors import LicenceError, WeightsError
from finegrain.zoo.catalog import KnownModel, is_free, known_model
from finegrain.zoo.choice import OPEN_CLIP_CONFIG, Choice, choose_files
from finegrain.zoo.hub import Listing, card_licence, digest, download, list_repository

_MAX_ENTRIES, _MAX_DEPTH = 2000, 3
"""Bounds of the search for files in a folder of this machine."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A published model on this machine.

    Attributes:
        folder: The folder of the files.
        choice: Which of them make up the model.
        source: ``name``, ``repository``, ``revision`` and ``licence``, as far as they are known.
        digests: SHA-256 of each weight file.
    """

    folder: Path
    choice: Choice
    source: Mapping[str, str]
    digests: Mapping[str, str]


def fetch(
    name: str | None,
    *,
    source: Path | None = None,
    revision: str | None = None,
    file: str | None = None,
    accept_licence: bool = False,
    has_torch: bool = True,
    progress: bool = True,
) -> Fetched:
    """Fetch the files of a model.

    Args:
        name: A name of :mod:`~finegrain.zoo.catalog`, or ``owner/name`` with or without
            ``@revision``. None if ``source`` says everything.
        source: A folder or a weight file on this machine; None downloads.
        revision: A branch, tag or commit of the repository; None takes that of the name, or of the
            table of known models, or the newest.
        file: The weight file, where there are several.
        accept_licence: Accept a licence other than MIT, Apache and BSD.
        has_torch: Whether PyTorch weights can be converted here. Otherwise the ONNX towers of a
            known model are taken, if they are published.
        progress: Show a progress bar.

    Raises:
        WeightsError: The model is unknown, or its files cannot be had or are not what was
            published.
        LicenceError: The licence has to be accepted first.
        MissingExtraError: ``huggingface_hub`` is not installed.
    """
    name, revision = _without_revision(name, revision)
    model = known_model(name) if name is not None and "/" not in name else None
    if source is not None:
        if revision is not None:
            raise WeightsError(
                f"expected a revision only with a repository; the files at {source} are taken as "
                "they are"
            )
        return _from_machine(source, name, model, file, accept_licence=accept_licence)
    if name is None:
        raise WeightsError("expected the name of a model, owner/name, or files by --from PATH")
    repository = name
    if model is not None:
        is_onnx = model.onnx is not None and not has_torch
        repository = model.onnx if is_onnx and model.onnx else model.repository
        revision = revision or (None if is_onnx else model.revision)
    listing = list_repository(repository, revision)
    return _from_hub(
        listing, model, file, accept_licence=accept_licence, has_torch=has_torch, progress=progress
    )


def _without_revision(name: str | None, revision: str | None) -> tuple[str | None, str | None]:
    """A name without its ``@revision``, and the revision.

    Raises:
        WeightsError: The name has another revision.
    """
    if name is None or "@" not in name:
        return name, revision
    name, _, named = name.partition("@")
    if revision is not None and revision != named:
        raise WeightsError(
            f"expected one revision, got {named!r} in the name and {revision!r} by --revision"
        )
    return name, named or revision


def _from_hub(
    listing: Listing,
    model: KnownModel | None,
    file: str | None,
    *,
    accept_licence: bool,
    has_torch: bool,
    progress: bool,
) -> Fetched:
    """The files of a repository."""
    repository = listing.repository
    choice = choose_files(listing.files, repository, file or (model.file if model else None))
    licence = _licence(repository, listing.licence, model, accept_licence=accept_licence)
    if choice.kind == "torch" and not has_torch:
        raise WeightsError(
            f"{repository} is published for PyTorch, which is not installed. Install it with: "
            'pip install "finegrain[train]"; or pull a model that `finegrain pull` lists as ONNX'
        )
    stated = listing.files[choice.weights[0]].sha256
    if model is not None and repository == model.repository and model.sha256 not in (None, stated):
        raise WeightsError(
            f"{choice.weights[0]} of {repository} has the digest {stated}; expected "
            f"{model.sha256}. The repository has changed; pull it as {repository} if you trust "
            "the new file"
        )
    # Configurations first: they are small, and an error in them is found before a long download.
    if choice.companions:
        folder = download(listing, choice.companions, progress=progress)
        _check_has_pictures(folder, choice, repository)
    folder = download(listing, choice.weights, progress=progress)
    return Fetched(
        folder=folder,
        choice=choice,
        source=_stated(
            name=model.name if model else repository.rpartition("/")[2],
            repository=repository,
            revision=listing.revision,
            licence=licence,
        ),
        digests={w: listing.files[w].sha256 or digest(folder / w) for w in choice.weights},
    )


def _check_has_pictures(folder: Path, choice: Choice, repository: str) -> None:
    """Refuse a model of texts alone before its weights are downloaded.

    Raises:
        WeightsError: Its configuration describes no image tower.
    """
    if choice.kind == "onnx" or OPEN_CLIP_CONFIG in choice.companions:
        return
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return  # there is none, or the reader of the weights says what is wrong with it
    if isinstance(config, dict) and "model_type" in config and "vision_config" not in config:
        raise WeightsError(
            f"the config.json of {repository} describes a model of type "
            f"{config['model_type']!r:.60} without an image tower; expected a model of pictures "
            "and texts, such as CLIP"
        )


def _from_machine(
    source: Path,
    name: str | None,
    model: KnownModel | None,
    file: str | None,
    *,
    accept_licence: bool,
) -> Fetched:
    """The files of a folder, or of the folder of a weight file."""
    if source.is_file():
        if file is not None:
            raise WeightsError(f"{source} is a file; use --file only with a folder or a repository")
        folder, file = source.parent, source.name
    elif source.is_dir():
        folder = source
    else:
        raise WeightsError(f"there is neither a folder nor a file at {source}")
    choice = choose_files(_names(folder), str(folder), file)
    licence = _licence(
        name or str(source),
        card_licence(folder),
        model,
        accept_licence=accept_licence,
        on_machine=True,
    )
    digests = {name: digest(folder / name) for name in choice.weights}
    if model is not None and model.sha256 not in (None, digests[choice.weights[0]]):
        raise WeightsError(
            f"{folder / choice.weights[0]} is not the file of {model.name}: expected SHA-256 "
            f"{model.sha256}, got {digests[choice.weights[0]]}"
        )
    return Fetched(
        folder=folder,
        choice=choice,
        source=_stated(name=name or source.stem, repository="", revision="", licence=licence),
        digests=digests,
    )


def _names(folder: Path) -> list[str]:
    """Paths of the files in a folder, within bounds."""
    names: list[str] = []
    for parent, folders, files in os.walk(folder):
        relative = Path(parent).relative_to(folder)
        if len(relative.parts) >= _MAX_DEPTH - 1:
            folders.clear()
        names += [(relative / file).as_posix() for file in files]
        if len(names) > _MAX_ENTRIES:
            raise WeightsError(
                f"{folder} has more than {_MAX_ENTRIES} files, so it is not the folder of one "
                "model; give the weight file itself by --from"
            )
    return names


def _licence(
    what: str,
    stated: str | None,
    model: KnownModel | None,
    *,
    accept_licence: bool,
    on_machine: bool = False,
) -> str:
    """The licence of a model.

    The one that the table of known models states counts as well, because a repository may state
    none.

    Raises:
        LicenceError: One of them is other than MIT, Apache and BSD, or there is none, and the
            user has not accepted it.
    """
    licences = [text for text in (stated, model.licence if model else None) if text]
    if accept_licence or (licences and all(map(is_free, licences))):
        return licences[0] if licences else ""
    if not licences and on_machine:
        return ""
    shown = " and ".join(dict.fromkeys(licences))
    states = f"states {shown}, and not MIT, Apache or BSD alone" if shown else "states no licence"
    raise LicenceError(
        f"{what} {states}. Read its terms where it is published; if you may use the model under "
        "them, run the command again with --accept-licence"
    )


def _stated(**values: str) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}
