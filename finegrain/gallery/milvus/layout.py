"""Layout of a gallery in Milvus: an alias that points to the collection of one plan.

The name of the collection is the name of the gallery and a digest of its plan; the alias is the
name of the gallery. Creating a gallery and changing its plan are thus atomic for all clients.
Documents with an id below zero are not pictures but notes: one for the plan, and one for each kind
of value that a metadata column has held. The one with the id 0 holds what the clock has shown.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from finegrain.errors import GalleryError
from finegrain.gallery.milvus.clock import start_clock
from finegrain.gallery.milvus.connection import Connection
from finegrain.gallery.milvus.documents import note, schema
from finegrain.gallery.sqlite.schema import short
from finegrain.records import Scalar

FORMAT = 1
"""Format of the documents; a gallery with another format does not open."""

_APPLICATION = "finegrain gallery"
_PLAN_NOTE = -1
_BELOW_ALL = -(2**63) + 1

Plan = tuple[str | None, int]
"""Fingerprint and width."""

Seen = tuple[str, str]
"""A metadata column and a kind of value that it has held, including ``null``."""


def open_collection(
    connection: Connection,
    name: str,
    shown: str,
    *,
    expected: tuple[str | None, int | None],
    create: bool,
) -> tuple[str, Plan]:
    """Open a gallery, or create it if it is missing and ``create`` is True.

    Args:
        connection: Connection to the server or file.
        name: Name of the gallery.
        shown: Address of the gallery, for messages.
        expected: Fingerprint and width that the caller expects; None for any.
        create: If False, a missing gallery is an error.

    Returns:
        Name of the collection, and its plan.

    Raises:
        GalleryError: The gallery is missing, the collection is not a gallery, or it holds
            vectors of another plan.
    """
    if expected[1] is not None and expected[1] < 1:
        raise GalleryError(
            f"The width of a gallery's vectors is at least 1; got dim={expected[1]}."
        )
    if not connection.has(name):
        if not create:
            raise GalleryError(
                f"There is no gallery at {shown}. Check the address or index into it first."
            )
        if expected[1] is None:
            raise GalleryError(
                f"{shown} is a new gallery, so the width of its vectors is needed: give dim=."
            )
        _create(connection, name, (expected[0], expected[1]))
    collection, plan = _identity(connection, name, shown)
    _check_plan(shown, plan, expected)
    return collection, plan


def ensure_collection(connection: Connection, name: str, plan: Plan) -> str:
    """Create the collection for the vectors of a plan if it is missing; return its name."""
    text = json.dumps(plan)
    collection = f"{name}_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if not connection.has(collection):
        connection.create(collection, schema(plan[1]))
    connection.load(collection)
    fingerprint, dim = plan
    about: dict[str, Scalar] = {
        "application": _APPLICATION,
        "format": FORMAT,
        "fingerprint": fingerprint,
        "dim": dim,
    }
    connection.write(collection, [note(_PLAN_NOTE, dim, about)])
    return collection


def seen_kinds(connection: Connection, collection: str) -> set[Seen]:
    """All kinds of values that metadata columns have held."""
    pages = connection.pages(collection, f"id < {_PLAN_NOTE}", ["metadata"], after=_BELOW_ALL)
    return {
        (document["metadata"]["name"], document["metadata"]["kind"])
        for page in pages
        for document in page
    }


def note_kinds(connection: Connection, collection: str, dim: int, kinds: Iterable[Seen]) -> None:
    """Store kinds of values as notes; notes that exist already are overwritten."""
    notes = [note(_note_id(seen), dim, {"name": seen[0], "kind": seen[1]}) for seen in kinds]
    if notes:
        connection.write(collection, notes)


def _note_id(seen: Seen) -> int:
    digest = hashlib.sha256("/".join(reversed(seen)).encode()).digest()
    return _PLAN_NOTE - 1 - (int.from_bytes(digest[:8]) >> 2)


def _create(connection: Connection, name: str, plan: Plan) -> None:
    collection = ensure_collection(connection, name, plan)
    start_clock(connection, collection, plan[1])
    try:
        connection.create_alias(collection, name)
    except GalleryError:
        if not connection.has(name):  # otherwise another process created it first
            raise


def _identity(connection: Connection, name: str, shown: str) -> tuple[str, Plan]:
    description = connection.describe(name)
    collection = str(description["collection_name"])
    fields = {field["name"] for field in description["fields"]}
    if collection == name or not {f["field_name"] for f in schema(1)} <= fields:
        raise GalleryError(
            f"{shown} is a Milvus collection, but not a finegrain gallery. Choose another name."
        )
    connection.load(collection)
    plan_notes = list(connection.among(collection, [_PLAN_NOTE], "id < 0", ["metadata"]))
    match plan_notes and plan_notes[0]["metadata"]:
        case {
            "application": str(application),
            "format": int(version),
            "fingerprint": str() | None as fingerprint,
            "dim": int(dim),
        } if application == _APPLICATION:
            if version != FORMAT:
                raise GalleryError(
                    f"{shown} has gallery format {version}; this finegrain reads format {FORMAT}. "
                    "Open it with the version that wrote it, or a newer one."
                )
            return collection, (fingerprint, dim)
    raise GalleryError(
        f"{shown} does not state its plan and width. It is damaged or no finegrain gallery; "
        "choose another name."
    )


def _check_plan(shown: str, stored: Plan, expected: tuple[str | None, int | None]) -> None:
    if expected[0] not in (None, stored[0]):
        raise GalleryError(
            f"{shown} was filled with plan {short(stored[0])}, and this is plan "
            f"{short(expected[0])}; their vectors do not compare. Open it with its own plan, or "
            "encode its pictures again: finegrain index PLAN PICTURES --reindex"
        )
    if expected[1] not in (None, stored[1]):
        raise GalleryError(
            f"{shown} holds vectors of width {stored[1]}, not {expected[1]}. Use the model that "
            "filled it, or a new gallery."
        )
