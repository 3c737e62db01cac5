"""Clients of a service, with the methods of a searcher."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from finegrain.errors import require
from finegrain.preprocess import ImageSource
from finegrain.records import Scalar
from finegrain.search.ingest import Added
from finegrain.search.matches import Matches
from finegrain.search.queries import Query
from finegrain.serve import calls
from finegrain.serve.calls import Call, Options, ServiceUnavailableError

if TYPE_CHECKING:
    import httpx

SECONDS = 60.0
"""Seconds after which a request is given up."""

RETRIES = 3
_RETRIED = (429, 503)
_MOST_WAIT = 30.0

T = TypeVar("T")
Queries = list[Query] | list[str] | tuple[Query, ...]


class Client:
    """Searches a service of ``finegrain serve`` as a :class:`~finegrain.Searcher` does.

    A request is sent again, up to three times, if the service cannot be reached or asks to wait.
    An addition that is sent again is not done twice.

    Args:
        address: Address of the service.
        key: Key that ``finegrain keys make`` printed.
        gallery: Name of the gallery, if the service has several.
        seconds: Seconds after which a request is given up.

    Raises:
        MissingExtraError: httpx is not installed: ``pip install "finegrain[client]"``.

    Example:
        >>> import finegrain
        >>> client = finegrain.Client("http://localhost:8080")    # doctest: +SKIP
        >>> client.query("woman in red coat", k=5)                # doctest: +SKIP
    """

    def __init__(
        self,
        address: str,
        *,
        key: str | None = None,
        gallery: str | None = None,
        seconds: float = SECONDS,
    ) -> None:
        self._connection = _Connection(address, key, gallery)
        self._http = require("httpx", "client").Client(**self._connection.options(seconds))

    @overload
    def query(
        self,
        query: Query,
        k: int = 10,
        *,
        where: str | None = None,
        group_by: str | None = None,
        distinct: float | None = None,
        offset: int = 0,
        avoid: Sequence[str] = (),
        negation: bool = True,
        min_probability: float | None = None,
        reason: str | None = None,
    ) -> Matches: ...
    @overload
    def query(
        self,
        query: Queries,
        k: int = 10,
        *,
        where: str | None = None,
        group_by: str | None = None,
        distinct: float | None = None,
        offset: int = 0,
        avoid: Sequence[str] = (),
        negation: bool = True,
        min_probability: float | None = None,
        reason: str | None = None,
    ) -> list[Matches]: ...
    def query(
        self,
        query: Query | Queries,
        k: int = 10,
        *,
        where: str | None = None,
        group_by: str | None = None,
        distinct: float | None = None,
        offset: int = 0,
        avoid: Sequence[str] = (),
        negation: bool = True,
        min_probability: float | None = None,
        reason: str | None = None,
    ) -> Matches | list[Matches]:
        """Find the pictures that match a text or are similar to a picture.

        Args:
            query: A text or a picture, or a list of several.
            k: Number of matches.
            where, group_by, distinct, offset: As for :meth:`finegrain.Searcher.query`.
            avoid, negation, min_probability: As for :meth:`finegrain.Searcher.query`.
            reason: Why; stored in the audit log of the service.

        Returns:
            Matches, best first. Their pictures are fetched when they are opened or drawn. For a
            list of queries, a list of matches.

        Raises:
            FinegrainError: The error of the library that the service met, with its message.
            ServiceUnavailableError: The service cannot be reached, is overloaded, or refused the
                key.
        """
        options = Options(
            k=k,
            where=where,
            group_by=group_by,
            distinct=distinct,
            offset=offset,
            reason=reason,
            avoid=avoid,
            negation=negation,
            min_probability=min_probability,
        )
        several = isinstance(query, list | tuple)
        queries: Sequence[Query] = query if isinstance(query, list | tuple) else [query]
        requests = calls.searches(queries, options, self.image)
        every = [matches for request in requests for matches in self._send(request)]
        return every if several else every[0]

    def similar(self, id_: int, k: int = 10, *, where: str | None = None) -> Matches:
        """Find pictures that are similar to one of the gallery, which is left out."""
        return self._send(calls.similar(id_, Options(k=k, where=where), self.image))

    def export(
        self,
        query: str,
        file_format: Literal["csv", "zip"],
        k: int = 10,
        *,
        where: str | None = None,
    ) -> bytes:
        """The answer of a query as a CSV or ZIP file."""
        return self._send(calls.export(query, file_format, Options(k=k, where=where)))

    def add(
        self,
        pictures: ImageSource | Sequence[ImageSource],
        metadata: Mapping[str, Scalar] | None = None,
        *,
        expire_after: float | None = None,
        reason: str | None = None,
    ) -> Added:
        """Send pictures to the gallery; ``metadata`` are the columns of all of them.

        Raises:
            ImageError: A picture cannot be read here, or the service can read none of them.
        """
        request = calls.add(_several(pictures), metadata or {}, expire_after, reason)
        return self._send(request)

    def update(
        self,
        pictures: str | Iterable[int],
        columns: Mapping[str, Scalar],
        *,
        reason: str | None = None,
    ) -> int:
        """Set columns of the pictures with these ids, or that match a filter; return how many."""
        return self._send(calls.change(pictures, columns, reason))

    def delete(self, pictures: str | Iterable[int], *, reason: str | None = None) -> int:
        """Delete the pictures with these ids, or that match a filter; return how many."""
        return self._send(calls.delete(pictures, reason))

    def expire(self) -> int:
        """Delete the pictures that have expired; return how many."""
        return self._send(calls.expire())

    def image(self, id_: int, side: int = 512) -> bytes:
        """A picture as a JPEG file whose longer side is at most ``side`` pixels."""
        return self._send(calls.image(id_, side))

    def row(self, id_: int) -> dict[str, Any]:
        """The columns of a picture."""
        return self._send(calls.row(id_))

    def stats(self) -> dict[str, Any]:
        """The size and the columns of the gallery, and the model."""
        return self._send(calls.stats())

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._connection.address!r})"

    def _send(self, call: Call[T]) -> T:
        arguments = self._connection.arguments(call)
        attempts = Attempts(self._connection)
        while True:
            try:
                response = self._http.request(**arguments)
            except require("httpx", "client").TransportError as error:
                wait = attempts.wait_after_error(error)
            else:
                if (given := attempts.wait_after(response)) is None:
                    return _result(call, response)
                wait = given
            time.sleep(wait)


class AsyncClient:
    """:class:`Client` for ``asyncio``: the same methods, each of which is awaited.

    Example:
        >>> async def search():
        ...     async with AsyncClient("http://localhost:8080") as client:
        ...         return await client.query("woman in red coat", k=5)
    """

    def __init__(
        self,
        address: str,
        *,
        key: str | None = None,
        gallery: str | None = None,
        seconds: float = SECONDS,
    ) -> None:
        self._connection = _Connection(address, key, gallery)
        self._http = require("httpx", "client").AsyncClient(**self._connection.options(seconds))

    @overload
    async def query(
        self,
        query: Query,
        k: int = 10,
        *,
        where: str | None = None,
        group_by: str | None = None,
        distinct: float | None = None,
        offset: int = 0,
        avoid: Sequence[str] = (),
        negation: bool = True,
        min_probability: float | None = None,
        reason: str | None = None,
    ) -> Matches: ...
    @overload
    async def query(
        self,
        query: Queries,
        k: int = 10,
        *,
        where: str | None = None,
        group_by: str | None = None,
        distinct: float | None = None,
        offset: int = 0,
        avoid: Sequence[str] = (),
        negation: bool = True,
        min_probability: float | None = None,
        reason: str | None = None,
    ) -> list[Matches]: ...
    async def query(
        self,
        query: Query | Queries,
        k: int = 10,
        *,
        where: str | None = None,
        group_by: str | None = None,
        distinct: float | None = None,
        offset: int = 0,
        avoid: Sequence[str] = (),
        negation: bool = True,
        min_probability: float | None = None,
        reason: str | None = None,
    ) -> Matches | list[Matches]:
        """See :meth:`Client.query`. Pictures are fetched with :meth:`image`."""
        options = Options(
            k=k,
            where=where,
            group_by=group_by,
            distinct=distinct,
            offset=offset,
            reason=reason,
            avoid=avoid,
            negation=negation,
            min_probability=min_probability,
        )
        several = isinstance(query, list | tuple)
        queries: Sequence[Query] = query if isinstance(query, list | tuple) else [query]
        requests = await asyncio.to_thread(list, calls.searches(queries, options, None))
        every = [matches for request in requests for matches in await self._send(request)]
        return every if several else every[0]

    async def similar(self, id_: int, k: int = 10, *, where: str | None = None) -> Matches:
        """See :meth:`Client.similar`."""
        return await self._send(calls.similar(id_, Options(k=k, where=where), None))

    async def export(
        self,
        query: str,
        file_format: Literal["csv", "zip"],
        k: int = 10,
        *,
        where: str | None = None,
    ) -> bytes:
        """See :meth:`Client.export`."""
        return await self._send(calls.export(query, file_format, Options(k=k, where=where)))

    async def add(
        self,
        pictures: ImageSource | Sequence[ImageSource],
        metadata: Mapping[str, Scalar] | None = None,
        *,
        expire_after: float | None = None,
        reason: str | None = None,
    ) -> Added:
        """See :meth:`Client.add`."""
        request = await asyncio.to_thread(
            calls.add, _several(pictures), metadata or {}, expire_after, reason
        )
        return await self._send(request)

    async def update(
        self,
        pictures: str | Iterable[int],
        columns: Mapping[str, Scalar],
        *,
        reason: str | None = None,
    ) -> int:
        """See :meth:`Client.update`."""
        return await self._send(calls.change(pictures, columns, reason))

    async def delete(self, pictures: str | Iterable[int], *, reason: str | None = None) -> int:
        """See :meth:`Client.delete`."""
        return await self._send(calls.delete(pictures, reason))

    async def expire(self) -> int:
        """See :meth:`Client.expire`."""
        return await self._send(calls.expire())

    async def image(self, id_: int, side: int = 512) -> bytes:
        """See :meth:`Client.image`."""
        return await self._send(calls.image(id_, side))

    async def row(self, id_: int) -> dict[str, Any]:
        """See :meth:`Client.row`."""
        return await self._send(calls.row(id_))

    async def stats(self) -> dict[str, Any]:
        """See :meth:`Client.stats`."""
        return await self._send(calls.stats())

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self._connection.address!r})"

    async def _send(self, call: Call[T]) -> T:
        arguments = self._connection.arguments(call)
        attempts = Attempts(self._connection)
        while True:
            try:
                response = await self._http.request(**arguments)
            except require("httpx", "client").TransportError as error:
                wait = attempts.wait_after_error(error)
            else:
                if (given := attempts.wait_after(response)) is None:
                    return _result(call, response)
                wait = given
            await asyncio.sleep(wait)


class _Connection:
    """Where requests go, and as whom."""

    def __init__(self, address: str, key: str | None, gallery: str | None) -> None:
        self.address = address.rstrip("/")
        self._key = key
        self._gallery = gallery

    def options(self, seconds: float) -> dict[str, Any]:
        headers = {} if self._key is None else {"Authorization": f"Bearer {self._key}"}
        return {"base_url": self.address, "headers": headers, "timeout": seconds}

    def arguments(self, call: Call[T]) -> dict[str, Any]:
        """Arguments of ``httpx.request``."""
        gallery = {} if self._gallery is None else {"gallery": self._gallery}
        return {
            "method": call.method,
            "url": call.path,
            "params": {**call.query, **gallery},
            "json": call.body,
            "data": call.fields or None,
            "files": list(call.files) or None,
            "headers": {} if call.key is None else {"Idempotency-Key": call.key},
        }

    def unreachable(self, error: Exception) -> ServiceUnavailableError:
        return ServiceUnavailableError(
            f"{self.address} cannot be reached ({error or type(error).__name__}). Is the service "
            "running? Start it with: finegrain serve PLAN"
        )


class Attempts:
    """Decides after each attempt of one request whether it is sent again, and when.

    Args:
        connection: Where the request goes.
    """

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._failed = 0

    def wait_after_error(self, error: Exception) -> float:
        """Seconds until the next attempt, after one without an answer.

        Raises:
            ServiceUnavailableError: It was the last attempt.
        """
        if self._failed == RETRIES:
            raise self._connection.unreachable(error) from error
        self._failed += 1
        return 2.0 ** (self._failed - 1) / 10

    def wait_after(self, response: httpx.Response) -> float | None:
        """Seconds that the service asks to wait; None if this answer counts."""
        if response.status_code not in _RETRIED or self._failed == RETRIES:
            return None
        self._failed += 1
        asked = response.headers.get("retry-after", "")
        return min(float(asked), _MOST_WAIT) if asked.isdecimal() else 1.0


def _result(call: Call[T], response: httpx.Response) -> T:
    if response.status_code != 200:
        raise calls.error_of(response.status_code, response.content)
    return call.read(response.content)


def _several(pictures: ImageSource | Sequence[ImageSource]) -> Sequence[ImageSource]:
    if isinstance(pictures, list | tuple):
        return pictures
    one: Any = pictures
    return [one]
