from __future__ import annotations

import csv
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finegrain.cli.parser import main
from finegrain.errors import DataError, EvaluationError, PlanError, QueryError
from finegrain.evaluation.background import Background
from finegrain.evaluation.hub_correction import HubCorrection
from finegrain.plan import Plan
from finegrain.search.asking.calibrating import JudgedQuery, read_bank, read_judged
from finegrain.search.hubs import NOT_CORRECTED
from finegrain.search.matches import Match
from finegrain.search.searcher import Searcher

COEFFICIENTS = {"intercept": -1.0, "score": 6.0, "z": 0.8, "log_size": -0.3, "below_best": 0.5}
TEXT = "woman in red coat"


@pytest.fixture(scope="module")
def calibrated_plan(tiny_plan, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("calibrated") / "model.plan"
    plan = Plan(tiny_plan)
    plan.rewrite(path, replace(plan.manifest, match_probability=COEFFICIENTS))
    return path


@pytest.fixture(scope="module")
def searcher(calibrated_plan, crops):
    with Searcher(calibrated_plan, threads=1) as opened:
        paths = sorted(crops.iterdir())
        opened.add(paths, [{"pid": n // 2, "floor": n % 2} for n in range(12)], progress=False)
        yield opened


def expected_probability(searcher: Searcher, match: Match, text: str) -> float:
    """The formula with a loop over all pictures, which are fewer than a sample has."""
    gallery = searcher.gallery
    query = searcher._encoder.encode_texts([text])[0].astype(float)
    scores = [float(query @ vector.astype(float)) for vector in gallery.vectors(gallery).values()]
    mean = sum(scores) / len(scores)
    spread = math.sqrt(sum((score - mean) ** 2 for score in scores) / len(scores))
    logit = (
        COEFFICIENTS["intercept"]
        + COEFFICIENTS["score"] * match.score
        + COEFFICIENTS["z"] * (match.score - mean) / spread
        + COEFFICIENTS["log_size"] * math.log(len(scores))
        + COEFFICIENTS["below_best"] * (max(scores) - match.score)
    )
    return 1 / (1 + math.exp(-logit))


# --- queries ----------------------------------------------------------------------------


def test_matches_have_the_probability_of_the_formula(searcher):
    matches = searcher.query(TEXT, 12)
    assert [m.probability for m in matches] == pytest.approx(
        [expected_probability(searcher, m, TEXT) for m in matches], abs=1e-4
    )
    assert matches[0].probability > matches[11].probability


def test_a_page_has_the_probabilities_of_the_complete_answer(searcher):
    every = searcher.query(TEXT, 12)
    page = searcher.query(TEXT, 4, offset=5)
    assert [m.probability for m in page] == [m.probability for m in every[5:9]]


def test_scores_do_not_depend_on_the_calibration(searcher, tiny_plan):
    with Searcher(tiny_plan, gallery=searcher.gallery.path, threads=1) as plain:
        expected = plain.query([TEXT, "blue dress"], 12)
        assert all(m.probability is None for answer in expected for m in answer)
        got = searcher.query([TEXT, "blue dress"], 12)
        assert [[(m.id, m.score) for m in a] for a in got] == [
            [(m.id, m.score) for m in a] for a in expected
        ]


def test_matches_below_the_least_probability_are_left_out(searcher):
    every = searcher.query(TEXT, 12)
    least = every[4].probability
    kept = searcher.query(TEXT, 12, min_probability=least)
    assert [m.id for m in kept] == [m.id for m in every if m.probability >= least]
    assert 0 < len(kept) < 12
    assert kept.rejected is None


def test_nobody_fits_names_the_best_that_was_rejected(searcher):
    best = searcher.query(TEXT, 1)[0]
    matches = searcher.query(TEXT, min_probability=1.0)
    assert len(matches) == 0
    assert matches.rejected == best
    assert matches.notes[0] == (
        f"nobody in the gallery fits this: the best of 12 pictures has probability "
        f"{best.probability:.2f}, below 1"
    )
    assert "nobody in the gallery fits this" in repr(matches)
    assert "nobody in the gallery fits this" in matches._repr_html_()


def test_tables_grids_and_json_show_the_probability(searcher):
    matches = searcher.query(TEXT, 3)
    shown = f"{matches[0].probability:.2f}"
    assert "probability" in repr(matches)
    assert shown in repr(matches)
    assert f"probability: {shown}" in matches._repr_html_()
    assert matches.to_dicts()[0]["probability"] == matches[0].probability
    assert matches.grid().size[0] > 0


def test_a_query_with_denied_words_has_probabilities(searcher):
    matches = searcher.query("coat without a bag", 12)
    assert all(0 <= m.probability <= 1 for m in matches)
    assert len(searcher.query("coat without a bag", min_probability=1.0)) == 0


def test_pictures_and_feedback_have_no_probability_and_say_so(searcher, crops):
    for matches in (
        searcher.query(crops / "00.jpg", min_probability=0.9),
        searcher.query(TEXT, like=[1], min_probability=0.9),
        searcher.query(image=crops / "00.jpg", text="in red", min_probability=0.9),
    ):
        assert len(matches) == 10 or len(matches) == 11
        assert all(m.probability is None for m in matches)
        assert any("only queries by words" in note for note in matches.notes)


def test_a_plan_without_calibration_says_what_is_missing_and_searches(crops_searcher):
    matches = crops_searcher.query(TEXT, min_probability=0.9)
    assert len(matches) == 10
    assert any("finegrain calibrate" in note for note in matches.notes)


@pytest.mark.parametrize("value", [-0.1, 1.1, "0.5", True, float("nan"), [0.5]])
def test_a_least_probability_out_of_range_is_refused(searcher, value):
    with pytest.raises(QueryError, match="min_probability from 0 to 1"):
        searcher.query(TEXT, min_probability=value)


def test_the_command_shows_probabilities_and_nobody(searcher, calibrated_plan, capsys):
    base = ["query", str(calibrated_plan), "--gallery", str(searcher.gallery.path), TEXT]
    assert main([*base, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["probability"] == searcher.query(TEXT)[0].probability
    assert main([*base, "--min-probability", "1"]) == 0
    assert "nobody in the gallery fits this" in capsys.readouterr().out


# --- the plan ---------------------------------------------------------------------------


def test_a_plan_keeps_its_fingerprint_and_members(tiny_plan, calibrated_plan):
    before, after = Plan(tiny_plan), Plan(calibrated_plan)
    assert after.manifest.fingerprint == before.manifest.fingerprint
    assert after.manifest.match_probability == COEFFICIENTS
    assert before.manifest.match_probability is None
    assert replace(after.manifest, match_probability=None) == before.manifest


@pytest.mark.parametrize(
    "wrong",
    [{}, {"score": 1.0}, {**COEFFICIENTS, "more": 1.0}, {**COEFFICIENTS, "z": "1"}, [1], "x", 3],
)
def test_coefficients_of_another_form_are_refused(tiny_plan, tmp_path, wrong):
    plan = Plan(tiny_plan)
    plan.rewrite(tmp_path / "wrong.plan", replace(plan.manifest, match_probability=wrong))
    with pytest.raises(PlanError, match="match_probability"):
        Plan(tmp_path / "wrong.plan")


# --- calibrating ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tiny_plan, tmp_path_factory):
    """A gallery of drawn vectors, in which each of 60 texts has two pictures near it."""
    folder = tmp_path_factory.mktemp("large")
    plan = Path(shutil.copy(tiny_plan, folder / "model.plan"))
    with Searcher(plan, threads=1) as searcher:
        random = np.random.default_rng(0)
        texts = [
            f"{a} {b} {c}" for a in "xyz" for b in ("red", "blue", "tan", "old") for c in "abcde"
        ]
        vectors = searcher._encoder.encode_texts(texts)
        near = np.repeat(vectors, 2, axis=0) + random.normal(0, 0.05, (120, 32))
        far = vectors.mean(axis=0) + random.normal(0, 0.1, (280, 32))
        rows = np.concatenate([near, far])
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        gallery = searcher._retriever.made()
        gallery.add(
            rows,
            [None] * 400,
            pids=[*np.repeat(np.arange(60), 2).tolist(), *[None] * 280],
            metadata=[{"name": f"it's {n}"} for n in range(400)],
        )
        yield searcher, texts, plan


def write(path: Path, rows: list[list[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def test_the_command_calibrates_a_plan(large, tmp_path, capsys):
    searcher, texts, plan = large
    rows = [["text", "pid"], *[[text, n] for n, text in enumerate(texts)], ["elephant", ""]]
    path = write(tmp_path / "judged.csv", rows)
    gallery = ["--gallery", str(searcher.gallery.path)]
    out = tmp_path / "new.plan"
    command = ["calibrate", str(plan), "--queries", str(path), *gallery, "-o", str(out)]
    assert main(command) == 0
    assert "fitted on 61 queries, 60 of them with right pictures" in capsys.readouterr().out
    assert Plan(plan).manifest.match_probability is None
    judged = read_judged(path, searcher.gallery)
    expected = searcher.calibrate(judged).coefficients
    assert Plan(out).manifest.match_probability == expected.to_dict()
    right = searcher.query(texts[0], 400)
    chances = [m.probability for m in right]
    assert {m.pid for m in right[:2]} == {0}
    assert min(chances[:2]) > max(chances[10:])
    with Searcher(out, gallery=searcher.gallery.path, threads=1) as other:
        assert [m.probability for m in other.query(texts[0], 400)] == chances


def test_the_command_writes_a_bank_of_own_texts(large, tmp_path, capsys):
    """The pictures are right that are best with one of the settings."""
    searcher, texts, plan = large
    copy = Path(shutil.copy(plan, tmp_path / "model.plan"))
    searcher.gallery.backup(tmp_path / "model.gallery")
    bank = tmp_path / "bank.txt"
    bank.write_text("\n\n".join(f"someone with {n} bags" for n in range(120)))
    captions = searcher._encoder.encode_texts(read_bank(bank)).astype(np.float16)
    wanted = HubCorrection(captions.astype(np.float32), 0.75, 16)
    images = np.stack(list(searcher.gallery.vectors(searcher.gallery).values()))
    scores = searcher._encoder.encode_texts(texts) @ images.T + wanted.biases(images)
    rows = [[text, f"it's {row.argmax()}"] for text, row in zip(texts, scores, strict=True)]
    judged = write(tmp_path / "judged.csv", [["text", "name"], *rows])
    command = ["calibrate", str(copy), "--queries", str(judged), "--bank", str(bank)]
    assert main(command) == 0
    background = Background.of_plan(Plan(copy))
    assert (background.weight, background.neighbours) == (0.75, 16)
    np.testing.assert_array_equal(background.captions, captions)
    assert background.match_probability is not None
    assert f"finegrain gallery correct-hubs {copy}" in capsys.readouterr().out
    assert main(["gallery", "correct-hubs", str(copy)]) == 0
    with Searcher(copy, threads=1) as corrected:
        first = corrected.query(texts[0])
        assert NOT_CORRECTED not in first.notes
        assert first[0].id == 1 + scores[0].argmax()
        assert first[0].probability > 0


def test_a_bank_of_few_texts_is_refused(large):
    searcher, texts, _ = large
    judged = [JudgedQuery(text=text, right=frozenset([1])) for text in texts]
    with pytest.raises(EvaluationError, match="100 different texts or more, got 2"):
        searcher.calibrate(judged, bank=["a", "b", "a"])


def test_a_bank_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "bank.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DataError, match="UTF-8"):
        read_bank(tmp_path / "bank.txt")
    with pytest.raises(DataError, match="cannot be read"):
        read_bank(tmp_path / "missing.txt")


def test_judged_queries_name_pictures_by_any_column(large, tmp_path):
    gallery = large[0].gallery
    rows = [["text", "pid", "name"], ["a", "3", ""], ["b", "", "it's 12"], ["a", "5", ""],
            ["b", "6", "it's 13"], ["c", "", ""], ["d", "6", "it's 2"]]  # fmt: skip
    read = {q.text: sorted(q.right) for q in read_judged(write(tmp_path / "q.csv", rows), gallery)}
    assert read == {"a": [7, 8, 11, 12], "b": [13, 14], "c": [], "d": []}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected the column 'text'"),
        ("text\ncoat\n", "expected the column 'text'"),
        ("query,pid\ncoat,3\n", "expected the column 'text'"),
        ("text,shoe\ncoat,3\n", "expected the column 'text'"),
        ("text,pid\ncoat\n", "line 2: expected as many cells"),
        ("text,pid\ncoat,3,4\n", "line 2: expected as many cells"),
        ("text,pid\n,3\n", "line 2: the query is empty"),
        ("text,id\ncoat,three\n", "line 2"),
        ("text,time\ncoat,noon\n", "line 2"),
    ],
)
def test_judged_queries_of_another_form_are_refused(large, tmp_path, content, message):
    path = tmp_path / "judged.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_judged(path, large[0].gallery)


def test_files_that_are_no_text_are_refused(large, tmp_path):
    (tmp_path / "judged.csv").write_bytes(b"text,pid\n\xff\xfe,3\n")
    for name in ("judged.csv", "missing.csv"):
        with pytest.raises(DataError, match="cannot be read"):
            read_judged(tmp_path / name, large[0].gallery)


def test_a_file_of_judged_queries_that_is_too_large_is_refused(large, tmp_path, monkeypatch):
    monkeypatch.setattr("finegrain.search.asking.calibrating._MAX_BYTES", 20)
    path = write(tmp_path / "judged.csv", [["text", "pid"], ["a long red coat", 3]])
    with pytest.raises(DataError, match="at most 20 bytes"):
        read_judged(path, large[0].gallery)


def test_too_few_judged_queries_are_refused(large):
    queries = [JudgedQuery(text=f"coat {n}", right=frozenset([n])) for n in range(1, 20)]
    with pytest.raises(EvaluationError, match="got 19 and 400"):
        large[0].calibrate(queries)
    with pytest.raises(EvaluationError, match="got 0 and 400"):
        large[0].calibrate([])
