"""One writer, many readers, and files that can only be read."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from finegrain.errors import GalleryError
from finegrain.gallery import Gallery

DIM = 4
ONE = np.eye(1, DIM)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Gallery(tmp_path / "g", fingerprint="plan-a", dim=DIM) as gallery:
        gallery.add(np.eye(3, DIM), ["a", "b", "c"], cameras=["x", "y", "x"])
    return tmp_path / "g"


# --- one writer, many readers -----------------------------------------------------------

_READER = """
import sys
import numpy as np
from finegrain.gallery import Gallery

with Gallery(sys.argv[1], create=False) as gallery:
    print(len(gallery), flush=True)
    sys.stdin.readline()
    print(len(gallery.search(np.eye(1, 4), 99)[0]), flush=True)
"""


def test_readers_in_other_processes_see_writes(path: Path):
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", _READER, str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    assert [reader.stdout and reader.stdout.readline() for reader in readers] == ["3\n"] * 3
    with Gallery(path) as gallery:
        gallery.add(ONE, ["d"])
        gallery.delete([1])
        gallery.add(np.repeat(ONE, 2, axis=0), ["e", "f"])
        assert [reader.communicate("go\n")[0] for reader in readers] == ["5\n"] * 3


def test_a_second_writer_waits_and_readers_do_not(path: Path, monkeypatch):
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM picture WHERE id = 1")
    for module in ("schema", "connections"):  # one process waits, and the other prints how long
        monkeypatch.setattr(f"finegrain.gallery.sqlite.{module}.BUSY_SECONDS", 0.1)
    with Gallery(path) as gallery:
        assert list(gallery) == [1, 2, 3]
        assert len(gallery.search(ONE, 9)[0]) == 3
        for write in (
            lambda: gallery.add(ONE, ["d"]),
            lambda: gallery.delete([2]),
            lambda: gallery.expire(),
        ):
            with pytest.raises(GalleryError, match=r"writing to it for 0.1 s; let it finish"):
                write()
        writer.execute("COMMIT")
        assert gallery.add(ONE, ["d"]) == [4]
        assert list(gallery) == [2, 3, 4]
    writer.close()


def test_every_write_is_durable_before_it_is_acknowledged(path: Path):
    with Gallery(path) as gallery:
        gallery.add(ONE, ["d"])
        writer = gallery._store._connections.writer()  # type: ignore[union-attr]
        settings = {
            name: writer.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("synchronous", "journal_mode", "secure_delete", "foreign_keys")
        }
    assert settings == {
        "synchronous": 2, "journal_mode": "wal", "secure_delete": 1, "foreign_keys": 1
    }  # fmt: skip


# --- reading only -----------------------------------------------------------------------


@pytest.fixture
def _make_read_only(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make file and folder read-only, also for a superuser, who may ignore their modes."""
    real = os.access

    def access(asked: Path, mode: int) -> bool:
        within = Path(asked) in (path, path.parent)
        return real(asked, mode) and not (within and mode & os.W_OK)

    monkeypatch.setattr(os, "access", access)


def check_reading(gallery: Gallery) -> None:
    assert list(gallery) == [1, 2, 3]
    assert [h.id for h in gallery.search(ONE, 9, where="camera = 'x'")[0]] == [1, 3]
    assert gallery.rows([2])[0].image == "b"
    with pytest.raises(GalleryError, match=r"open for reading only.*Give write access to all"):
        gallery.add(ONE, ["d"])
    with pytest.raises(GalleryError, match="open for reading only"):
        gallery.delete([1])
    with pytest.raises(GalleryError, match="open for reading only"):
        gallery.expire()


@pytest.mark.usefixtures("_make_read_only")
def test_a_file_that_cannot_be_written_opens_for_reading(path: Path):
    before = sorted(path.parent.iterdir()), path.read_bytes()
    with Gallery(path, fingerprint="plan-a", dim=DIM) as gallery:
        check_reading(gallery)
    assert (sorted(path.parent.iterdir()), path.read_bytes()) == before


def test_vectors_that_cannot_be_written_are_read(path: Path, monkeypatch: pytest.MonkeyPatch):
    real_access, real_open = os.access, os.open
    vectors = Path(f"{path}.vectors")

    def opened(asked: Path, flags: int, *arguments, **options) -> int:
        if Path(asked) == vectors and flags & (os.O_RDWR | os.O_WRONLY):
            raise PermissionError(13, "Permission denied")
        return real_open(asked, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(
        os, "access",
        lambda asked, mode: real_access(asked, mode)
        and not (Path(asked) == vectors and mode & os.W_OK),
    )  # fmt: skip
    with Gallery(path) as gallery:
        check_reading(gallery)
        assert gallery.backup(path.with_name("copy")) == 3


@pytest.mark.usefixtures("_make_read_only")
def test_a_reader_without_permission_follows_a_writer(path: Path):
    writer = sqlite3.connect(path)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("UPDATE picture SET camera = 'z', checksum = -1 WHERE id = 3")
    writer.commit()  # in the journal, which exists as long as the writer
    with Gallery(path) as gallery:
        assert len(gallery.search(ONE, 9, where="camera = 'z'")[0]) == 1
        writer.execute("DELETE FROM picture WHERE id = 1")
        writer.execute("UPDATE gallery SET deletions = deletions + 1")
        writer.commit()
        assert [h.id for h in gallery.search(ONE, 9)[0]] == [2, 3]
    writer.close()


@pytest.mark.usefixtures("_make_read_only")
def test_expired_pictures_are_hidden_if_they_cannot_be_deleted(path: Path, monkeypatch):
    connection = sqlite3.connect(path)
    connection.execute(
        "UPDATE picture SET expires_at = '2026-01-01T00:00:00.000Z', checksum = -1 WHERE id = 2"
    )
    connection.commit()
    connection.close()
    monkeypatch.setattr("finegrain.gallery.sqlite.followed_store.TIDY_SECONDS", 0)
    with Gallery(path) as gallery:
        assert list(gallery) == [1, 3]
        assert [h.id for h in gallery.search(ONE, 9)[0]] == [1, 3]


@pytest.mark.skipif(os.geteuid() == 0, reason="modes do not stop a superuser")
def test_modes_of_file_and_folder_are_respected(path: Path):
    path.chmod(stat.S_IRUSR)
    path.parent.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with Gallery(path) as gallery:
            check_reading(gallery)
    finally:
        path.parent.chmod(stat.S_IRWXU)


@pytest.mark.skipif(os.geteuid() != 0, reason="only a superuser can become somebody else")
def test_another_user_can_read(path: Path):
    """The file of one user is read by another user without write permission."""
    code = (
        "import os, sys, numpy as np\n"
        "from finegrain.errors import GalleryError\n"
        "from finegrain.gallery import Gallery\n"
        "from finegrain.index.codes import multiplies_bytes\n"
        "multiplies_bytes()\n"  # imports fail if Python's folder is closed to other users
        "os.setuid(65534)\n"
        "with Gallery(sys.argv[1]) as gallery:\n"
        "    print([hit.id for hit in gallery.search(np.eye(1, 4), 9)[0]])\n"
        "    try:\n"
        "        gallery.add(np.eye(1, 4), ['d'])\n"
        "    except GalleryError as error:\n"
        "        print('reading only' in str(error))\n"
    )
    with tempfile.TemporaryDirectory() as folder:  # pytest's folders are closed to other users
        Path(folder).chmod(0o755)
        for name in ("g", "g.vectors"):
            copied = shutil.copy(path.with_name(name), folder)
            Path(copied).chmod(0o644)  # a new gallery is private
        done = subprocess.run(
            [sys.executable, "-c", code, f"{folder}/g"], capture_output=True, text=True
        )
    assert done.stdout.splitlines() == ["[1, 2, 3]", "True"], done.stderr
