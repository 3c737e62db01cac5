"""Addresses, YAML lists of cameras, hours, zones and lines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from finegrain.cameras.address import Address
from finegrain.cameras.hours import Hours
from finegrain.cameras.sources import cameras_of
from finegrain.cameras.zones import Line, Point, crossing, is_inside
from finegrain.cameras.zones import Path as Walked
from finegrain.errors import CameraError

pytest.importorskip("yaml")

WHOLE = """
cameras:
  - name: gate-3
    source: rtsp://admin:hunter2@10.0.0.5/live
    hours: ["mon-fri 07:00-19:00", "sat 22:00-02:00"]
    timezone: Europe/Berlin
    expire_days: 30
    blur: true
    zones: {door: [[0.4, 0.5], [0.6, 0.5], [0.6, 1.0], [0.4, 1.0]]}
    lines: {entrance: [[0.4, 0.9], [0.6, 0.9]]}
    masks: [[[0.0, 0.0], [0.2, 0.0], [0.2, 0.3]]]
  - name: hall
    source: hall.mp4
    start: 2026-05-01T08:00+02:00
"""


def listed(tmp_path: Path, text: str):
    path = tmp_path / "site.yaml"
    path.write_text(text, encoding="utf-8")
    return cameras_of(path)


def test_a_list_of_cameras_is_read(tmp_path: Path):
    gate, hall = listed(tmp_path, WHOLE)
    assert (gate.name, str(gate.address), gate.blur) == ("gate-3", "rtsp://10.0.0.5/live", True)
    assert gate.expire_after == timedelta(days=30)
    assert gate.lines == {"entrance": Line(Point(0.4, 0.9), Point(0.6, 0.9))}
    assert len(gate.zones["door"]) == 4
    assert len(gate.masks[0]) == 3
    # Berlin is two hours before UTC in May.
    assert datetime(2026, 5, 1, 5, 0, tzinfo=UTC) in gate.hours
    assert datetime(2026, 5, 1, 4, 59, tzinfo=UTC) not in gate.hours
    assert hall.address.text == str(tmp_path / "hall.mp4")
    assert hall.start == datetime(2026, 5, 1, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("expire_days", "expire_day"), "Did you mean 'expire_days'"),
        (("cameras:", "kameras:"), "Did you mean 'cameras'"),
        (("name: gate-3", "name: 3"), "expected name as a text"),
        (("name: hall", "name: gate-3"), "a name of its own for each camera"),
        (("rtsp:", "rstp:"), "Did you mean 'rtsp'"),
        (("07:00-19:00", "7-19"), "expected hours such as"),
        (("Europe/Berlin", "Europe/Berlim"), "expected a time zone"),
        (("expire_days: 30", "expire_days: -1"), "expire_days as a number above 0"),
        (("blur: true", "blur: 3"), "blur as true or false"),
        (("[0.4, 0.5]", "[40, 50]"), "shares of the width and height"),
        (("door:", "the door:"), "become names of columns"),
        (("[[0.4, 0.9], [0.6, 0.9]]", "[[0.4, 0.9]]"), "two different places"),
        (("[0.2, 0.0], [0.2, 0.3]", "[0.2, 0.3]"), "at least 3 places"),
        (("2026-05-01T08:00+02:00", "yesterday"), "expected start in ISO 8601"),
        (("blur: true", "blur: !!python/object:os.x {}"), "does not run code from files"),
        (("source: hall.mp4", "source: 4"), "expected source as an address"),
    ],
)
def test_an_invalid_list_names_the_camera_and_the_remedy(tmp_path: Path, change, message: str):
    assert change[0] in WHOLE
    with pytest.raises(CameraError, match=message) as caught:
        listed(tmp_path, WHOLE.replace(*change))
    assert "hunter2" not in str(caught.value)


def test_a_pattern_is_a_camera_for_each_file(tmp_path: Path):
    for name in ("b.mp4", "a.mp4", "c.txt"):
        (tmp_path / name).touch()
    assert [camera.name for camera in cameras_of(f"{tmp_path}/*.mp4")] == ["a", "b"]
    assert cameras_of(tmp_path)[0].address.kind == "folder"
    with pytest.raises(CameraError, match="no video, folder or device"):
        cameras_of(f"{tmp_path}/*.avi")
    with pytest.raises(CameraError, match="nothing to watch"):
        cameras_of([])


@pytest.mark.parametrize(
    ("text", "shown", "name"),
    [
        ("rtsp://u:p@10.0.0.5:554/live", "rtsp://10.0.0.5:554/live", "10.0.0.5-554-live"),
        ("RTSP://u:p/a@b?c@host/x", "rtsp://host/x", "host-x"),
        ("http://host/v?user=a&pwd=b", "http://host/v?...", "host-v"),
        ("/dev/video0", "/dev/video0", "video0"),
        ("films/gate.mp4", "films/gate.mp4", "gate"),
    ],
)
def test_logins_are_not_shown(text: str, shown: str, name: str):
    address = Address.of(text)
    assert (str(address), address.name) == (shown, name)
    assert text not in repr(address) or text == shown


@given(st.text(st.characters(exclude_characters="@", codec="utf-8"), min_size=1))
def test_no_password_is_shown(password: str):
    address = Address.of(f"rtsp://user:{password}secret@host/live")
    assert str(address) == "rtsp://host/live"
    assert "secret" not in repr(address)
    assert address.hidden_in(f"cannot open {address.text}") == "cannot open rtsp://host/live"


def test_an_address_without_a_host_is_refused():
    with pytest.raises(CameraError, match="without a host"):
        Address.of("rtsp:///live")


@given(st.integers(0, 7 * 24 * 60 - 1))
def test_hours_hold_the_minutes_of_their_spans(minute: int):
    time = datetime(2026, 5, 4, tzinfo=UTC) + timedelta(minutes=minute)  # from a Monday
    at = time.hour * 60 + time.minute
    assert (time in Hours.of(["07:00-19:00"])) == (7 * 60 <= at < 19 * 60)
    assert (time in Hours.of(["22:00-06:00"])) == (at >= 22 * 60 or at < 6 * 60)
    assert (time in Hours.of(["fri-mon 00:00-24:00"])) == (time.weekday() in (4, 5, 6, 0))


coordinates = st.floats(0, 1, allow_nan=False)


@given(coordinates, coordinates)
def test_a_point_is_inside_a_rectangle(x: float, y: float):
    rectangle = (Point(0.2, 0.3), Point(0.8, 0.3), Point(0.8, 0.9), Point(0.2, 0.9))
    if min(abs(x - 0.2), abs(x - 0.8), abs(y - 0.3), abs(y - 0.9)) > 1e-9:
        assert is_inside(Point(x, y), rectangle) == (0.2 < x < 0.8 and 0.3 < y < 0.9)


@given(coordinates, coordinates, coordinates, coordinates)
@example(0.0, 1.0, 0.5, 0.5)  # the step ends on the line
def test_a_step_back_crosses_a_line_the_other_way(a: float, b: float, c: float, d: float):
    line = Line(Point(0.3, 0.5), Point(0.7, 0.5))
    there, back = crossing(line, Point(a, b), Point(c, d)), crossing(line, Point(c, d), Point(a, b))
    assert (there is None) == (back is None)
    if there is not None:
        assert {there, back} == {"in", "out"}
        assert there == ("in" if d < b else "out")


def test_a_walk_has_the_times_of_its_zones_and_lines():
    start = datetime(2026, 5, 1, 8, tzinfo=UTC)
    steps = [(start + timedelta(seconds=n), Point(0.1 * n, 0.8)) for n in range(10)]
    walk = Walked(steps)
    door = (Point(0.25, 0.5), Point(0.55, 0.5), Point(0.55, 1.0), Point(0.25, 1.0))
    columns = walk.columns({"door": door}, {"gate": Line(Point(0.65, 1.0), Point(0.65, 0.5))})
    assert columns == {
        "entered_door": "2026-05-01T08:00:03.000Z",
        "left_door": "2026-05-01T08:00:05.000Z",
        "crossed_gate": "out",
        "crossed_gate_at": "2026-05-01T08:00:07.000Z",
    }
    assert walk.columns({}, {"gate": Line(Point(0.65, 0.1), Point(0.65, 0.5))}) == {}
