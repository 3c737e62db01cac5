"""One int8 plan gives the same embeddings and ranking on several types of processors.

The older types are this processor with newer instructions hidden from the program.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finegrain.exporters import Int8
from finegrain.plan import IMAGE, TEXT, TOKENIZER, Plan, write_plan

SOURCE = Path(__file__).parents[2] / ".ci" / "older_processor.c"
CAPTIONS = ["woman in red coat", "a man with a green backpack and blue jeans", "a", "striped dress"]
EMBED = """
import json, sys
import numpy as np
from finegrain.encoder import Encoder
from finegrain.runtime.instructions import this_processor
from finegrain.plan import Plan
plan, out, captions, *pictures = sys.argv[1:]
encoder = Encoder.from_plan(Plan(plan), threads=1)
texts, images = encoder.encode_texts(json.loads(captions)), encoder.encode_images(pictures)
np.savez(out, texts=texts, images=images)
print(*this_processor().instructions)
"""


@pytest.fixture(scope="module")
def hiding(tmp_path_factory) -> Path:
    """The library that hides instructions, if it can be built and works."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("hiding instructions needs Linux on x86-64")
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("hiding instructions needs a C compiler")
    library = tmp_path_factory.mktemp("hiding") / "older_processor.so"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
    environment = os.environ | {"FINEGRAIN_PROCESSOR": "avx2", "LD_PRELOAD": str(library)}
    if subprocess.run(["true"], env=environment, check=False).returncode:
        pytest.skip("this processor or kernel does not let CPUID fault")
    return library


@pytest.fixture(scope="module")
def int8_plan(tiny_plan, tmp_path_factory) -> Path:
    plan = Plan(tiny_plan)
    members = {name: Int8().lower(plan.take(name)) for name in (TEXT, IMAGE)}
    members[TOKENIZER] = plan.take(TOKENIZER)
    path = tmp_path_factory.mktemp("int8") / "model.plan"
    precision = dict.fromkeys((TEXT, IMAGE), Int8().name)
    write_plan(path, replace(plan.manifest, precision=precision), members)
    return path


def embed(plan: Path, out: Path, crops: Path, **environment: str) -> tuple[dict, list[str]]:
    """Embeddings from a new interpreter, and the instruction sets that it detected."""
    pictures = map(str, sorted(crops.iterdir()))
    done = subprocess.run(
        [sys.executable, "-c", EMBED, plan, out, json.dumps(CAPTIONS), *pictures],
        capture_output=True, text=True, check=False, env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with np.load(out) as arrays:
        return dict(arrays), done.stdout.split()


@pytest.mark.parametrize("kind", ["avx2", "avx512"])
def test_an_older_processor_gives_the_same_ranking(int8_plan, hiding, crops, tmp_path, kind):
    here, _ = embed(int8_plan, tmp_path / "here.npz", crops)
    older, instructions = embed(
        int8_plan,
        tmp_path / "older.npz",
        crops,
        FINEGRAIN_PROCESSOR=kind,
        LD_PRELOAD=str(hiding),
    )
    assert not {"VNNI", "AMX"} & set(instructions)
    assert kind == "avx512" or "AVX-512" not in instructions
    for part in ("texts", "images"):
        assert (here[part] * older[part]).sum(axis=1).min() > 0.9999
    scores, older_scores = (arrays["texts"] @ arrays["images"].T for arrays in (here, older))
    assert np.abs(scores - older_scores).max() < 0.005
    np.testing.assert_array_equal(scores.argmax(axis=1), older_scores.argmax(axis=1))
