"""Who sent a request, and what the sender may do.

Annotations are evaluated here, since FastAPI cannot look up the names of a function that are text.
"""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, Request

from finegrain.gallery.filters.syntax import joined
from finegrain.serve.keys import Keys, Scope
from finegrain.serve.problems import ServiceError
from finegrain.serve.rates import RateLimits

LOCAL = "local"
"""Name of the clients of a service without keys."""


@dataclass(frozen=True, slots=True)
class Client:
    """The sender of a request.

    Attributes:
        name: Name of the key.
        where: Filter of the part of the gallery that the client may see; None for all of it.
        spend: Counts the cost of the request against the limit of the key.
        key: Digest of the key; None for a client of a service without keys.
    """

    name: str
    where: str | None
    spend: Callable[[float], None]
    key: str | None = None

    def within(self, where: str | None) -> str | None:
        """A filter that also keeps to this client's part of the gallery."""
        given = [expression for expression in (where, self.where) if expression]
        return joined(given) if given else None

    def check_unlimited(self) -> None:
        """Refuse a client that may see only a part of the gallery."""
        if self.where is not None:
            raise ServiceError(
                HTTPStatus.FORBIDDEN, "A key for a part of the gallery cannot add pictures."
            )


class Access:
    """Checks the key of each request.

    Args:
        keys: Keys of the clients; None lets every local client do everything.
        read_only: Refuse all changes.
    """

    def __init__(self, keys: Keys | None, *, read_only: bool) -> None:
        self._keys = keys
        self._read_only = read_only
        self._limits = RateLimits()

    def client(self, request: Request, scope: Scope) -> Client:
        """The sender of a request that needs a scope.

        Raises:
            ServiceError: The key is missing, unknown, or does not have the scope.
        """
        if self._read_only and scope != "read":
            raise ServiceError(HTTPStatus.FORBIDDEN, "This service is read-only.")
        if self._keys is None:
            return Client(LOCAL, None, lambda cost: None)
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        key = self._keys.holder(secret.strip()) if scheme.lower() == "bearer" else None
        if key is None:
            raise ServiceError(
                HTTPStatus.UNAUTHORIZED,
                "Send a key in the header Authorization: Bearer KEY. An operator makes one with: "
                "finegrain keys make",
                {"WWW-Authenticate": "Bearer"},
            )
        if not key.may(scope):
            raise ServiceError(
                HTTPStatus.FORBIDDEN, f"This needs the scope {scope}; the key has {key.scope}."
            )
        name, per_minute = key.name, key.per_minute

        def spend(cost: float) -> None:
            if per_minute is not None:
                self._limits.spend(name, per_minute, cost)

        return Client(name, key.where, spend, key.digest)

    def name_of(self, digest: str | None) -> str | None:
        """Name of a key; None if it was revoked. What has no key is an operator's."""
        if digest is None or self._keys is None:
            return LOCAL
        return next((key.name for key in self._keys.current() if key.digest == digest), None)


def _with(scope: Scope) -> Callable[[Request], Client]:
    def check(request: Request) -> Client:
        access: Access = request.app.state.access
        client = access.client(request, scope)
        request.state.client = client.name  # for the log
        return client

    return check


Reader = Annotated[Client, Depends(_with("read"))]
Writer = Annotated[Client, Depends(_with("write"))]
Admin = Annotated[Client, Depends(_with("admin"))]
