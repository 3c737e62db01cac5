from __future__ import annotations

import json
import stat

import pytest

from finegrain.errors import DataError
from finegrain.serve.keys import KeyFile, KeyRing

QUERY = {"query": "woman in red coat", "k": 12}


def test_without_a_key_or_with_a_wrong_one_nothing_is_answered(serve, filled, ring):
    ring("a", "read")
    client = serve(filled, keys=ring.keys)
    for headers in ({}, {"Authorization": "Bearer fg_wrong"}, {"Authorization": "Basic x"}):
        response = client.post("/v1/search", json=QUERY, headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
    assert client.get("/healthz").status_code == 200


def test_a_scope_includes_those_below_it(serve, own_copy, ring):
    read, write, admin = (ring(scope, scope) for scope in ("read", "write", "admin"))
    client = serve(own_copy, keys=ring.keys)
    delete = {"ids": [1]}
    assert client.post("/v1/search", json=QUERY, headers=read).status_code == 200
    assert client.post("/v1/pictures/delete", json=delete, headers=read).status_code == 403
    assert client.post("/v1/pictures/delete", json=delete, headers=write).status_code == 200
    assert client.post("/v1/expire", headers=write).status_code == 403
    assert client.post("/v1/expire", headers=admin).status_code == 200


def test_a_key_sees_only_its_part_of_the_gallery(serve, own_copy, ring):
    gate = ring("gate", "write", "camera = 'gate-0'")
    client = serve(own_copy, keys=ring.keys)

    def cameras(**body):
        response = client.post("/v1/search", json=QUERY | body, headers=gate)
        assert response.status_code == 200, response.text
        return {match["camera"] for match in response.json()["answers"][0]["matches"]}

    assert cameras() == {"gate-0"}
    assert cameras(where="price < 100 or camera = 'gate-1'") == {"gate-0"}
    assert client.get("/v1/stats", headers=gate).json()["pictures"] == 6
    assert client.get("/v1/pictures/1", headers=gate).status_code == 200
    for path in ("/v1/pictures/2", "/v1/pictures/2/image"):  # of the other camera
        assert client.get(path, headers=gate).status_code == 404
    similar = client.post("/v1/search/similar", json={"id": 2}, headers=gate)
    assert similar.status_code == 404
    deleted = client.post("/v1/pictures/delete", json={"ids": [1, 2]}, headers=gate)
    assert deleted.json() == {"count": 1}
    changed = client.patch(
        "/v1/pictures", json={"where": "price >= 0", "set": {"seen": 1}}, headers=gate
    )
    assert changed.json() == {"count": 5}
    added = client.post("/v1/pictures", files={"pictures": b"x"}, headers=gate)
    assert added.status_code == 403


def test_a_filter_cannot_leave_its_parentheses(serve, filled, ring):
    gate = ring("gate", "read", "camera = 'gate-0'")
    client = serve(filled, keys=ring.keys)
    for where in ("price < 0) or (price >= 0", "price < 0) or (camera = 'gate-1'", "'", "("):
        response = client.post("/v1/search", json=QUERY | {"where": where}, headers=gate)
        assert response.status_code == 422, where


def test_a_revoked_key_stops_working_at_once(serve, filled, ring):
    first, _ = ring("first", "read"), ring("second", "read")
    client = serve(filled, keys=ring.keys)
    assert client.get("/v1/stats", headers=first).status_code == 200
    ring.file.revoke("first")
    assert client.get("/v1/stats", headers=first).status_code == 401


def test_the_file_has_no_secret_and_is_private(tmp_path):
    file = KeyFile(tmp_path / "keys.json")
    secret = file.make("desk", "read")
    assert secret not in file.path.read_text()
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert KeyRing(file).holder(secret).name == "desk"
    assert KeyRing(file).holder(secret + "x") is None


def test_a_name_is_used_once_and_must_exist_to_be_revoked(tmp_path):
    file = KeyFile(tmp_path / "keys.json")
    file.make("desk", "read")
    with pytest.raises(DataError, match="'desk' already"):
        file.make("desk", "read")
    with pytest.raises(DataError, match=r"no key named 'door'; there are: desk"):
        file.revoke("door")
    with pytest.raises(DataError, match="needs a name"):
        file.make(" ", "read")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"keys": 3}', '{"keys": [{}]}', "[" * 9999,
     json.dumps({"keys": [{"name": "a", "digest": "b", "scope": "all", "where": None,
                           "created_at": "c"}]})],
)  # fmt: skip
def test_a_file_that_is_not_one_of_keys_is_refused(tmp_path, text):
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(DataError, match="is not a file of keys"):
        KeyRing(KeyFile(tmp_path / "keys.json"))
