"""A plan that is replaced while its service runs."""

from __future__ import annotations

import io
import json
import shutil
import threading
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from finegrain.gallery import Gallery
from finegrain.plan import Plan, write_plan
from finegrain.search.searcher import Searcher
from finegrain.serve.app import Settings, create_app
from finegrain.serve.reloading import Source

QUERY = {"query": "woman in red coat", "k": 12}


@pytest.fixture
def service(own_copy, tiny_plan, tmp_path):
    """A client of a service whose plan, ``tmp_path/model.plan``, tests replace."""
    plan = tmp_path / "model.plan"
    shutil.copy(tiny_plan, plan)
    reopen = partial(Searcher, plan, gallery=own_copy, threads=1)
    settings = Settings(sources={"default": Source(plan=plan, reopen=reopen)})
    app = create_app(reopen(), settings)
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def replace_plan(tiny_plan, tmp_path):
    """``replace_plan()`` puts another plan, with other embeddings, in place of the first."""

    def replaced():
        opened = Plan(tiny_plan)
        members = {name: opened.take(name) for name in opened.manifest.sha256}
        write_plan(tmp_path / "model.plan", replace(opened.manifest, fit="pad"), members)

    return replaced


def wait_for(client, *stages):
    end = time.monotonic() + 120
    while (state := client.get("/v1/reload").json())["stage"] not in stages:
        assert time.monotonic() < end, state
        time.sleep(0.01)
    return state


def png(number):
    file = io.BytesIO()
    Image.new("RGB", (40, 80), (number * 37 % 256, 30, 30)).save(file, "PNG")
    return file.getvalue()


def matches(client):
    answer = client.post("/v1/search", json=QUERY)
    assert answer.status_code == 200, answer.text
    return answer.json()["answers"][0]["matches"]


def test_requests_go_on_while_the_plan_is_replaced(service, replace_plan, own_copy, tmp_path):
    before = service.get("/v1/stats").json()["fingerprint"]
    replace_plan()
    failures, added, done = [], [], threading.Event()

    def use(number):
        while not done.is_set():
            number += 1
            sent = service.post("/v1/pictures", files={"pictures": png(number)})
            answers = (
                sent,
                service.post("/v1/search", json=QUERY),
                service.get("/v1/pictures/1/image"),
            )
            failures.extend(one.text for one in answers if one.status_code != 200)
            if sent.status_code == 200:
                added.extend(sent.json()["ids"])

    users = [threading.Thread(target=use, args=(1000 * n,)) for n in range(2)]
    for user in users:
        user.start()
    assert service.post("/v1/reload", json={}).status_code == 202
    state = wait_for(service, "done", "failed")
    done.set()
    for user in users:
        user.join()
    assert (state["stage"], state["fault"]) == ("done", None)
    assert state["encoded"] >= 12
    assert failures == []
    assert service.get("/v1/stats").json()["fingerprint"] != before
    with Searcher(tmp_path / "model.plan", gallery=own_copy, threads=1) as searcher:
        expected = {m.id: m.score for m in searcher.query("woman in red coat", 12)}
        assert set(added) <= set(searcher.gallery)
    given = {match["id"]: match["score"] for match in matches(service)}
    assert given.keys() == expected.keys()
    np.testing.assert_allclose([given[i] for i in given], [expected[i] for i in given], atol=1e-5)


def test_a_plan_that_cannot_be_read_leaves_the_old_one(service, tmp_path):
    before = matches(service)
    (tmp_path / "model.plan").write_bytes(b"no plan")
    service.post("/v1/reload", json={})
    state = wait_for(service, "failed")
    assert "model.plan" in state["fault"]
    assert matches(service) == before


def test_a_picture_that_is_gone_ends_a_reload_unless_it_may_be_dropped(
    service, replace_plan, own_copy, tmp_path
):
    (tmp_path / "a.png").write_bytes(png(1))
    with Gallery(own_copy, create=False) as gallery:
        vector = np.eye(1, gallery.dim, dtype=np.float32)
        (gone,) = gallery.add(vector, [str(tmp_path / "missing.png")])
    before = matches(service)
    replace_plan()
    service.post("/v1/reload", json={})
    assert "missing.png" in wait_for(service, "failed")["fault"]
    assert matches(service) == before
    service.post("/v1/reload", json={"drop_unreadable": True})
    assert wait_for(service, "done", "failed")["fault"] is None
    assert gone not in {match["id"] for match in matches(service)}


def test_the_same_plan_is_opened_again_without_encoding(service):
    before = matches(service)
    service.post("/v1/reload", json={})
    assert wait_for(service, "done", "failed")["encoded"] == 0
    assert json.dumps(matches(service)) == json.dumps(before)


def test_a_service_that_was_given_a_searcher_cannot_reload(client):
    assert client.post("/v1/reload", json={}).status_code == 404
