"""Calls to Milvus with timeouts, paging, and our own errors."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from finegrain.errors import GalleryError, require
from finegrain.gallery.milvus.address import TOKEN_VARIABLE, Consistency, MilvusAddress
from finegrain.index.exact import Vectors

PAGE_ROWS = 4096
"""Rows per page when reading."""

MAX_ROWS = 16_384
"""Most rows that Milvus returns in one response."""

WAIT_SECONDS = 30.0
"""Timeout of each call to the server."""

_NOT_FOUND = 100  # error code of Milvus for a missing collection
_EXTRA = "milvus"

Document = dict[str, Any]


class Connection:
    """A client of one server or file. Any number of threads may share it.

    Raises:
        MissingExtraError: pymilvus, or milvus-lite for a file, is not installed.
        GalleryError: The server cannot be reached or refuses the login.
    """

    def __init__(self, address: MilvusAddress) -> None:
        self._shown = address.shown
        self.is_local = not address.uri.startswith("http")
        pymilvus = require("pymilvus", _EXTRA)
        if self.is_local:
            require("milvus_lite", _EXTRA)
        self._types = pymilvus.DataType
        self._failures = (pymilvus.MilvusException, require("grpc", _EXTRA).RpcError)
        self._is_open = True
        self._process = os.getpid()
        # milvus-lite fails if a flush overlaps another one or a write. A server takes them at once.
        self._writing: AbstractContextManager[object] = (
            threading.Lock() if self.is_local else nullcontext()
        )
        with self._errors():
            self._client = pymilvus.MilvusClient(
                uri=str(Path(address.uri).absolute()) if self.is_local else address.uri,
                token=address.token,
                db_name=address.database,
                timeout=WAIT_SECONDS,
            )

    def close(self) -> None:
        if self._is_open and self._process == os.getpid():
            self._client.close()
        self._is_open = False

    @classmethod
    def finds(cls, address: MilvusAddress) -> bool:
        """Whether there is a collection at an address."""
        with closing(cls(address)) as connection:
            return connection.has(address.name)

    def has(self, name: str) -> bool:
        """Whether there is a collection, or an alias, of that name."""
        with self._errors():
            return bool(self._client.has_collection(name, timeout=WAIT_SECONDS))

    def create(self, name: str, schema: Sequence[Mapping[str, Any]]) -> None:
        """Create a collection with an exact index over its field ``vector``."""
        with self._errors():
            fields = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
            for field in schema:
                fields.add_field(**{**field, "datatype": self._types[field["datatype"]]})
            index = self._client.prepare_index_params()
            index.add_index("vector", index_type="FLAT", metric_type="IP")
            self._client.create_collection(
                name,
                schema=fields,
                index_params=index,
                consistency_level="Strong",
                timeout=WAIT_SECONDS,
            )

    def load(self, name: str) -> None:
        """Load a collection into the memory of the server, so that it can be searched."""
        with self._errors():
            self._client.load_collection(name, timeout=WAIT_SECONDS)

    def drop(self, name: str) -> None:
        with self._errors():
            self._client.drop_collection(name, timeout=WAIT_SECONDS)

    def describe(self, name: str) -> Document:
        """Name and fields of a collection, which may be named by an alias."""
        with self._errors():
            return dict(self._client.describe_collection(name, timeout=WAIT_SECONDS))

    def create_alias(self, name: str, alias: str) -> None:
        with self._errors():
            self._client.create_alias(name, alias, timeout=WAIT_SECONDS)

    def alter_alias(self, name: str, alias: str) -> None:
        """Point an alias to another collection, atomically for all clients."""
        with self._errors():
            self._client.alter_alias(name, alias, timeout=WAIT_SECONDS)

    def write(self, name: str, documents: Sequence[Document]) -> None:
        """Write documents; a document with an existing id replaces the old one."""
        with self._errors(), self._writing:
            self._client.upsert(name, list(documents), timeout=WAIT_SECONDS)

    def settle(self, name: str) -> None:
        """Flush a file of milvus-lite; unflushed rows make its search slow.

        A server flushes by itself, and limits the rate of explicit flushes.
        """
        if self.is_local:
            with self._errors(), self._writing:
                self._client.flush(name, timeout=WAIT_SECONDS)

    def remove(self, name: str, ids: Sequence[int]) -> None:
        with self._errors():
            for start in range(0, len(ids), PAGE_ROWS):
                page = list(ids[start : start + PAGE_ROWS])
                with self._writing:
                    self._client.delete(name, filter=f"id in {page}", timeout=WAIT_SECONDS)

    def compact(self, name: str) -> None:
        """Ask the server to rewrite the segments that hold deleted rows."""
        with self._errors():
            self._client.compact(name, timeout=WAIT_SECONDS)

    def count(self, name: str, condition: str, consistency: Consistency = "Strong") -> int:
        (answer,) = self._query(name, condition, ["count(*)"], consistency=consistency)
        return int(answer["count(*)"])

    def pages(
        self, name: str, condition: str, fields: Sequence[str], *, after: int, rows: int = PAGE_ROWS
    ) -> Iterator[list[Document]]:
        """Pages of the matching documents with an id above ``after``, by ascending id."""
        last = after
        while True:
            page = self._query(name, f"id > {last} and ({condition})", ["id", *fields], limit=rows)
            page.sort(key=lambda document: int(document["id"]))
            if page:
                yield page
            if len(page) < rows:
                return
            last = page[-1]["id"]

    def among(
        self,
        name: str,
        ids: Sequence[int],
        condition: str,
        fields: Sequence[str],
        *,
        consistency: Consistency = "Strong",
    ) -> Iterator[Document]:
        """The documents with these ids that exist and match, in any order."""
        for start in range(0, len(ids), PAGE_ROWS):
            page = list(ids[start : start + PAGE_ROWS])
            yield from self._query(
                name, f"id in {page} and ({condition})", ["id", *fields], consistency=consistency
            )

    def nearest(
        self, name: str, queries: Vectors, limit: int, condition: str, consistency: Consistency
    ) -> list[list[tuple[int, float, list[float]]]]:
        """Id, inner product and vector of the best documents per query; ties in any order."""
        with self._errors():
            answers = self._client.search(
                name,
                data=list(queries),
                filter=condition,
                limit=limit,
                output_fields=["vector"],
                search_params={"metric_type": "IP"},
                consistency_level=consistency,
                timeout=WAIT_SECONDS,
            )
            return [
                [(hit["id"], hit["distance"], hit["entity"]["vector"]) for hit in hits]
                for hits in answers
            ]

    def _query(
        self,
        name: str,
        condition: str,
        fields: list[str],
        *,
        limit: int | None = None,
        consistency: Consistency = "Strong",
    ) -> list[Document]:
        paging = {} if limit is None else {"limit": limit, "reduce_stop_for_best": True}
        with self._errors():
            return list(
                self._client.query(
                    name,
                    filter=condition,
                    output_fields=fields,
                    consistency_level=consistency,
                    timeout=WAIT_SECONDS,
                    **paging,
                )
            )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        if not self._is_open:
            raise GalleryError(f"{self._shown}: the gallery is closed; open it again.")
        if self._process != os.getpid():
            raise GalleryError(
                f"{self._shown} was opened before this process was forked, and its connection is "
                "the parent's. Open the gallery in this process."
            )
        try:
            yield
        except self._failures as error:
            code = getattr(error, "code", None)
            why = " ".join(str(getattr(error, "message", error)).split())
            raise GalleryError(f"{self._shown}: {why:.300}. {self._advice(code)}") from error

    def _advice(self, code: object) -> str:
        if code == _NOT_FOUND:
            return "It was deleted or reindexed since it was opened; open the gallery again."
        if self.is_local:
            return "See that no other process has it open and that its folder can be written."
        return (
            "See that a Milvus server listens there and that the login is right (user:password@ "
            f"in the address, or {TOKEN_VARIABLE} in the environment)."
        )
