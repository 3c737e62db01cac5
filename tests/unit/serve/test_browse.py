"""The page of a searcher in this process."""

from __future__ import annotations

import re

import httpx
import pytest

from finegrain.cli import serve as serve_cli
from finegrain.cli.parser import main
from finegrain.errors import FinegrainError, GalleryError
from finegrain.search.searcher import Searcher
from finegrain.serve import browse as browse_module


@pytest.fixture
def searcher(tiny_plan, filled):
    with Searcher(tiny_plan, gallery=filled, threads=1) as searcher:
        yield searcher


def code_of(link):
    return link.partition("#once=")[2]


def test_a_link_works_once_and_the_searcher_stays_open(searcher, monkeypatch):
    opened = []
    monkeypatch.setattr(browse_module.webbrowser, "open", opened.append)
    with searcher.browse() as page, httpx.Client(base_url=page.address, timeout=60) as client:
        assert page.address.startswith("http://127.0.0.1:")
        assert client.get("/").status_code == 200
        assert client.post("/v1/search", json={"query": "coat"}).status_code == 401
        code = {"code": code_of(opened[0])}
        key = client.post("/v1/session", json=code).json()["key"]
        assert client.post("/v1/session", json=code).status_code == 401
        assert client.post("/v1/session", json={"code": ""}).status_code == 401
        headers = {"Authorization": f"Bearer {key}"}
        answer = client.post("/v1/search", json={"query": "coat", "k": 3}, headers=headers)
        given = [match["id"] for match in answer.json()["answers"][0]["matches"]]
        refused = client.post("/v1/pictures/delete", json={"ids": [1]}, headers=headers)
        assert refused.status_code == 403
        links = {code_of(match) for match in re.findall(r'href="([^"]*)"', page._repr_html_())}
        assert links.isdisjoint({code_of(opened[0]), code_of(page.link())})
    assert [match.id for match in searcher.query("coat", 3)] == given
    with pytest.raises(httpx.ConnectError):
        httpx.get(page.address)


def test_a_port_in_use_and_a_missing_gallery_are_errors(searcher, tiny_plan, tmp_path):
    with searcher.browse(open_browser=False) as page:
        port = int(page.address.rsplit(":", 1)[1].strip("/"))
        with pytest.raises(FinegrainError, match=f"could not start at port {port}"):
            searcher.browse(port=port, open_browser=False)
    with (
        Searcher(tiny_plan, gallery=tmp_path / "missing", threads=1) as empty,
        pytest.raises(GalleryError, match="finegrain index"),
    ):
        empty.browse(open_browser=False)


def test_the_command_prints_the_link_until_it_is_stopped(tiny_plan, filled, monkeypatch, capsys):
    class Stopped:
        def wait(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(serve_cli, "Event", Stopped)
    assert main(["browse", str(tiny_plan), "--gallery", str(filled), "--no-browser"]) == 0
    assert re.search(r"the page is at http://127\.0\.0\.1:\d+/#once=", capsys.readouterr().out)
