"""The tables of the README and of docs/ are those that commands wrote."""

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
    module = tables()
    pages = {path: path.read_text(encoding="utf-8") for path in module.PAGES}
    stale = [path.name for path, page in pages.items() if module.render(page) != page]
    assert stale == [], "run: make readme"
    shown = re.findall(r"<!-- numbers:(\w+) -->", "".join(pages.values()))
    assert set(shown) == set(module.TABLES)


def test_files_and_pictures_that_pages_link_to_exist():
    for path in (*tables().PAGES, *ROOT.glob("*/README.md"), *ROOT.glob("docs/*/*.md")):
        pointed = re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text(encoding="utf-8"))
        missing = [target for target in pointed if not (path.parent / target).exists()]
        assert missing == [], path.name


def test_it_starts_with_the_two_commands():
    assert README.index("docs/matches.png") < README.index("make demo") < README.index("make test")


def test_it_is_short():
    assert len(README.encode()) < 10_000
