"""The README's numbers are those that commands wrote."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def tables():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_table_is_made_from_its_file():
    made = tables().render(README)
    assert made == README, "run: make readme"
    assert len(re.findall("<!-- numbers:", README)) == len(tables().TABLES)


def test_files_and_pictures_it_points_to_are_there():
    pointed = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert pointed
    missing = [path for path in pointed if not (ROOT / path).exists()]
    assert missing == []


def test_it_opens_with_the_two_commands():
    head = README[: README.index("## Search")]
    assert head.index("make demo") < head.index("make test") < head.index("docs/matches.png")
