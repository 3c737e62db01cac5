"""Nothing reports about a user: no dependency writes an id below the home folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from finegrain.telemetry import SWITCHES

HOME_VARIABLES = ("HOME", "USERPROFILE", "LOCALAPPDATA", "APPDATA")
# If one of these is set, ONNX Runtime and OpenVINO take the run for a test and report nothing.
TEST_MACHINES = ("CI", "TF_BUILD", "JENKINS_URL", "GITHUB_ACTIONS", "ORT_RUNNING_UNIT_TESTS")

QUERY = """
import sys
from finegrain import Searcher
with Searcher(sys.argv[1], runtime=sys.argv[3]) as searcher:
    searcher.add(sys.argv[2], progress=False)
    assert len(searcher.query("woman in red coat", 3)) == 3
"""


def files_written(home: Path, code: str, *argv: object, **switches: str) -> list[str]:
    """Files below an empty home folder after a program has run in a fresh interpreter."""
    home.mkdir()
    hidden = {*SWITCHES, *TEST_MACHINES, "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HF_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= dict.fromkeys(HOME_VARIABLES, str(home)) | switches
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, argv)],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_query_leaves_the_home_folder_empty(tiny_plan, crops, tmp_path, runtime):
    plan = shutil.copy(tiny_plan, tmp_path / "model.plan")
    assert files_written(tmp_path / "home", QUERY, plan, crops, runtime) == []


@pytest.mark.parametrize("module", ["onnxruntime", "openvino"])
def test_without_finegrain_the_dependency_writes_a_file(tmp_path, module):
    """Otherwise the previous test would always pass."""
    written = files_written(tmp_path / "home", f"import {module}")
    if not written:
        pytest.skip(f"this build of {module} reports nothing on this platform")
    assert any("device" in name or "cid" in name for name in written)


def test_a_setting_of_the_user_is_kept():
    code = "import finegrain, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for stated, kept in (({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")):
        environment = {k: v for k, v in os.environ.items() if k not in SWITCHES} | stated
        shown = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env=environment,
        ).stdout  # fmt: skip
        assert shown.strip() == kept


def test_openvino_reports_nothing_and_its_reporter_stays_importable():
    pytest.importorskip("openvino_telemetry")
    code = """
import sys
from finegrain.runtime.openvino import _openvino
_openvino()
assert "openvino_telemetry" not in sys.modules
import openvino_telemetry
"""
    subprocess.run([sys.executable, "-c", code], check=True)
