"""Addresses of cameras, whose user names and passwords are never shown."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from finegrain.errors import CameraError, did_you_mean

Kind = Literal["stream", "device", "file", "folder"]

SCHEMES = ("rtsp", "rtsps", "http", "https")
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Address:
    """Where the pictures of a camera come from.

    Attributes:
        text: The address as it is opened. It may hold a password: show ``str(address)`` instead.
        kind: ``stream`` of a network camera, ``device`` such as ``/dev/video0``, a video ``file``,
            or a ``folder`` in which video files appear.

    Example:
        >>> address = Address.of("rtsp://admin:secret@10.0.0.5/live?token=abc")
        >>> str(address), address.name
        ('rtsp://10.0.0.5/live?...', '10.0.0.5-live')
    """

    text: str = field(repr=False)
    kind: Kind

    @classmethod
    def of(cls, text: str | Path) -> Self:
        """Parse an address or a path.

        Raises:
            CameraError: The scheme of the address is not one of :data:`SCHEMES`.
        """
        written = str(text)
        url = _URL.fullmatch(written)
        if url is not None:
            scheme = url["scheme"].lower()
            if scheme not in SCHEMES:
                raise CameraError(
                    f"expected an address of {', '.join(f'{s}://' for s in SCHEMES)} or a path, "
                    f"got {scheme}://{did_you_mean(scheme, SCHEMES)}"
                )
            if not _host_of(url["rest"]):
                raise CameraError(f"expected {scheme}://HOST/PATH, got an address without a host")
            return cls(written, "stream")
        path = Path(written)
        if written.startswith("/dev/video"):
            return cls(written, "device")
        return cls(written, "folder" if path.is_dir() else "file")

    @property
    def is_live(self) -> bool:
        """Whether frames that are not read in time are lost."""
        return self.kind in ("stream", "device")

    @property
    def name(self) -> str:
        """A name for the camera: host and path without a login, or the stem of a file."""
        url = _URL.fullmatch(self.text)
        if url is None:
            path = Path(self.text)
            return path.stem if self.kind == "file" else path.name or "camera"
        without_query = re.split(r"[?#]", _without_login(url["rest"]))[0]
        return _NOT_IN_NAMES.sub("-", without_query).strip("-")

    def hidden_in(self, message: str) -> str:
        """A message in which the address is replaced by what may be shown of it."""
        return message.replace(self.text, str(self))

    def __str__(self) -> str:
        url = _URL.fullmatch(self.text)
        if url is None:
            return self.text
        # Tokens and passwords are also written in queries.
        place, question, _ = _without_login(url["rest"]).partition("?")
        return f"{url['scheme'].lower()}://{place}{'?...' if question else ''}"


def _without_login(rest: str) -> str:
    # A password may hold "/", "?" and "@", so the last "@" ends the login.
    return rest.rpartition("@")[2]


def _host_of(rest: str) -> str:
    return re.split(r"[/?#]", _without_login(rest))[0]
