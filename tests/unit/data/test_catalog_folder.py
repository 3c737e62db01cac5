"""All pictures of a folder are read, with the columns of its tables and file names."""

from __future__ import annotations

import tarfile

import pytest
from PIL import Image

from finegrain.data.catalog import CatalogOptions, Roles, input_kind, read_picture_folder
from finegrain.errors import DataError, ImageError
from finegrain.records import ProblemKind

ALL = CatalogOptions(max_bad_share=1.0)


def picture(path, shade=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 16), (shade, 0, 0)).save(path, "JPEG")
    return path


def samples(splits):
    return {s.image.name: s for split in splits.values() for s in split.samples}


def problems(splits):
    return [problem for split in splits.values() for problem in split.problems]


def test_a_table_in_a_folder_does_not_hide_other_pictures(tmp_path):
    for name in ("a.jpg", "b.jpg", "old/d.jpg", "old/e.jpg"):
        picture(tmp_path / name)
    (tmp_path / "old" / "metadata.csv").write_text("file_name,text,price\nd.jpg,black coat,3\n")
    read = samples(read_picture_folder(tmp_path, ALL))
    assert sorted(read) == ["a.jpg", "b.jpg", "d.jpg", "e.jpg"]
    assert (read["d.jpg"].captions, read["d.jpg"].metadata) == (("black coat",), {"price": 3})
    assert (read["a.jpg"].captions, read["a.jpg"].metadata) == ((), {})


def test_tables_at_every_depth_describe_their_pictures(tmp_path):
    for folder in ("", "x/", "x/y/z/"):
        picture(tmp_path / f"{folder}{len(folder)}.jpg")
        (tmp_path / f"{folder}metadata.csv").write_text(
            f"file_name,text\n{len(folder)}.jpg,c{len(folder)}\n"
        )
    read = samples(read_picture_folder(tmp_path, ALL))
    assert {name: s.captions for name, s in read.items()} == {
        "0.jpg": ("c0",), "2.jpg": ("c2",), "6.jpg": ("c6",),
    }  # fmt: skip


def test_an_unrelated_table_is_named_and_pictures_are_read(tmp_path):
    picture(tmp_path / "a.jpg")
    (tmp_path / "metadata.csv").write_text("key,value\nowner,me\n")
    (tmp_path / "prices.csv").write_text("image,caption\na.jpg,coat\n")
    splits = read_picture_folder(tmp_path, ALL)
    assert list(samples(splits)) == ["a.jpg"]
    assert [p.kind for p in problems(splits)] == [ProblemKind.TABLE] * 2
    assert "file_name" in problems(splits)[0].why


def test_shards_in_the_folder_are_read_once(tmp_path):
    picture(tmp_path / "a.jpg")
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        archive.add(picture(tmp_path.parent / "in.jpg", 9), "0.jpg")
    for _ in range(2):  # the second reading finds the files that the first unpacked
        splits = read_picture_folder(tmp_path, ALL)
        assert len(samples(splits)) == 2


def test_a_picture_with_an_invalid_row_has_no_columns(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        picture(tmp_path / name)
    (tmp_path / "metadata.csv").write_text('file_name,text\na.jpg,"red\nb.jpg,blue\n')
    splits = read_picture_folder(tmp_path, ALL)
    assert {name: s.captions for name, s in samples(splits).items()} == {
        "a.jpg": (), "b.jpg": ("blue",),
    }  # fmt: skip
    assert [p.where for p in problems(splits)] == ["metadata.csv:2"]


def test_pids_and_cameras_are_read_from_file_names(tmp_path):
    picture(tmp_path / "0002_c1s1_000451_03.jpg")
    picture(tmp_path / "sub" / "-1_c3s2_000001_00.jpg")
    picture(tmp_path / "other.jpg")
    splits = read_picture_folder(tmp_path, ALL, name_pattern="{pid}_c{camera}s{seq}_{frame}")
    read = samples(splits)
    first = read["0002_c1s1_000451_03.jpg"]
    assert (first.pid, first.camera) == ("0002", "1")
    assert first.metadata == {"seq": 1, "frame": "000451_03"}
    assert read["-1_c3s2_000001_00.jpg"].pid == "-1"
    assert read["other.jpg"].pid is None
    (problem,) = problems(splits)
    assert (problem.kind, problem.where) == (ProblemKind.VALUE, str(tmp_path / "other.jpg"))


def test_times_are_read_from_file_names(tmp_path):
    picture(tmp_path / "gate_20260501080030_7.jpg")
    splits = read_picture_folder(tmp_path, ALL, name_pattern="{camera}_{time}_{track}")
    (sample,) = samples(splits).values()
    assert sample.camera == "gate"
    assert sample.metadata == {"time": "2026-05-01T08:00:30.000Z", "track": "7"}


def test_too_many_invalid_rows_are_refused(tmp_path):
    picture(tmp_path / "a.jpg")
    (tmp_path / "metadata.csv").write_text("file_name,text\na.jpg,red\nx.jpg,a\ny.jpg,b\n")
    with pytest.raises(DataError, match=r"at most 10% to be left out, got 2 of 3: metadata\.csv:3"):
        read_picture_folder(tmp_path, CatalogOptions())


def test_the_error_of_a_folder_without_pictures_lists_its_files(tmp_path):
    (tmp_path / "notes.md").write_text("hello")
    with pytest.raises(ImageError, match=r"holds no picture; .*notes\.md: starts with b'hello'"):
        read_picture_folder(tmp_path, ALL)


def test_columns_may_be_named_for_tables_of_a_folder(tmp_path):
    picture(tmp_path / "a.jpg")
    (tmp_path / "metadata.csv").write_text("photo,words,sku\na.jpg,red,R1\n")
    options = CatalogOptions(roles=Roles(image="photo", captions=("words",), pid="sku"))
    (sample,) = samples(read_picture_folder(tmp_path, options)).values()
    assert (sample.captions, sample.pid) == (("red",), "R1")


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.jpg", b"", "picture"),
        ("a", b"\xff\xd8\xff\xe0", "picture"),
        ("a.txt", b"\xff\xd8\xff\xe0", "picture"),
        ("a.mp4", b"x", "video"),
        ("a.dat", b"\0\0\0\x20ftypisom", "video"),
        ("a.dat", b"\x1aE\xdf\xa3", "video"),
        ("a.dat", b"RIFF\0\0\0\0AVI LIST", "video"),
        ("feed.txt", b"id\ttitle", "catalog"),
        ("feed", b"id,title", "catalog"),
        ("feed", "id,\u54c1".encode("utf-16"), "catalog"),
        ("a.csv", b"BM,x", "catalog"),
        ("a.xlsx", b"PK\x03\x04", "catalog"),
        ("a.bin", b"PAR1\0", "catalog"),
        ("a.tar", b"\0", "catalog"),
        ("a.bin", b"\0\1\2", "picture"),
    ],
)
def test_the_format_of_an_input_follows_its_content(tmp_path, name, content, kind):
    path = tmp_path / name
    path.write_bytes(content)
    assert input_kind(path) == kind


def test_missing_inputs_are_refused(tmp_path):
    assert input_kind(tmp_path) == "folder"
    assert input_kind(tmp_path / "gone.jpg") == "picture"
    assert input_kind(tmp_path / "gone.mp4") == "video"


@pytest.mark.parametrize("start", [b"DHAV", b"IMKH", b"\0\0\1\xba"])
def test_the_error_of_an_unsupported_recording_tells_how_to_convert_it(tmp_path, start):
    path = tmp_path / "cam.dav"
    path.write_bytes(start)
    with pytest.raises(DataError, match=r"ffmpeg -i cam\.dav -c copy cam\.mp4"):
        input_kind(path)
