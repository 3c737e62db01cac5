"""Where webhooks may lead: not into the network of the service, unless an operator allows it."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Self
from urllib.parse import urlsplit

from finegrain.errors import QueryError

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

MOST_CHARACTERS = 2048

_TRANSLATED = IPv6Network("64:ff9b::/96")  # addresses of IPv4, in networks without it
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The parts of a webhook's address; create one with :meth:`of`.

    Attributes:
        scheme: ``http`` or ``https``.
        host: Name or number of the host.
        port: Port.
        path: Path with its query string.
    """

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def of(cls, address: str) -> Self:
        """Read an address.

        Raises:
            QueryError: It is not an address of HTTP, or has a user, a password or a fragment.
        """
        # urlsplit removes line breaks, so these are looked for first
        is_plain = all("!" <= character <= "~" for character in address)
        try:
            parts = urlsplit(address)
            port = parts.port
        except ValueError:
            is_plain = False
        if not is_plain or len(address) > MOST_CHARACTERS:
            raise QueryError(
                f"expected the address of a webhook in up to {MOST_CHARACTERS} ASCII characters "
                "without spaces, such as https://example.com/alarms, got another text"
            )
        host = parts.hostname
        if parts.scheme not in _PORTS or not host or port == 0:
            raise QueryError(
                f"expected the address of a webhook as https://HOST/PATH, got {address!r:.80}"
            )
        if "@" in parts.netloc or parts.fragment:
            raise QueryError(
                "the address of a webhook has no user, password or fragment; its messages are "
                "signed instead"
            )
        path = parts.path or "/"
        return cls(
            scheme=parts.scheme,
            host=host,
            port=_PORTS[parts.scheme] if port is None else port,
            path=f"{path}?{parts.query}" if parts.query else path,
        )

    @property
    def authority(self) -> str:
        """The host as in the header ``Host``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def shown(self) -> str:
        """The address without its path, which may hold a secret."""
        return f"{self.scheme}://{self.authority}/"


async def reachable(target: Target, allowed: Sequence[IpNetwork] = ()) -> IpAddress:
    """Look up a host, and choose an address of it that webhooks may use.

    The caller connects to this very address: a second look-up may give another one.

    Args:
        target: The address of a webhook.
        allowed: Networks that the operator allows, also without TLS.

    Raises:
        QueryError: The host is unknown or inside the network, or TLS is missing.
    """
    try:
        rows = await asyncio.get_running_loop().getaddrinfo(target.host, target.port, type=1)
    except (OSError, UnicodeError) as error:
        raise QueryError(f"the host of the webhook {target.shown} is unknown: {error}") from error
    addresses = [ipaddress.ip_address(row[4][0]) for row in rows]
    inside = [ip for ip in addresses if any(ip in network for network in allowed)]
    if inside:
        return inside[0]
    outside = [ip for ip in addresses if is_public(ip)]
    if not outside:
        raise QueryError(
            f"the webhook {target.shown} leads into a private network. An operator may allow that: "
            "finegrain serve --webhook-network 10.1.0.0/16"
        )
    if target.scheme != "https":
        raise QueryError(
            f"the webhook {target.shown} needs https, since alarms hold personal data. Plain http "
            "is for networks of --webhook-network."
        )
    return outside[0]


def is_public(address: IpAddress) -> bool:
    """Whether an address is of the public internet, also if it wraps another address."""
    if isinstance(address, IPv6Address):
        if address in _TRANSLATED:
            return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        tunnelled = [address.sixtofour, *(address.teredo or ())]
        if address.is_site_local or any(not is_public(ip) for ip in tunnelled if ip is not None):
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


def network(text: str) -> IpNetwork:
    """A network such as ``10.1.0.0/16``.

    Raises:
        QueryError: It is none.
    """
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise QueryError(
            f"expected a network such as 10.1.0.0/16, got {text!r:.60}: {error}"
        ) from error
