"""The file of tokens beside a gallery is a cache that may be lost but is never wrong."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.errors import GalleryError
from finegrain.gallery.sqlite.tokens import TokenFile, forget_tokens
from finegrain.records import PictureTokens

TOKENS, WIDTH = 3, 8


def some(count: int, seed: int = 0) -> PictureTokens:
    rng = np.random.default_rng(seed)
    return PictureTokens(
        codes=rng.integers(-127, 128, (count, TOKENS, WIDTH), np.int8),
        scales=rng.random((count, TOKENS), np.float32),
    )


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., TokenFile]:
    def open_file(fingerprint: str = "a", tokens: int = TOKENS) -> TokenFile:
        path = tmp_path / "x.tokens"
        return TokenFile(path, fingerprint=fingerprint, tokens=tokens, width=WIDTH)

    return open_file


@settings(max_examples=30, deadline=None)
@given(
    kept=st.lists(st.integers(1, 2**62), unique=True, max_size=8),
    asked=st.lists(st.integers(1, 20), max_size=8, unique=True),
    data=st.data(),
)
def test_stored_tokens_are_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    kept: list[int],
    asked: list[int],
    data: st.DataObject,
) -> None:
    tokens = some(len(kept))
    wanted = data.draw(st.permutations(kept)) + asked
    path = tmp_path_factory.mktemp("tokens") / "x.tokens"
    with TokenFile(path, fingerprint="a", tokens=TOKENS, width=WIDTH) as file:
        file.add(dict.fromkeys(kept, "t"), tokens)
    with TokenFile(path, fingerprint="a", tokens=TOKENS, width=WIDTH) as file:
        result, got = file.read(dict.fromkeys(wanted, "t"))
    there = [id_ for id_ in dict.fromkeys(wanted) if id_ in kept]
    assert result == there
    rows = np.array([kept.index(id_) for id_ in there], np.intp)
    assert np.array_equal(got.codes, tokens.codes[rows])
    assert np.array_equal(got.scales, tokens.scales[rows])


def test_a_new_record_replaces_the_old(opened: Callable[..., TokenFile]) -> None:
    with opened() as file:
        file.add({5: "t"}, some(1, seed=1))
        file.add({5: "t"}, some(1, seed=2))
        assert np.array_equal(file.read({5: "t"})[1].codes, some(1, seed=2).codes)
        assert len(file) == 1


def test_tokens_of_an_earlier_gallery_are_not_used(opened: Callable[..., TokenFile]) -> None:
    with opened() as file:
        file.add({1: "monday", 2: "monday"}, some(2))
        assert file.read({1: "tuesday", 2: "monday"})[0] == [2]


@pytest.mark.parametrize("other", [{"fingerprint": "b"}, {"tokens": TOKENS + 1}])
def test_tokens_of_another_plan_are_not_read(
    opened: Callable[..., TokenFile], other: dict[str, str | int]
) -> None:
    with opened() as file:
        file.add({1: "t", 2: "t"}, some(2))
    with opened(**other) as file:
        assert file.ids() == {}


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + b"x" * 99])
def test_a_damaged_file_is_created_again(
    opened: Callable[..., TokenFile], tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "x.tokens").write_bytes(content)
    with opened() as file:
        file.add({1: "t"}, some(1))
        assert file.ids() == {1: "t"}


def test_another_applications_database_is_refused_and_not_changed(
    opened: Callable[..., TokenFile], tmp_path: Path
) -> None:
    path = tmp_path / "x.tokens"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE precious (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(GalleryError, match="another application"):
        opened()
    assert path.read_bytes() == before


def test_deleted_tokens_are_not_in_the_file(
    opened: Callable[..., TokenFile], tmp_path: Path
) -> None:
    secret = PictureTokens(
        codes=np.full((1, TOKENS, WIDTH), 77, np.int8), scales=np.ones((1, TOKENS), np.float32)
    )
    with opened() as file:
        file.add({1: "t"}, secret)
        file.add({2: "t"}, some(1))
        written = bytes([77]) * (TOKENS * WIDTH)
        assert any(written in path.read_bytes() for path in tmp_path.iterdir())
        file.forget([1])
        assert file.ids() == {2: "t"}
    assert not any(written in path.read_bytes() for path in tmp_path.iterdir())


def test_a_gallery_deletes_tokens_without_the_plan(
    opened: Callable[..., TokenFile], tmp_path: Path
) -> None:
    forget_tokens(tmp_path / "x.tokens", [1])  # there is no file, so there is nothing to do
    assert not (tmp_path / "x.tokens").exists()
    with opened() as file:
        file.add({1: "t", 2: "t"}, some(2))
    forget_tokens(tmp_path / "x.tokens", [1])
    with opened() as file:
        assert file.ids() == {2: "t"}


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="unable to open"):
        TokenFile(tmp_path / "no" / "x.tokens", fingerprint="a", tokens=1, width=1)
