"""Typical queries: several at once, pages, paths, long texts, and a large k."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from finegrain.cli.parser import main
from finegrain.errors import QueryError
from finegrain.preprocess.clip_bpe import clip_tokenizer
from finegrain.search.searcher import Searcher


@pytest.fixture
def indexed(plan: Path, crops: Path) -> Path:
    with Searcher(plan, threads=1) as searcher:
        searcher.add(crops, metadata={"baseColour": "Black"}, progress=False)
    return plan


def test_a_large_k_gives_all_pictures(crops_searcher: Searcher):
    assert len(crops_searcher.query("coat", 99)) == 12
    assert len(crops_searcher.query("coat", 99, where="id < 4")) == 3
    assert len(crops_searcher.query("coat", 99, distinct=1.0)) == 12
    assert [match.rank for match in crops_searcher.query("coat", np.int64(13))] == list(
        range(1, 13)
    )


def test_several_queries_have_the_same_matches_as_each_alone(crops_searcher: Searcher, crops: Path):
    queries = ["red coat", crops / "03.jpg", "a man", np.zeros((128, 64, 3), np.uint8)]
    for several in (queries, tuple(queries)):
        answers = crops_searcher.query(several, 4, where="id > 2")
        alone = [crops_searcher.query(query, 4, where="id > 2") for query in queries]
        assert [a.query for a in answers] == ["red coat", "<picture>", "a man", "<picture>"]
        for together, single in zip(answers, alone, strict=True):
            assert [m.id for m in together] == [m.id for m in single]
            np.testing.assert_allclose(
                [m.score for m in together], [m.score for m in single], atol=1e-5
            )
    assert crops_searcher.query([]) == []


def test_an_offset_gives_the_next_page(crops_searcher: Searcher):
    every = crops_searcher.query("coat", 12)
    page = crops_searcher.query("coat", 5, offset=5)
    assert [m.id for m in page] == [m.id for m in every[5:10]]
    assert [m.rank for m in page] == [6, 7, 8, 9, 10]
    assert len(crops_searcher.query("coat", 5, offset=10)) == 2
    assert len(crops_searcher.query("coat", 5, offset=100)) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        {"k": 0}, {"k": "ten"}, {"k": 1.5}, {"k": True}, {"offset": -1}, {"offset": "2"},
        {"distinct": 2}, {"distinct": "x"}, {"group_by": 3}, {"group_by": "pid"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("query", ["coat", ["coat", "dress"]])
def test_arguments_are_checked(crops_searcher: Searcher, query, arguments):
    with pytest.raises(QueryError):
        crops_searcher.query(query, **arguments)


@pytest.mark.parametrize("queries", [["coat", ""], ["coat", 3], [["coat"]], ["x" * 2001]])
def test_one_invalid_query_of_several_is_refused(crops_searcher: Searcher, queries):
    with pytest.raises(QueryError):
        crops_searcher.query(queries)


# --- notes ------------------------------------------------------------------------------


def test_words_beyond_the_context_are_named(crops_searcher: Searcher):
    long = "a person " * 60 + "in a red coat"
    (note,) = crops_searcher.query(long).notes
    assert note.startswith("the model reads 77 tokens of a text; the last ")
    assert note.endswith("a person in a red coat'")
    assert crops_searcher.query("a person in a red coat").notes == ()
    assert "note: the model reads 77 tokens" in repr(crops_searcher.query(long))


@pytest.mark.parametrize("length", range(70, 80))
def test_truncated_words_do_not_change_the_ids(length: int):
    tokenizer = clip_tokenizer(77)
    words = ["word"] * length
    cut = tokenizer.beyond_context(" ".join(words))
    # One token per word, and 75 of them between start and end.
    assert cut == " ".join(words[75:])
    # A partly truncated word counts as truncated.
    assert tokenizer.beyond_context(" ".join(["word"] * 74 + ["unbelievablyy", "coat"])) == (
        "unbelievablyy coat"
    )


def test_a_path_as_text_is_reported(crops_searcher: Searcher, crops: Path):
    (note,) = crops_searcher.query(str(crops / "00.jpg")).notes
    assert "looks like the path of a picture; search by the picture" in note
    (note,) = crops_searcher.query("nowhere/a.jpg").notes
    assert "which does not exist" in note
    assert crops_searcher.query("a dress as in a.jpg").notes == ()


def test_a_value_in_another_case_is_reported(indexed: Path, capsys):
    where = ["--where", "baseColour = 'black'"]
    assert main(["query", str(indexed), "coat", *where]) == 0
    assert "note: no picture has baseColour = 'black'; there is 'Black'" in capsys.readouterr().out
    assert main(["query", str(indexed), "coat", *where, "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == []
    assert "there is 'Black'" in shown.err


# --- the command line -------------------------------------------------------------------


def test_the_command_accepts_several_texts(indexed: Path, tmp_path: Path, capsys):
    (tmp_path / "texts").write_text("blue dress\n\nwhite shirt\n", encoding="utf-8-sig")
    command = ["query", str(indexed), "red coat", "--queries", str(tmp_path / "texts"), "-k", "2"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert [f"2 matches for '{q}'" in shown for q in ("red coat", "blue dress", "white shirt")]
    assert main([*command, "--json", "--offset", "3"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert [a["query"] for a in answers] == ["red coat", "blue dress", "white shirt"]
    assert [m["rank"] for m in answers[0]["matches"]] == [4, 5]


def test_the_command_accepts_a_path_of_a_picture(indexed: Path, crops: Path, capsys):
    assert main(["query", str(indexed), str(crops / "05.jpg"), "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)[0]["image"] == str((crops / "05.jpg").resolve())
    assert "is a file, so it is searched for as a picture" in shown.err


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        ([], "nothing to search for"),
        (["--queries", "nowhere.txt"], "cannot be read as UTF-8 text"),
        (["coat", "--image", "a.jpg"], "The words alone can be searched"),
        (["coat", "hat", "--image", "a.jpg"], "expected one text beside --image"),
        (["coat", "dress", "--grid", "g.png"], "expected one query for --grid, got 2"),
        (["coat", "dress", "--like", "3"], "expected one query for --like, got 2"),
        (["coat", "--group-by", "track"], "no picture in the gallery has a 'track'"),
        (["coat", "--offset", "-1"], "offset is a whole number"),
    ],
)
def test_an_invalid_query_is_a_one_line_error(indexed: Path, capsys, argv, why):
    assert main(["query", str(indexed), *argv]) == 1
    assert why in capsys.readouterr().err


def test_a_closed_pipe_is_not_an_error(indexed: Path):
    command = [sys.executable, "-m", "finegrain", "query", str(indexed), "coat", "--json"]
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as closed:
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, check=False)
    assert done.stderr == b""
    assert done.returncode == 141
