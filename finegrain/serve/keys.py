"""API keys: who may do what, in which part of a gallery.

A key is ``fg_`` and 32 random bytes. The file holds only the SHA-256 of each key, which suffices
because a key has 256 random bits and cannot be guessed from a list of likely ones.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

from filelock import FileLock

from finegrain import times
from finegrain.bounded.file import read_bounded
from finegrain.bounded.strict_json import parse_strict
from finegrain.errors import DataError
from finegrain.gallery.sqlite.files import publish_over, unfinished_file

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_PREFIX = "fg_"
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key, without its secret.

    Attributes:
        name: Name that its maker chose.
        digest: SHA-256 of the key, 64 hexadecimal digits.
        scope: ``read`` may search, ``write`` may also add, change and delete pictures, ``admin``
            may also expire pictures.
        where: Filter that is added to every query; None for the whole gallery.
        created_at: When it was made, in UTC.
        per_minute: Searches and changes that it allows in a minute; None for any number.
    """

    name: str
    digest: str
    scope: Scope
    where: str | None
    created_at: str
    per_minute: int | None = None

    def may(self, scope: Scope) -> bool:
        """Whether the key includes a scope."""
        return SCOPES.index(self.scope) >= SCOPES.index(scope)


class KeyFile:
    """The keys in a JSON file that only its owner may read.

    Args:
        path: The file; a missing file has no keys.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def read(self) -> list[Key]:
        """All keys.

        Raises:
            DataError: The file is not one of keys.
        """
        if not self.path.exists():
            return []
        data = read_bounded(self.path, _MOST_BYTES, DataError)
        try:
            return [_key(entry) for entry in parse_strict(data)["keys"]]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(
                f"{self.path} is not a file of keys: {error}. Make keys with: finegrain keys make"
            ) from error

    def make(
        self,
        name: str,
        scope: Scope,
        where: str | None = None,
        *,
        per_minute: int | None = None,
    ) -> str:
        """Add a key; return it. It cannot be shown again.

        Raises:
            DataError: The name is taken or empty, the limit is below 1, or the file cannot be
                written.
        """
        if not name.strip():
            raise DataError("A key needs a name, such as the name of who uses it.")
        if per_minute is not None and per_minute < 1:
            raise DataError(f"expected at least 1 request in a minute, got {per_minute}.")
        secret = _PREFIX + secrets.token_urlsafe(32)
        with self._changing():
            keys = self.read()
            if any(key.name == name for key in keys):
                raise DataError(
                    f"There is a key named {name!r} already. Revoke it, or choose another."
                )
            made = Key(
                name=name,
                digest=digest_of(secret),
                scope=scope,
                where=where,
                created_at=times.utc_text(times.now()),
                per_minute=per_minute,
            )
            self._write([*keys, made])
        return secret

    def revoke(self, name: str) -> None:
        """Remove a key by its name.

        Raises:
            DataError: There is no such key, or the file cannot be written.
        """
        with self._changing():
            keys = self.read()
            remaining = [key for key in keys if key.name != name]
            if len(remaining) == len(keys):
                known = ", ".join(key.name for key in keys) or "none"
                raise DataError(f"There is no key named {name!r}; there are: {known}.")
            self._write(remaining)

    def _changing(self) -> FileLock:
        return FileLock(f"{self.path}.lock")

    def _write(self, keys: Iterable[Key]) -> None:
        text = json.dumps({"keys": [asdict(key) for key in keys]}, indent=2)
        try:
            with unfinished_file(self.path) as unfinished:
                unfinished.write_text(text, encoding="utf-8")
                publish_over(unfinished, self.path)
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error}") from error


class Keys(Protocol):
    """The keys of a running service."""

    def current(self) -> list[Key]:
        """The keys that are valid now."""

    def holder(self, secret: str) -> Key | None:
        """The key that a client sent; None if it is not valid."""


class KeyRing:
    """The keys of a running service; a changed file is read again at the next request."""

    def __init__(self, file: KeyFile) -> None:
        self._file = file
        self._read: tuple[int, int] | None = None
        self._keys: list[Key] = []
        self.current()

    def current(self) -> list[Key]:
        """The keys that the file holds now."""
        try:
            status = self._file.path.stat()
        except FileNotFoundError:
            return []
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp != self._read:
            self._keys, self._read = self._file.read(), stamp
        return self._keys

    def holder(self, secret: str) -> Key | None:
        """The key that a client sent; compared in constant time."""
        return _holder(self.current(), secret)


class SessionKeys:
    """One key that only this process knows, and codes that may be exchanged for it once.

    A code may be part of a link, which others on the machine may see in the list of processes
    once it is used.

    Args:
        scope: Scope of the key.
    """

    def __init__(self, scope: Scope) -> None:
        self._secret = _PREFIX + secrets.token_urlsafe(32)
        self._codes: set[str] = set()
        self._key = Key(
            name="session",
            digest=digest_of(self._secret),
            scope=scope,
            where=None,
            created_at=times.utc_text(times.now()),
        )

    def code(self) -> str:
        """A new code."""
        code = secrets.token_urlsafe(32)
        self._codes.add(digest_of(code))
        return code

    def exchange(self, code: str) -> str | None:
        """The key for a code; None if the code is unknown or was used already."""
        digest = digest_of(code)
        if digest not in self._codes:
            return None
        self._codes.remove(digest)
        return self._secret

    def current(self) -> list[Key]:
        """The key."""
        return [self._key]

    def holder(self, secret: str) -> Key | None:
        """The key that a client sent; compared in constant time."""
        return _holder(self.current(), secret)


def _holder(keys: Iterable[Key], secret: str) -> Key | None:
    digest = digest_of(secret)
    match = None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            match = key
    return match


def digest_of(secret: str) -> str:
    """SHA-256 of a key, in hexadecimal."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _key(entry: dict[str, object]) -> Key:
    name, digest, scope = entry["name"], entry["digest"], entry["scope"]
    where, created_at = entry["where"], entry["created_at"]
    if not (isinstance(name, str) and isinstance(digest, str) and isinstance(created_at, str)):
        raise ValueError("a name, digest or time is not text")
    if not (where is None or isinstance(where, str)):
        raise ValueError("a filter is not text")
    per_minute = entry.get("per_minute")
    if not (per_minute is None or (type(per_minute) is int and per_minute >= 1)):
        raise ValueError("a limit is not a whole number above 0")
    for known in SCOPES:
        if scope == known:
            return Key(
                name=name,
                digest=digest,
                scope=known,
                where=where,
                created_at=created_at,
                per_minute=per_minute,
            )
    raise ValueError(f"the scope is one of {', '.join(SCOPES)}, got {scope!r:.40}")
