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
from typing import NamedTuple

from finegrain.errors import GalleryError
from finegrain.gallery.milvus.batches import NOTES_BELOW
from finegrain.gallery.milvus.clock import start_clock
from finegrain.gallery.milvus.connection import Connection
from finegrain.gallery.milvus.documents import note, schema
from finegrain.gallery.sqlite.schema import short
from finegrain.records import Scalar

FORMAT = 2
"""Format of the documents. In format 1 vectors have no bias, and a picture has one vector. A
gallery with another format does not open."""

_APPLICATION = "finegrain gallery"
_PLAN_NOTE = -1


class Layout(NamedTuple):
    """What the documents of a collection hold.

    Attributes:
        fingerprint: Fingerprint of the plan.
        dim: Width of all vectors of a picture together.
        vectors_per_row: Number of vectors of a picture.
        has_biases: Whether vectors end with the bias of their picture.
    """

    fingerprint: str | None
    dim: int
    vectors_per_row: int = 1
    has_biases: bool = True

    @property
    def width(self) -> int:
        """Width of the field ``vector``."""
        return self.dim + self.has_biases


class Expected(NamedTuple):
    """What the caller expects of a gallery; None for anything.

    Attributes:
        fingerprint: Fingerprint of the plan.
        dim: Width of one vector.
        vectors_per_row: Number of vectors of a picture.
    """

    fingerprint: str | None
    dim: int | None
    vectors_per_row: int | None


Seen = tuple[str, str]
"""A metadata column and a kind of value that it has held, including ``null``."""


def open_collection(
    connection: Connection,
    name: str,
    shown: str,
    *,
    expected: Expected,
    create: bool,
) -> tuple[str, Layout]:
    """Open a gallery, or create it if it is missing and ``create`` is True.

    Args:
        connection: Connection to the server or file.
        name: Name of the gallery.
        shown: Address of the gallery, for messages.
        expected: What the caller expects.
        create: If False, a missing gallery is an error.

    Returns:
        Name of the collection, and what its documents hold.

    Raises:
        GalleryError: The gallery is missing, the collection is not a gallery, or it holds
            vectors of another plan.
    """
    if expected.dim is not None and expected.dim < 1:
        raise GalleryError(
            f"The width of a gallery's vectors is at least 1; got dim={expected.dim}."
        )
    if not connection.has(name):
        if not create:
            raise GalleryError(
                f"There is no gallery at {shown}. Check the address or index into it first."
            )
        if expected.dim is None:
            raise GalleryError(
                f"{shown} is a new gallery, so the width of its vectors is needed: give dim=."
            )
        count = expected.vectors_per_row or 1
        _create(connection, name, Layout(expected.fingerprint, count * expected.dim, count))
    collection, layout = _identity(connection, name, shown)
    _check_layout(shown, layout, expected)
    return collection, layout


def ensure_collection(connection: Connection, name: str, layout: Layout) -> str:
    """Create the collection for the vectors of a plan if it is missing; return its name."""
    text = json.dumps(layout)
    collection = f"{name}_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if not connection.has(collection):
        connection.create(collection, schema(layout.width))
    connection.load(collection)
    about: dict[str, Scalar] = {
        "application": _APPLICATION,
        "format": FORMAT,
        "fingerprint": layout.fingerprint,
        "dim": layout.dim,
        "vectors_per_row": layout.vectors_per_row,
    }
    connection.write(collection, [note(_PLAN_NOTE, layout.width, about)])
    return collection


def seen_kinds(connection: Connection, collection: str) -> set[Seen]:
    """All kinds of values that metadata columns have held."""
    condition = f"id < {_PLAN_NOTE} and id >= {NOTES_BELOW}"
    pages = connection.pages(collection, condition, ["metadata"], after=NOTES_BELOW - 1)
    return {
        (document["metadata"]["name"], document["metadata"]["kind"])
        for page in pages
        for document in page
    }


def note_kinds(connection: Connection, collection: str, width: int, kinds: Iterable[Seen]) -> None:
    """Store kinds of values as notes; notes that exist already are overwritten."""
    notes = [note(_note_id(seen), width, {"name": seen[0], "kind": seen[1]}) for seen in kinds]
    if notes:
        connection.write(collection, notes)


def _note_id(seen: Seen) -> int:
    digest = hashlib.sha256("/".join(reversed(seen)).encode()).digest()
    return _PLAN_NOTE - 1 - (int.from_bytes(digest[:8]) >> 2)


def _create(connection: Connection, name: str, layout: Layout) -> None:
    collection = ensure_collection(connection, name, layout)
    start_clock(connection, collection, layout.width)
    try:
        connection.create_alias(collection, name)
    except GalleryError:
        if not connection.has(name):  # otherwise another process created it first
            raise


def _identity(connection: Connection, name: str, shown: str) -> tuple[str, Layout]:
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
            match version, plan_notes[0]["metadata"].get("vectors_per_row", 1):
                case 1, _:
                    return collection, Layout(fingerprint, dim, has_biases=False)
                case 2, int(count) if count > 0:
                    return collection, Layout(fingerprint, dim, count)
            raise GalleryError(
                f"{shown} has gallery format {version}; this finegrain reads formats 1 to {FORMAT}."
                " Open it with the version that wrote it, or a newer one."
            )
    raise GalleryError(
        f"{shown} does not state its plan and width. It is damaged or no finegrain gallery; "
        "choose another name."
    )


def _check_layout(shown: str, stored: Layout, expected: Expected) -> None:
    if expected.fingerprint not in (None, stored.fingerprint):
        raise GalleryError(
            f"{shown} was filled with plan {short(stored.fingerprint)}, and this is plan "
            f"{short(expected.fingerprint)}; their vectors do not compare. Open it with its own "
            "plan, or encode its pictures again: finegrain index PLAN PICTURES --reindex"
        )
    if expected.vectors_per_row not in (None, stored.vectors_per_row):
        raise GalleryError(
            f"{shown} holds {stored.vectors_per_row} vectors a picture, not "
            f"{expected.vectors_per_row}. Open it with vectors_per_row={stored.vectors_per_row}, "
            "or use a new gallery."
        )
    dim = stored.dim // stored.vectors_per_row
    if expected.dim not in (None, dim):
        raise GalleryError(
            f"{shown} holds vectors of width {dim}, not {expected.dim}. Use the model that "
            "filled it, or a new gallery."
        )
