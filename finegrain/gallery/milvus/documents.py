"""Conversion of pictures to documents of a Milvus collection and back.

Fields on old servers cannot be null. A text is therefore stored after the mark ``=``, a missing
text is empty, and a flag states whether there is a numeric pid. Metadata is one JSON object whose
keys state the kind of their value, as in ``t:colour``; :mod:`finegrain.gallery.filters.milvus`
states the reason. It also holds values that later versions added to a picture, as in ``p:source``,
because a field cannot be added to an existing collection.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finegrain.errors import GalleryError
from finegrain.gallery.filters.milvus import OWN_LETTER, SLOT_KEYS, SlotKind, stored_text
from finegrain.gallery.milvus.connection import Document
from finegrain.gallery.row import Entry, Row, Stamp
from finegrain.index.exact import Vectors
from finegrain.records import Scalar

MAX_BYTES = 65_535
"""Largest text, and largest metadata as JSON, that Milvus stores."""

_THUMBNAIL_PARTS = 4
MAX_THUMBNAIL_BYTES = _THUMBNAIL_PARTS * MAX_BYTES // 4 * 3
"""Largest thumbnail. It is stored as base64, in several text fields."""

TEXT_FIELDS = ("image", "camera", "time", "track", "added_at", "expires_at")
THUMBNAIL_FIELDS = tuple(f"thumbnail_{part}" for part in range(_THUMBNAIL_PARTS))
ROW_FIELDS = (*TEXT_FIELDS, "pid", "has_pid", "metadata")

NO_BIASES = (
    "this gallery on Milvus was made by an earlier version, whose galleries have no biases. Export "
    "it, load the export into a new gallery, and set biases there"
)

_NULL = "n"
_OWN_NAMES = ("pid", "source", "size", "mtime", "digest")


def schema(width: int) -> list[dict[str, Any]]:
    """Fields of a gallery's collection, whose field ``vector`` has some width."""
    return [
        {"field_name": "id", "datatype": "INT64", "is_primary": True},
        {"field_name": "vector", "datatype": "FLOAT_VECTOR", "dim": width},
        {"field_name": "pid", "datatype": "INT64"},
        {"field_name": "has_pid", "datatype": "BOOL"},
        {"field_name": "metadata", "datatype": "JSON"},
        *(
            {"field_name": name, "datatype": "VARCHAR", "max_length": MAX_BYTES}
            for name in (*TEXT_FIELDS, *THUMBNAIL_FIELDS)
        ),
    ]


def note(id_: int, width: int, content: Mapping[str, Scalar]) -> Document:
    """A document that is not a picture but holds information about the gallery."""
    return {
        "id": id_,
        "vector": np.eye(1, width, dtype=np.float32)[0],
        "pid": 0,
        "has_pid": False,
        "metadata": dict(content),
        **dict.fromkeys((*TEXT_FIELDS, *THUMBNAIL_FIELDS), ""),
    }


def with_biases(vectors: Vectors, biases: Sequence[float]) -> Vectors:
    """Vectors ``[N, D]`` with their biases as one more number, ``[N, D + 1]``.

    The inner product with a query that ends with 1 includes the bias, so the server adds it.
    """
    return np.concatenate([vectors, np.asarray(biases, np.float32).reshape(-1, 1)], axis=1)


def documents(
    ids: Sequence[int],
    vectors: Vectors,
    entries: Sequence[Entry],
    added_at: str,
    *,
    has_biases: bool = True,
) -> list[Document]:
    """Documents to write, checked against the limits of Milvus.

    Raises:
        GalleryError: A text, the metadata or a thumbnail is too long, or an entry has a bias and
            the collection has none.
    """
    if has_biases:
        vectors = with_biases(vectors, [entry.bias for entry in entries])
    elif any(entry.bias for entry in entries):
        raise GalleryError(NO_BIASES)
    return [
        {
            "id": id_,
            "vector": vector,
            "pid": entry.pid if isinstance(entry.pid, int) else 0,
            "has_pid": isinstance(entry.pid, int),
            "metadata": _packed(entry),
            "image": _fitting("image", entry.image),
            "camera": _fitting("camera", entry.camera),
            "track": _fitting("track", entry.track),
            "time": stored_text(entry.time),
            "added_at": stored_text(added_at),
            "expires_at": stored_text(entry.expires_at),
            **_parts(entry.thumbnail),
        }
        for id_, vector, entry in zip(ids, vectors, entries, strict=True)
    ]


def rewritten(old: Document, entry: Entry) -> Document:
    """A document with the columns of another entry; vector, thumbnail and ``added_at`` stay."""
    vector = np.asarray(old["vector"], np.float32)
    (new,) = documents([old["id"]], vector[None], [entry], "", has_biases=False)
    unchanged = {name: old[name] for name in (*THUMBNAIL_FIELDS, "added_at")}
    return {**new, **unchanged}


def row_of(document: Document) -> Row:
    """The row of a document read with :data:`ROW_FIELDS`."""
    texts: dict[str, Any] = {
        name: document[name][1:] if document[name] else None for name in TEXT_FIELDS
    }
    packed = document["metadata"]
    own = {name: packed.get(f"{OWN_LETTER}:{name}") for name in _OWN_NAMES}
    return Row(
        id=document["id"],
        pid=document["pid"] if document["has_pid"] else own["pid"],
        metadata=_unpacked(packed),
        source=own["source"],
        stamp=None
        if own["size"] is None
        else Stamp(size=own["size"], mtime=own["mtime"], digest=own["digest"]),
        **texts,
    )


def thumbnail_of(document: Document) -> bytes | None:
    """The JPEG file of a document read with :data:`THUMBNAIL_FIELDS`."""
    text = "".join(document[name] for name in THUMBNAIL_FIELDS)
    return base64.b64decode(text, validate=True) if text else None


def size_of(document: Document) -> int:
    """Approximate size of a document in a message, in bytes."""
    parts = sum(len(document[name]) for name in (*TEXT_FIELDS, *THUMBNAIL_FIELDS))
    return int(document["vector"].nbytes) + parts + 64 * (1 + len(document["metadata"]))


def slot_kind(value: Scalar) -> SlotKind | None:
    match value:
        case None:
            return None
        case bool():
            return "boolean"
        case str():
            return "text"
        case int():
            return "whole"
    return "real"


def _packed(entry: Entry) -> dict[str, Scalar]:
    stamp = entry.stamp
    own: dict[str, Scalar] = {
        "pid": entry.pid if isinstance(entry.pid, str) else None,
        "source": entry.source,
        "size": None if stamp is None else stamp.size,
        "mtime": None if stamp is None else stamp.mtime,
        "digest": None if stamp is None else stamp.digest,
    }
    packed: dict[str, Scalar] = {
        f"{OWN_LETTER}:{name}": value for name, value in own.items() if value is not None
    }
    for name, value in entry.metadata.items():
        kind = slot_kind(value)
        if kind is None:
            packed[f"{_NULL}:{name}"] = True
        else:
            packed[f"{SLOT_KEYS[kind]}:{name}"] = value
    _check("metadata", len(json.dumps(packed, ensure_ascii=False).encode()), MAX_BYTES)
    return packed


def _unpacked(packed: Mapping[str, Scalar]) -> dict[str, Scalar]:
    pairs = [
        (key[2:], None if key[0] == _NULL else value)
        for key, value in packed.items()
        if key[0] != OWN_LETTER
    ]
    return dict(sorted(pairs, key=lambda pair: pair[0]))


def _fitting(name: str, value: str | None) -> str:
    text = stored_text(value)
    _check(name, len(text.encode()), MAX_BYTES)
    return text


def _parts(thumbnail: bytes | None) -> dict[str, str]:
    _check("thumbnail", len(thumbnail or b""), MAX_THUMBNAIL_BYTES)
    text = base64.b64encode(thumbnail or b"").decode()
    return {
        name: text[part * MAX_BYTES : (part + 1) * MAX_BYTES]
        for part, name in enumerate(THUMBNAIL_FIELDS)
    }


def _check(what: str, size: int, limit: int) -> None:
    if size > limit:
        raise GalleryError(
            f"Milvus keeps at most {limit} bytes of a picture's {what}; got {size}. Make it "
            "smaller, or use a gallery in a file."
        )
