"""The filter that the page makes of typed conditions, run by Node.js."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from finegrain.gallery import Gallery
from finegrain.serve.app import PAGE

COLUMNS = {"camera": "text", "brand": "text", "price": "number"}
SCRIPT = """
const { parseQuery } = await import(process.argv[1]);
const given = JSON.parse(process.argv[2]);
console.log(JSON.stringify(given.typed.map((typed) => parseQuery(typed, given.columns))));
"""
TYPED = {
    "red coat": ("red coat", None),
    "red coat camera:gate-3": ("red coat", "\"camera\" = 'gate-3'"),
    'price:<80 coat brand:"Levi\'s 501"': ("coat", "\"price\" < 80 and \"brand\" = 'Levi''s 501'"),
    "coat price:>=10 price:!=12": ("coat", '"price" >= 10 and "price" != 12'),
    "coat at 08:30 with note:this": ("coat at 08:30 with note:this", None),
    "coat after:2026-05-01 before:2026-06-01": (
        "coat", "time >= '2026-05-01' and time < '2026-06-01'"),
    "coat camera:x'_or_'1'='1": ("coat", "\"camera\" = 'x''_or_''1''=''1'"),
    "coat camera:a\\": ("coat", "\"camera\" = 'a\\\\'"),
    "coat constructor:x": ("coat constructor:x", None),
}  # fmt: skip


@pytest.fixture(scope="module")
def parsed():
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node.js is not installed")
    given = json.dumps({"typed": list(TYPED), "columns": COLUMNS})
    command = [node, "--input-type=module", "-e", SCRIPT, f"file://{PAGE}/conditions.js", given]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(zip(TYPED, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("typed", TYPED)
def test_conditions_become_a_filter_and_the_rest_stays_words(parsed, typed):
    assert (parsed[typed]["words"], parsed[typed]["where"]) == TYPED[typed]


def test_the_service_reads_these_filters(parsed, tmp_path):
    with Gallery(tmp_path / "g", dim=2) as gallery:
        gallery.add([[1.0, 0.0]], [None], metadata=[{"brand": "a", "price": 3}])
        for given in parsed.values():
            if given["where"]:
                gallery.ids_where(given["where"])
