"""The command line trains on tables as they come, and says what it left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from finegrain.cli import main
from finegrain.runs.checkpoint import last_checkpoint

SEPARATOR, ENCODING = ";", "cp1252"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table in German with a title, an old encoding, and two pictures that are missing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Bilder").mkdir()
    rows = ["Sortiment Frühjahr", "Bild;Titel;Artikel;Teil"]
    for number in range(30):
        if number > 1:
            color = (8 * number, 255 - 8 * number, 90)
            Image.new("RGB", (16, 32), color).save(f"Bilder/Größe {number}.png")
        part = "val" if number % 5 == 4 else "train"
        rows.append(f"Größe {number}.png;Mäntel, Farbe {number};{10**18 + number};{part}")
    (tmp_path / "shop.csv").write_text("\n".join(rows) + "\n", encoding=ENCODING)
    return tmp_path


def train(**fields: object) -> int:
    data = {"type": "Catalog", "table": "shop.csv", "images_root": "Bilder", **fields}
    arguments = ["--tiny", "--set", f"data={json.dumps(data)}", "--set", "schedule.steps=1"]
    return main(["train", "tiny_synthetic", *arguments, "-o", "run"])


def test_a_table_as_it_comes_is_trained_on(shop: Path, capsys: pytest.CaptureFixture[str]):
    status = train(
        image_column="Bild",
        caption_columns=["Titel"],
        pid_column="Artikel",
        split_column="Teil",
        encoding=ENCODING,
    )
    shown = capsys.readouterr()
    assert status == 0, shown.err
    assert last_checkpoint(shop / "run") is not None
    assert "text to image" in shown.out
    (warning,) = (line for line in shown.err.splitlines() if "warning" in line.lower())
    assert warning.startswith("finegrain: warning: shop.csv: 2 left out: shop.csv:3: picture")
    assert ".py:" not in shown.err


@pytest.mark.parametrize(
    ("fields", "advice"),
    [
        ({}, "--set data.image_column=NAME; and by --caption-column NAME"),
        ({"image_column": "Bild"}, """--set 'data.caption_columns=["NAME"]'."""),
        ({"image_column": "Bilt", "caption_columns": ["Titel"]}, "Did you mean 'Bild'?"),
    ],
)
def test_a_table_with_other_names_says_how_to_name_its_columns(
    shop: Path, fields: dict[str, object], advice: str, capsys: pytest.CaptureFixture[str]
):
    assert train(encoding=ENCODING, **fields) == 1
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert advice in line
