from __future__ import annotations

import asyncio
import inspect
import threading
import typing
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from fixtures.running_service import running
from PIL import Image

import finegrain
from finegrain.errors import FilterError, GalleryError, ImageError, QueryError
from finegrain.search.searcher import Searcher
from finegrain.serve import client as client_module
from finegrain.serve.app import Settings, create_app
from finegrain.serve.calls import ServiceUnavailableError
from finegrain.serve.client import AsyncClient, Client
from finegrain.serve.keys import KeyFile, KeyRing


@pytest.fixture(scope="module")
def service(tiny_plan, filled, tmp_path_factory):
    """Address and key of a service of two galleries, on a port of this machine."""
    from finegrain.gallery import Gallery

    folder = tmp_path_factory.mktemp("client")
    with Gallery(filled, create=False) as gallery:
        gallery.backup(folder / "own")
    keys = KeyFile(folder / "keys.json")
    secret = keys.make("tests", "admin")
    searchers = {
        name: Searcher(tiny_plan, gallery=path, threads=1)
        for name, path in (("shared", filled), ("own", folder / "own"))
    }
    app = create_app(searchers, Settings(keys=KeyRing(keys)))
    with running(app) as address:
        yield address, secret


@pytest.fixture
def client(service):
    address, key = service
    with Client(address, key=key, gallery="shared") as client:
        yield client


@pytest.fixture
def own(service):
    """A client of a gallery that tests change."""
    address, key = service
    with Client(address, key=key, gallery="own") as client:
        yield client


@pytest.fixture
def searcher(tiny_plan, filled):
    with Searcher(tiny_plan, gallery=filled, threads=1) as searcher:
        yield searcher


def summary(matches):
    return [(m.rank, m.id, m.camera, dict(m.metadata)) for m in matches]


def test_the_answers_are_those_of_the_searcher(client, searcher, crops):
    picture = sorted(crops.iterdir())[2]
    queries = ["woman in red coat", picture, Image.open(picture), "blue dress", *["cap"] * 17]
    options = {"k": 4, "where": "price > 1", "group_by": "camera", "offset": 1, "negation": False}
    given, expected = client.query(queries, **options), searcher.query(queries, **options)
    assert [summary(one) for one in given] == [summary(one) for one in expected]
    (first, *_), (wanted, *_) = client.query("red coat"), searcher.query("red coat")
    np.testing.assert_allclose(first.score, wanted.score, rtol=1e-6)
    assert [m.id for m in client.similar(3, 5)] == [m.id for m in searcher.query(picture, 6)][1:]


def test_one_query_gives_one_answer_and_a_list_gives_a_list(client):
    assert client.query("red coat", 3).query == "red coat"
    assert [one.query for one in client.query(["red coat"], 3)] == ["red coat"]


def test_matches_fetch_their_pictures_when_they_are_drawn(client, tmp_path):
    matches = client.query("red coat", 4)
    matches.save(tmp_path / "grid.png")
    assert matches[0].open().size[1] <= 512
    assert Image.open(tmp_path / "grid.png").size[0] > 100


def test_pictures_are_added_changed_and_deleted(own):
    before = own.stats()["pictures"]
    pictures = [np.full((40, 20, 3), value, np.uint8) for value in (10, 250)]
    added = own.add(pictures, {"camera": "door"}, expire_after=3600, reason="test")
    assert (added.num_new, len(added.ids)) == (2, 2)
    assert own.update(added.ids, {"seen": True}) == 2
    assert own.row(added.ids[0])["metadata"] == {"seen": True}
    assert own.expire() == 0
    assert own.delete("camera = 'door'") == 2
    assert own.stats()["pictures"] == before


def test_a_picture_that_the_service_cannot_read_is_a_problem_of_the_result(own, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    added = own.add([tmp_path / "broken.jpg", np.zeros((40, 20, 3), np.uint8)])
    assert added.num_new == 1
    assert [problem.where for problem in added.problems] == ["picture 1"]
    own.delete(added.ids)


def test_an_answer_is_exported(client):
    assert client.export("red coat", "csv", 2).decode().splitlines()[0].startswith("rank,score,id")


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"query": ""}, QueryError, "query"),
        ({"query": "coat", "where": "colour = "}, FilterError, "colour"),
        ({"query": "coat", "group_by": "nothing"}, QueryError, "nothing"),
        ({"query": Image.new("RGB", (4, 4)), "k": 0}, QueryError, "k"),
    ],
)
def test_errors_are_those_of_the_library(client, arguments, kind, message):
    with pytest.raises(kind, match=message):
        client.query(**arguments)


def test_a_picture_that_cannot_be_read_here_is_an_error(own, tmp_path):
    with pytest.raises(ImageError, match="cannot be read"):
        own.add(tmp_path / "missing.jpg")


def test_a_wrong_key_and_a_wrong_gallery_are_errors(service):
    address, key = service
    with (
        Client(address, key="fg_wrong") as client,
        pytest.raises(ServiceUnavailableError, match="finegrain keys make"),
    ):
        client.query("red coat")
    with (
        Client(address, key=key, gallery="cars") as client,
        pytest.raises(ServiceUnavailableError, match="one of shared, own"),
    ):
        client.query("red coat")


def test_a_service_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr(client_module, "RETRIES", 0)
    with (
        Client("http://127.0.0.1:9") as client,
        pytest.raises(ServiceUnavailableError, match=r"cannot be reached.*finegrain serve PLAN"),
    ):
        client.query("red coat")


@pytest.fixture
def unreliable():
    """``unreliable(answers)`` serves these answers in turn; returns the address and requests."""
    servers = []

    def start(answers):
        keys = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):  # the name that http.server calls
                self.rfile.read(int(self.headers["Content-Length"]))
                keys.append(self.headers["Idempotency-Key"])
                status, headers, body = answers[len(keys) - 1]
                if status is None:
                    return  # close the connection without an answer
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", keys

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


ADDED = b'{"ids": [7], "num_new": 1, "num_known": 0, "left_out": []}'
BUSY = b'{"title": "Service Unavailable", "detail": "256 requests are waiting already."}'


def test_a_lost_or_refused_request_is_sent_again_with_the_same_key(unreliable):
    answers = [(None, {}, b""), (503, {"Retry-After": "0"}, BUSY), (200, {}, ADDED)]
    address, keys = unreliable(answers)
    with Client(address) as client:
        assert client.add(np.zeros((40, 20, 3), np.uint8)).ids == [7]
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_a_service_that_stays_busy_is_an_error(unreliable):
    address, keys = unreliable([(503, {"Retry-After": "0"}, BUSY)] * 4)
    with Client(address) as client, pytest.raises(ServiceUnavailableError, match="are waiting"):
        client.query("red coat")
    assert len(keys) == 4


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"title": 1}', b"[" * 100_000])
def test_another_service_is_an_error(unreliable, body):
    address, _ = unreliable([(404, {}, body)])
    with Client(address) as client, pytest.raises(ServiceUnavailableError, match="finegrain serve"):
        client.query("red coat")


def test_an_error_of_the_library_is_raised_by_its_name(unreliable):
    problem = b'{"title": "GalleryError", "detail": "the gallery is damaged"}'
    address, _ = unreliable([(409, {}, problem)])
    with Client(address) as client, pytest.raises(GalleryError, match="is damaged"):
        client.query("red coat")


def test_the_asynchronous_client_gives_the_same_answers(service, client):
    address, key = service

    async def use():
        async with AsyncClient(address, key=key, gallery="shared") as asynchronous:
            several = await asyncio.gather(
                *(asynchronous.query(text, 5) for text in ("red coat", "blue dress", "cap"))
            )
            assert await asynchronous.query(["cap"], 5) == [several[2]]
            assert (await asynchronous.stats())["pictures"] == 12
            assert (await asynchronous.image(1)).startswith(b"\xff\xd8")
            assert (await asynchronous.row(1))["id"] == 1
            assert len(await asynchronous.similar(1, 3)) == 3
            assert (await asynchronous.export("cap", "csv")).startswith(b"rank")
            with pytest.raises(QueryError, match=r"await client\.image"):
                several[0][0].open()
        async with AsyncClient(address, key=key, gallery="own") as asynchronous:
            added = await asynchronous.add(np.zeros((40, 20, 3), np.uint8), {"camera": "x"})
            assert await asynchronous.update(added.ids, {"seen": True}) == 1
            assert await asynchronous.delete(added.ids) == 1
            assert await asynchronous.expire() == 0
        return several

    given = asyncio.run(use())
    expected = [client.query(text, 5) for text in ("red coat", "blue dress", "cap")]
    assert [summary(one) for one in given] == [summary(one) for one in expected]


def parameters(method):
    """The parameters of a method and their defaults and types."""
    return {
        name: (parameter.kind, parameter.default, parameter.annotation)
        for name, parameter in inspect.signature(method).parameters.items()
    }


def public_methods(kind):
    return {
        name: method
        for name, method in vars(kind).items()
        if not name.startswith("_") and callable(method)
    }


def test_both_clients_have_the_same_methods():
    synchronous, asynchronous = public_methods(Client), public_methods(AsyncClient)
    assert synchronous.keys() == asynchronous.keys()
    for name, method in synchronous.items():
        assert parameters(method) == parameters(asynchronous[name]), name
        assert inspect.iscoroutinefunction(asynchronous[name]), name
        overloads = [parameters(given) for given in typing.get_overloads(method)]
        assert overloads == [parameters(o) for o in typing.get_overloads(asynchronous[name])]


@pytest.mark.parametrize("name", sorted(public_methods(Client).keys() & public_methods(Searcher)))
def test_parameters_that_a_client_shares_with_a_searcher_are_the_same(name):
    """Code moves from one to the other by changing one line."""
    own, expected = (parameters(public_methods(kind)[name]) for kind in (Client, Searcher))
    for parameter in own.keys() & expected.keys() - {"self"}:
        kind, default, _ = own[parameter]
        assert kind == expected[parameter][0], parameter
        is_required = default is inspect.Parameter.empty
        if not is_required and parameter != "k":  # the searcher's None means 10
            assert default == expected[parameter][1], parameter
    assert own.keys() - expected.keys() <= {"reason"}


def test_the_client_is_a_public_name():
    assert finegrain.Client is Client
