from __future__ import annotations

import sys

import pytest
from fastapi.testclient import TestClient

from finegrain.cli.parser import main


@pytest.fixture
def started(monkeypatch):
    """Arguments of the server that a command starts, which is not started here."""
    server = pytest.importorskip("finegrain.serve.server")
    calls = []

    def run(app, **options):
        calls.append(options)
        with TestClient(app):  # closes the searcher
            pass

    monkeypatch.setattr(server, "run", run)
    return calls


@pytest.fixture
def indexed(plan, crops):
    assert main(["index", str(plan), str(crops)]) == 0
    return str(plan)


def test_it_listens_on_this_machine_unless_told_otherwise(indexed, started, capsys):
    assert main(["serve", indexed]) == 0
    assert started[0]["host"] == "127.0.0.1"
    assert not started[0]["access_log"]
    assert "searching at http://127.0.0.1:8080/" in capsys.readouterr().out


def test_other_addresses_need_keys(indexed, started, tmp_path, capsys):
    keys = tmp_path / "keys.json"
    assert main(["serve", indexed, "--host", "0.0.0.0"]) == 1
    assert "finegrain keys make" in capsys.readouterr().err
    assert main(["serve", indexed, "--host", "0.0.0.0", "--keys", str(keys)]) == 1
    assert "has no keys" in capsys.readouterr().err
    assert main(["keys", "make", str(keys), "desk"]) == 0
    assert capsys.readouterr().out.startswith("fg_")
    assert main(["serve", indexed, "--host", "0.0.0.0", "--keys", str(keys)]) == 0
    assert len(started) == 1


def test_a_certificate_needs_its_key_and_a_root_is_a_folder(indexed, started, tmp_path, capsys):
    assert main(["serve", indexed, "--certificate", "a.pem"]) == 1
    assert "--private-key belong together" in capsys.readouterr().err
    assert main(["serve", indexed, "--root", str(tmp_path / "missing")]) == 1
    assert "is not a folder" in capsys.readouterr().err
    assert started == []


def test_a_plan_without_a_gallery_is_an_error(plan, started, capsys):
    assert main(["serve", str(plan)]) == 1
    assert "no gallery" in capsys.readouterr().err


def test_the_missing_extra_is_named(indexed, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert main(["serve", indexed]) == 1
    assert 'pip install "finegrain[serve]"' in capsys.readouterr().err


def test_keys_are_listed_and_revoked(tmp_path, capsys):
    keys = str(tmp_path / "keys.json")
    assert main(["keys", "make", keys, "gate", "--scope", "write", "--where", "camera = 'a'"]) == 0
    secret = capsys.readouterr().out.strip()
    assert main(["keys", "list", keys]) == 0
    listed = capsys.readouterr().out
    assert listed.startswith("gate  write  since 20")
    assert listed.endswith("where camera = 'a'\n")
    assert secret not in listed
    assert main(["keys", "revoke", keys, "gaet"]) == 1
    assert "there are: gate" in capsys.readouterr().err
    assert main(["keys", "revoke", keys, "gate"]) == 0
