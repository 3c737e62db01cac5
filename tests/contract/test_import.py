"""A base install: the cost of `import finegrain`, and search without the training wing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import finegrain

PUBLIC = [
    "Client",
    "ExportProfile",
    "FinegrainError",
    "Gallery",
    "Match",
    "Recipe",
    "RetrievalMetrics",
    "Searcher",
    "__version__",
    "evaluate",
    "export",
    "load_recipe",
    "pull",
    "train",
]
HEAVY = ("torch", "faiss", "onnxruntime", "cv2", "transformers", "tokenizers", "PIL", "numpy")
TRAINING_WING = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "cv2",
    "safetensors",
    "onnx",
    "onnxscript",
    "open_clip",
    "cattrs",
    "matplotlib",
    "pyarrow",
    "tensorboard",
)
BASE_INSTALL = f"""
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {TRAINING_WING!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, NotInstalled())
"""


def python(code: str, *argv: object) -> str:
    """Output of a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, argv)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONUTF8": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_public_names_are_pinned():
    assert finegrain.__all__ == PUBLIC
    assert dir(finegrain) == PUBLIC


def test_every_public_name_is_an_object_of_that_name():
    for name in set(PUBLIC) - {"__version__"}:
        assert getattr(finegrain, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Search'"):
        finegrain.Search  # noqa: B018


def test_no_module_carries_the_name_of_a_public_function():
    folder = Path(finegrain.__file__).parent
    modules = {path.stem for path in folder.iterdir()}
    assert not modules & set(PUBLIC)


def test_import_is_fast_and_imports_no_heavy_module():
    code = f"""
import sys, time
start = time.perf_counter()
import finegrain
seconds = time.perf_counter() - start
import json
print(json.dumps([seconds, [name for name in {HEAVY!r} if name in sys.modules]]))
"""
    runs = [json.loads(python(code)) for _ in range(3)]
    assert all(heavy == [] for _, heavy in runs)
    assert min(seconds for seconds, _ in runs) < 0.2


def test_search_never_imports_torch(tiny_plan, crops, tmp_path):
    """Although the training wing is installed."""
    plan = shutil.copy(tiny_plan, tmp_path / "model.plan")
    code = f"""
import sys
from finegrain import Gallery, Match, RetrievalMetrics, Searcher
with Searcher(sys.argv[1]) as searcher:
    searcher.add(sys.argv[2], progress=False)
    assert isinstance(searcher.query("woman in red coat", 3)[0], Match)
    searcher.query("coat", 1).save(sys.argv[3])
print([name for name in {TRAINING_WING!r} if name in sys.modules])
"""
    assert python(code, plan, crops, tmp_path / "grid.png").strip() == "[]"


def test_a_base_install_indexes_and_queries(tiny_plan, crops, tmp_path):
    plan = shutil.copy(tiny_plan, tmp_path / "model.plan")
    table = tmp_path / "catalog.csv"
    shutil.copytree(crops, tmp_path / "images")
    table.write_text("image,caption\nimages/00.jpg,red coat\nimages/01.jpg,blue jeans\n")
    code = f"""{BASE_INSTALL}
from finegrain.cli.parser import main
assert main(["index", sys.argv[1], sys.argv[2]]) == 0
assert main(["index", sys.argv[1], sys.argv[3]]) == 0
assert main(["doctor", sys.argv[1]]) == 0
assert main(["query", sys.argv[1], "woman in red coat", "-k", "14"]) == 0
assert not {set(TRAINING_WING)!r} & set(sys.modules)
"""
    shown = python(code, plan, crops, table)
    assert "added 12 pictures" in shown
    assert "added 2 pictures" in shown
    assert "model.plan: valid" in shown
    assert "14 matches for 'woman in red coat'" in shown


@pytest.mark.parametrize("name", ["ExportProfile", "Recipe", "export", "load_recipe", "train"])
def test_a_base_install_names_the_missing_extra(name):
    code = f"""{BASE_INSTALL}
import finegrain
try:
    finegrain.{name}
except finegrain.FinegrainError as error:
    print(type(error).__name__, error)
"""
    shown = python(code)
    assert shown.startswith(f"MissingExtraError finegrain.{name} needs ")
    assert 'pip install "finegrain[train]"' in shown


def test_evaluating_a_plan_in_a_base_install_names_the_extra(tiny_plan):
    code = f"""{BASE_INSTALL}
import finegrain
try:
    finegrain.evaluate(sys.argv[1])
except finegrain.FinegrainError as error:
    print(type(error).__name__, error)
"""
    shown = python(code, tiny_plan)
    assert shown.startswith("MissingExtraError")
    assert 'pip install "finegrain[train]"' in shown


@pytest.mark.parametrize("verb", ["train x.py", "evaluate x", "export x", "recipe list", "demo"])
def test_training_verbs_of_a_base_install_are_one_line(verb):
    code = f"""{BASE_INSTALL}
import contextlib, io
from finegrain.cli.parser import main
with contextlib.redirect_stderr(io.StringIO()) as shown:
    assert main({verb.split()!r}) == 1
print(shown.getvalue(), end="")
"""
    shown = python(code)
    assert shown.count("\n") == 1
    assert 'pip install "finegrain[train]"' in shown
