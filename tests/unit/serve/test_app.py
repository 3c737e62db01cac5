from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import logging
import os
import zipfile
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image

from finegrain.gallery import Gallery
from finegrain.plan import Plan
from finegrain.search.searcher import Searcher
from finegrain.serve.audit import AuditLog, verify
from finegrain.serve.cursors import Cursor
from finegrain.serve.logs import log_requests

QUERY = {"query": "woman in red coat", "k": 5}


def answer(response):
    assert response.status_code == 200, response.text
    return response.json()["answers"]


def png(color=(200, 30, 30), size=(40, 80)):
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "PNG")
    return file.getvalue()


def test_a_text_gives_the_matches_of_the_searcher(client, tiny_plan, filled):
    (given,) = answer(client.post("/v1/search", json=QUERY))
    with Searcher(tiny_plan, gallery=filled, threads=1) as searcher:
        expected = searcher.query("woman in red coat", 5)
    assert [match["id"] for match in given["matches"]] == [match.id for match in expected]
    np.testing.assert_allclose(
        [match["score"] for match in given["matches"]], [match.score for match in expected]
    )
    assert given["matches"][0]["metadata"].keys() == {"price"}
    assert "image" not in given["matches"][0]


def test_several_texts_are_answered_in_order(client):
    several = answer(client.post("/v1/search", json={"query": ["red coat", "blue dress"], "k": 3}))
    single = answer(client.post("/v1/search", json={"query": "blue dress", "k": 3}))
    assert [one["query"] for one in several] == ["red coat", "blue dress"]
    assert [m["id"] for m in several[1]["matches"]] == [m["id"] for m in single[0]["matches"]]


def test_filters_groups_and_pages(client):
    first = answer(client.post("/v1/search", json=QUERY | {"where": "camera = 'gate-0'"}))[0]
    assert {match["camera"] for match in first["matches"]} == {"gate-0"}
    grouped = answer(client.post("/v1/search", json=QUERY | {"group_by": "camera"}))[0]
    assert sorted(match["camera"] for match in grouped["matches"]) == ["gate-0", "gate-1"]
    every = answer(client.post("/v1/search", json=QUERY | {"k": 8}))[0]["matches"]
    page = answer(client.post("/v1/search", json=QUERY | {"k": 4, "offset": 4}))[0]["matches"]
    assert [match["id"] for match in page] == [match["id"] for match in every[4:]]


def test_pages_of_a_cursor_stay_while_pictures_are_added(serve, own_copy, crops):
    client = serve(own_copy)
    every = answer(client.post("/v1/search", json=QUERY | {"k": 12}))[0]["matches"]
    seen, cursor = [], ""
    while cursor is not None:
        (page,) = answer(client.post("/v1/search", json=QUERY | {"k": 5, "cursor": cursor}))
        seen += page["matches"]
        cursor = page["cursor"]
        client.post("/v1/pictures", files={"pictures": sorted(crops.iterdir())[0].read_bytes()})
    assert [match["id"] for match in seen] == [match["id"] for match in every]
    assert [match["rank"] for match in seen] == list(range(1, 13))
    assert len(answer(client.post("/v1/search", json=QUERY | {"k": 50}))[0]["matches"]) == 15


def test_pages_of_similar_pictures_do_not_overlap(client):
    seen = [
        match["id"]
        for cursor in ("", Cursor(4, 12).text, Cursor(8, 12).text)
        for match in answer(
            client.post("/v1/search/similar", json={"id": 4, "k": 4, "cursor": cursor})
        )[0]["matches"]
    ]
    assert sorted(seen) == [n for n in range(1, 13) if n != 4]


@pytest.mark.parametrize("cursor", ["x", "é", "MTox", "MTox" * 20, "OjM="])
def test_another_cursor_is_an_error(client, cursor):
    response = client.post("/v1/search", json=QUERY | {"cursor": cursor})
    is_valid = cursor == "MTox"  # 1:1
    assert response.status_code == (200 if is_valid else 422)
    both = client.post("/v1/search", json=QUERY | {"cursor": "", "offset": 3})
    assert "got both" in both.json()["detail"]


def test_a_picture_finds_itself(client, crops):
    picture = sorted(crops.iterdir())[3]
    form = {"options": json.dumps({"k": 2})}
    response = client.post("/v1/search/picture", files={"picture": picture.read_bytes()}, data=form)
    assert answer(response)[0]["matches"][0]["id"] == 4


def test_similar_pictures_leave_out_the_picture_itself(client):
    (given,) = answer(client.post("/v1/search/similar", json={"id": 4, "k": 11}))
    assert sorted(match["id"] for match in given["matches"]) == [n for n in range(1, 13) if n != 4]


def test_a_picture_is_shown_at_the_size_that_is_asked_for(client):
    response = client.get("/v1/pictures/1/image?side=64")
    assert response.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(response.content)).size == (32, 64)
    row = client.get("/v1/pictures/1").json()
    assert (row["id"], row["camera"], row["metadata"]) == (1, "gate-0", {"price": 0})


def test_pictures_are_added_changed_and_deleted(serve, own_copy):
    client = serve(own_copy)
    files = [("pictures", png()), ("pictures", b"not a picture"), ("pictures", png((0, 0, 250)))]
    response = client.post(
        "/v1/pictures", files=files, data={"metadata": json.dumps({"camera": "door"})}
    )
    added = response.json()
    assert response.status_code == 200
    assert added["num_new"] == 2
    assert added["left_out"] == ["picture 2: expected a JPEG, PNG or WebP file, got something else"]
    changed = client.patch("/v1/pictures", json={"ids": added["ids"], "set": {"reviewed": True}})
    assert changed.json() == {"count": 2}
    assert client.get(f"/v1/pictures/{added['ids'][0]}").json()["metadata"] == {"reviewed": True}
    deleted = client.post("/v1/pictures/delete", json={"where": "camera = 'door'"})
    assert deleted.json() == {"count": 2}
    assert client.get(f"/v1/pictures/{added['ids'][0]}").status_code == 404
    assert client.get("/v1/stats").json()["pictures"] == 12


def test_files_are_added_by_reference_below_a_root_only(serve, own_copy, tmp_path):
    inside, outside = tmp_path / "inbox", tmp_path / "private"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "a.png").write_bytes(png())
    (inside / "link.png").symlink_to(outside / "a.png")
    client = serve(own_copy, roots=(inside.resolve(),))
    response = client.post("/v1/pictures/by-reference", json={"path": str(inside / "a.png")})
    assert response.json()["num_new"] == 1
    refused = [outside / "a.png", inside / ".." / "private" / "a.png", inside / "link.png",
               inside / "missing.png", "/etc/passwd", "a\0b"]  # fmt: skip
    answers = {
        (r.status_code, r.json()["detail"])
        for path in refused
        if (r := client.post("/v1/pictures/by-reference", json={"path": str(path)}))
    }
    assert answers == {(404, "There is no such file below the open folders.")}


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"query": ""}, 422, "query"),
        ({"query": "x" * 3000}, 422, "query"),
        ({"query": "coat", "k": 0}, 422, "k: Input should be greater than or equal to 1"),
        ({"query": "coat", "distinct": False}, 422, "distinct: Input should be a valid number"),
        ({"query": "coat", "k": "3"}, 422, "k: Input should be a valid integer"),
        ({"query": "coat", "colour": "red"}, 422, "colour: Extra inputs are not permitted"),
        ({"query": "coat", "where": "colour = 'red'"}, 422, "colour"),
        ({"query": "coat", "where": "camera = "}, 422, "camera = "),
        ({"query": "coat", "group_by": "nothing"}, 422, "nothing"),
        ([], 422, "body"),
    ],
)
def test_an_invalid_search_is_a_problem_document(client, body, status, detail):
    response = client.post("/v1/search", json=body)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status
    assert detail in response.json()["detail"]


@pytest.mark.parametrize(
    ("options", "detail"),
    [
        ('{"k": 0}', "k: Input should be greater than or equal to 1"),
        ('{"colour": 1}', "colour: Extra inputs are not permitted"),
        ("[]", "expected a JSON object"),
        ("{", "expected a JSON object"),
        ("[" * 9000, "expected a JSON object"),
    ],
)
def test_invalid_options_of_a_picture_are_a_problem_document(client, options, detail):
    response = client.post(
        "/v1/search/picture", files={"picture": png()}, data={"options": options}
    )
    assert response.status_code == 422
    assert detail in response.json()["detail"]


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", b"GIF89a", png()[:60], b"RIFF0000WEBP"])
def test_a_file_that_is_not_a_picture_is_a_problem(client, data):
    response = client.post("/v1/search/picture", files={"picture": data})
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"


def test_a_body_above_the_limit_is_refused_by_what_arrives(serve, filled):
    client = serve(filled, most_body_bytes=1000)

    def endless():
        for _ in range(100):
            yield b" " * 100

    response = client.post("/v1/search", content=endless())
    assert response.status_code == 413
    assert "at most 1000 bytes" in response.json()["detail"]


def test_every_answer_has_the_security_headers(client):
    for response in (client.get("/"), client.get("/healthz"), client.post("/v1/search", json={})):
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"


def test_requests_of_other_sites_are_refused(client):
    other = {"Origin": "https://attacker.example"}
    assert client.post("/v1/pictures/delete", json={"ids": [1]}, headers=other).status_code == 403
    assert client.get("/v1/stats", headers={"Host": "attacker.example"}).status_code == 403
    same = {"Origin": "http://localhost"}
    assert client.post("/v1/search", json=QUERY, headers=same).status_code == 200


def test_a_read_only_service_changes_nothing(serve, filled):
    client = serve(filled, read_only=True)
    assert client.post("/v1/pictures/delete", json={"ids": [1]}).status_code == 403
    assert client.post("/v1/search", json=QUERY).status_code == 200


def test_the_page_asks_no_other_server(client):
    page = client.get("/").text
    assert "<title>finegrain</title>" in page
    for name in ("page.js", "conditions.js", "style.css"):
        text = client.get(f"/page/{name}").text
        assert len(text) > 500
        assert "http://" not in text
        assert "https://" not in text


def test_figures_are_counted_by_the_pattern_of_a_route(client):
    client.get("/v1/pictures/3")
    client.get("/v1/pictures/4")
    client.post("/v1/search", json=QUERY)
    text = client.get("/metrics").text
    assert 'finegrain_requests_total{route="/v1/pictures/{id_}",status="200"} 2.0' in text
    assert 'finegrain_gallery_pictures{gallery="default"} 12.0' in text
    assert "woman" not in text


def test_it_is_ready_after_the_first_answer(client):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_the_document_of_the_interface_names_the_routes(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/search", "/v1/search/picture", "/v1/pictures", "/v1/stats"} <= set(paths)


def test_an_answer_is_exported_as_a_table(serve, own_copy):
    client = serve(own_copy)
    client.patch("/v1/pictures", json={"ids": [1], "set": {"note": "=HYPERLINK(1)"}})
    response = client.post("/v1/search/export", json={"query": "red coat", "k": 12})
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert [int(row["rank"]) for row in rows] == list(range(1, 13))
    assert {row["camera"] for row in rows} == {"gate-0", "gate-1"}
    assert {row["note"] for row in rows} == {"", "'=HYPERLINK(1)"}


def test_an_answer_is_exported_with_its_pictures(client):
    body = {"query": "red coat", "k": 3, "format": "zip"}
    archive = zipfile.ZipFile(io.BytesIO(client.post("/v1/search/export", json=body).content))
    (given,) = answer(client.post("/v1/search", json={"query": "red coat", "k": 3}))
    names = [f"pictures/{m['rank']:04d}_{m['id']}.jpg" for m in given["matches"]]
    assert archive.namelist() == ["matches.csv", *names]
    assert Image.open(io.BytesIO(archive.read(names[0]))).format == "JPEG"
    refused = client.post("/v1/search/export", json=body | {"k": 500})
    assert (refused.status_code, "up to 200" in refused.json()["detail"]) == (422, True)


def test_a_picture_that_is_gone_is_named_in_the_export(serve, crops, tiny_plan, tmp_path):
    copy = tmp_path / "crop.jpg"
    copy.write_bytes(sorted(crops.iterdir())[0].read_bytes())
    with Searcher(tiny_plan, gallery=tmp_path / "g", threads=1) as searcher:
        searcher.add(copy, progress=False)
    copy.unlink()
    body = {"query": "red coat", "format": "zip"}
    content = serve(tmp_path / "g").post("/v1/search/export", json=body).content
    archive = zipfile.ZipFile(io.BytesIO(content))
    assert archive.read("not_available.txt") == b"1\n"


def test_a_change_that_is_sent_again_is_done_once(serve, own_copy):
    client = serve(own_copy)
    send = partial(client.post, "/v1/pictures", headers={"Idempotency-Key": "4711"})
    first = send(files=[("pictures", png((0, 200, 0)))])
    again = send(files=[("pictures", png((0, 200, 0)))])
    assert first.json() == again.json()
    assert client.get("/v1/stats").json()["pictures"] == 13
    other = client.post("/v1/pictures", files=[("pictures", png((0, 200, 0)))])
    assert other.json()["ids"] != first.json()["ids"]


def test_a_change_that_failed_can_be_sent_again(serve, own_copy):
    client = serve(own_copy)
    send = partial(client.post, "/v1/pictures", headers={"Idempotency-Key": "4712"})
    assert send(files=[("pictures", b"not a picture")]).status_code == 422
    assert send(files=[("pictures", png())]).json()["num_new"] == 1


def test_galleries_have_names(tiny_plan, filled, own_copy, serve):
    client = serve({"people": filled, "shop": own_copy})
    assert client.get("/v1/galleries").json() == ["people", "shop"]
    client.post("/v1/pictures/delete?gallery=shop", json={"where": "camera = 'gate-0'"})
    counts = [client.get(f"/v1/stats?gallery={n}").json()["pictures"] for n in ("people", "shop")]
    assert counts == [12, 6]
    for address in ("/v1/stats", "/v1/stats?gallery=cars"):
        refused = client.get(address)
        assert refused.status_code == 404
        assert "one of people, shop" in refused.json()["detail"]


def test_the_audit_log_says_who_searched_what_and_why_and_what_was_shown(
    serve, own_copy, ring, tmp_path
):
    gate = ring("gate", "write", "camera = 'gate-0'")
    client = serve(own_copy, keys=ring.keys, audit=AuditLog(tmp_path / "audit.jsonl"))
    body = QUERY | {"reason": "case 4711"}
    (given,) = answer(client.post("/v1/search", json=body, headers=gate))
    client.post("/v1/search/picture", files={"picture": png()}, headers=gate)
    client.post("/v1/search/similar", json={"id": 1}, headers=gate)
    client.patch("/v1/pictures", json={"ids": [1, 2], "set": {"seen": True}}, headers=gate)
    client.post("/v1/pictures/delete", json={"ids": [3]}, headers=gate)
    records = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [record["action"] for record in records] == [*["search"] * 3, "change", "delete"]
    assert {record["client"] for record in records} == {"gate"}
    assert records[0]["queries"] == ["woman in red coat"]
    assert records[0]["reason"] == "case 4711"
    assert records[0]["shown"] == [[match["id"] for match in given["matches"]]]
    assert records[0]["where"] == "(camera = 'gate-0')"
    assert records[1]["queries"] == [f"picture sha256:{hashlib.sha256(png()).hexdigest()}"]
    assert records[2]["queries"] == ["picture 1"]
    assert (records[3]["ids"], records[3]["set"]) == ([1], {"seen": True})
    assert verify(tmp_path / "audit.jsonl").num_records == 5


def test_without_a_record_nothing_is_shown_or_changed(serve, own_copy, tmp_path, monkeypatch):
    client = serve(own_copy, audit=AuditLog(tmp_path / "audit.jsonl"))

    def full(descriptor, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    for response in (
        client.post("/v1/search", json=QUERY),
        client.post("/v1/pictures/delete", json={"ids": [1]}),
    ):
        assert response.status_code == 503
        assert "matches" not in response.text
    monkeypatch.undo()
    assert client.get("/v1/stats").json()["pictures"] == 12


def test_a_picture_that_leaves_the_part_of_a_key_meanwhile_is_not_changed(
    serve, own_copy, ring, tmp_path, monkeypatch
):
    """The filter is checked by the transaction that writes, and not only before it."""
    key = ring("gate", "write", "camera = 'gate-0'")
    client = serve(own_copy, keys=ring.keys, audit=AuditLog(tmp_path / "audit"))
    append = AuditLog.append

    def moved_meanwhile(log, action, name, details):
        append(log, action, name, details)
        with Gallery(own_copy, create=False) as gallery:
            gallery.update([1], {"camera": "gate-1"})

    monkeypatch.setattr(AuditLog, "append", moved_meanwhile)
    changed = client.patch("/v1/pictures", json={"ids": [1, 3], "set": {"price": 90}}, headers=key)
    assert changed.json() == {"count": 1}
    with Gallery(own_copy, create=False) as gallery:
        gallery.update([1], {"camera": "gate-0"})
    deleted = client.post("/v1/pictures/delete", json={"ids": [1, 3]}, headers=key)
    assert deleted.json() == {"count": 1}
    with Gallery(own_copy, create=False) as gallery:
        assert 1 in gallery
        assert (3 in gallery, gallery.rows([1])[0].metadata) == (False, {"price": 0})


def test_a_key_has_a_limit_of_requests(serve, filled, ring):
    headers = ring("gate", "read", per_minute=2)
    client = serve(filled, keys=ring.keys)
    statuses = [client.post("/v1/search", json=QUERY, headers=headers).status_code for _ in "123"]
    assert statuses == [200, 200, 429]
    refused = client.post("/v1/search", json=QUERY, headers=headers)
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    assert client.get("/healthz").status_code == 200


def test_a_batch_counts_its_queries(serve, filled, ring):
    headers = ring("gate", "read", per_minute=4)
    client = serve(filled, keys=ring.keys)
    body = {"query": ["red coat", "blue dress", "cap"]}
    assert client.post("/v1/search", json=body, headers=headers).status_code == 200
    assert client.post("/v1/search", json=body, headers=headers).status_code == 429


def test_judged_matches_change_the_answer_and_leave_it(client, tiny_plan, filled):
    body = QUERY | {"like": [1], "unlike": [2]}
    (given,) = answer(client.post("/v1/search", json=body))
    with Searcher(tiny_plan, gallery=filled, threads=1) as searcher:
        expected = searcher.query("woman in red coat", 5, like=[1], unlike=[2])
    assert [match["id"] for match in given["matches"]] == [match.id for match in expected]
    assert not {1, 2} & {match["id"] for match in given["matches"]}
    refused = client.post("/v1/search", json=body | {"query": ["red", "blue"]})
    assert (refused.status_code, "one query" in refused.json()["detail"]) == (422, True)


def test_a_key_for_a_part_cannot_judge_pictures_of_another_part(serve, filled, ring):
    gate = ring("gate", "read", "camera = 'gate-0'")
    client = serve(filled, keys=ring.keys)
    seen = client.post("/v1/search", json=QUERY | {"like": [1]}, headers=gate)
    assert seen.status_code == 200
    hidden = client.post("/v1/search", json=QUERY | {"unlike": [2]}, headers=gate)
    assert (hidden.status_code, hidden.json()["detail"]) == (404, "There is no picture 2.")


def test_a_picture_and_words_are_one_query(client, tiny_plan, filled, crops):
    picture = sorted(crops.iterdir())[3]
    form = {"options": json.dumps({"k": 5, "text": "but in a blue jacket", "weight": 0.5})}
    response = client.post("/v1/search/picture", files={"picture": picture.read_bytes()}, data=form)
    similar = client.post("/v1/search/similar", json={"id": 4, "k": 5, "text": "in a blue jacket"})
    with Searcher(tiny_plan, gallery=filled, threads=1) as searcher:
        expected = searcher.query(image=picture, text="but in a blue jacket", weight=0.5, k=5)
    assert [m["id"] for m in answer(response)[0]["matches"]] == [m.id for m in expected]
    assert 4 not in [m["id"] for m in answer(similar)[0]["matches"]]


def test_avoided_words_are_those_of_the_searcher(client, tiny_plan, filled):
    (given,) = answer(client.post("/v1/search", json=QUERY | {"avoid": ["backpack"]}))
    (words,) = answer(client.post("/v1/search", json=QUERY | {"negation": False}))
    with Searcher(tiny_plan, gallery=filled, threads=1) as searcher:
        expected = searcher.query("woman in red coat", 5, avoid=["backpack"])
    assert [match["id"] for match in given["matches"]] == [match.id for match in expected]
    assert words["matches"]


def test_columns_have_values_for_completion(client, serve, filled, ring):
    columns = {column["name"]: column for column in client.get("/v1/columns").json()}
    assert sorted(columns["camera"]["values"]) == ["gate-0", "gate-1"]
    assert (columns["price"]["kind"], len(columns["price"]["values"])) == ("number", 12)
    assert not {"id", "image"} & columns.keys()
    gate = ring("gate", "read", "camera = 'gate-0'")
    restricted = serve(filled, keys=ring.keys).get("/v1/columns", headers=gate).json()
    assert all(column["values"] == [] for column in restricted)


@pytest.fixture
def calibrated(tiny_plan, tmp_path):
    """A plan whose probabilities follow the score alone."""
    plan = Plan(tiny_plan)
    names = ("intercept", "score", "z", "log_size", "below_best")
    coefficients = dict(zip(names, (-1.0, 6.0, 0.8, -0.3, 0.5), strict=True))
    path = tmp_path / "calibrated.plan"
    plan.rewrite(path, replace(plan.manifest, match_probability=coefficients))
    return path


def test_matches_have_a_probability_and_nobody_is_an_answer(serve, filled, calibrated):
    client = serve(filled, plan=calibrated)
    with Searcher(calibrated, gallery=filled, threads=1) as searcher:
        expected = searcher.query("woman in red coat", 5)
    (given,) = answer(client.post("/v1/search", json=QUERY))
    np.testing.assert_allclose(
        [match["probability"] for match in given["matches"]],
        [match.probability for match in expected],
    )
    assert given["rejected"] is None
    (nobody,) = answer(client.post("/v1/search", json=QUERY | {"min_probability": 1.0}))
    assert nobody["matches"] == []
    assert nobody["rejected"]["id"] == expected[0].id
    assert "nobody" in nobody["notes"][0]


def test_the_log_of_requests_has_no_personal_data(serve, filled, ring, capsys):
    log_requests()
    try:
        headers = ring("gate", "read")
        client = serve(filled, keys=ring.keys)
        client.post("/v1/search", json=QUERY, headers=headers)
        client.get("/v1/pictures/3", headers=headers)
        client.get("/v1/pictures/3")
    finally:
        logger = logging.getLogger("finegrain.serve.requests")
        logger.removeHandler(logger.handlers[0])
        logger.setLevel(logging.NOTSET)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["route"], line["status"], line["client"]) for line in lines] == [
        ("/v1/search", 200, "gate"),
        ("/v1/pictures/{id_}", 200, "gate"),
        ("/v1/pictures/{id_}", 401, None),
    ]
    assert all(line.keys() == {"at", "method", "route", "status", "ms", "client"} for line in lines)
