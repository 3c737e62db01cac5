"""The file of standing queries and their alarms."""

from __future__ import annotations

import os
import sqlite3

import pytest

from finegrain.errors import DataError, QueryError
from finegrain.serve.alerts import book as book_module
from finegrain.serve.alerts.book import AlertBook, Examined, Standing


@pytest.fixture
def book(tmp_path):
    with AlertBook(tmp_path / "alerts.db") as opened:
        yield opened


def raised(book, name, *pictures):
    done = Examined(name=name, last=max(pictures), least=0.5, alarms=[(p, 0.9) for p in pictures])
    book.examined([done])


def test_queries_and_alarms_survive_closing(book, tmp_path):
    standing = Standing.checked("coat", "red coat", where="camera = 'a'", avoid=["hat"], per=None)
    assert book.add(standing) is None
    secret = book.add(Standing.checked("cap", "blue cap", webhook="https://example.com/"))
    raised(book, "coat", 4, 7)
    book.close()
    with AlertBook(tmp_path / "alerts.db") as again:
        assert again.all()[1] == standing
        assert again.secret("cap") == secret
        assert again.progress()["coat"].examined == 7
        assert [(a.number, a.picture) for a in again.alarms(["coat"], 0)] == [(1, 4), (2, 7)]


def test_only_the_owner_may_read_the_file(book):
    book.add(Standing.checked("cap", "blue cap", webhook="https://example.com/"))
    folder = book.path.parent
    assert {oct(file.stat().st_mode & 0o777) for file in folder.iterdir()} == {"0o600"}


def test_delivered_alarms_are_not_waiting(book):
    book.add(Standing.checked("cap", "cap", webhook="https://example.com/"))
    raised(book, "cap", 1, 2, 3)
    book.deliver(book.undelivered("cap")[1])
    assert [alarm.picture for alarm in book.undelivered("cap")] == [3]
    assert book.progress()["cap"].waiting == 1


def test_the_oldest_alarms_are_dropped_and_counted(book, monkeypatch):
    monkeypatch.setattr(book_module, "MOST_ALARMS", 3)
    book.add(Standing.checked("cap", "cap", webhook="https://example.com/"))
    book.add(Standing.checked("coat", "coat"))
    raised(book, "cap", 1, 2)
    book.deliver(book.undelivered("cap")[0])
    raised(book, "cap", 3, 4, 5, 6)
    raised(book, "coat", 3, 4, 5, 6)
    assert [alarm.picture for alarm in book.undelivered("cap")] == [4, 5, 6]
    assert (book.progress()["cap"].dropped, book.progress()["coat"].dropped) == (2, 0)


def test_a_new_query_has_no_alarms_of_an_earlier_one_with_its_name(book):
    book.add(Standing.checked("cap", "cap", webhook="https://example.com/"))
    raised(book, "cap", 1, 2)
    book.remove("cap")
    raised(book, "cap", 3)  # examined while it was removed
    book.add(Standing.checked("cap", "cap", webhook="https://example.com/"))
    assert book.undelivered("cap") == []
    raised(book, "cap", 4)
    assert [alarm.number for alarm in book.alarms(["cap"], 0)] == [3]


def test_a_full_disk_changes_nothing(book, monkeypatch):
    book.add(Standing.checked("cap", "cap"))
    raised(book, "cap", 1)
    (pages,) = book._connection.execute("PRAGMA page_count").fetchone()
    book._connection.execute(f"PRAGMA max_page_count = {pages}")
    many = Examined(name="cap", last=900, least=0.5, alarms=[(n, 0.9) for n in range(900)])
    with pytest.raises(DataError, match="cannot be used: database or disk is full"):
        book.examined([many])
    assert (book.progress()["cap"].examined, book.last_number()) == (1, 1)


def test_names_are_taken_once_and_there_are_not_too_many(book, monkeypatch):
    book.add(Standing.checked("cap", "cap"))
    with pytest.raises(DataError, match="an alert named 'cap' already"):
        book.add(Standing.checked("cap", "coat"))
    monkeypatch.setattr(book_module, "MOST_QUERIES", 1)
    with pytest.raises(DataError, match="1 alerts already"):
        book.add(Standing.checked("coat", "coat"))
    with pytest.raises(DataError, match="no alert named 'hat'; there are: cap"):
        book.remove("hat")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", "coat"), "a name of printable"),
        (("a\nb", "coat"), "a name of printable"),
        (("x" * 101, "coat"), "up to 100 characters"),
        (("a", " "), "is empty"),
        (("a", "coat", {"avoid": [""]}), "is empty"),
        (("a", "coat", {"false_alarms_per_day": 0}), "above 0"),
    ],
)
def test_an_invalid_query_is_an_error(arguments, message):
    name, query, *options = arguments
    with pytest.raises(QueryError, match=message):
        Standing.checked(name, query, **(options[0] if options else {}))


def test_another_file_is_refused(tmp_path):
    (tmp_path / "text").write_text("no database " * 100)
    with pytest.raises(DataError, match="not a database"):
        AlertBook(tmp_path / "text")
    with sqlite3.connect(tmp_path / "other") as connection:
        connection.execute("CREATE TABLE a (b)")
    with pytest.raises(DataError, match="not a file of alerts"):
        AlertBook(tmp_path / "other")
    with pytest.raises(DataError, match="cannot be used"):
        AlertBook(tmp_path / "missing" / "file")


def test_a_changed_query_in_the_file_is_an_error(book):
    book.add(Standing.checked("cap", "cap"))
    for spec in ("[]", "{", '{"query": 3}', '{"query": "cap", "colour": "red"}'):
        book._connection.execute("UPDATE standing SET spec = ?", (spec,))
        with pytest.raises(DataError, match="holds an invalid alert"):
            book.all()
    assert os.path.exists(book.path)
