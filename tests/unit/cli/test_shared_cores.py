"""Idle threads of a training sleep if other processes use the cores."""

import os

import psutil
import pytest

from finegrain.cli.shared_cores import let_threads_sleep_on_shared_cores


@pytest.fixture
def unset(monkeypatch):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.setenv(name, "")  # the test's own change is undone
        monkeypatch.delenv(name)


def busy(monkeypatch, percent, cores):
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: percent)
    monkeypatch.setattr(psutil, "cpu_count", lambda: cores)


@pytest.mark.parametrize(("percent", "cores"), [(50.0, 2), (100.0, 2), (6.3, 8)])
def test_threads_sleep_if_another_process_uses_half_a_core(unset, monkeypatch, percent, cores):
    busy(monkeypatch, percent, cores)
    chosen = let_threads_sleep_on_shared_cores()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert f"of {cores} cores, so idle threads sleep" in chosen


def test_threads_spin_on_idle_cores(unset, monkeypatch):
    busy(monkeypatch, 5.0, 2)
    assert let_threads_sleep_on_shared_cores() == ""
    assert "OMP_WAIT_POLICY" not in os.environ


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_a_setting_of_the_user_is_kept(unset, monkeypatch, name):
    monkeypatch.setenv(name, "5")
    busy(monkeypatch, 100.0, 2)
    assert let_threads_sleep_on_shared_cores() == ""
    assert os.environ[name] == "5"
    assert os.environ.get("OMP_WAIT_POLICY", "5") == "5"
