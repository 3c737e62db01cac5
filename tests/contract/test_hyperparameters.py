"""The table of released hyper-parameters agrees with the resolved recipes."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import pytest

from finegrain import load_recipe

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "hyperparameters.md"
COLUMNS = ["setting", "released", "file and line", "field", "recipe"]


class Row(NamedTuple):
    """A line of a table."""

    setting: str
    released: str
    where: str
    field: str
    value: str


def tables() -> dict[str, list[Row]]:
    """The rows of each section, by the name of its recipe."""
    sections: dict[str, list[Row]] = {}
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        heading = re.fullmatch(r"## .*: `(\w+)`", line)
        if heading:
            rows = sections.setdefault(heading[1], [])
        elif line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert len(cells) == len(COLUMNS), line
            if cells != COLUMNS and set(line) != {"|", "-"}:
                rows.append(Row(*cells[:3], cells[3].strip("`"), cells[4].strip("`")))
    return sections


TABLES = tables()
ROWS = [(recipe, row) for recipe, rows in TABLES.items() for row in rows]


def resolved(recipe):
    return json.loads(load_recipe(ROOT / "recipes" / f"{recipe}.py").to_json())


def parsed(value):
    """A value of the last column: JSON, or a fraction such as 5/60."""
    return float(Fraction(value)) if re.fullmatch(r"\d+/\d+", value) else json.loads(value)


def look_up(fields, path):
    """The value at a dotted path; ``rules[*bias]`` is the one rule with these names."""
    rule = re.fullmatch(r"optimizer\.rules\[(.+)\]\.(\w+)", path)
    if rule:
        (named,) = (r for r in fields["optimizer"]["rules"] if r["names"] == rule[1])
        return named[rule[2]]
    for name in path.split("."):
        fields = fields[name]
    return fields


def test_there_is_a_table_for_every_published_method():
    assert TABLES.keys() == {
        "irra_cuhk_pedes",
        "rde_cuhk_pedes",
        "itself_cuhk_pedes",
        "rasa_cuhk_pedes",
        "tbps_clip_cuhk_pedes",
        "fashionbert_fashion_gen",
    }
    assert all(len(rows) > 40 for rows in TABLES.values())


@pytest.mark.parametrize(
    ("recipe", "row"), ROWS, ids=[f"{recipe}-{row.field}" for recipe, row in ROWS]
)
def test_a_line_of_the_table_equals_the_resolved_recipe(recipe, row):
    assert look_up(resolved(recipe), row.field) == parsed(row.value), (
        f"{TABLE.name} says {row.field} = {row.value} ({row.setting}); change the recipe, or the "
        "line and the list under its table"
    )


def test_every_line_names_the_source_of_the_released_value():
    for recipe, row in ROWS:
        assert row.released, (recipe, row)
        if row.where != "-":
            assert re.search(r"`[\w./-]+:\d+", row.where), (recipe, row)
