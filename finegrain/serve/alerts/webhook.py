"""Sends alarms to an address, signed by Standard Webhooks (https://www.standardwebhooks.com)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import random
import ssl
from collections.abc import Mapping, Sequence
from functools import cache

from finegrain import times
from finegrain.errors import FinegrainError, require
from finegrain.serve.alerts.addresses import IpNetwork, Target, reachable
from finegrain.serve.alerts.book import SECRET_PREFIX

SECONDS = 10.0
"""Seconds after which an attempt is given up, however slowly an answer comes."""

_FIRST_WAIT = 1.0
_MOST_WAIT = 3600.0


class NotDeliveredError(FinegrainError):
    """A webhook did not accept a message."""


def signature(secret: str, message: str, timestamp: int, body: bytes) -> str:
    """The header ``webhook-signature``: HMAC-SHA256 of id, time and body.

    Example:
        >>> signature("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek",
        ...           1614265330, b'{"test": 2432232314}')
        'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='
    """
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = f"{message}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


async def send(
    address: str, secret: str, message: str, body: bytes, allowed: Sequence[IpNetwork]
) -> None:
    """Send a message once. It was accepted when this returns.

    Args:
        address: Where to.
        secret: Secret of the webhook.
        message: Id of the message; the same for each attempt, so that a receiver knows repetitions.
        body: The message as JSON.
        allowed: Networks inside that the operator allows.

    Raises:
        NotDeliveredError: The address is not allowed or not reachable, or the answer is not 2xx.
    """
    timestamp = int(times.now().timestamp())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "finegrain",
        "webhook-id": message,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(secret, message, timestamp, body),
    }
    httpx = require("httpx", "serve")
    try:
        async with asyncio.timeout(SECONDS):
            status = await _post(Target.of(address), headers, body, allowed)
    except TimeoutError:
        raise NotDeliveredError(f"no answer within {SECONDS:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, FinegrainError) as error:
        raise NotDeliveredError(str(error) or type(error).__name__) from error
    if not 200 <= status < 300:
        raise NotDeliveredError(f"the answer has status {status}")


async def _post(
    target: Target, headers: Mapping[str, str], body: bytes, allowed: Sequence[IpNetwork]
) -> int:
    """Send a request to the address that was checked; redirects are not followed."""
    httpx = require("httpx", "serve")
    ip = await reachable(target, allowed)
    host = f"[{ip}]" if ip.version == 6 else str(ip)
    client = httpx.AsyncClient(
        verify=_tls(), trust_env=False, follow_redirects=False, timeout=SECONDS
    )
    async with (
        client,
        client.stream(
            "POST",
            f"{target.scheme}://{host}:{target.port}{target.path}",
            content=body,
            headers={**headers, "Host": target.authority},
            extensions={"sni_hostname": target.host},
        ) as response,
    ):
        status: int = response.status_code
        return status  # the body of the answer is not read


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def wait_after(failures: int) -> float:
    """Seconds until the next attempt, after some failures: 1, 2, 4 and so on, up to an hour."""
    return min(_FIRST_WAIT * 2.0 ** min(failures - 1, 30), _MOST_WAIT) * random.uniform(0.8, 1.2)
