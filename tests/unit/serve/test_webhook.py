"""Webhooks: where they may lead, how they are signed, and what counts as accepted."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import pytest

from finegrain.errors import QueryError
from finegrain.serve.alerts import webhook
from finegrain.serve.alerts.addresses import Target, is_public, network, reachable
from finegrain.serve.alerts.webhook import NotDeliveredError, send, signature, wait_after

LOOPBACK = (network("127.0.0.0/8"),)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def post(address, allowed=LOOPBACK):
    asyncio.run(send(address, SECRET, "1", b"{}", allowed))


def test_the_signature_is_that_of_standard_webhooks():
    """The test vector of the specification's libraries."""
    given = signature(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert given == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "0.0.0.0", "224.0.0.1", "255.255.255.255", "240.0.0.1", "::", "::1", "fe80::1", "fc00::1",
        "fec0::1", "ff02::1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "2002:7f00:1::",
        "64:ff9b::7f00:1", "64:ff9b:1::a9fe:a9fe", "2001:0:7f00:1::1",
    ],
)  # fmt: skip
def test_addresses_inside_a_network_are_not_public(address):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822", "::ffff:93.184.216.34"]
)
def test_other_addresses_are_public(address):
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "ftp://example.com/", "https://", "example.com", "https://u:p@example.com/", "http:/x",
        "https://example.com/#a", "https://example.com:99999/", "https://exa mple.com/",
        "https://example.com/\r\nHost: other", "https://example.com/" + "a" * 3000,
        "https://[::1/", "https://example.com:0/", "file:///etc/passwd", "https://ex\u00e4mple.com/",
    ],
)  # fmt: skip
def test_other_texts_are_not_addresses(address):
    with pytest.raises(QueryError, match="the address of a webhook"):
        Target.of(address)


def test_an_address_is_split():
    target = Target.of("https://example.com:8443/a/b?c=d")
    assert (target.host, target.port, target.path) == ("example.com", 8443, "/a/b?c=d")
    assert (target.authority, target.shown) == ("example.com:8443", "https://example.com:8443/")
    assert Target.of("http://[2606::1]").authority == "[2606::1]"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("https://127.0.0.1/", "leads into a private network.*--webhook-network"),
        ("https://localhost/", "leads into a private network"),
        ("https://2130706433/", "leads into a private network"),  # 127.0.0.1 as a number
        ("https://[::ffff:127.0.0.1]/", "leads into a private network"),
        ("http://93.184.216.34/", "needs https"),
        ("https://nothing.invalid/", "is unknown"),
    ],
)
def test_webhooks_do_not_lead_into_the_network(address, message):
    with pytest.raises(QueryError, match=message):
        asyncio.run(reachable(Target.of(address)))


def test_an_operator_may_allow_a_network():
    ip = asyncio.run(reachable(Target.of("http://127.0.0.1/"), LOOPBACK))
    assert str(ip) == "127.0.0.1"
    with pytest.raises(QueryError, match=r"such as 10\.1\.0\.0/16"):
        network("10.1.0.1/16")


def test_the_address_that_was_checked_is_used(receiver, monkeypatch):
    """A name that points inside at the second look-up is not looked up twice."""
    asked = []

    async def look_up(self, host, port, **_):
        asked.append(host)
        return [(socket.AF_INET, 1, 6, "", ("127.0.0.1" if len(asked) == 1 else "10.0.0.1", port))]

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", look_up)
    port = receiver.address.rsplit(":", 1)[1].strip("/")
    post(f"http://rebinding.example:{port}/hook")
    assert receiver.requests[0].headers["Host"] == f"rebinding.example:{port}"
    assert asked.count("rebinding.example") == 1


@pytest.mark.parametrize("status", [301, 302, 307, 404, 410, 500])
def test_redirects_and_errors_are_not_accepted(receiver, status):
    receiver.statuses = [status]
    with pytest.raises(NotDeliveredError, match=f"status {status}"):
        post(receiver.address)
    assert len(receiver.requests) == 1


def test_a_webhook_that_hangs_or_drips_is_given_up(receiver, monkeypatch):
    monkeypatch.setattr(webhook, "SECONDS", 0.3)
    receiver.statuses = ["hang", "drip"]
    for _ in range(2):
        with pytest.raises(NotDeliveredError, match=r"no answer within 0\.3 s"):
            post(receiver.address)


def test_a_closed_port_is_an_error(free_port):
    with pytest.raises(NotDeliveredError):
        post(f"http://127.0.0.1:{free_port}/")


def test_the_waits_double_up_to_an_hour():
    assert 0.8 <= wait_after(1) <= 1.2
    assert 6.4 <= wait_after(4) <= 9.6
    assert 2880 <= wait_after(10_000) <= 4320
