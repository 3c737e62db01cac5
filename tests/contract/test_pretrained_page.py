"""The page about pretrained models lists the models that have names."""

from __future__ import annotations

from pathlib import Path

from tabulate import tabulate

from finegrain.zoo.catalog import KNOWN, best_models

PAGE = Path(__file__).parents[2] / "docs" / "pretrained.md"
START, END = "<!-- models -->\n", "\n<!-- /models -->"


def table():
    best = best_models()
    rows = [
        (
            f"{model.name} {'★' if model.name in best else ''}".strip(),
            model.about,
            ", ".join(
                f"`{name}`" for name in dict.fromkeys((model.repository, model.onnx)) if name
            ),
            f"{model.num_bytes / 1e9:.2f} GB",
            model.speed,
            model.flickr30k,
            model.coco,
            model.licence,
        )
        for model in KNOWN
    ]
    headers = ["name", "about", "repository, ONNX", "download", "speed", "Flickr30k", "COCO"]
    return tabulate(rows, headers=[*headers, "licence"], tablefmt="github", floatfmt=".1f")


def test_the_table_is_that_of_the_catalog(request):
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    shown, _, after = rest.partition(END)
    if request.config.getoption("--update-golden"):
        PAGE.write_text(f"{before}{START}{table()}{END}{after}", encoding="utf-8")
    else:
        assert shown == table(), "write it with: pytest --update-golden"
