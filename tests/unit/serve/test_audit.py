from __future__ import annotations

import errno
import json
import os
import stat

import pytest

from finegrain.errors import DataError
from finegrain.serve.audit import NO_RECORD, AuditLog, verify
from finegrain.serve.problems import ServiceError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


def fill(path, count, **options):
    log = AuditLog(path, **options)
    for number in range(count):
        log.append("search", "control-room", {"query": f"red coat {number}", "shown": [number]})
    log.close()


def test_records_say_who_did_what_and_when(path):
    fill(path, 2)
    first, second = map(json.loads, path.read_text().splitlines())
    assert first.pop("at") <= second["at"]
    assert first == {
        "action": "search", "client": "control-room", "query": "red coat 0", "shown": [0],
        "previous": NO_RECORD,
    }  # fmt: skip
    assert verify(path).num_records == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_closed_log_is_continued(path):
    fill(path, 2)
    fill(path, 3)
    assert verify(path).num_records == 5


def test_a_missing_log_has_no_records(path):
    assert (verify(path).num_records, verify(path).digest) == (0, NO_RECORD)


def test_full_files_are_kept_and_the_chain_continues(path):
    fill(path, 20, most_bytes=600)
    fill(path, 1, most_bytes=600)
    files = sorted(file.name for file in path.parent.glob("audit.jsonl.0*"))
    assert files[:2] == ["audit.jsonl.000001", "audit.jsonl.000002"]
    assert all(file.stat().st_size <= 600 for file in path.parent.glob("audit.jsonl*"))
    assert verify(path).num_records == 21
    (path.parent / files[1]).unlink()
    with pytest.raises(DataError, match=r"chain is broken before line 1 of .*000003"):
        verify(path)


def change(lines):
    return [lines[0], lines[1].replace("coat 1", "coat 9"), *lines[2:]]


def remove(lines):
    return [lines[0], *lines[2:]]


def insert(lines):
    return [lines[0], lines[0], *lines[1:]]


def swap(lines):
    return [lines[0], lines[2], lines[1], *lines[3:]]


@pytest.mark.parametrize("tamper", [change, remove, insert, swap])
def test_a_change_of_an_earlier_record_is_noticed(path, tamper):
    fill(path, 5)
    path.write_text("".join(tamper(path.read_text().splitlines(keepends=True))))
    with pytest.raises(DataError, match="the chain is broken before line"):
        verify(path)


@pytest.mark.parametrize("line", ["nonsense\n", "[]\n", '{"previous": 1, "previous": 2}\n', "{}\n"])
def test_a_line_that_is_not_a_record_is_named(path, line):
    path.write_text(line)
    with pytest.raises(DataError, match=r"line 1 of .* is not a record"):
        verify(path)


def test_a_log_whose_end_was_cut_off_lacks_an_earlier_digest(path):
    fill(path, 3)
    digest = verify(path).digest
    fill(path, 1)
    assert verify(path, contains=digest).num_records == 4
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    assert verify(path).num_records == 2
    with pytest.raises(DataError, match="newest records were removed"):
        verify(path, contains=digest)


def test_half_a_record_of_a_power_cut_is_removed_and_recorded(path):
    fill(path, 2)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"at": "2026')
    with pytest.raises(DataError, match="is not complete"):
        verify(path)
    AuditLog(path).close()
    assert json.loads(path.read_text().splitlines()[-1])["removed_bytes"] == 12
    assert verify(path).num_records == 3


def test_a_record_that_cannot_be_written_refuses_the_request_and_keeps_the_chain(path, monkeypatch):
    log = AuditLog(path)
    log.append("search", "a", {})
    real = os.write

    def full(descriptor, data):
        real(descriptor, data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ServiceError, match="No space left on device"):
        log.append("search", "a", {})
    monkeypatch.undo()
    log.append("search", "a", {})
    log.close()
    assert verify(path).num_records == 2


def test_one_process_writes_a_log(path):
    log = AuditLog(path)
    with pytest.raises(DataError, match="another service writes"):
        AuditLog(path)
    log.close()
    AuditLog(path).close()


def test_a_log_that_cannot_be_created_is_an_error(tmp_path):
    with pytest.raises(DataError, match="cannot be written"):
        AuditLog(tmp_path / "missing" / "audit.jsonl")
