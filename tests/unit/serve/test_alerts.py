"""Alerts of a service: who may make them, what fires, and who is told."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import threading
import time
from contextlib import contextmanager

import httpx
import pytest
from PIL import Image

from finegrain.cli.parser import main
from finegrain.gallery import Gallery
from finegrain.search.searcher import Searcher
from finegrain.serve.alerts import runner as runner_module
from finegrain.serve.alerts import webhook as webhook_module
from finegrain.serve.alerts.addresses import network
from finegrain.serve.alerts.book import AlertBook, Standing
from finegrain.serve.app import Settings, create_app
from finegrain.serve.audit import AuditLog
from finegrain.serve.routes import alerts as routes
from finegrain.serve.server import Server

LOOPBACK = (network("127.0.0.0/8"),)
ANY = {"name": "any", "query": "person", "min_score": -1.0}
"""An alert that every picture raises."""


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Looks and attempts follow each other without long waits."""
    for module, name in ((runner_module, "EVERY_SECONDS"), (routes, "LOOK_SECONDS")):
        monkeypatch.setattr(module, name, 0.02)
    monkeypatch.setattr(runner_module, "wait_after", lambda failures: 0.01)


@pytest.fixture
def alerts(serve, own_copy, tmp_path):
    """``alerts(**settings)`` gives a client of a service with alerts over a gallery of its own."""

    def start(**settings):
        options = {"alerts": tmp_path / "alerts.db", "webhook_networks": LOOPBACK, **settings}
        return serve(own_copy, **options)

    return start


def png(number=0):
    file = io.BytesIO()
    Image.new("RGB", (40, 80), (number * 37 % 256, 30, 30)).save(file, "PNG")
    return file.getvalue()


def add(client, number=0, headers=None, **metadata):
    sent = client.post(
        "/v1/pictures",
        files={"pictures": png(number)},
        data={"metadata": json.dumps(metadata)},
        headers=headers,
    )
    assert sent.status_code == 200, sent.text
    return sent.json()["ids"][0]


def made(client, headers=None, **body):
    answer = client.post("/v1/alerts", json={**ANY, **body}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def listed(client, name="any", headers=None):
    every = client.get("/v1/alerts", headers=headers).json()
    return next((one for one in every if one["name"] == name), None)


def wait_for(condition):
    end = time.monotonic() + 60
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen within a minute"
        time.sleep(0.01)
    return value


# --- webhooks ------------------------------------------------------------------------------


def test_a_webhook_is_told_of_pictures_of_any_origin(alerts, receiver, own_copy, tiny_plan):
    client = alerts()
    secret = made(client, webhook=receiver.address, where="camera = 'door'")["secret"]
    first = add(client, 1, camera="door", price=3)
    add(client, 2, camera="gate")
    with Searcher(tiny_plan, gallery=own_copy, threads=1) as other:  # as another process
        (second,) = other.add(png(3), {"camera": "door"}, progress=False).ids
    wait_for(lambda: len(receiver.requests) == 2)
    bodies = [json.loads(request.body)["data"] for request in receiver.requests]
    assert [body["picture"]["id"] for body in bodies] == [first, second]
    assert bodies[0]["picture"]["metadata"] == {"price": 3}
    assert (bodies[0]["alert"], bodies[0]["query"], bodies[0]["min_score"]) == ("any", "person", -1)
    request = receiver.requests[0]
    signed = b".".join(
        [
            *(request.headers[f"webhook-{name}"].encode() for name in ("id", "timestamp")),
            request.body,
        ]
    )
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{digest}"
    assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 3600


def test_an_alarm_is_sent_again_until_it_is_accepted(alerts, receiver):
    client = alerts()
    made(client, webhook=receiver.address)
    receiver.statuses = [500, 302, 503]
    add(client)
    wait_for(lambda: len(receiver.requests) == 4)
    assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1
    wait_for(lambda: listed(client)["waiting"] == 0)


def test_a_webhook_that_hangs_or_fails_delays_no_other(alerts, receiver, monkeypatch, free_port):
    monkeypatch.setattr(webhook_module, "SECONDS", 3600.0)
    client = alerts()
    hanging = receiver.address + "hanging"
    receiver.statuses = ["hang"]
    made(client, name="a", webhook=hanging)
    made(client, name="b", webhook=f"http://127.0.0.1:{free_port}/")
    add(client, 1)
    wait_for(lambda: receiver.requests)
    made(client, name="c", webhook=receiver.address)
    picture = add(client, 2)
    wait_for(lambda: len(receiver.requests) == 2)
    assert json.loads(receiver.requests[1].body)["data"]["alert"] == "c"
    assert json.loads(receiver.requests[1].body)["data"]["picture"]["id"] == picture
    assert (listed(client, "a")["waiting"], listed(client, "b")["waiting"]) == (2, 2)
    wait_for(lambda: "did not accept" in (listed(client, "b")["fault"] or ""))


def test_alarms_wait_in_the_file_while_no_service_runs(alerts, receiver, own_copy, tiny_plan):
    first = alerts()
    made(first, webhook=receiver.address)
    receiver.statuses = [500] * 1000
    before = add(first, 1)
    wait_for(lambda: listed(first)["waiting"] == 1)
    first.__exit__(None, None, None)
    with Searcher(tiny_plan, gallery=own_copy, threads=1) as searcher:
        (meanwhile,) = searcher.add(png(2), progress=False).ids
    receiver.requests.clear()
    receiver.statuses.clear()
    alerts()
    wait_for(lambda: len(receiver.requests) == 2)
    pictures = [json.loads(request.body)["data"]["picture"]["id"] for request in receiver.requests]
    assert pictures == [before, meanwhile]


def test_a_deleted_picture_is_in_no_later_message(alerts, receiver, own_copy):
    client = alerts()
    receiver.statuses = [500] * 1000
    made(client, webhook=receiver.address)
    gone = add(client, 1)
    wait_for(lambda: listed(client)["waiting"] == 1)
    client.__exit__(None, None, None)
    with Gallery(own_copy, create=False) as gallery:
        gallery.delete([gone])
    receiver.requests.clear()
    receiver.statuses.clear()
    kept = add(alerts(), 2)
    wait_for(lambda: receiver.requests)
    assert json.loads(receiver.requests[0].body)["data"]["picture"]["id"] == kept


@pytest.mark.parametrize("address", ["http://10.0.0.1/", "https://localhost/", "no address"])
def test_a_webhook_into_the_network_is_refused(alerts, address):
    client = alerts(webhook_networks=())
    answer = client.post("/v1/alerts", json={**ANY, "webhook": address})
    assert answer.status_code == 422, answer.text
    assert "webhook" in answer.json()["detail"]
    assert client.get("/v1/alerts").json() == []


# --- who may do what -----------------------------------------------------------------------


def test_a_key_alerts_in_its_part_of_the_gallery_until_it_is_revoked(alerts, ring):
    admin, gate, other = (
        ring("admin", "admin"), ring("gate", "read", "camera = 'gate'"),
        ring("other", "read", "camera = 'other'"),
    )  # fmt: skip
    client = alerts(keys=ring.keys)
    assert made(client, gate)["where"] == "(camera = 'gate')"
    assert listed(client, headers=other) is None
    refused = client.delete("/v1/alerts", params={"name": "any"}, headers=other)
    assert refused.status_code == 404
    add(client, 1, admin, camera="other")
    add(client, 2, admin, camera="gate")
    wait_for(lambda: listed(client, headers=admin)["alarms"] == 1)
    ring.file.revoke("gate")
    made(client, admin, name="mine")
    add(client, 3, admin, camera="gate")
    wait_for(lambda: listed(client, "mine", admin)["alarms"] == 1)
    assert listed(client, headers=admin)["alarms"] == 1
    removed = client.delete("/v1/alerts", params={"name": "any"}, headers=admin)
    assert removed.json() == {"count": 1}
    assert listed(client, headers=admin) is None


def test_a_webhook_needs_a_key_that_may_write(alerts, ring, receiver):
    reader, writer = ring("reader", "read"), ring("writer", "write")
    client = alerts(keys=ring.keys)
    body = {**ANY, "webhook": receiver.address}
    assert client.post("/v1/alerts", json=body, headers=reader).status_code == 403
    assert client.post("/v1/alerts", json=body, headers=writer).status_code == 200
    assert listed(client, headers=reader)["webhook"] == receiver.address


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"where": "colour = 'red'"}, 422, "colour"),
        ({"query": " "}, 422, "is empty"),
        ({"false_alarms_per_day": 0}, 422, "greater than 0"),
        ({"min_score": None}, 409, "at least 200 pictures"),
        ({"name": "a\nb"}, 422, "printable"),
    ],
)
def test_an_alert_that_cannot_run_is_refused(alerts, body, status, message):
    answer = alerts().post("/v1/alerts", json={**ANY, **body})
    assert (answer.status_code, message in answer.json()["detail"]) == (status, True), answer.text


def test_a_key_has_a_number_of_alerts(alerts, monkeypatch):
    monkeypatch.setattr(routes, "MOST_OF_A_KEY", 1)
    client = alerts()
    made(client)
    assert client.post("/v1/alerts", json={**ANY, "name": "b"}).status_code == 422


def test_a_service_without_a_file_has_no_alerts(client):
    answer = client.get("/v1/alerts")
    assert (answer.status_code, "--alerts FILE" in answer.json()["detail"]) == (404, True)
    assert client.get("/v1/stats").json()["alerts"] is False


def test_one_service_at_a_time_runs_a_file(alerts, serve, own_copy, tmp_path):
    first, second = alerts(), alerts()
    made(first)
    add(second, 1)
    wait_for(lambda: listed(second)["alarms"] == 1)
    first.__exit__(None, None, None)
    add(second, 2)
    wait_for(lambda: listed(second)["alarms"] == 2)


def test_alarms_are_in_the_audit_log(alerts, tmp_path):
    client = alerts(audit=AuditLog(tmp_path / "audit.jsonl"))
    made(client, reason="case 4711")
    picture = add(client)
    wait_for(lambda: listed(client)["alarms"] == 1)
    client.delete("/v1/alerts", params={"name": "any"})
    records = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    by_action = {record["action"]: record for record in records}
    assert by_action["make alert"]["reason"] == "case 4711"
    assert by_action["alarm"]["shown"] == [[picture]]
    assert by_action["remove alert"]["alert"] == "any"


def test_a_query_that_fails_later_says_why_and_stops_no_other(alerts, tmp_path):
    with AlertBook(tmp_path / "alerts.db") as book:
        book.add(Standing.checked("broken", "coat", where="colour = 'red'", min_score=0.0))
    client = alerts()
    made(client)
    add(client)
    wait_for(lambda: listed(client)["alarms"] == 1)
    assert "colour" in listed(client, "broken")["fault"]


# --- events --------------------------------------------------------------------------------


@contextmanager
def running(app):
    """A server that ends its streams when it stops, and its address."""
    server = Server(app, port=0, log_level="error")
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", server
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive(), "a stream kept the server from stopping"


@pytest.fixture
def streaming(tiny_plan, own_copy, tmp_path, ring):
    """Address, server and headers of a service on a port, whose streams have no end."""
    headers = ring("desk", "admin")
    app = create_app(
        Searcher(tiny_plan, gallery=own_copy, threads=1),
        Settings(keys=ring.keys, alerts=tmp_path / "alerts.db"),
    )
    with running(app) as (address, server):
        yield address, server, headers


@contextmanager
def stream(address, headers, **parameters):
    with httpx.stream(
        "GET", f"{address}/v1/alerts/events", params=parameters, headers=headers, timeout=60
    ) as response:
        assert response.status_code == 200
        yield response.iter_lines()


def events(lines, count):
    """The next events of a stream: numbers and pictures."""
    seen, number = [], None
    while len(seen) < count:
        line = next(lines)
        if line.startswith("id: "):
            number = int(line[4:])
        if line.startswith("data: "):
            seen.append((number, json.loads(line[6:])["data"]["picture"]["id"]))
    return seen


def test_events_come_as_they_happen_and_continue_after_the_last(streaming):
    address, _, headers = streaming
    with httpx.Client(base_url=address, timeout=60) as client:
        made(client, headers)
        with stream(address, headers) as lines:
            assert next(lines) == "retry: 3000"
            first = add(client, 1, headers)
            assert events(lines, 1) == [(1, first)]
        second, third = add(client, 2, headers), add(client, 3, headers)
        with stream(address, headers | {"Last-Event-ID": "1"}) as lines:
            assert events(lines, 2) == [(2, second), (3, third)]
        with stream(address, headers, after=0, name="any") as lines:
            assert [picture for _, picture in events(lines, 3)] == [first, second, third]
        assert httpx.get(
            f"{address}/v1/alerts/events", params={"name": "b"}, headers=headers
        ).status_code == 404  # fmt: skip


def test_a_silent_stream_has_heartbeats_and_ends_with_the_service(streaming, monkeypatch):
    monkeypatch.setattr(routes, "HEARTBEAT_SECONDS", 0.05)
    address, server, headers = streaming
    with stream(address, headers) as lines:
        assert [next(lines) for _ in range(4)] == ["retry: 3000", "", ": ", ""]
        server.should_exit = True
        for _ in lines:
            pass  # ends


def test_a_stream_ends_when_its_key_is_revoked(streaming, ring):
    address, _, _ = streaming
    with stream(address, ring("guest", "read")) as lines:
        next(lines)
        ring.file.revoke("guest")
        assert [line for line in lines if line] == []


def test_streams_are_bounded(streaming, monkeypatch):
    monkeypatch.setattr(routes, "MOST_STREAMS_OF_A_KEY", 1)
    address, _, headers = streaming
    with stream(address, headers) as lines:
        next(lines)
        refused = httpx.get(f"{address}/v1/alerts/events", headers=headers)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "60")

    def is_free():
        with httpx.stream("GET", f"{address}/v1/alerts/events", headers=headers) as again:
            return again.status_code == 200

    wait_for(is_free)


# --- the command line ----------------------------------------------------------------------


def test_alerts_are_made_listed_and_removed_on_the_command_line(alerts, tmp_path, capsys):
    file = str(tmp_path / "alerts.db")
    client = alerts()
    given = ["--min-score", "-1", "--where", "camera = 'door'"]
    assert main(["alerts", "make", file, "any", "person", *given]) == 0
    webhook = ["--webhook", "https://example.com/secret"]
    assert main(["alerts", "make", file, "coat", "red coat", *webhook]) == 0
    assert "whsec_" in capsys.readouterr().out
    wait_for(lambda: listed(client)["min_score"] == -1)
    add(client, camera="door")
    wait_for(lambda: listed(client)["alarms"] == 1)
    assert main(["alerts", "list", file]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "any  'person'  score >= -1  where camera = 'door'  1 alarms",
        "coat  'red coat'  1 false alarms a day  0 alarms  https://example.com/ (0 waiting)",
    ]
    assert main(["alerts", "remove", file, "any"]) == 0
    assert listed(client) is None
    assert main(["alerts", "remove", file, "any"]) == 1
    assert main(["alerts", "list", f"{file}.missing"]) == 1
    assert main(["alerts", "make", file, "b", "coat", "--webhook", "ftp://x"]) == 1
