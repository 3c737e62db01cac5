"""Validating pictures, columns and queries before they reach a gallery's storage."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from finegrain import times as clock  # a parameter is called times
from finegrain.errors import GalleryError, QueryError
from finegrain.gallery.filters.conditions import BUILT_IN
from finegrain.gallery.row import Entry
from finegrain.index.exact import Ids, Vectors
from finegrain.records import Pid, Scalar

MAX_NAME_LENGTH = 256
"""Longest name of a metadata column, in characters."""

LENGTH_TOLERANCE = 1e-2
"""Largest allowed distance of a vector's length from 1; fp16 keeps about three digits."""

CHANGEABLE = ("pid", "camera", "time", "track")
"""Built-in columns whose values a caller gives and may change."""

MAX_BIAS = 1e6
"""Largest absolute value of a bias."""

_INT64 = range(-(2**63), 2**63)


def checked_entries(
    count: int,
    *,
    images: Sequence[str | None],
    pids: Sequence[Pid | None] | None,
    cameras: Sequence[str | None] | None,
    times: Sequence[datetime | str | None] | None,
    tracks: Sequence[str | None] | None,
    metadata: Sequence[Mapping[str, Scalar]] | None,
    thumbnails: Sequence[bytes | None] | None,
    expire_after: timedelta | float | None,
    biases: npt.ArrayLike | None = None,
) -> list[Entry]:
    """Validate columns and return one entry per vector.

    Raises:
        GalleryError: A column does not have one value per vector, or a value is of a type that
            cannot be stored.
    """
    columns = zip(
        _column("images", images, count),
        _column("pids", pids, count),
        _column("cameras", cameras, count),
        _column("times", times, count),
        _column("tracks", tracks, count),
        _column("metadata", metadata, count),
        _column("thumbnails", thumbnails, count),
        [0.0] * count if biases is None else checked_biases(biases, count).tolist(),
        strict=True,
    )
    retention = checked_retention(expire_after)
    return [
        checked_entry(
            _place_in_columns(row),
            image=image,
            pid=pid,
            camera=camera,
            time=time,
            track=track,
            metadata=fields,
            thumbnail=thumbnail,
            retention=retention,
            bias=bias,
        )
        for row, (image, pid, camera, time, track, fields, thumbnail, bias) in enumerate(columns)
    ]


def _place_in_columns(row: int) -> Callable[[str], str]:
    return lambda name: f"{name if name == 'metadata' else f'{name}s'}[{row}]"


def entry_from_mapping(
    place: str,
    columns: Mapping[str, Any],
    *,
    image: str | None = None,
    thumbnail: bytes | None = None,
    retention: timedelta | None = None,
    source: str | None = None,
) -> Entry:
    """The entry of a picture whose built-in columns and metadata are in one mapping.

    Args:
        place: Place of the picture, for error messages.
        columns: The columns by name.
        image, thumbnail, retention, source: As in :func:`checked_entry`.

    Raises:
        GalleryError: A value is of a type that cannot be stored.
    """
    return checked_entry(
        lambda name: f"{place}: {name}",
        image=image,
        pid=columns.get("pid"),
        camera=columns.get("camera"),
        time=columns.get("time"),
        track=columns.get("track"),
        metadata={name: v for name, v in columns.items() if name not in CHANGEABLE},
        thumbnail=thumbnail,
        retention=retention,
        source=source,
    )


def checked_entry(
    place: Callable[[str], str],
    *,
    image: Any,
    pid: Any,
    camera: Any,
    time: Any,
    track: Any,
    metadata: Any,
    thumbnail: Any,
    expires_at: Any = None,
    retention: timedelta | None = None,
    source: str | None = None,
    bias: float = 0.0,
) -> Entry:
    """Validate the columns of one picture.

    Args:
        place: Place of the column of a name, for error messages.
        image, pid, camera, time, track, metadata, thumbnail: As in :class:`Entry`, unchecked.
        expires_at: When the picture expires, unchecked; ignored if there is a retention.
        retention: How long to keep the picture after the time it was taken, or from now if that
            is unknown.
        source: Folder or table that the picture comes from.
        bias: A bias that is validated.

    Raises:
        GalleryError: A value is of a type that cannot be stored.
    """
    # Most columns of most pictures are empty or plain; their places are never needed.
    taken = None if time is None else checked_time(place("time"), time)
    if expires_at is not None:
        expires_at = checked_time(place("expires_at"), expires_at)
    return Entry(
        image=image if _is_plain_text(image) else _text(place("image"), image),
        pid=None if pid is None else checked_pid(place("pid"), pid),
        camera=camera if _is_plain_text(camera) else _name(place("camera"), camera),
        time=taken,
        track=track if _is_plain_text(track) else _name(place("track"), track),
        expires_at=expires_at if retention is None else _expiry(taken, retention),
        metadata=_metadata(place, metadata),
        thumbnail=None if thumbnail is None else _thumbnail(place("thumbnail"), thumbnail),
        source=source,
        bias=bias,
    )


def checked_biases(biases: npt.ArrayLike, count: int) -> Vectors:
    """Biases of pictures as float32 ``[N]``; one number is that of all.

    Raises:
        GalleryError: They are not finite numbers of at most :data:`MAX_BIAS`, one a picture.
    """
    array = _as_float32(biases)
    if array is None or array.shape not in ((), (1,), (count,)):
        raise GalleryError(
            f"biases are one number for each of {count} pictures, or one for all; got "
            f"{_described(biases)}."
        )
    if not (np.abs(array) <= MAX_BIAS).all():
        raise GalleryError(
            f"A bias is a number from -{MAX_BIAS:g} to {MAX_BIAS:g}, which is added to an inner "
            "product of at most 1; got others, or NaN."
        )
    return np.broadcast_to(array.reshape(-1), (count,))


def checked_vectors(vectors: npt.ArrayLike, dim: int, length: float = 1.0) -> Vectors:
    """Vectors to store, as contiguous float32 ``[N, D]``.

    Args:
        vectors: The vectors.
        dim: Their width.
        length: Their length.

    Raises:
        GalleryError: The shape is wrong, or the vectors are not numeric or of another length.
    """
    array = _as_float32(vectors)
    if array is None or array.ndim != 2 or array.shape[1] != dim:
        raise GalleryError(f"Vectors are numbers of shape [N, {dim}]; got {_described(vectors)}.")
    if len(invalid_rows := not_normalised(array, length)):
        with np.errstate(over="ignore"):
            actual = np.linalg.norm(array[invalid_rows[0]])
        raise GalleryError(
            f"Vectors have length {length:g}; vector {invalid_rows[0]} has length {actual:g}. "
            "Divide each by its L2 norm."
        )
    return array


def not_normalised(vectors: Vectors, length: float = 1.0) -> Ids:
    """Indices of the rows of ``[N, D]`` of another length, including NaN and infinity."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("nd,nd->n", vectors, vectors)
        return np.flatnonzero(~(np.abs(np.sqrt(squares) - length) < LENGTH_TOLERANCE))


def stored_scale(count: int) -> int:
    """The power of two by which the stored vectors of a picture with several are divided."""
    scale = 1
    while scale * scale < count:
        scale *= 2
    return scale


def stored_length(count: int) -> float:
    """The L2 norm of the stored vectors of a picture together."""
    return float(count**0.5) / stored_scale(count)


def checked_queries(vectors: npt.ArrayLike, dim: int) -> Vectors:
    """Vectors to search for, as contiguous float32 ``[Q, D]``.

    Raises:
        QueryError: The shape is wrong, or the vectors are not numeric or not finite.
    """
    array = _as_float32(vectors)
    if array is None or array.ndim != 2 or array.shape[1] != dim:
        raise QueryError(f"Queries are numbers of shape [Q, {dim}]; got {_described(vectors)}.")
    if not np.isfinite(array).all():
        raise QueryError("A query vector holds NaN or infinity. Check the model that made it.")
    return array


def checked_k(k: Any) -> int:
    """The number of hits to return.

    Raises:
        QueryError: ``k`` is not an integer of at least 1.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise QueryError(f"k is a whole number of at least 1; got {k!r:.40}.")
    return int(k)


def checked_offset(offset: Any) -> int:
    """The number of hits to skip.

    Raises:
        QueryError: ``offset`` is not an integer of at least 0.
    """
    if isinstance(offset, bool) or not isinstance(offset, int | np.integer) or offset < 0:
        raise QueryError(f"offset is a whole number of at least 0; got {offset!r:.40}.")
    return int(offset)


def checked_cosine(distinct: Any) -> float | None:
    """Validate the cosine above which a hit is a near-duplicate.

    Raises:
        QueryError: It is not a number from 0 to 1.
    """
    if distinct is None:
        return None
    number = isinstance(distinct, int | float | np.number) and not isinstance(distinct, bool)
    if not number or not 0 <= distinct <= 1:
        raise QueryError(
            "distinct is a cosine from 0 to 1, such as 0.98, above which a hit is folded into a "
            f"better one; got {distinct!r:.40}."
        )
    return float(distinct)


def checked_ids(ids: Iterable[Any]) -> list[int]:
    """Ids as Python integers.

    Raises:
        GalleryError: One of them is not an integer.
    """
    checked = list(ids)
    for id_ in checked:
        if isinstance(id_, bool) or not isinstance(id_, int | np.integer):
            raise GalleryError(f"Ids are whole numbers as add() returned them; got {id_!r:.40}.")
    return [int(id_) for id_ in checked]


def _as_float32(vectors: npt.ArrayLike) -> Vectors | None:
    try:
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(vectors, np.float32)
    except (TypeError, ValueError):
        return None


def _described(vectors: npt.ArrayLike) -> str:
    if isinstance(vectors, np.ndarray):
        return f"{vectors.dtype} of shape {list(vectors.shape)}"
    return f"{vectors!r:.60}"


def _column(name: str, values: Sequence[Any] | None, count: int) -> Sequence[Any]:
    if values is None:
        return [None] * count
    if isinstance(values, str | bytes | Mapping) or len(values) != count:
        raise GalleryError(
            f"{name} has one entry per vector ({count} here); got {type(values).__name__} "
            f"of length {len(values)}."
        )
    return values


def _name(where: str, value: Any) -> str | None:
    """The name of a camera or a track; number 3 is called "3"."""
    is_number = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return str(int(value)) if is_number else _text(where, value)


def _text(where: str, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise GalleryError(f"{where} is text or None; got {_brief(value)}. Convert it with str().")
    try:
        if not value.isascii():
            value.encode()
    except UnicodeEncodeError as error:
        raise GalleryError(
            f"{where} cannot be written as UTF-8: {value!r:.60}. Rename it without such characters."
        ) from error
    return value


def checked_pid(where: str, value: Any) -> Pid | None:
    """A pid as it is stored: an integer or a text, unchanged.

    Raises:
        GalleryError: The value has another type, or is an integer of more than 64 bits.
    """
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        if int(value) in _INT64:
            return int(value)
    elif value is None or isinstance(value, str):
        return _text(where, value)
    raise GalleryError(
        f"{where} is a whole number of at most 64 bits, a text or None; got {_brief(value)}."
    )


def checked_time(where: str, value: Any) -> str | None:
    """A time in the form in which it is stored.

    Raises:
        GalleryError: The value at ``where`` is neither a datetime nor a text of ISO 8601.
    """
    if value is None:
        return None
    try:
        if isinstance(value, datetime | str):
            return clock.utc_text(value)
    except ValueError:
        pass  # raise the same error as for other invalid values
    raise GalleryError(
        f"{where} is a datetime, a time of ISO 8601 such as '2026-05-01T08:00:00+02:00', or None; "
        f"got {_brief(value)}."
    )


def checked_retention(expire_after: Any) -> timedelta | None:
    """How long to keep pictures.

    Raises:
        GalleryError: It is neither a positive timedelta or number of seconds, nor None.
    """
    if expire_after is None or isinstance(expire_after, timedelta):
        retention = expire_after
    else:
        seconds = isinstance(expire_after, int | float) and not isinstance(expire_after, bool)
        try:
            retention = timedelta(seconds=expire_after) if seconds else timedelta(0)
        except (ValueError, OverflowError):  # NaN, or more than timedelta holds
            retention = timedelta(0)
    if retention is not None and retention <= timedelta(0):
        raise GalleryError(
            "expire_after is a timedelta or a number of seconds, more than zero, or None to keep "
            f"pictures until they are deleted; got {expire_after!r:.40}."
        )
    return retention


def _expiry(time: str | None, retention: timedelta) -> str:
    start = clock.now() if time is None else datetime.fromisoformat(time)
    try:
        return clock.utc_text(start + retention)
    except (OverflowError, ValueError) as error:
        raise GalleryError(
            f"expire_after leads past the year 9999 from {start}; give None to keep pictures."
        ) from error


def _metadata(place: Callable[[str], str], fields: Any) -> Mapping[str, Scalar]:
    if fields is None:
        return {}
    if not isinstance(fields, Mapping):
        raise GalleryError(
            f"{place('metadata')} is a mapping of names to values; got {_brief(fields)}."
        )
    for name in fields:
        if not _is_column_name(name):
            _refuse_column_name(place, name)
    return {
        name: value if _is_plain(value) else _scalar(f"{place('metadata')}[{name!r}]", value)
        for name, value in fields.items()
    }


@lru_cache(1024)
def _is_column_name(name: Any) -> bool:
    """Whether a name is that of a metadata column; the pictures of a batch have the same names."""
    if not isinstance(name, str) or name in BUILT_IN:
        return False
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return 1 <= len(name) <= MAX_NAME_LENGTH


def _refuse_column_name(place: Callable[[str], str], name: Any) -> None:
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME_LENGTH:
        raise GalleryError(
            f"{place('metadata')}: a column name is text of 1 to {MAX_NAME_LENGTH} characters; "
            f"got {_brief(name)}."
        )
    if name in BUILT_IN:
        raise GalleryError(
            f"{place('metadata')}: {name!r} is a column of every gallery. Pass images=, pids= or "
            "cameras= for these, or rename the key."
        )
    _text(f"{place('metadata')}: column name", name)


def _is_plain_text(value: Any) -> bool:
    """Whether a value is None, or a text that needs no further check, as nearly all texts."""
    return value is None or (type(value) is str and value.isascii())


def _is_plain(value: Any) -> bool:
    """Whether :func:`_scalar` would return a value unchanged; it may be so for further values.

    This is the case for nearly all values, and needs no place for an error message.
    """
    kind = type(value)
    return (
        (kind is str and value.isascii())
        or (kind is float and math.isfinite(value))
        or (kind is int and value in _INT64)
        or kind is bool
        or value is None
    )


def _scalar(where: str, value: Any) -> Scalar:
    if isinstance(value, np.generic):
        value = value.item()  # tables read by pandas hold NumPy scalars
    if isinstance(value, str):
        return _text(where, value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and value in _INT64:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    raise GalleryError(
        f"{where} is text, a finite number, a boolean or None; got {_brief(value)} "
        f"({type(value).__name__}). Convert it to one of these."
    )


def _brief(value: Any) -> str:
    """A short text of a value for messages; deeply nested values are safe, unlike with ``repr``."""
    return f"{reprlib.repr(value):.60}"


def _thumbnail(where: str, value: Any) -> bytes | None:
    if value is None or (isinstance(value, bytes) and value.startswith(b"\xff\xd8\xff")):
        return value
    raise GalleryError(f"{where} is the bytes of a JPEG file or None; got {value!r:.40}.")
