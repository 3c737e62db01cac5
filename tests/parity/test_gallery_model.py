"""A gallery compared with a dictionary, after any sequence of operations."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from finegrain.gallery import Gallery
from finegrain.times import utc_text

DIM = 4
START = datetime(2026, 5, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)

names = st.sampled_from(["a.jpg", "b.jpg", "it's; --.jpg", "日本\0.jpg"])
signs = st.lists(st.sampled_from([-0.5, 0.5]), min_size=DIM, max_size=DIM)  # exact in float32
pictures = st.fixed_dictionaries(
    {
        "image": st.none() | names,
        "pid": st.none() | st.integers(0, 3),
        "camera": st.none() | st.sampled_from(["gate-1", "gate-2"]),
        "time": st.none() | st.integers(-3, 3),
        "track": st.none() | st.sampled_from(["1", "2"]),
        "metadata": st.dictionaries(
            st.sampled_from(["x", "y"]),
            st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from(["", "u", "'"]),
        ),
        "vector": signs,
    }
)
filters = {
    "pid = 1 or camera = 'gate-1'": lambda p: p["pid"] == 1 or p["camera"] == "gate-1",
    "pid is null": lambda p: p["pid"] is None,
    "track != '1'": lambda p: p["track"] not in (None, "1"),
    "time >= '2026-05-01T01:00'": lambda p: p["time"] is not None and p["time"] >= 1,
    "image in ('a.jpg', 'it\\'s; --.jpg')": lambda p: p["image"] in ("a.jpg", "it's; --.jpg"),
}


class Machine(RuleBasedStateMachine):
    ids: Bundle[int] = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "g"
        self.now = START
        self.model: dict[int, dict] = {}
        self.last = 0

    @initialize()
    def begin(self) -> None:
        self.patch.setattr("finegrain.times.now", lambda: self.now)
        self.patch.setattr("finegrain.gallery.sqlite.followed_store.TIDY_SECONDS", 0)
        self.patch.setattr("finegrain.gallery.sqlite.vector_file.BLOCK_ROWS", 4)
        self.patch.setattr("finegrain.index.codes.least_rows", lambda: 2)
        self.gallery = Gallery(self.path, dim=DIM)

    def teardown(self) -> None:
        self.gallery.close()
        self.patch.undo()
        self.folder.cleanup()

    def _add(self, added: list[dict], **options) -> list[int]:
        times = [None if p["time"] is None else START + p["time"] * HOUR for p in added]
        return self.gallery.add(
            np.array([p["vector"] for p in added]).reshape(-1, DIM),
            [p["image"] for p in added],
            pids=[p["pid"] for p in added],
            cameras=[p["camera"] for p in added],
            times=times,
            tracks=[p["track"] for p in added],
            metadata=[p["metadata"] for p in added],
            **options,
        )

    def _keep(self, ids: list[int], added: list[dict], after: int | None) -> None:
        for id_, picture in zip(ids, added, strict=True):
            assert id_ == self.last + 1
            self.last = id_
            taken = self.now if picture["time"] is None else START + picture["time"] * HOUR
            self.model[id_] = {**picture, "end": None if after is None else taken + after * HOUR}
        self._forget()

    def _forget(self) -> None:
        over = [i for i, p in self.model.items() if p["end"] is not None and p["end"] <= self.now]
        for id_ in over:
            del self.model[id_]

    @rule(target=ids, added=st.lists(pictures, max_size=4), after=st.none() | st.integers(1, 4))
    def add(self, added, after):
        retention = None if after is None else after * HOUR
        new = self._add(added, expire_after=retention)
        self._keep(new, added, after)
        return multiple(*new)

    @rule(target=ids, picture=pictures, name=names)
    def replace(self, picture, name):
        picture = {**picture, "image": name}
        new = self._add([picture], on_duplicate="replace")
        self.model = {i: p for i, p in self.model.items() if p["image"] != name}
        self._keep(new, [picture], None)
        return multiple(*new)

    @rule(picture=pictures, name=names)
    def skip(self, picture, name):
        known = [i for i, p in self.model.items() if p["image"] == name]
        picture = {**picture, "image": name}
        given = self._add([picture], on_duplicate="skip")
        if known:
            assert given == [min(known)]
        else:
            self._keep(given, [picture], None)

    @rule(gone=st.lists(consumes(ids), max_size=3))
    def delete(self, gone):
        assert self.gallery.delete(gone) == len(self.model.keys() & set(gone))
        self.model = {i: p for i, p in self.model.items() if i not in gone}

    @rule(where=st.sampled_from(sorted(filters)))
    def delete_where(self, where):
        gone = {i for i, p in self.model.items() if filters[where](p)}
        assert self.gallery.delete_where(where) == len(gone)
        self.model = {i: p for i, p in self.model.items() if i not in gone}

    @rule(hours=st.integers(1, 3))
    def wait(self, hours):
        self.now += hours * HOUR
        self._forget()

    @rule()
    def expire(self):
        self.gallery.expire()
        assert self.gallery.expire() == 0

    @rule()
    def reopen(self):
        self.gallery.close()
        self.gallery = Gallery(self.path)

    @rule(query=signs, where=st.none() | st.sampled_from(sorted(filters)))
    def search(self, query, where):
        matching = {i: p for i, p in self.model.items() if where is None or filters[where](p)}
        scores = {i: float(np.dot(query, p["vector"])) for i, p in matching.items()}
        (hits,) = self.gallery.search([query], 100, where)
        assert [(h.id, h.score) for h in hits] == sorted(
            scores.items(), key=lambda s: (-s[1], s[0])
        )

    @invariant()
    def holds_the_same(self):
        assert list(self.gallery) == sorted(self.model)
        for row in self.gallery.rows(sorted(self.model)):
            picture = self.model[row.id]
            assert (row.image, row.pid, row.camera, row.track, row.metadata) == tuple(
                picture[name] for name in ("image", "pid", "camera", "track", "metadata")
            )
            assert {n: type(v) for n, v in row.metadata.items()} == {
                n: type(v) for n, v in picture["metadata"].items()
            }
            time = None if picture["time"] is None else utc_text(START + picture["time"] * HOUR)
            end = None if picture["end"] is None else utc_text(picture["end"])
            assert (row.time, row.expires_at) == (time, end)


Machine.TestCase.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)
test_a_gallery_is_a_dictionary = Machine.TestCase
