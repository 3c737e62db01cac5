"""The files in ``deploy``: linters, and the commands in them."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from finegrain.cli.parser import _parser

DEPLOY = Path(__file__).parents[2] / "deploy"
DOCKERFILES = ["Dockerfile", "Dockerfile.gpu"]


def documents(name):
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def commands():
    """Arguments of finegrain in each file."""
    for name in DOCKERFILES:
        yield name, json.loads(re.search(r"^CMD (.*)$", (DEPLOY / name).read_text(), re.M)[1])
    yield "compose.yaml", documents("compose.yaml")[0]["services"]["finegrain"]["command"]
    (deployment,) = (d for d in documents("kubernetes.yaml") if d["kind"] == "Deployment")
    yield "kubernetes.yaml", deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    unit = re.search(
        r"^ExecStart=\S+/finegrain (.*)$", (DEPLOY / "finegrain.service").read_text(), re.M
    )
    yield "finegrain.service", shlex.split(unit[1])


COMMANDS = dict(commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_the_service_is_started_with_keys_and_an_audit_log(name):
    parsed = _parser().parse_args(COMMANDS[name])
    assert parsed.keys is not None
    assert parsed.audit is not None
    assert parsed.plans[0].endswith("/model.plan")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_a_dockerfile_has_no_warning_and_does_not_run_as_root(name):
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DEPLOY / name], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    assert re.findall(r"^USER (.*)$", (DEPLOY / name).read_text(), re.M) == ["10001"]


def test_the_manifests_follow_the_schemas_of_kubernetes():
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for document in documents("kubernetes.yaml"):
        kubernetes_validate.validate(document, "1.33", strict=True)


def test_the_unit_follows_the_rules_of_systemd(tmp_path):
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd is not installed")
    unit = tmp_path / "finegrain.service"
    text = (DEPLOY / "finegrain.service").read_text()
    unit.write_text(text.replace("/opt/finegrain/bin/finegrain", sys.executable))
    done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True)
    assert "finegrain.service" not in done.stderr, done.stderr


def test_containers_have_no_more_rights_than_they_need():
    service = documents("compose.yaml")[0]["services"]["finegrain"]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
