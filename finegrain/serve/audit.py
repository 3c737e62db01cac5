"""An append-only log of who searched and changed what, in which each record seals the one before.

A record is a line of JSON with the SHA-256 of the previous line. A record that is changed, removed
or inserted breaks the chain. What the chain alone cannot show is that the newest records were cut
off: keep the digest that :func:`verify` returns, and compare it the next time.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from finegrain import times
from finegrain.bounded.strict_json import parse_strict
from finegrain.errors import DataError
from finegrain.gallery.sqlite.files import OWNER_ONLY, sync_folder
from finegrain.serve.problems import ServiceError

MOST_BYTES = 64 << 20
"""Size at which a log file is closed and the next one begins."""

MOST_LINE_BYTES = 1 << 20
NO_RECORD = "0" * 64
"""Digest before the first record."""


@dataclass(frozen=True, slots=True)
class Verified:
    """An intact log.

    Attributes:
        num_records: Number of records in all files.
        digest: SHA-256 of the newest record.
    """

    num_records: int
    digest: str


class AuditLog:
    """Appends records to a log that one process holds.

    A full file is renamed to ``NAME.000001``, ``NAME.000002`` and so on. The chain continues in the
    next file. All files are readable by their owner only.

    Args:
        path: The log file; it is created if it does not exist.
        most_bytes: Size at which the next file begins.

    Raises:
        DataError: The file cannot be written, is not a log, or another process holds it.
    """

    def __init__(self, path: str | Path, *, most_bytes: int = MOST_BYTES) -> None:
        self.path = Path(path)
        self._most_bytes = most_bytes
        self._writing = threading.Lock()
        self._held = FileLock(f"{self.path}.lock", mode=OWNER_ONLY)
        if not self.path.parent.is_dir():  # the lock would create it
            raise DataError(
                f"the audit log {self.path} cannot be written: there is no folder "
                f"{self.path.parent}"
            )
        try:
            self._held.acquire(timeout=0)
        except Timeout:
            raise DataError(f"another service writes the audit log {self.path}") from None
        except OSError as error:
            raise DataError(f"the audit log {self.path} cannot be written: {error}") from error
        try:
            self._file = self._open()
            torn = _drop_incomplete_end(self.path)
            self._last = _digest_of_newest(self.path)
        except BaseException:
            self._held.release()
            raise
        if torn:
            self.append("repaired", "service", {"removed_bytes": torn})

    def append(self, action: str, client: str, details: Mapping[str, Any]) -> None:
        """Write a record, and return when it is durable.

        Args:
            action: What was done, such as ``search``.
            client: Name of the key.
            details: Further values for JSON, such as the query and the ids that were shown.

        Raises:
            ServiceError: The record cannot be written. The request must then be refused.
        """
        with self._writing:
            record = {
                "at": times.utc_text(times.now()),
                "action": action,
                "client": client,
                **details,
                "previous": self._last,
            }
            line = json.dumps(record).encode() + b"\n"
            try:
                if os.fstat(self._file).st_size + len(line) > self._most_bytes:
                    self._rotate()
                self._write(line)
            except OSError as error:
                raise ServiceError(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    f"The audit log cannot be written ({error.strerror or error}), so the request "
                    "is refused. Ask the operator.",
                    {"Retry-After": "60"},
                ) from error
            self._last = hashlib.sha256(line).hexdigest()

    def close(self) -> None:
        """Close the file and let other processes write it."""
        with self._writing:
            os.close(self._file)
            self._held.release()

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, OWNER_ONLY)
        except OSError as error:
            raise DataError(f"the audit log {self.path} cannot be written: {error}") from error

    def _write(self, line: bytes) -> None:
        start = os.fstat(self._file).st_size
        try:
            written = os.write(self._file, line)
            if written != len(line):
                raise OSError(f"{written} of {len(line)} bytes were written")
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, start)  # half a record would break the chain
            raise

    def _rotate(self) -> None:
        older = _older(self.path)
        number = int(older[-1].suffix[1:]) + 1 if older else 1
        os.close(self._file)
        try:
            os.rename(self.path, f"{self.path}.{number:06d}")
        finally:
            self._file = self._open()
        sync_folder(self.path.parent)


def verify(path: str | Path, *, contains: str | None = None) -> Verified:
    """Check the chain of a log over all of its files.

    Args:
        path: The newest file; older ones are looked up in its folder.
        contains: Digest of an earlier check, whose record must still be in the log.

    Raises:
        DataError: A record was changed, removed or inserted, or a file cannot be read. The message
            names the file and the line.
    """
    path = Path(path)
    last, count = NO_RECORD, 0
    is_contained = contains in (None, last)
    for file in [*_older(path), *([path] if path.exists() else [])]:
        for number, line in enumerate(_lines(file), start=1):
            where = f"line {number} of {file}"
            try:
                record = parse_strict(line)
                previous = record["previous"]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise DataError(f"{where} is not a record of an audit log: {error}") from error
            if previous != last:
                raise DataError(
                    f"the chain is broken before {where}: a record was changed, removed or "
                    "inserted there"
                )
            last = hashlib.sha256(line).hexdigest()
            is_contained |= last == contains
            count += 1
    if not is_contained:
        raise DataError(
            f"{path} has no record with the digest {contains:.80}; the newest records were removed"
        )
    return Verified(count, last)


def _older(path: Path) -> list[Path]:
    """Earlier files of a log, the oldest first."""
    return sorted(
        file
        for file in path.parent.glob("*")
        if file.stem == path.name and len(file.suffix) == 7 and file.suffix[1:].isdecimal()
    )


def _digest_of_newest(path: Path) -> str:
    """Digest of the newest record, without reading all of the log."""
    for file in (path, *reversed(_older(path))):
        lines = _end_of(file).splitlines(keepends=True)
        if lines:
            return hashlib.sha256(lines[-1]).hexdigest()
    return NO_RECORD


def _drop_incomplete_end(path: Path) -> int:
    """Remove half a record that a power cut left, and return its size in bytes."""
    end = _end_of(path)
    torn = len(end) - (end.rfind(b"\n") + 1)
    if torn:
        os.truncate(path, path.stat().st_size - torn)
    return torn


def _end_of(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, file.stat().st_size - 2 * MOST_LINE_BYTES))
            return opened.read()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from error


def _lines(file: Path) -> Iterator[bytes]:
    try:
        with file.open("rb") as opened:
            while line := opened.readline(MOST_LINE_BYTES):
                if not line.endswith(b"\n"):
                    raise DataError(f"the last line of {file} is not complete, or is too long")
                yield line
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from error
