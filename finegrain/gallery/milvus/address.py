"""Addresses of galleries on Milvus."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self, get_args
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from finegrain.errors import GalleryError

TOKEN_VARIABLE = "MILVUS_TOKEN"
"""Environment variable that holds the token of a cluster, or ``user:password``."""

Consistency = Literal["Strong", "Bounded"]
"""Whether a read sees all earlier writes, or may be a few seconds old."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_LOCAL_NAME = "gallery"
_EXPECTED = (
    "An address of a gallery on Milvus is http://HOST:PORT/NAME, http://HOST:PORT/DATABASE/NAME "
    "(or https) or milvus:FILE.db, with names of letters, digits and underscores"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MilvusAddress:
    """Address of a collection on a server, or of a file of milvus-lite.

    Attributes:
        shown: Address for messages, without user and password.
        uri: URI that the Milvus client connects to.
        database: Database on the server.
        name: Name of the gallery in the database.
        consistency: Consistency of searching, counting and reading rows. Other methods are
            always strong.
        token: Secret token; empty without authentication.
    """

    shown: str
    uri: str
    database: str
    name: str
    consistency: Consistency
    token: str = field(repr=False)

    @classmethod
    def of(cls, path: str | Path) -> Self | None:
        """Parse an address; None for the path of a file.

        ``http://user:password@host:19530/people`` states a login, as does the environment
        variable ``MILVUS_TOKEN``. With ``?consistency=Bounded`` searches are faster, but may miss
        what was written in the last seconds.

        Raises:
            GalleryError: It begins like an address but is not a valid one.
        """
        if not isinstance(path, str) or not re.match(r"(https?|milvus):", path):
            return None
        return cls._local(path) if path.startswith("milvus:") else cls._remote(path)

    def may_be_there(self) -> bool:
        """False if a file of milvus-lite is missing; connecting would create it."""
        return self.uri.startswith("http") or Path(self.uri).exists()

    @classmethod
    def _local(cls, address: str) -> Self:
        file = address.removeprefix("milvus:")
        if not file.endswith(".db") or file.startswith("//"):
            raise GalleryError(f"{_EXPECTED}; got {address!r:.80}.")
        return cls(
            shown=address,
            uri=file,
            database="",
            name=_LOCAL_NAME,
            consistency="Strong",
            token="",
        )

    @classmethod
    def _remote(cls, address: str) -> Self:
        try:
            parts = urlsplit(address)
            port = parts.port or 19530
        except ValueError:
            raise GalleryError(f"{_EXPECTED}; this one has no valid host and port.") from None
        server = f"{parts.scheme}://{parts.hostname}:{port}"
        names = parts.path.strip("/").split("/")
        if (
            not parts.hostname
            or len(names) > 2
            or not all(_NAME.fullmatch(name) for name in names)
            or parts.fragment
        ):
            raise GalleryError(f"{_EXPECTED}; got {server}{parts.path:.80}.")
        return cls(
            shown=f"{server}{parts.path}",
            uri=server,
            database=names[0] if len(names) == 2 else "",
            name=names[-1],
            consistency=_consistency(parts),
            token=_token(parts),
        )


def _consistency(parts: SplitResult) -> Consistency:
    match parse_qsl(parts.query, keep_blank_values=True):
        case []:
            return "Strong"
        case [("consistency", "Strong" | "Bounded" as consistency)]:
            return consistency
    choices = " or ".join(f"consistency={choice}" for choice in get_args(Consistency))
    raise GalleryError(f"expected {choices} after the question mark of an address")


def _token(parts: SplitResult) -> str:
    if parts.username is None:
        return os.environ.get(TOKEN_VARIABLE, "")
    return f"{unquote(parts.username)}:{unquote(parts.password or '')}"
