from __future__ import annotations

import errno
import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finegrain.errors import PlanError
from finegrain.plan import (
    FORMAT_VERSION,
    IMAGE,
    MANIFEST,
    REQUIRED,
    TEXT,
    TOKENIZER,
    Manifest,
    Plan,
    write_plan,
)

MEMBERS = {TEXT: b"text graph", IMAGE: b"image graph", TOKENIZER: b"{}"}
FACTS = {
    "method": "clip",
    "embed_dim": 32,
    "height": 128,
    "width": 64,
    "fit": "stretch",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.25, 0.25, 0.25),
    "context_length": 77,
    "precision": {TEXT: "fp32", IMAGE: "fp32"},
    "checkpoint": "0" * 64,
    "recipe": {"name": "tiny"},
    "parity": {"text_cosine": 1.0, "num_queries": 200},
    "made_by": "0.1.0",
}


def make(path: Path, *, members: Mapping[str, bytes] = MEMBERS, **facts: object) -> Path:
    write_plan(path, Manifest(**{**FACTS, **facts}, sha256={}), members)
    return path


@pytest.fixture
def plan(tmp_path) -> Path:
    return make(tmp_path / "model.plan")


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path: Path, members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)


def restate(path: Path, change: Callable[[dict], object]) -> None:
    """Change the manifest in place, or replace it by the result of ``change``."""
    members = contents(path)
    stated = json.loads(members[MANIFEST])
    changed = change(stated)
    members[MANIFEST] = json.dumps(stated if changed is None else changed).encode()
    rewrite(path, members)


def refused(path: Path, match: str) -> None:
    """Check that the plan is refused with its name in a message of bounded length."""
    with pytest.raises(PlanError, match=match) as caught:
        Plan(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 600


# --- valid plans ------------------------------------------------------------------------


def test_a_written_plan_is_read_back(plan):
    opened = Plan(plan)
    assert {name: opened.take(name) for name in REQUIRED} == MEMBERS
    assert opened.manifest.parity == FACTS["parity"]
    assert opened.manifest.embed_dim == 32
    assert "128x64" in repr(opened)
    assert "clip" in repr(opened)


def test_a_member_can_be_taken_once(plan):
    opened = Plan(plan)
    opened.take(TEXT)
    with pytest.raises(KeyError):
        opened.take(TEXT)


def test_a_plan_can_be_unzipped_by_any_tool(plan):
    assert contents(plan).keys() == {MANIFEST, *REQUIRED}
    with zipfile.ZipFile(plan) as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_equal_content_gives_equal_bytes(tmp_path):
    first, second = make(tmp_path / "a.plan"), make(tmp_path / "b.plan")
    assert first.read_bytes() == second.read_bytes()


def test_optional_members_are_read_if_the_manifest_states_them(tmp_path):
    path = make(tmp_path / "model.plan", members={**MEMBERS, "engines/sm_90/text": b"engine"})
    assert Plan(path).take("engines/sm_90/text") == b"engine"


def test_a_failed_write_keeps_the_old_plan_and_no_temporary_file(plan):
    before = plan.read_bytes()
    with pytest.raises(TypeError):
        make(plan, recipe={"unwritable": object()})
    with pytest.raises(TypeError):
        make(plan, members={**MEMBERS, TEXT: object()})
    assert plan.read_bytes() == before
    assert [path.name for path in plan.parent.iterdir()] == ["model.plan"]


@pytest.mark.parametrize("where", ["os.fsync", "os.replace", "zipfile.ZipFile.writestr"])
def test_a_full_disk_keeps_the_old_plan_and_no_temporary_file(plan, monkeypatch, where):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = plan.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(where, full)
        with pytest.raises(PlanError, match=r"cannot write .*model\.plan: No space left"):
            make(plan, members={**MEMBERS, TEXT: b"newer"})
        with pytest.raises(PlanError, match="cannot write"):
            make(plan.with_name("new.plan"))
    assert plan.read_bytes() == before
    assert [path.name for path in plan.parent.iterdir()] == ["model.plan"]


def test_embeddings_may_be_wider_than_those_of_itself(tmp_path):
    assert Plan(make(tmp_path / "wide.plan", embed_dim=4608)).manifest.embed_dim == 4608
    refused(make(tmp_path / "wider.plan", embed_dim=16385), r"embed_dim as 16385; expected 1 to 16")


def test_a_path_that_cannot_be_written_is_an_error(plan):
    with pytest.raises(PlanError, match="cannot write"):
        make(plan / "x.plan")


def test_the_description_of_the_parity_report_is_optional(plan, tmp_path):
    assert Plan(plan).manifest.compared_on == ""
    restate(plan, lambda stated: {k: v for k, v in stated.items() if k != "compared_on"})
    assert Plan(plan).manifest.compared_on == ""
    stated = make(tmp_path / "stated.plan", compared_on="val split of CuhkPedes")
    assert Plan(stated).manifest.compared_on == "val split of CuhkPedes"


@pytest.mark.parametrize(
    "facts",
    [
        {"height": 256},
        {"width": 128},
        {"fit": "pad"},
        {"fit": "crop"},
        {"interpolation": "bicubic"},
        {"antialias": False},
        {"cleaning": {"repair": False}},
        {"context_length": 64},
        {"members": {**MEMBERS, TEXT: b"another"}},
        {"members": {**MEMBERS, IMAGE: b"another"}},
        {"members": {**MEMBERS, TOKENIZER: b"another"}},
    ],
)
def test_the_fingerprint_changes_with_everything_that_changes_embeddings(tmp_path, facts):
    one, other = make(tmp_path / "one.plan"), make(tmp_path / "other.plan", **facts)
    assert Plan(one).manifest.fingerprint != Plan(other).manifest.fingerprint


@pytest.mark.parametrize("facts", [{"parity": {}}, {"made_by": "9"}, {"recipe": {}}])
def test_the_fingerprint_does_not_depend_on_anything_else(tmp_path, facts):
    one, other = make(tmp_path / "one.plan"), make(tmp_path / "other.plan", **facts)
    assert Plan(one).manifest.fingerprint == Plan(other).manifest.fingerprint


def test_a_plan_of_the_first_format_keeps_its_fingerprint(plan):
    """It states no interpolation and no cleaning, and its gallery must still open."""
    later = ("interpolation", "antialias", "cleaning")
    restate(plan, lambda stated: {k: v for k, v in stated.items() if k not in later})
    restate(plan, lambda stated: stated.update(format_version=1))
    manifest = Plan(plan).manifest
    assert (manifest.interpolation, manifest.antialias) == ("bilinear", True)
    assert manifest.cleaning == {}
    members = "".join(manifest.sha256[name] for name in REQUIRED)
    told = hashlib.sha256(f"{members}:128x64:stretch:77".encode()).hexdigest()
    assert manifest.fingerprint == told


# --- files that are not plans -----------------------------------------------------------


def test_the_error_of_a_missing_plan_tells_how_to_make_one(tmp_path):
    refused(tmp_path / "model.plan", "there is no plan at .*finegrain export")


def test_a_folder_is_not_a_plan(tmp_path):
    refused(tmp_path, "there is no plan at")


@pytest.mark.parametrize("name", ["x" * 300, "x\0y"])
def test_an_impossible_name_is_refused(tmp_path, name):
    with pytest.raises(PlanError):
        Plan(tmp_path / name)


@pytest.mark.parametrize("tag", [b"ftrt", b"ptrt"])
def test_a_raw_engine_is_recognised(tmp_path, tag):
    path = tmp_path / "model.engine"
    path.write_bytes(tag + bytes(100))
    refused(path, "raw TensorRT engine.*finegrain export")


@pytest.mark.parametrize("data", [b"", b"P", b"PK\3\4", b"not a zip archive", bytes(1000)])
def test_another_file_is_refused(tmp_path, data):
    path = tmp_path / "model.plan"
    path.write_bytes(data)
    refused(path, "is not a plan: expected a zip archive")


def test_another_zip_archive_is_refused(tmp_path):
    path = tmp_path / "photos.zip"
    rewrite(path, {"1.jpg": b"picture"})
    refused(path, "not a plan: it lacks manifest.json, text.onnx")


@pytest.mark.parametrize("kept", [1, 10, 100, 500, 0.25, 0.5, 0.9, 0.999, -1])
def test_a_truncated_copy_is_refused(plan, kept):
    data = plan.read_bytes()
    plan.write_bytes(data[: int(len(data) * kept) if isinstance(kept, float) else kept])
    refused(plan, "not a plan|damaged")


# --- changed content --------------------------------------------------------------------


@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("member", REQUIRED)
def test_one_changed_byte_is_detected(tiny_plan, tmp_path, member, place):
    path = Path(shutil.copy(tiny_plan, tmp_path / "model.plan"))
    data = bytearray(path.read_bytes())
    # Members are stored uncompressed, so their bytes can be located in the archive.
    content = contents(path)[member]
    data[data.find(content) + int(place * len(content))] ^= 1
    path.write_bytes(data)
    refused(path, "damaged")


@pytest.mark.parametrize("member", REQUIRED)
def test_a_replaced_member_is_noticed(plan, member):
    rewrite(plan, {**contents(plan), member: b"something else"})
    refused(plan, f"the content of {member} is not what the manifest says")


@given(st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_never_raises_another_error(plan, data):
    """With any changed bytes, a plan opens with equal content or is refused."""
    valid = plan.read_bytes()
    damaged = bytearray(valid)
    for place in data.draw(st.lists(st.integers(0, len(valid) - 1), min_size=1, max_size=4)):
        damaged[place] = data.draw(st.integers(0, 255))
    copy = plan.with_name("damaged.plan")
    copy.write_bytes(damaged)
    with suppress(PlanError):
        opened = Plan(copy)
        assert {name: opened.take(name) for name in REQUIRED} == MEMBERS


def test_a_member_larger_than_the_file_is_refused_unread(plan):
    data = plan.read_bytes()
    size = len(MEMBERS[TEXT]).to_bytes(4, "little") * 2
    assert data.count(size) >= 2
    plan.write_bytes(data.replace(size, (0x7FFFFFF0).to_bytes(4, "little") * 2))
    refused(plan, "damaged: its members state")


def test_an_encrypted_member_is_refused(plan):
    data = bytearray(plan.read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.find(signature) + flags] |= 1
    plan.write_bytes(data)
    refused(plan, "encrypted")


# --- unsafe archives --------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/etc/x", "..\\x", "C:x", "C:/x", "\\\\host\\x", ".."]
)
def test_a_member_with_a_path_outside_the_archive_is_refused(plan, name):
    rewrite(plan, {**contents(plan), name: b"x"})
    refused(plan, "whose path leaves the archive")


def test_a_duplicate_member_is_refused(plan):
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(plan, "a") as archive:
        archive.writestr(TEXT, b"another")
    refused(plan, "holds a member twice")


@pytest.mark.parametrize("how", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compressed_member_is_refused(plan, how):
    rewrite(plan, contents(plan), how)
    refused(plan, "is compressed")


@pytest.mark.parametrize("member", [MANIFEST, *REQUIRED])
def test_a_missing_member_is_named(plan, member):
    rewrite(plan, {name: data for name, data in contents(plan).items() if name != member})
    refused(plan, f"lacks {member}")


def test_a_member_that_is_not_in_the_manifest_is_named(plan):
    rewrite(plan, {**contents(plan), "extra.bin": b"x"})
    refused(plan, "do not agree on extra.bin")


def test_a_member_of_the_manifest_that_is_missing_is_named(plan):
    restate(plan, lambda stated: stated["sha256"].update({"match.onnx": "0" * 64}))
    refused(plan, "do not agree on match.onnx")


def test_an_archive_with_too_many_members_is_refused(plan):
    names = [f"{number:0200d}" for number in range(700)]
    rewrite(plan, {**contents(plan), **dict.fromkeys(names, b"")})
    refused(plan, "its directory of members has 1")


def test_members_that_share_their_bytes_are_refused(plan):
    data = bytearray(plan.read_bytes())
    text, image = (data.rfind(name.encode()) - 46 for name in (TEXT, IMAGE))
    data[image + 42 : image + 46] = data[text + 42 : text + 46]
    plan.write_bytes(data)
    refused(plan, "damaged")


# --- wrong manifests --------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe\0", b"[" * 100_000, b"9" * 5_000])
def test_a_manifest_that_is_not_json_is_refused(plan, data):
    rewrite(plan, {**contents(plan), MANIFEST: data})
    refused(plan, "its manifest is not JSON")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"embed_dim"', '"embed_dim": 7, "embed_dim"', "'embed_dim' twice"),
        ('"name": "tiny"', '"name": NaN', "a finite number, got NaN"),
        ('"name": "tiny"', '"name": -Infinity', "a finite number, got -Infinity"),
        ('"name": "tiny"', '"name": 1e999', "a finite number, got 1e999"),
        ('"name": "tiny"', '"name": ' + "[" * 40 + "]" * 40, "at most 32 levels"),
        ('"logit_scale": null', '"logit_scale": 1' + "0" * 400, "logit_scale .* a finite number"),
        ('"num_queries": 200', '"num_queries": 1' + "0" * 400, "parity .* finite numbers"),
        ("0.25,", "1" + "0" * 400 + ",", "std .* three numbers"),
    ],
)
def test_a_manifest_with_invalid_values_is_refused(plan, old, new, message):
    members = contents(plan)
    changed = members[MANIFEST].decode().replace(old, new)
    rewrite(plan, {**members, MANIFEST: changed.encode()})
    refused(plan, message)


@pytest.mark.parametrize("value", [[], "text", 3, {}, {"format_version": "1"}])
def test_a_manifest_without_a_format_version_is_refused(plan, value):
    restate(plan, lambda _: value)
    refused(plan, "expected a format version")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_not_written(plan, value):
    before = plan.read_bytes()
    with pytest.raises(PlanError, match="expected finite numbers in its manifest"):
        make(plan, parity={"text": {"cosine": value}})
    assert plan.read_bytes() == before
    assert [path.name for path in plan.parent.iterdir()] == [plan.name]


def test_a_too_large_manifest_is_refused(plan):
    rewrite(plan, {**contents(plan), MANIFEST: b" " * (4 << 20) + b"{}"})
    refused(plan, "its manifest is over")


def test_a_too_large_background_is_refused_unread(tiny_plan, tmp_path, monkeypatch):
    path, old = tmp_path / "model.plan", Plan(tiny_plan)
    old.rewrite(path, old.manifest, {"background.npz": bytes(100)})
    assert "background.npz" in Plan(path)
    monkeypatch.setattr("finegrain.plan.MAX_BACKGROUND_BYTES", 99)
    with pytest.raises(PlanError, match=r"its background\.npz is over 99 bytes"):
        Plan(path)


def test_a_later_format_needs_an_upgrade(plan):
    restate(plan, lambda stated: stated.update(format_version=FORMAT_VERSION + 1))
    refused(plan, f"format version {FORMAT_VERSION + 1}.*pip install -U finegrain")


@pytest.mark.parametrize("field", [*FACTS, "sha256"])
def test_a_missing_field_is_named(plan, field):
    restate(plan, lambda stated: stated.pop(field) and stated)
    refused(plan, f"its manifest lacks {field}")


NO_SIZES = (0, -1, "128", 1.5, True, None, [128], 1 << 40)
NO_TEXTS = (None, 3, ["clip"], {})
NO_MAPPINGS = (None, "text", 3, ["a"], [["text.onnx", "0"]])
WRONG = {
    **dict.fromkeys(("embed_dim", "height", "width", "context_length"), NO_SIZES),
    **dict.fromkeys(("method", "checkpoint", "made_by"), NO_TEXTS),
    **dict.fromkeys(
        ("mean", "std"), (None, 0.5, "abc", [], [0.5, 0.5], ["a", "b", "c"], [True] * 3)
    ),
    "precision": (*NO_MAPPINGS, {TEXT: 16}),
    "sha256": (*NO_MAPPINGS, {TEXT: 16}),
    "recipe": NO_MAPPINGS,
    "parity": (*NO_MAPPINGS, {"text_cosine": "high"}),
    "fit": ("weird", None, 3, ["stretch"], {}),
    "interpolation": ("lanczos", None, 3, ["bilinear"]),
    "antialias": ("yes", None, 1),
    "cleaning": (None, "text", ["omit"], {"omit": ["!"]}),
}


def test_this_file_has_wrong_values_for_every_field():
    assert WRONG.keys() >= FACTS.keys() | {"sha256"}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in WRONG.items() for value in values]
)
def test_a_field_of_another_type_is_named(plan, field, value):
    restate(plan, lambda stated: stated.update({field: value}))
    refused(plan, f"its manifest states {field} as .*expected")


def test_a_long_wrong_value_is_shortened(plan):
    restate(plan, lambda stated: stated.update(method=["x" * 10_000]))
    refused(plan, "states method as")
