from __future__ import annotations

import io
import json
import tarfile

import pytest
from fixtures.shop_layouts import (
    write_image_folder,
    write_merchant,
    write_parquet,
    write_shopify,
    write_webdataset,
)
from PIL import Image

from finegrain.data.catalog import catalog_kind, read_any_catalog, read_webdataset
from finegrain.errors import DataError
from finegrain.synthetic.articles import product


def jpeg(shade=0) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 16), (shade, 0, 0)).save(stream, "JPEG")
    return stream.getvalue()


def table(folder, *rows, name="catalog.csv"):
    for number in (1, 2, 3):
        (folder / f"{number}.jpg").write_bytes(jpeg(number))
    path = folder / name
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def shard(path, members):
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            member = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(data, bytes):
                member.size = len(data)
            archive.addfile(member, io.BytesIO(data) if isinstance(data, bytes) else None)
    return path


@pytest.mark.parametrize(
    ("write", "title", "splits"),
    [
        (write_shopify, "Shopify export", {"all": 8}),
        (write_merchant, "Google Merchant feed", {"all": 8}),
        (lambda root: write_merchant(root, xml=True), "Google Merchant feed", {"all": 8}),
        (write_image_folder, "ImageFolder", {"train": 4, "val": 4}),
        (lambda r: write_image_folder(r, metadata="metadata.jsonl"), "ImageFolder",
         {"train": 4, "val": 4}),
        (write_webdataset, "WebDataset", {"train": 4}),
        (write_parquet, "table", {"all": 4}),
    ],
)  # fmt: skip
def test_each_kind_is_recognised_and_read(tmp_path, write, title, splits):
    path = write(tmp_path)
    assert catalog_kind(path).title == title
    downloads = tmp_path / "images"
    read = read_any_catalog(path, images_root=downloads if downloads.is_dir() else None)
    assert {name: len(split) for name, split in read.items()} == splits
    first = next(iter(read.values())).samples[0]
    assert first.captions[0] == product(0).title
    with Image.open(first.image) as picture:
        assert picture.size == (48, 64)


def test_columns_of_a_table_can_be_named(tmp_path):
    path = table(tmp_path, "photo,title,sku", "1.jpg,A coat,a", "2.jpg,A coat,a")
    split = read_any_catalog(
        path, image_column="photo", caption_columns=("title",), pid_column="sku"
    )["all"]
    assert [sample.pid for sample in split.samples] == ["a", "a"]
    path = table(tmp_path, "image,text", "1.jpg,A coat")
    assert read_any_catalog(path)["all"].samples[0].captions == ("A coat",)
    with pytest.raises(DataError, match="expected columns image, caption and a good row"):
        read_any_catalog(table(tmp_path, "photo,words", "1.jpg,A coat"))


def test_inputs_that_are_not_a_catalogue_are_refused(tmp_path):
    with pytest.raises(DataError, match="found nothing"):
        read_any_catalog(tmp_path / "gone.csv")
    with pytest.raises(DataError, match=r"metadata.csv, .jsonl or .parquet, or shards \*.tar"):
        read_any_catalog(tmp_path)
    path = tmp_path / "a.xls"
    path.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
    with pytest.raises(DataError, match=r"an old Excel workbook .*Save it as \.xlsx or CSV"):
        read_any_catalog(path)


def test_a_catalogue_with_mostly_invalid_rows_is_refused(tmp_path):
    rows = ["image,caption", *["1.jpg,A coat"] * 8, "gone.jpg,A coat", "1.jpg,"]
    path = table(tmp_path, *rows)
    with pytest.raises(DataError) as raised:
        read_any_catalog(path)
    assert "expected at most 10% to be left out, got 2 of 10: catalog.csv:10: " in str(raised.value)
    assert len(read_any_catalog(path, max_bad_share=0.2)["all"].problems) == 2
    with pytest.raises(DataError, match=r"5 of 13: .*; and 2 more\. Repair them"):
        read_any_catalog(table(tmp_path, *rows, *["1.jpg,"] * 3))
    with pytest.raises(DataError, match="expected a share from 0 to 1, got 5"):
        read_any_catalog(path, max_bad_share=5)


def test_an_image_folder_keeps_types_and_names_the_split_of_a_bad_row(tmp_path):
    root = write_image_folder(tmp_path, products=2)
    with (root / "validation" / "metadata.csv").open("a") as stream:
        stream.write("gone.jpg,A coat,P9,coat,1.0\n")
    splits = read_any_catalog(root, max_bad_share=0.5, pid_column="product_id")
    samples = [sample for split in splits.values() for sample in split.samples]
    assert [sample.pid for sample in samples] == [s.metadata["product_id"] for s in samples]
    assert isinstance(splits["val"].samples[0].metadata["price"], float)
    assert splits["val"].problems[0].where == "validation/metadata.csv:4"
    assert "'validation/gone.jpg' not found" in splits["val"].problems[0].why
    assert list(read_any_catalog(root / "train" / "metadata.csv")) == ["all"]


def test_embedded_pictures_are_unpacked_once(tmp_path):
    path = write_parquet(tmp_path, products=2)
    first = read_any_catalog(path)["all"].samples
    folder = tmp_path / f"{path.name}.pictures"
    times = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert set(times) == {sample.image for sample in first}
    assert read_any_catalog(path)["all"].samples == first
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == times


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    path = write_parquet(tmp_path, products=1)
    (tmp_path / f"{path.name}.pictures").touch()
    with pytest.raises(DataError, match="its picture cannot be unpacked into"):
        read_any_catalog(path)


def test_embedded_bytes_that_are_not_a_picture_are_a_problem(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    images = [jpeg(), b"MZ no picture", b"\xff\xd8\xff broken", None]
    parquet.write_table(
        pyarrow.table({"image": images, "caption": ["a coat"] * 4}), tmp_path / "c.parquet"
    )
    split = read_any_catalog(tmp_path / "c.parquet", max_bad_share=0.9)["all"]
    assert len(split) == 1
    why = [problem.why for problem in split.problems]
    assert "no known format (starts with b'MZ no pi')" in why[0]
    assert "is broken or truncated" in why[1]
    assert why[2] == "has no picture in column 'image'"


def test_members_of_a_shard_are_never_written_elsewhere(tmp_path):
    link = tarfile.TarInfo("link.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    folder = tmp_path / "shop"
    folder.mkdir()
    path = shard(
        folder / "000.tar",
        [
            ("a/0.jpg", jpeg()), ("a/0.json", b'{"text": "a coat", "sku": "7"}'),
            ("../evil.jpg", jpeg(9)), ("../evil.txt", b"evil"),
            ("/root/evil.jpg", jpeg(9)),
            ("link.jpg", link), ("link.txt", b"a link"),
            ("bad.jpg", jpeg(2)), ("bad.json", b"[1]"),
            ("wordless.jpg", jpeg(3)),
            ("latin.jpg", jpeg(4)), ("latin.txt", b"caf\xe9"),
            ("mask.jpg", jpeg(5)), ("mask.mask.png", jpeg(6)), ("mask.txt", b"a mask"),
            ("huge.jpg", jpeg(7)), ("huge.txt", b"x" * (2 << 20)),
        ],
    )  # fmt: skip
    split = read_webdataset(path)["all"]
    assert [s.captions for s in split.samples] == [("a coat",), ("a mask",)]
    assert split.samples[0].metadata == {"sku": "7"}
    assert {problem.where: problem.why for problem in split.problems} == {
        "000.tar:../evil": "its member '../evil.jpg' leads out of the shard",
        "000.tar:/root/evil": "its member '/root/evil.jpg' leads out of the shard",
        "000.tar:link": "its member 'link.jpg' is a link or a device, not a file",
        "000.tar:bad": "its member 'bad.json' is not a JSON object",
        "000.tar:wordless": "has no caption in 'caption'",
        "000.tar:latin": "its member 'latin.txt' cannot be read: 'utf-8' codec can't decode "
        "byte 0xe9 in position 3: unexpected end of data",
        "000.tar:huge": "its member 'huge.txt' is larger than 1 MiB",
    }
    assert sorted(p.name for p in tmp_path.iterdir()) == ["shop"]
    assert sorted(p.name for p in folder.iterdir()) == ["000.tar", "000.tar.pictures"]


def test_a_truncated_shard_gives_its_complete_rows(tmp_path):
    members = [(f"{n}.{kind}", data) for n in range(3) for kind, data in
               (("jpg", jpeg(n)), ("txt", b"a coat"))]  # fmt: skip
    path = shard(tmp_path / "val-0.tar", members)
    path.write_bytes(path.read_bytes()[: 2 * 2560 + 900])
    splits = read_webdataset(tmp_path)
    assert len(splits["val"]) == 2
    assert "val-0.tar: breaks off: " in "; ".join(map(str, splits["val"].problems))
    with pytest.raises(DataError, match=r"expected a \.tar or a folder of them"):
        read_webdataset(tmp_path / "gone.tar")


def test_json_of_a_shard_may_have_a_pid(tmp_path):
    about = json.dumps({"caption": "a coat", "product": "x"}).encode()
    path = shard(tmp_path / "a.tar", [(f"{n}.{k}", d) for n in "12" for k, d in
                                      (("json", about), ("jpg", jpeg()))])  # fmt: skip
    assert [s.pid for s in read_any_catalog(path, pid_column="product")["all"].samples] == ["x"] * 2
