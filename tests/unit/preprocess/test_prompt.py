"""Prompts: templates for query texts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import finegrain
from finegrain.cli.parser import main
from finegrain.encoder import Encoder
from finegrain.errors import PlanError, QueryError
from finegrain.plan import Plan, write_plan

PROMPT = "a photo of a person, {}"


def set_prompt(path, prompt):
    plan = Plan(path)
    members = {name: plan.take(name) for name in plan.manifest.sha256}
    write_plan(path, replace(plan.manifest, prompt=prompt), members)


def test_a_prompt_of_the_plan_equals_the_full_text(plan):
    texts = ["woman in red coat", "", "100 {} braces"]
    plain = Encoder.from_plan(Plan(plan))
    fingerprint = Plan(plan).manifest.fingerprint
    expected = plain.encode_texts([f"a photo of a person, {text}" for text in texts])
    changed = plain.with_prompt(PROMPT)
    np.testing.assert_array_equal(changed.encode_texts(texts), expected)
    set_prompt(plan, PROMPT)
    opened = Plan(plan)
    assert opened.manifest.fingerprint == fingerprint  # galleries stay valid
    np.testing.assert_array_equal(Encoder.from_plan(opened).encode_texts(texts), expected)


def test_a_search_uses_the_prompt(plan, crops):
    with finegrain.Searcher(plan, threads=1) as searcher:
        searcher.add(crops, progress=False)
        expected = [match.score for match in searcher.query("a photo of a person, red coat")]
    set_prompt(plan, PROMPT)
    with finegrain.Searcher(plan, threads=1) as searcher:
        assert [match.score for match in searcher.query("red coat")] == expected


@pytest.mark.parametrize("prompt", ["a photo", "{} and {}", ""])
def test_a_prompt_without_exactly_one_placeholder_is_refused(plan, prompt, tmp_path, capsys):
    with pytest.raises(QueryError, match=r"one \{\} for the text"):
        Encoder.from_plan(Plan(plan)).with_prompt(prompt)
    out = tmp_path / "pulled.plan"
    assert main(["pull", "clip-vit-b16", "--prompt", prompt, "-o", str(out)]) == 1
    assert "one {} for the text" in capsys.readouterr().err
    assert not out.exists()


def test_a_manifest_with_a_wrong_prompt_is_refused(plan):
    set_prompt(plan, "nothing to fill in")
    with pytest.raises(PlanError, match="prompt"):
        Plan(plan)
