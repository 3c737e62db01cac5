"""Ten thousand malformed requests and pictures, none of which may be a failure of the service."""

from __future__ import annotations

import io
import json
import random

import pytest
from PIL import Image

pytestmark = pytest.mark.slow

ROUNDS, REQUESTS = 10, 1000

BODIES = {
    ("POST", "/v1/search"): {
        "query": "red coat", "k": 5, "offset": 0, "where": "camera = 'gate-1' and price < 8",
        "group_by": "camera", "distinct": 0.9, "min_probability": 0.5, "avoid": ["hat"],
        "negation": True, "like": [1], "unlike": [2], "reason": "test", "cursor": "",
    },
    ("POST", "/v1/search/similar"): {"id": 3, "k": 4, "text": "but blue", "weight": 0.5},
    ("POST", "/v1/search/export"): {"query": "red coat", "format": "zip", "k": 3},
    ("POST", "/v1/pictures/by-reference"): {"path": "/tmp/x", "metadata": {"a": 1}},
    ("PATCH", "/v1/pictures"): {"ids": [900], "where": None, "set": {"seen": True, "camera": "x"}},
    ("POST", "/v1/pictures/delete"): {"ids": [900, 901], "where": None},
    ("POST", "/v1/alerts"): {
        "name": "a", "query": "coat", "where": None, "per": "track", "false_alarms_per_day": 1.0,
        "min_score": 2.0, "pictures_per_day": 100.0, "webhook": None, "avoid": [],
    },
}  # fmt: skip
"""A valid body of each route that takes JSON."""

VALUES = (
    None, True, False, 0, 1, -1, 2**63 - 1, 2**63, 10**400, 0.5, -0.0, 1e308, "", " ", "a" * 3000,
    "\0", "\ud800", "\u202e", "\U0001f9e5", [], [[]], {}, {"a": {"b": []}}, ["x"] * 40, [None],
    "camera =", "camera = 'x", "(((", "price < 'a'", "id in ()", "time > 'yesterday'",
    "nothing = 1", "not not not id = 1", "camera like '%_%'", "../../etc/passwd",
    "http://127.0.0.1/", "=cmd()", "<script>", "' or 1=1 --", "{0.__class__}", "%s%n",
)  # fmt: skip
TEXTS = (
    b"", b"{", b"[]", b"null", b"NaN", b'{"query": NaN}', b'{"query": "\\ud800"}', b"\xff\xfe",
    b'{"query": "a", "query": 3}', b"[" * 5000, b'{"a":' * 2000, b"1e999", b'"' + b"x" * 70000,
)  # fmt: skip
PATHS = (
    "/v1/pictures/{}", "/v1/pictures/{}/image", "/v1/pictures/{}/image?side={}", "/page/{}",
    "/v1/{}", "/{}", "/v1/alerts/events?name=missing&after={}", "/v1/stats?gallery={}",
    "/v1/columns?gallery={}", "/v1/alerts?name={}",
)  # fmt: skip
PARTS = (
    "0",
    "-1",
    "1",
    "99999999999999999999",
    "1e3",
    "%00",
    "..%2f..%2fkeys.json",
    "a b",
    "%ff",
    "nan",
    "",
    "%F0%9F%98%80",
    "1;2",
    "x" * 2000,
    "....//",
    "%2e%2e/",
    "\\",
    "null",
    "true",
)
HEADERS = (
    {}, {"Content-Type": "text/plain"}, {"Content-Type": "multipart/form-data"},
    {"Content-Type": "multipart/form-data; boundary=x"}, {"Content-Type": "application/json; q=\\"},
    {"Authorization": "Bearer"}, {"Authorization": "Basic " + "A" * 900}, {"Last-Event-ID": "x"},
    {"Idempotency-Key": "k" * 300}, {"Range": "bytes=9-1"}, {"Accept": "*/" * 200},
    {"Transfer-Encoding": "gzip"}, {"Content-Length": "5"}, {"Expect": "a"},
    {"Cookie": "=;=;" * 50},
)  # fmt: skip


def files():
    """Small valid pictures of each accepted format."""
    picture = Image.effect_noise((24, 48), 60).convert("RGB")
    made = []
    for name in ("JPEG", "PNG", "WEBP"):
        file = io.BytesIO()
        picture.save(file, name)
        made.append(file.getvalue())
    return made


def damaged(data, chance):
    """A picture with changed, removed or repeated bytes, mostly in its header."""
    data = bytearray(data)
    for _ in range(chance.randrange(1, 6)):
        place = int(len(data) * chance.random() ** 3)
        match chance.randrange(4):
            case 0:
                data[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                del data[place : place + chance.randrange(1, 9)]
            case 2:
                data[place:place] = chance.randbytes(chance.randrange(1, 9))
            case 3:
                data = data[: max(place, 1)]
        data = data or bytearray(b"x")
    return bytes(data)


def changed(body, chance):
    body = dict(body)
    for _ in range(chance.randrange(1, 4)):
        name = chance.choice([*body, "extra"])
        body[name] = chance.choice(VALUES)
        if chance.random() < 0.2:
            del body[name]
    return body


def send(client, chance, pictures):
    headers = chance.choice(HEADERS) if chance.random() < 0.3 else {}
    kind = chance.random()
    if kind < 0.5:
        (method, path), body = chance.choice(list(BODIES.items()))
        if chance.random() < 0.2:
            content = chance.choice(TEXTS)
        else:
            content = json.dumps(changed(body, chance)).encode("utf-8", "surrogatepass")
            if chance.random() < 0.1:
                content = damaged(content, chance)
        headers = {"Content-Type": "application/json", **headers}
        return client.request(method, path, content=content, headers=headers)
    if kind < 0.7:
        path = chance.choice(PATHS).replace("{}", chance.choice(PARTS))
        method = chance.choice(("GET", "GET", "GET", "DELETE", "PUT", "HEAD", "OPTIONS", "TRACE"))
        return client.request(method, path, headers=headers)
    picture = damaged(chance.choice(pictures), chance)
    if kind < 0.9:
        options = json.dumps(changed({"k": 3, "text": "but blue"}, chance))
        return client.post(
            "/v1/search/picture",
            files={"picture": ("a.jpg", picture)},
            data={"options": options} if chance.random() < 0.5 else {},
        )
    metadata = json.dumps(chance.choice(VALUES) if chance.random() < 0.5 else {"a": 1})
    return client.post(
        "/v1/pictures",
        files=[("pictures", (chance.choice(PARTS) or "a", picture))],
        data={"metadata": metadata, "expire_after": chance.choice(("1e400", "nan", "-1", "60"))},
    )


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_no_malformed_request_is_a_failure_of_the_service(seed, serve, own_copy, tmp_path):
    client = serve(own_copy, alerts=tmp_path / "alerts.db", roots=(tmp_path,))
    chance, pictures = random.Random(seed), files()
    statuses = {}
    for _ in range(REQUESTS):
        answer = send(client, chance, pictures)
        request = answer.request
        assert answer.status_code < 500, (request.method, request.url, request.headers, answer.text)
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
    assert {200, 404, 422} <= statuses.keys(), statuses
    assert client.get("/readyz").status_code == 200
