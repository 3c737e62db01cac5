"""Rules for every file of the package."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "finegrain").rglob("*.py"))
VAGUE_NAMES = {"utils", "util", "helpers", "misc", "common"}
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}
WRITTEN = sorted(
    path
    for folder in ("benchmarks", "examples", "export", "finegrain", "recipes", "tests")
    for path in (ROOT / folder).rglob("*.py")
)
UNCLEAR = re.compile(
    r"(?:^|[.:!?]\s+)Of (?!these)|\b(?:all the same|anew|at hand|costs? itself|dear|goes on|intake|"
    r"not sound|oftener|other way round|passed over|plain way|rivals?|second[- ]stage|"
    r"(?:that|which) (?:are|is) none|stops? no(?:ne|thing)|tells? apart|told apart|what is no)\b"
)
"""Phrases that a reader would have to look up, or that have a usual term."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_there_are_sources():
    assert len(SOURCES) > 30


def test_no_file_has_a_vague_name():
    """A file called ``utils`` has no subject."""
    assert [name_of(path) for path in SOURCES if path.stem in VAGUE_NAMES] == []


def test_every_folder_is_a_package():
    """``find:`` in setup.cfg skips folders without an __init__.py."""
    folders = {path.parent for path in SOURCES}
    assert [name_of(f) for f in sorted(folders) if not (f / "__init__.py").is_file()] == []


def unsafe(tree: ast.AST) -> list[str]:
    """Imports and calls that would run code from data."""
    result = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            result += [a.name for a in node.names if a.name.partition(".")[0] in UNSAFE_MODULES]
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").partition(".")[0] in UNSAFE_MODULES:
                result.append(str(node.module))
        elif isinstance(node, ast.Call):
            result += _unsafe_call(node)
    return result


def _unsafe_call(call: ast.Call) -> list[str]:
    given = {k.arg: k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)}
    match call.func:
        case ast.Name(id=name) if name in UNSAFE_CALLS:
            return [name]
        case ast.Attribute(value=ast.Name(id="torch"), attr="load"):
            return [] if given.get("weights_only") is True else ["torch.load"]
        case _:
            bad = given.get("allow_pickle") or given.get("shell") or given.get("trust_remote_code")
            return [ast.unparse(call)] if bad else []


def test_loaded_data_is_never_executed():
    trees = ((path, ast.parse(path.read_text(encoding="utf-8"))) for path in SOURCES)
    assert {name_of(path): calls for path, tree in trees if (calls := unsafe(tree))} == {}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from dill import loads",
        "eval(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "numpy.load(path, allow_pickle=True)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_unsafe_code_is_detected(code):
    assert unsafe(ast.parse(code))


def test_safe_code_is_accepted():
    code = "model.eval(); re.compile('x'); torch.load(path, weights_only=True); np.load(path)"
    assert unsafe(ast.parse(code)) == []


def unclear(source: str) -> list[str]:
    """Unclear phrases in docstrings, comments and names of functions, and variables ``found``."""
    words = " ".join(source.replace("_", " ").replace("#", " ").split())
    if "found" not in source and not UNCLEAR.search(words):
        return []  # without the slow parsers
    texts = [*_comments(source)]
    names = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                texts.append(text)
            case ast.FunctionDef(name=name):
                texts.append(name.replace("_", " "))
            case ast.Name(id="found", ctx=ast.Store()) | ast.arg(arg="found"):
                names.append("found")
    return names + [
        match[0] for text in texts for match in UNCLEAR.finditer(" ".join(text.split()))
    ]


def _comments(source: str) -> Iterator[str]:
    lines = iter(source.splitlines(keepends=True))
    for token in tokenize.generate_tokens(lambda: next(lines, "")):
        if token.type == tokenize.COMMENT:
            yield token.string.removeprefix("#")


def test_the_english_is_clear():
    sources = ((path, path.read_text(encoding="utf-8")) for path in WRITTEN)
    assert {name_of(path): phrases for path, text in sources if (phrases := unclear(text))} == {}


@pytest.mark.parametrize(
    "code",
    [
        '"""Reads tables. Of files there is none."""',
        "# rows that are none",
        "def test_what_is_no_plan():\n    pass",
        "found = search()",
        "def shown(found):\n    pass",
    ],
)
def test_unclear_english_is_detected(code):
    assert unclear(code)


def test_clear_english_is_accepted():
    code = '"""Rows of a table."""\nrows = ["anew"]  # hard negatives; None if there is none'
    assert unclear(code) == []


def test_import_linter_finds_no_broken_contract():
    script = shutil.which("lint-imports", path=Path(sys.executable).parent)
    assert script is not None, "import-linter is not installed; it is in finegrain[dev]"
    done = subprocess.run(
        [script, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
