"""Do alerts raise as many false alarms as they state? On rendered people.

    python benchmarks/alert_rates.py model.plan --data data/synthetic

The pictures of a split are divided at random. The first half is the gallery, and the second half is
added after the alerts were made. The queries are the renderer's attribute queries, and a picture is
wrong if it does not show what the query asks for. The rate is stated for each wrong picture, as
``false_alarms_per_day / pictures_per_day``. Several divisions are averaged. The stated rate is
compared with the share of wrong pictures that raise an alarm, once with all pictures as they come,
and once after the pictures that fit a query were removed from the gallery. Writes
``benchmarks/results/alert_rates.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rendered_people import Attributes, people
from tabulate import tabulate

from finegrain.encoder import Encoder
from finegrain.gallery import Gallery
from finegrain.gallery.scoring import Linear
from finegrain.plan import Plan
from finegrain.search.alerts.alert import Alert, Rate
from finegrain.synthetic.queries import ATTRIBUTE_QUERIES, matches

ROOT = Path(__file__).parents[1]
SHARES = (1e-1, 1e-2, 1e-3)
"""Stated shares of wrong pictures that raise an alarm."""

DIVISIONS = 5

Vectors = NDArray[np.float32]


def measure(
    encoder: Encoder, gallery: Gallery, shown: Mapping[int, Attributes], divisions: int
) -> dict[str, Any]:
    """Alarms of wrong and of right pictures, by stated share."""
    ids = np.array(sorted(shown))
    stored = gallery.vectors(ids.tolist())
    vectors = np.stack([stored[id_] for id_ in ids.tolist()])
    texts = encoder.encode_texts([query.text for query in ATTRIBUTE_QUERIES])
    right = [np.array([matches(shown[id_], q.predicate) for id_ in ids]) for q in ATTRIBUTE_QUERIES]
    ways = {name: {share: np.zeros(4, int) for share in SHARES} for name in ("as it is", "cleaned")}
    for seed in range(divisions):
        is_new = np.random.default_rng(seed).permutation(len(ids)) % 2 == 0
        for name, by_share in ways.items():
            for text, fits in zip(texts, right, strict=True):
                known = ~is_new if name == "as it is" else ~is_new & ~fits
                for share, counts in by_share.items():
                    alarms = raised(vectors[known], vectors[is_new], text, share)
                    counts += count(alarms, fits[is_new])
    return {
        "what": "alert_rates",
        "queries": len(ATTRIBUTE_QUERIES),
        "pictures": len(ids),
        "divisions": divisions,
        "ways": {
            name: {str(share): rates(counts) for share, counts in by_share.items()}
            for name, by_share in ways.items()
        },
    }


def raised(known: Vectors, added: Vectors, text: Vectors, share: float) -> NDArray[np.bool_]:
    """Which pictures raise an alarm that is made before they are added."""
    with TemporaryDirectory() as folder, Gallery(Path(folder) / "g", dim=len(text)) as gallery:
        gallery.add(known, [None] * len(known))
        rate = Rate.checked(false_alarms_per_day=share * 1e6, pictures_per_day=1e6)
        alert = Alert("", Linear(text), gallery, rate)
        ids = gallery.add(added, [None] * len(added))
        alarms = {match.id for match in alert.new()}
    return np.array([id_ in alarms for id_ in ids])


def count(alarms: NDArray[np.bool_], fits: NDArray[np.bool_]) -> NDArray[np.int_]:
    """Alarms and numbers of wrong and of right pictures."""
    return np.array([alarms[~fits].sum(), (~fits).sum(), alarms[fits].sum(), fits.sum()])


def rates(counts: Sequence[int]) -> dict[str, Any]:
    wrong_alarms, wrong, right_alarms, right = map(int, counts)
    return {
        "wrong_pictures": wrong,
        "false_alarms": wrong_alarms,
        "measured_share": wrong_alarms / wrong,
        "right_pictures": right,
        "recall": right_alarms / right,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("plan", type=Path)
    parser.add_argument("--data", type=Path, default=Path("data/synthetic"))
    parser.add_argument("--split", default="test")
    parser.add_argument("--divisions", type=int, default=DIVISIONS)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    encoder = Encoder.from_plan(Plan(arguments.plan))
    with people(arguments.plan, arguments.data, arguments.split) as of:
        measured = measure(encoder, of.searcher.gallery, of.attributes, arguments.divisions)
    rows = [
        (name, share, at["measured_share"], at["false_alarms"], at["recall"])
        for name, by_share in measured["ways"].items()
        for share, at in by_share.items()
    ]
    heads = ["gallery", "stated share", "measured share", "false alarms", "recall"]
    print(tabulate(rows, headers=heads, floatfmt=".5f"))
    path = arguments.out / "alert_rates.json"
    path.write_text(json.dumps(measured, indent=1) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
