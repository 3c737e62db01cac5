"""The scripts of .ci name tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_tests_named_by_scripts_exist():
    named = {
        target
        for script in (ROOT / ".ci").iterdir()
        for target in re.findall(r"tests/[\w/.]+(?:::\w+)?", script.read_text())
    }
    assert len(named) > 5
    missing = []
    for target in sorted(named):
        path, _, test = target.partition("::")
        place = ROOT / path
        if not place.exists() or (test and f"def {test}(" not in place.read_text()):
            missing.append(target)
    assert missing == []
