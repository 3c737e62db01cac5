"""The requests of a client and their answers, without the network.

:class:`~finegrain.serve.client.Client` and :class:`~finegrain.serve.client.AsyncClient` send the
same requests and differ only in how they wait.
"""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from PIL import Image

from finegrain import errors
from finegrain.errors import FinegrainError, QueryError
from finegrain.preprocess import ImageSource
from finegrain.preprocess.image import load_image
from finegrain.records import Problem, Scalar
from finegrain.search.ingest import Added
from finegrain.search.matches import Match, Matches
from finegrain.search.queries import Query

MOST_TEXTS = 16
"""Texts of one request."""

_SENT_AS_THEY_ARE = (".jpg", ".jpeg", ".png", ".webp")

T = TypeVar("T")


class ServiceUnavailableError(FinegrainError):
    """The service cannot be reached, is overloaded, or refused the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteMatch(Match):
    """A match whose picture is fetched from the service when it is opened."""

    fetch: Callable[[int], bytes] | None = field(default=None, repr=False, compare=False)

    def open(self) -> Image.Image:
        """Fetch the picture; its longer side has at most 512 pixels.

        Raises:
            ImageError: The service has no file and no thumbnail of it.
            QueryError: The match comes from an :class:`~finegrain.serve.client.AsyncClient`.
        """
        if self.fetch is None:
            raise QueryError(
                f"fetch the picture of an asynchronous client with: await client.image({self.id})"
            )
        return load_image(self.fetch(self.id))


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """A request, and how to read its answer.

    Attributes:
        method, path: The method and path of the request.
        read: Makes the result from the body of the answer.
        body: JSON to send.
        fields: Fields of a form to send.
        files: Files of a form, as pairs of the field's name and the content.
        query: Parameters of the address.
        key: Sent as ``Idempotency-Key``.
    """

    method: str
    path: str
    read: Callable[[bytes], T]
    body: Mapping[str, Any] | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[tuple[str, bytes]] = ()
    query: Mapping[str, str | int] = field(default_factory=dict)
    key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of a search; see :meth:`finegrain.Searcher.query`."""

    k: int = 10
    where: str | None = None
    group_by: str | None = None
    distinct: float | None = None
    offset: int = 0
    reason: str | None = None
    avoid: Sequence[str] = ()
    negation: bool = True
    min_probability: float | None = None

    def body(self) -> dict[str, Any]:
        """The fields for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def searches(
    queries: Sequence[Query], options: Options, fetch: Callable[[int], bytes] | None
) -> Iterator[Call[list[Matches]]]:
    """Requests for several queries; the answers joined are in the order of the queries."""

    def read(body: bytes) -> list[Matches]:
        return [_matches(answer, fetch) for answer in json.loads(body)["answers"]]

    texts: list[str] = []

    def pending() -> Iterator[Call[list[Matches]]]:
        if texts:
            body = {"query": list(texts), **options.body()}
            texts.clear()
            yield Call(method="POST", path="/v1/search", body=body, read=read)

    for query in queries:
        if isinstance(query, str):
            texts.append(query)
            if len(texts) == MOST_TEXTS:
                yield from pending()
        else:
            yield from pending()
            yield Call(
                method="POST",
                path="/v1/search/picture",
                fields={"options": json.dumps(options.body())},
                files=[("picture", encoded(query))],
                read=read,
            )
    yield from pending()


def similar(id_: int, options: Options, fetch: Callable[[int], bytes] | None) -> Call[Matches]:
    """Request for pictures similar to one of the gallery."""
    return Call(
        method="POST",
        path="/v1/search/similar",
        body={"id": id_, **options.body()},
        read=lambda body: _matches(json.loads(body)["answers"][0], fetch),
    )


def export(query: str, file_format: str, options: Options) -> Call[bytes]:
    """Request for an answer as a file."""
    body = {"query": query, "format": file_format, **options.body()}
    return Call(method="POST", path="/v1/search/export", body=body, read=bytes)


def add(
    pictures: Sequence[ImageSource],
    metadata: Mapping[str, Scalar],
    expire_after: float | None,
    reason: str | None,
) -> Call[Added]:
    """Request to add pictures. It may be sent again without adding them twice."""
    fields = {"metadata": json.dumps(dict(metadata))}
    if expire_after is not None:
        fields["expire_after"] = str(expire_after)
    if reason is not None:
        fields["reason"] = reason

    def read(body: bytes) -> Added:
        answer = json.loads(body)
        return Added(
            ids=answer["ids"],
            num_new=answer["num_new"],
            num_known=answer["num_known"],
            problems=[_problem(line) for line in answer["left_out"]],
        )

    return Call(
        method="POST",
        path="/v1/pictures",
        fields=fields,
        files=[("pictures", encoded(picture)) for picture in pictures],
        read=read,
        key=uuid.uuid4().hex,
    )


def change(
    pictures: str | Iterable[int], columns: Mapping[str, Scalar], reason: str | None
) -> Call[int]:
    """Request to set columns."""
    body = {**_chosen(pictures), "set": dict(columns), "reason": reason}
    return Call(method="PATCH", path="/v1/pictures", body=body, read=_count)


def delete(pictures: str | Iterable[int], reason: str | None) -> Call[int]:
    """Request to delete pictures."""
    body = {**_chosen(pictures), "reason": reason}
    return Call(method="POST", path="/v1/pictures/delete", body=body, read=_count)


def expire() -> Call[int]:
    """Request to delete the pictures that have expired."""
    return Call(method="POST", path="/v1/expire", read=_count)


def image(id_: int, side: int) -> Call[bytes]:
    """Request for a picture."""
    return Call(method="GET", path=f"/v1/pictures/{id_}/image", query={"side": side}, read=bytes)


def row(id_: int) -> Call[dict[str, Any]]:
    """Request for the columns of a picture."""
    return Call(method="GET", path=f"/v1/pictures/{id_}", read=json.loads)


def stats() -> Call[dict[str, Any]]:
    """Request for the size and the columns of the gallery."""
    return Call(method="GET", path="/v1/stats", read=json.loads)


def error_of(status: int, body: bytes) -> FinegrainError:
    """The error of the library that a problem document names, with its message."""
    try:
        document = json.loads(body)
        title, detail = str(document["title"]), str(document["detail"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ServiceUnavailableError(
            f"expected an answer of finegrain serve, got status {status} of another service; check "
            "the address"
        )
    kind = getattr(errors, title, None)
    if isinstance(kind, type) and issubclass(kind, FinegrainError):
        return kind(detail)
    return QueryError(detail) if status == 422 else ServiceUnavailableError(detail)


def encoded(picture: ImageSource) -> bytes:
    """A picture as a file that the service accepts.

    Raises:
        ImageError: The picture cannot be read.
    """
    if isinstance(picture, str | Path) and str(picture).lower().endswith(_SENT_AS_THEY_ARE):
        try:
            return Path(picture).read_bytes()
        except OSError as error:
            raise errors.ImageError(f"{picture} cannot be read: {error.strerror}") from error
    file = io.BytesIO()
    load_image(picture).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _matches(answer: Mapping[str, Any], fetch: Callable[[int], bytes] | None) -> Matches:
    def match(fields: Mapping[str, Any]) -> RemoteMatch:
        return RemoteMatch(**fields, image=None, fetch=fetch)

    return Matches(
        answer["query"],
        [match(fields) for fields in answer["matches"]],
        notes=answer["notes"],
        rejected=None if answer["rejected"] is None else match(answer["rejected"]),
    )


def _problem(line: str) -> Problem:
    where, _, why = line.partition(": ")
    return Problem(where=where, why=why)


def _chosen(pictures: str | Iterable[int]) -> dict[str, Any]:
    return {"where": pictures} if isinstance(pictures, str) else {"ids": list(pictures)}


def _count(body: bytes) -> int:
    count: int = json.loads(body)["count"]
    return count
