"""The plan file, which holds all that serving needs of a trained model.

``model.plan`` is a zip archive with stored (uncompressed) members::

    manifest.json    description of the model, its origin, and a digest of every member
    text.onnx        ids int32 [N, L], eot int32 [N]  ->  embeddings float32 [N, D]
    image.onnx       pixels uint8 [N, 3, H, W]        ->  embeddings float32 [N, D]
    tokenizer.json   tokenizer in the format of the `tokenizers` library

A method with a match head adds a re-ranker. Its image graph has two more outputs, the picture
tokens that the head reads. A third graph scores one caption against ``N`` pictures::

    image.onnx       ...  ->  ..., codes int8 [N, T, W], scales float32 [N, T]
    match.onnx       ids int32 [1, L], eot int32 [1], codes, scales  ->  logits float32 [N]

A plan of a model that was exported with its training captions has ``background.npz``, with which
hub correction lowers the scores of pictures that are near many queries.

Other tools can unzip a plan and use its members.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import sys
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from finegrain.bounded.onnx_files import reads_files
from finegrain.bounded.strict_json import parse_strict
from finegrain.bounded.zip_archive import open_zip
from finegrain.errors import PlanError

FORMAT_VERSION = 2
"""Version 2 adds the interpolation and the cleaning of captions; version 1 implies the defaults."""
MANIFEST = "manifest.json"
TEXT, IMAGE, TOKENIZER = "text.onnx", "image.onnx", "tokenizer.json"
MATCH = "match.onnx"
BACKGROUND = "background.npz"
"""Bank of captions and settings of hub correction (:mod:`finegrain.evaluation.background`)."""
SEARCH = "search.onnx"
"""Graph that computes scores against a gallery on a GPU and selects the highest."""
REQUIRED = (TEXT, IMAGE, TOKENIZER)
MAX_MANIFEST_BYTES = 4 << 20
MAX_DIRECTORY_BYTES = 128 << 10
"""Largest size of the archive's directory: some 2,000 members; a plan has about ten."""
MAX_BACKGROUND_BYTES = 64 << 20
MAX_SIZE = 4096
"""Largest image width, image height or context length of a plan."""
MAX_WIDTH = 16384
"""Largest width of the embeddings of a plan. ITSELF's have 4,608 numbers."""
# Serialised engines begin with one of these tags; the last one belongs to TensorRT-RTX.
_ENGINE_TAGS = (b"ftrt", b"ptrt", b"vtrt")
# On damaged input zipfile raises errors of many types.
_ZIP_ERRORS = (zipfile.BadZipFile, EOFError, OSError, ValueError, RuntimeError, struct.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Describes the model inside a plan.

    Attributes:
        method: Name of the method that was trained, such as ``clip``.
        embed_dim: Width ``D`` of the embeddings.
        height, width, fit, interpolation, antialias: How a picture is resized before the image
            graph; see :class:`~finegrain.preprocess.ImageTransform`.
        mean, std: Normalisation inside the image graph, for information.
        context_length: Longest caption in tokens, including the start and end tokens.
        cleaning: How a caption is cleaned before it is split into tokens: the fields of
            :class:`~finegrain.preprocess.Cleaning` that differ from the defaults.
        precision: Precision of each graph, such as ``{"text.onnx": "fp32"}``.
        checkpoint: SHA-256 of the weights that were exported.
        recipe: The resolved recipe of the training.
        parity: Results of the comparison with the eager model.
        compared_on: Description of the pictures and captions of that comparison.
        source: Where a published model came from, as far as it is known: its ``name``,
            ``repository``, ``revision`` (the commit), ``licence`` and ``model``, the kind of its
            layout. Empty for own training.
        weights: SHA-256 of each published weight file.
        logit_scale, logit_bias: What the model was trained to multiply a cosine by and to add to
            it, for calibration. The scale is None if the method has none; the bias is None unless
            the model was trained with a sigmoid loss, as SigLIP.
        prompt: Template whose ``{}`` is replaced by each text, such as ``a photo of {}``. It does
            not change the embeddings of pictures.
        match: Settings of the re-ranker; None if the plan has none. ``tokens`` and ``width`` are
            the shape of the tokens of a picture. ``weight`` is the weight of the match
            probability against the cosine (:mod:`finegrain.rerank`).
        match_probability: Coefficients of the probability that a picture is right
            (:mod:`finegrain.evaluation.match_probability`); None if none were fitted.
        made_by: Version of finegrain that wrote the plan.
        sha256: Digest of every member except the manifest; :func:`write_plan` fills it in.
    """

    method: str
    embed_dim: int
    height: int
    width: int
    fit: Literal["stretch", "pad", "crop"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    context_length: int
    precision: Mapping[str, str]
    checkpoint: str
    recipe: Mapping[str, Any]
    parity: Mapping[str, Any]
    made_by: str
    sha256: Mapping[str, str]
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    antialias: bool = True
    cleaning: Mapping[str, Any] = field(default_factory=dict)
    compared_on: str = ""
    source: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    logit_scale: float | None = None
    logit_bias: float | None = None
    prompt: str = "{}"
    match: Mapping[str, float] | None = None
    match_probability: Mapping[str, float] | None = None

    @property
    def fingerprint(self) -> str:
        """Hash of everything that an embedding depends on.

        All vectors of a gallery have the same fingerprint.
        """
        members = "".join(self.sha256[name] for name in REQUIRED)
        what = f"{members}:{self.height}x{self.width}:{self.fit}:{self.context_length}"
        # Fields that format 1 lacked enter the hash only if they differ from the default.
        # So the gallery of a plan of format 1 still opens.
        newer_fields = {
            "interpolation": (self.interpolation, "bilinear"),
            "antialias": (self.antialias, True),
            "cleaning": (dict(self.cleaning), {}),
        }
        for name, (value, default) in newer_fields.items():
            if value != default:
                what += f":{name}={json.dumps(value, sort_keys=True)}"
        return hashlib.sha256(what.encode()).hexdigest()


class Plan:
    """An open plan whose members match their digests.

    Args:
        path: Path of the plan.

    Example:
        >>> plan = Plan("model.plan")              # doctest: +SKIP
        >>> plan.manifest.embed_dim                # doctest: +SKIP
        512

    Raises:
        PlanError: The file is missing, truncated, unsafe, not a plan, or of a future format; or a
            member does not match its digest.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            _refuse_other_files(self.path)
            with open_zip(self.path, max_directory=MAX_DIRECTORY_BYTES) as archive:
                _check_names(archive, self.path)
                self.manifest = _read_manifest(archive, self.path)
                self._members = {name: archive.read(name) for name in self.manifest.sha256}
        except _ZIP_ERRORS as error:
            raise PlanError(
                f"{self.path} is damaged ({error}). Copy it again, or export it again."
            ) from error
        for name, digest in self.manifest.sha256.items():
            if hashlib.sha256(self._members[name]).hexdigest() != digest:
                raise PlanError(
                    f"{self.path}: the content of {name} is not what the manifest says; it was "
                    "changed after the export. Copy the plan again, or export it again."
                )
            if name.endswith(".onnx"):
                _check_self_contained(name, self._members[name], self.path)

    def rewrite(
        self, out: Path, manifest: Manifest, members: Mapping[str, bytes] | None = None
    ) -> None:
        """Write a freshly opened plan with another manifest; see `write_plan`.

        Args:
            out: Path of the new plan.
            manifest: The manifest.
            members: Members to add or to replace.

        Raises:
            PlanError: The file cannot be written.
        """
        write_plan(out, manifest, self._members | dict(members or {}))

    def __contains__(self, member: str) -> bool:
        """Whether the plan has a member that was not taken."""
        return member in self._members

    def take(self, member: str) -> bytes:
        """Return the bytes of a member and release them, so that a plan holds no second copy."""
        return self._members.pop(member)

    def __repr__(self) -> str:
        m = self.manifest
        return (
            f"Plan({str(self.path)!r}, method={m.method!r}, embed_dim={m.embed_dim}, "
            f"image={m.height}x{m.width})"
        )


def write_plan(path: Path, manifest: Manifest, members: Mapping[str, bytes]) -> None:
    """Write a plan atomically: a reader sees either the old file or the complete new file.

    Raises:
        PlanError: The manifest holds a number that is not finite, or the file cannot be written,
            for example because the disk is full. The old file is then unchanged, and the new one
            is removed.
    """
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
    stated = {"format_version": FORMAT_VERSION, **asdict(manifest), "sha256": digests}
    manifest_json = _json(stated, path)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for name, data in {MANIFEST: manifest_json, **members}.items():
                    # The date is fixed, so that equal content gives an equal file.
                    archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
            # The content must be on the disk before the file gets its name.
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        raise PlanError(
            f"cannot write {path}: {error.strerror or error}. An existing plan there is unchanged. "
            "Free disk space or choose another place with -o, and export again."
        ) from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _json(stated: Mapping[str, Any], path: Path) -> bytes:
    try:
        return json.dumps(stated, indent=1, allow_nan=False).encode()
    except ValueError as error:
        raise PlanError(
            f"cannot write {path}: expected finite numbers in its manifest ({error}). Check the "
            "recipe and the numbers of the comparison with the eager model."
        ) from error


def _refuse_other_files(path: Path) -> None:
    if not path.is_file():
        raise PlanError(
            f"there is no plan at {path}. Make one with: finegrain export RUN -o {path}"
        )
    with path.open("rb") as file:
        head = file.read(4)
    if head in _ENGINE_TAGS:
        raise PlanError(
            f"{path} is a raw TensorRT engine; expected a plan, which also holds the tokenizer and "
            "the sizes that a search needs. Export one with: finegrain export RUN -o model.plan"
        )
    if not zipfile.is_zipfile(path):
        raise PlanError(
            f"{path} is not a plan: expected a zip archive, got a file of {path.stat().st_size} "
            f"bytes that starts with {head!r}. An incomplete copy looks like this, too."
        )


def _check_names(archive: zipfile.ZipFile, path: Path) -> None:
    names = [info.filename for info in archive.infolist()]
    for name in names:
        parts = PurePosixPath(name).parts
        if name.startswith("/") or "\\" in name or ":" in name or ".." in parts:
            raise PlanError(f"{path} has a member {name!r} whose path leaves the archive; refused")
    if len(set(names)) != len(names):
        raise PlanError(f"{path} holds a member twice; refused")
    compressed = [info.filename for info in archive.infolist() if info.compress_type != 0]
    if compressed:
        raise PlanError(
            f"{path}: {compressed[0]} is compressed, which members must not be. Export it again."
        )
    stated = sum(max(info.file_size, info.compress_size) for info in archive.infolist())
    if stated > path.stat().st_size:
        raise PlanError(
            f"{path} is damaged: its members state {stated} bytes, more than the file has. "
            "Copy it again, or export it again."
        )
    if BACKGROUND in names and archive.getinfo(BACKGROUND).file_size > MAX_BACKGROUND_BYTES:
        raise PlanError(f"{path}: its {BACKGROUND} is over {MAX_BACKGROUND_BYTES} bytes; refused")
    absent = [name for name in (MANIFEST, *REQUIRED) if name not in names]
    if absent:
        raise PlanError(f"{path} is a zip archive but not a plan: it lacks {', '.join(absent)}")


def _check_self_contained(name: str, graph: bytes, path: Path) -> None:
    try:
        has_external_data = reads_files(graph)
    except ValueError as error:
        raise PlanError(
            f"{path}: {name} is not a valid graph of a plan: {error}; refused"
        ) from error
    if has_external_data:
        raise PlanError(
            f"{path}: {name} has tensors whose data is in other files, which the digests of the "
            "plan do not cover; refused. Export it again with all data inside."
        )


def _read_manifest(archive: zipfile.ZipFile, path: Path) -> Manifest:
    if archive.getinfo(MANIFEST).file_size > MAX_MANIFEST_BYTES:
        raise PlanError(f"{path}: its manifest is over {MAX_MANIFEST_BYTES} bytes; refused")
    try:
        stated = parse_strict(archive.read(MANIFEST))
    except (ValueError, RecursionError) as error:
        raise PlanError(
            f"{path}: its manifest is not JSON that a plan may have ({error}). "
            "Copy it again, or export it again."
        ) from error
    version = stated.get("format_version") if isinstance(stated, dict) else None
    if type(version) is not int or version < 1:
        raise PlanError(
            f"{path}: expected a format version of 1 or more in its manifest, got "
            f"{version!r:.40}. Export the plan again."
        )
    if version > FORMAT_VERSION:
        raise PlanError(
            f"{path} has format version {version}; this finegrain reads up to "
            f"{FORMAT_VERSION}. Upgrade it: pip install -U finegrain"
        )
    needed = [f.name for f in fields(Manifest) if f.default is f.default_factory is MISSING]
    absent = [name for name in needed if name not in stated]
    if absent:
        raise PlanError(f"{path}: its manifest lacks {', '.join(absent)}")
    _check_types(stated, path)
    if (stated.get("match") is not None) != (MATCH in archive.namelist()):
        raise PlanError(
            f"{path}: its manifest and its members do not agree on {MATCH}. Export the plan again."
        )
    manifest = Manifest(**{f.name: stated[f.name] for f in fields(Manifest) if f.name in stated})
    _check_digests(manifest, archive, path)
    return manifest


def _is_size(value: object) -> bool:
    return type(value) is int and 0 < value <= MAX_SIZE


def _is_one_of(*known: str) -> Callable[[object], bool]:
    return lambda value: value in known


def _is_mapping_of(*kinds: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, dict) and all(type(v) in kinds for v in value.values())


def _is_match(value: object) -> bool:
    """Whether a value is None, or the sizes and the weight of a re-ranker."""
    if value is None:
        return True
    if not isinstance(value, dict) or value.keys() != {"tokens", "width", "weight"}:
        return False
    weight = value["weight"]
    sizes = _is_size(value["tokens"]) and _is_size(value["width"])
    return sizes and _is_number(weight) and weight >= 0


def _is_match_probability(value: object) -> bool:
    """Whether a value is None, or the coefficients of the probability of a match."""
    if value is None:
        return True
    names = {"intercept", "score", "z", "log_size", "below_best"}
    return (
        isinstance(value, dict) and value.keys() == names and all(map(_is_number, value.values()))
    )


def _is_rgb(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))


def _is_number_or_none(value: object) -> bool:
    return value is None or _is_number(value)


def _is_number(value: object) -> bool:
    """Whether a value is a finite number; an integer may be too large for a float."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) <= sys.float_info.max
    )


def _is_parity(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


def _is_text(value: object) -> bool:
    return isinstance(value, str)


_FIELDS: Mapping[str, tuple[str, Callable[[object], bool]]] = {
    **dict.fromkeys(("method", "checkpoint", "made_by", "compared_on"), ("a text", _is_text)),
    **dict.fromkeys(("height", "width", "context_length"), (f"1 to {MAX_SIZE}", _is_size)),
    "embed_dim": (
        f"1 to {MAX_WIDTH}",
        lambda value: type(value) is int and 0 < value <= MAX_WIDTH,
    ),
    **dict.fromkeys(("mean", "std"), ("three numbers", _is_rgb)),
    **dict.fromkeys(
        ("precision", "sha256", "source", "weights"), ("a mapping of texts", _is_mapping_of(str))
    ),
    "prompt": ("a text with one {}", lambda value: str(value).count("{}") == 1),
    "fit": ("'stretch', 'pad' or 'crop'", _is_one_of("stretch", "pad", "crop")),
    "interpolation": ("'bilinear' or 'bicubic'", _is_one_of("bilinear", "bicubic")),
    "antialias": ("true or false", lambda value: type(value) is bool),
    "cleaning": ("texts, numbers, true or false", _is_mapping_of(str, int, bool, type(None))),
    "recipe": ("a mapping", lambda value: isinstance(value, dict)),
    "match": ("tokens, width and weight of a re-ranker", _is_match),
    "match_probability": ("the coefficients of a probability", _is_match_probability),
    **dict.fromkeys(("logit_scale", "logit_bias"), ("a finite number", _is_number_or_none)),
    "parity": ("a mapping of finite numbers", _is_parity),
}


def _check_types(stated: Mapping[str, object], path: Path) -> None:
    """Check the types of a manifest, whose JSON may hold anything."""
    for name, (expected, is_valid) in _FIELDS.items():
        if name in stated and not is_valid(stated[name]):
            raise PlanError(
                f"{path}: its manifest states {name} as {stated[name]!r:.60}; expected {expected}. "
                "Export the plan again."
            )


def _check_digests(manifest: Manifest, archive: zipfile.ZipFile, path: Path) -> None:
    members = {name for name in archive.namelist() if name != MANIFEST}
    stated = set(manifest.sha256)
    if members != stated:
        differing = ", ".join(sorted(members ^ stated))
        raise PlanError(f"{path}: members and manifest do not agree on {differing}")
