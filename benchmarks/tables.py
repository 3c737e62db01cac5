"""Write the tables in README.md, export/README.md and docs/ from files of results.

Each block between ``<!-- numbers:NAME -->`` and ``<!-- /numbers -->`` is replaced by a table that
:data:`TABLES` makes from files in ``benchmarks/results``. With ``--check`` nothing is written, and
the exit status says whether all pages are up to date.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from tabulate import tabulate

ROOT = Path(__file__).parents[1]
PAGES = (
    ROOT / "README.md",
    ROOT / "export" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
)
RESULTS = ROOT / "benchmarks" / "results"
BLOCK = re.compile(r"(<!-- numbers:(\w+) -->\n).*?(<!-- /numbers -->)", re.DOTALL)
Result = Mapping[str, Any]
BASELINE = "plain"
"""Key of the baseline in the files of results."""

_WAYS = ("finegrain", BASELINE)


def demo(result: Result) -> str:
    text_to_image = result["text_to_image"]
    rows = [
        ("precision@10, mean of 20 attribute queries", f"{result['precision_at_10']:.3f}"),
        (
            "precision@10, mean of 10 queries for caps, shoes, hair, bags by colour",
            f"{result['detail_precision_at_10']:.3f}",
        ),
        ("swap-pair accuracy (chance 0.5)", f"{result['swap_accuracy']:.3f}"),
        *((name, f"{text_to_image[name]:.1f} %") for name in ("rank1", "rank5", "rank10")),
        *((name, f"{text_to_image[name]:.1f} %") for name in ("mAP", "mINP")),
        ("captions that search / pictures searched", _sizes(text_to_image)),
        ("whole demo", _duration(result)),
    ]
    return _table(rows, ["on people never seen in training", ""])


def _duration(result: Result) -> str:
    """Wall-clock and processor time, and the newest instruction set that was used."""
    seconds, computed = result["seconds"]["all"], result["cpu_seconds"]["all"]
    processor = f"{result['processors']} cores of {result['processor']}"
    newest = result["instructions"][-1]
    return f"{seconds:.0f} s ({computed:.0f} s of processor time) on {processor} with {newest}"


def demo_queries(result: Result) -> str:
    rows = [
        (query, f"{precision:.1f}", result["relevant_by_query"][query])
        for query, precision in result["precision_at_10_by_query"].items()
    ]
    rows += [
        (query, f"{precision:.1f}", result["detail_relevant_by_query"][query])
        for query, precision in result["detail_precision_at_10_by_query"].items()
    ]
    return _table(rows, ["query", "precision@10", "relevant pictures"])


def catalog_photos(result: Result) -> str:
    rows = [(q, f"{p:.1f}", result["relevant"][q]) for q, p in result["precision"].items()]
    rows.append(("**mean**", f"**{result['mean']:.2f}**", f"trained {result['minutes']:.0f} min"))
    return _table(rows, ["query", "precision@10", "pictures of it"])


def denied_words(result: Result) -> str:
    rows = [
        (name, f"{at['precision']:.3f}", f"{at['denied']:.3f}")
        for name, at in result["ways"].items()
    ]
    head = f"{result['queries']} queries, {result['gallery']:,} pictures"
    return _table(rows, [head, f"precision@{result['k']}", "denied thing shown"])


def alert_rates(result: Result) -> str:
    rows = [
        (name, f"{float(share):g}", f"{at['measured_share']:.5f}", at["false_alarms"],
         f"{at['recall']:.3f}")
        for name, by_share in result["ways"].items()
        for share, at in by_share.items()
    ]  # fmt: skip
    head = f"gallery ({result['queries']} queries, {result['pictures']:,} pictures)"
    return _table(rows, [head, "stated share", "measured", "false alarms", "recall"])


def coded_vectors(result: Result) -> str:
    rows = []
    for kind in result["kinds"]:
        seconds = kind["cpu_seconds"]
        recalls = ", ".join(f"{recall:.3f}" for recall in kind["recall"].values())
        ratio = seconds["codes are made"] / seconds["codes are opened"]
        rows.append((f"`{kind['index']}`", kind["code_bytes"], recalls, f"{ratio:.0f}"))
    candidates = ", ".join(result["kinds"][0]["recall"])
    return _table(
        rows,
        [
            f"{result['rows']:,} rows",
            "bytes of a code",
            f"recall@{result['k']} with {candidates} candidates a hit",
            "first answer without kept codes, times as long",
        ],
    )


def shortened_embeddings(result: Result) -> str:
    rows = [
        (plan["dim"] or result["width"], f"{plan['rank1']:.1f} %", f"{plan['mAP']:.1f} %")
        for plan in result["plans"]
    ]
    return _table(rows, ["width", "rank1", "mAP"])


def explanation(result: Result) -> str:
    exact = result["ways"]["50 covers"]["cpu_ms"]
    rows = [
        (name, f"{at['inside']:.3f}", f"{at['cpu_ms'] / exact:.2f}")
        for name, at in result["ways"].items()
    ]
    head = f"{result['things']} things on {result['people']} people"
    return _table(rows, [head, "inside the thing", "CPU time, 50 covers = 1"])


def late_interaction(result: Result) -> str:
    rows = [
        (run["run"], name, f"{at['weight']:g}", f"{at['rank1']:.1f} %",
         f"{at['rank1_alone']:.1f} %" if "rank1_alone" in at else "")
        for run in result["runs"]
        for name, at in run["scores"].items()
    ]  # fmt: skip
    heads = ["run", "score", "weight chosen on validation", "rank1", "rank1 of the score alone"]
    return _table(rows, heads)


def service_load(result: Result) -> str:
    again = result["restart"]
    others = {name: count for name, count in result["statuses"].items() if name != "200"}
    rows = [
        ("answers with status 200", f"{result['statuses'].get('200', 0):,}"),
        ("other answers", ", ".join(f"{n} x {name}" for name, n in others.items()) or "none"),
        ("p99 / p50", f"{result['p99_to_p50']:.1f}"),
        ("rate of the second half / first half", f"{result['rate_second_half_to_first']:.2f}"),
        ("memory of the second half / first half", f"{result['memory_second_half_to_first']:.3f}"),
        ("open files at the start, at most, at the end", " / ".join(
            str(result[f"descriptors_{name}"]) for name in ("first", "most", "last"))),
        ("acknowledged pictures over a restart", f"{again['acknowledged']:,}"),
        ("lost of them", str(again["lost"])),
    ]  # fmt: skip
    head = (
        f"{result['clients']} clients, {result['minutes']} minutes, {result['pictures']:,} pictures"
    )
    return _table(rows, [head, ""])


def everyday_words(result: Result) -> str:
    rows = [
        (name, *(f"{at[way]:.3f}" for way in ("words=True", "words=False")))
        for name, at in result["precision"].items()
    ]
    head = f"precision@{result['k']}, {result['gallery']:,} pictures"
    return _table(rows, [head, "words read", "as typed"])


def camera_films(result: Result) -> str:
    rows = [
        (name, f"{at['recall']:.3f}", f"{at['first']:.3f}", at["rows"])
        for name, at in result["ways"].items()
    ]
    head = f"{result['moments']} moments of {result['people']} people, {result['films']} films"
    return _table(rows, [head, "recall", "first moment is right", "rows in the gallery"])


def camera_tracks(result: Result) -> str:
    at = result["tracking"]
    row = (at["people_in_frames"], f"{at['IDF1']:.3f}", f"{at['MOTA']:.3f}", at["switches"])
    return _table([row], ["people in frames", "IDF1", "MOTA", "switched identities"])


def dialogue_users(result: Result) -> str:
    rows = [
        (name, *(f"{100 * hits:.1f} %" for hits in at["hits"]["10"]), f"{at['bri']:.2f}")
        for name, at in result["ways"].items()
    ]
    head = f"{result['users']} users, {result['gallery']:,} pictures: hits at 10"
    names = ["at first", *(f"round {t}" for t in range(1, result["rounds"] + 1))]
    return _table(rows, [head, *names, "BRI"])


def everyday_captions(result: Result) -> str:
    rows = [
        (
            f"{name} ({at['words']} words)",
            *(
                f"{at['precision'][kind][way]:.3f}"
                for kind in ("everyday words", "their plain twins")
                for way in ("words read", "as typed")
            ),
        )
        for name, at in result["captions"].items()
    ]
    heads = ["everyday, words read", "everyday, as typed", "plain, words read", "plain, as typed"]
    return _table(rows, ["captions, precision@10 of queries", *heads])


def measured_colors(result: Result) -> str:
    rows = [(weight, f"{precision:.3f}") for weight, precision in result["precision"].items()]
    head = f"weight of a measured colour, {result['gallery']:,} pictures"
    return _table(rows, [head, "precision@10"])


def composed_queries(result: Result) -> str:
    rows = [(name, f"{precision:.3f}") for name, precision in result["precision"].items()]
    head = f"{result['queries']} queries, {result['gallery']:,} pictures"
    return _table(rows, [head, f"precision@{result['k']}"])


def no_match(result: Result) -> str:
    rows = [
        (
            f"{name} above {way['threshold']:.2f}",
            f"{int(size):,}",
            *(
                f"{100 * at[rate]:.1f} %"
                for rate in ("fpir", "fnir", "fnir_at_0.01", "fnir_at_0.1")
            ),
        )
        for name, way in result["ways"].items()
        for size, at in way["by_size"].items()
    ]
    best = (f"{100 * rate:.1f} %" for rate in result["fnir_without_threshold"].values())
    rows.append(
        (
            "no threshold",
            " / ".join(f"{int(s):,}" for s in result["fnir_without_threshold"]),
            "100 %",
            " / ".join(best),
            "",
            "",
        )
    )
    brier = f"Brier score {result['brier']:.3f}; {result['brier_of_a_constant']:.3f} of a constant"
    rows.append((brier, "all", "", "", "", ""))
    heads = ["FPIR", "FNIR", "FNIR at FPIR 1 %", "FNIR at FPIR 10 %"]
    return _table(rows, [f"{result['queries']:,} queries", "pictures", *heads])


def query_latency(fp32: Result, int8: Result) -> str:
    rows = [
        (
            f"`Searcher.query`, {name}",
            f"{result['p50_ms']['finegrain']:.1f} ms",
            _times(result),
            " / ".join(f"{ms:.1f}" for ms in result["one_after_another_ms"].values()) + " ms",
        )
        for name, result in (("`cpu_int8`", int8), ("`onnx_fp32`", fp32))
    ]
    rows.append(("baseline", f"{fp32['p50_ms'][BASELINE]:.1f} ms", "", ""))
    head = f"{fp32['gallery']:,} rows, {fp32['model']}"
    turns = "one after another: p50 / p95 / p99"
    return _table(rows, [f"{head}, in turns", "p50", "the baseline takes", turns])


def _times(result: Result) -> str:
    return f"{result['ratio']:.1f} times as long"


def evaluation(result: Result) -> str:
    seconds, peak = result["seconds"], result["peak_mb"]
    rows = [
        ("finegrain", f"{seconds['finegrain']:.1f} s", f"{peak['finegrain']:,} MB"),
        ("baseline", f"{seconds[BASELINE]:.1f} s", f"{peak[BASELINE]:,} MB"),
        ("ratio", f"{result['ratio']:.1f}", f"{1 / result['memory_share']:.0f}"),
    ]
    count = f"{result['queries']:,}"
    return _table(rows, [f"{count} captions x {count} pictures", "time", "memory beyond its input"])


def training(result: Result) -> str:
    rate = result["pictures_per_second"]
    rows = [
        ("finegrain", f"{rate['finegrain']:.2f}"),
        ("baseline", f"{rate[BASELINE]:.2f}"),
        ("ratio", f"{result['ratio']:.2f}"),
    ]
    return _table(rows, [f"{result['model']}, batch {result['batch']}, 2 cores", "pictures/s"])


def encode(result: Result) -> str:
    text, image = result["text"], result["image"]
    rows = [
        (
            f"`{name}`" if "_" in name and name != "open_clip" else name,
            f"{text['p50_ms'][name]:.1f} ms",
            f"{text['ratio'][name]:.1f}",
            f"{1e3 * 8 / image['p50_ms'][name]:.1f} a second",
            f"{image['ratio'][name]:.1f}",
        )
        for name in (
            "cpu_int8",
            "openvino_int8",
            "onnx_fp32",
            *(n for n in text["p50_ms"] if "int8" not in n and n != "onnx_fp32"),
        )
    ]
    head = [result["model"], '"woman in red coat"', "times as fast", "pictures, in eights"]
    return _table(rows, [*head, "times as fast"])


def int8_kinds(result: Result) -> str:
    """Results of each format of weights on each type of processor."""
    measured = sorted(
        result["by_processor"].values(), key=lambda m: len(m["machine"]["instructions"])
    )
    newest = [_newest(m["machine"]["instructions"]) for m in measured]

    def each(way: str, column: str, digits: int) -> str:
        return " / ".join(f"{m['ways'][way][column]:.{digits}f}" for m in measured)

    rows = [
        (
            way,
            f"{numbers['megabytes']:.0f} MB",
            each(way, "text_cosine", 4),
            each(way, "top10_overlap", 3),
            each(way, "caption_ms", 1),
            each(way, "picture_ms", 0),
        )
        for way, numbers in measured[0]["ways"].items()
    ]
    columns = ["minimum cosine of a text", "top-10 overlap", "caption, ms", "picture, ms"]
    return _table(rows, [" / ".join(newest), "both towers", *columns])


def _newest(instructions: list[str]) -> str:
    """The newest instruction set that multiplies bytes."""
    return next((n for n in ("AMX", "VNNI", "AVX-512", "AVX2") if n in instructions), "none")


def ingest(preprocess: Result, ingest: Result) -> str:
    rows = [
        (
            f"{what}, {' x '.join(map(str, preprocess[kind]['size']))}, to the input of the tower",
            f"{preprocess[kind]['p50_ms']['finegrain']:.1f} ms",
            f"{preprocess[kind]['p50_ms'][BASELINE]:.1f} ms",
            f"{preprocess[kind]['ratio']:.1f}",
        )
        for kind, what in (("crops", "a crop"), ("photographs", "a photograph"))
    ]
    rows += [
        (
            f"{measured['pictures']} crops, `{profile}`",
            *(f"{measured['pictures_per_second'][way]:.1f} a second" for way in _WAYS),
            f"{measured['ratio']:.1f}",
        )
        for profile, measured in ((name, ingest[name]) for name in ("cpu_int8", "onnx_fp32"))
    ]
    one = ingest["one_picture"]
    rows.append(
        (
            f"one crop, into a gallery of {one['gallery']:,}, `{one['profile']}`: p50 / p95 / p99",
            *(
                " / ".join(f"{one[f'p{q}_ms'][way]:.0f}" for q in (50, 95, 99)) + " ms"
                for way in _WAYS
            ),
            f"{one['ratio']:.1f}",
        )
    )
    return _table(rows, ["from a file", "finegrain", "baseline", "ratio"])


def rerank(query: Result, caption: Result) -> str:
    rows = [
        (
            f"{result['words']} words",
            f"{result['p50_ms']['finegrain']:,.0f} ms",
            f"{result['p50_ms'][BASELINE]:,.0f} ms",
            f"{result['ratio']:.1f}",
            f"{result['macs']['finegrain'] / 1e9:.0f} / {result['macs'][BASELINE] / 1e9:.0f}",
        )
        for result in (query, caption)
    ]
    head = f"{query['candidates']} candidates, {query['model']}"
    return _table(rows, [head, "finegrain", "baseline", "ratio", "GMACs"])


def rerank_curve(result: Result) -> str:
    first = result["vectors alone"]
    measured = [("vectors alone", first)]
    measured += [
        (f"{label}, k = {depth}", at)
        for name, label in (("both", "both stages"), ("head alone", "match head alone"))
        for depth, at in result[name].items()
    ]
    rows = [
        (
            label,
            f"{at['rank1']:.1f}",
            f"{at['mAP']:.1f}",
            f"{at['scored']:.0f}" if "scored" in at else "",
            f"{at['ms']:.1f}",
        )
        for label, at in measured
    ]
    head = f"{result['queries']:,} captions, {result['gallery']:,} pictures"
    return _table(rows, [head, "rank1", "mAP", "pictures scored", "ms a query"])


def fashion_matching(result: Result) -> str:
    metrics = ("rank1", "rank5", "rank10", "mAP")
    rows = [
        (protocol, row["ordered by"], *(f"{row[f'T2I {metric}']:.1f}" for metric in metrics))
        for protocol in ("sampled", "full gallery")
        for row in result[protocol]["rows"]
    ]
    return _table(rows, ["text to image", "ordered by", *metrics])


def gallery_growth(result: Result) -> str:
    names = ("finegrain", "faiss flat", "numpy")
    rows = [
        (
            f"{int(rows):,}",
            *(f"{measured['query_ms'][name]:.1f}" for name in names),
            f"{measured['filtered_ms']['finegrain']:.1f}",
            f"{measured['build_s']:.1f} s",
            f"{measured['open_s']:.1f} s",
            f"{measured['delete_100_s']:.1f} s",
        )
        for rows, measured in result["by_rows"].items()
    ]
    headers = ["pictures", *(f"{name}, ms" for name in names), "filtered, ms"]
    return _table(rows, [*headers, "fill", "open", "delete 100"])


def gallery_approximate(result: Result) -> str:
    rows = [
        (
            f"{int(rows):,}",
            f"`{measured['chosen']}`",
            f"{measured['recall']:.3f}",
            f"{measured['query_ms']['approximate']:.1f}",
            *(
                f"{measured[asked][way]:.1f}" if way in measured.get(asked, {}) else ""
                for asked, way in (("query_ms", "exact"), ("filtered_ms", "approximate"))
            ),
            f"{measured['bytes_a_row']:,.0f}",
            f"{measured['build_s']:,.0f} s",
            f"{1e3 * measured['add_1000_s']:.0f} ms",
            f"{1e3 * measured['delete_100_s']:.0f} ms",
        )
        for rows, kinds in result["by_rows"].items()
        for measured in kinds.values()
    ]
    times = ["query, ms", "exact, ms", "filtered, ms", "bytes a row", "build"]
    headers = ["pictures", "index", "recall@10", *times, "add 1,000", "delete 100"]
    return _table(rows, headers)


def probes(result: Result) -> str:
    rows = [
        (
            asked["probe"],
            asked["items"],
            f"{100 * asked['accuracy']:.1f} %",
            f"{100 / asked['choices']:.0f} %",
        )
        for asked in result["probes"]
    ]
    return _table(rows, [f"{result['split']} split", "pictures", "right", "chance"])


def study(result: Result) -> str:
    """Mean and sample standard deviation over seeds."""
    # Seconds depend on the machine and are not a property of the method.
    metrics = [name for name in next(iter(result["rows"].values())) if name != "seconds"]
    rows = [
        (row, *(f"{fmean(values[m]):.1f} ± {stdev(values[m]):.1f}" for m in metrics))
        for row, values in result["rows"].items()
    ]
    return _table(rows, ["people never seen, 3 seeds", *metrics])


def _sizes(metrics: Result) -> str:
    return f"{metrics['num_queries']:,} / {metrics['num_gallery']:,}"


def _table(rows: list[tuple[Any, ...]], headers: list[str]) -> str:
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True) + "\n"


TABLES: Mapping[str, tuple[Callable[..., str], tuple[str, ...]]] = {
    "demo": (demo, ("demo",)),
    "demo_queries": (demo_queries, ("demo",)),
    "catalog_photos": (catalog_photos, ("catalog_photos",)),
    "denied_words": (denied_words, ("denied_words",)),
    "alert_rates": (alert_rates, ("alert_rates",)),
    "coded_vectors": (coded_vectors, ("coded_vectors",)),
    "explanation": (explanation, ("explanation",)),
    "shortened_embeddings": (shortened_embeddings, ("shortened_embeddings",)),
    "late_interaction": (late_interaction, ("late_interaction",)),
    "service_load": (service_load, ("service_load",)),
    "everyday_words": (everyday_words, ("everyday_words",)),
    "camera_films": (camera_films, ("camera_films",)),
    "camera_tracks": (camera_tracks, ("camera_films",)),
    "dialogue_users": (dialogue_users, ("dialogue_users",)),
    "everyday_captions": (everyday_captions, ("everyday_captions",)),
    "measured_colors": (measured_colors, ("measured_colors",)),
    "composed_queries": (composed_queries, ("composed_queries",)),
    "no_match": (no_match, ("no_match",)),
    "query_latency": (query_latency, ("query_onnx_fp32", "query_cpu_int8")),
    "encode": (encode, ("encode",)),
    "int8_kinds": (int8_kinds, ("int8_kinds",)),
    "ingest": (ingest, ("preprocess", "ingest")),
    "gallery_growth": (gallery_growth, ("gallery_growth",)),
    "gallery_approximate": (gallery_approximate, ("gallery_approximate",)),
    "evaluation": (evaluation, ("evaluation",)),
    "training": (training, ("training",)),
    "irra_losses": (study, ("irra_losses",)),
    "noisy_captions": (study, ("noisy_captions",)),
    "flagship": (study, ("flagship",)),
    "flagship_confirmed": (study, ("flagship_confirmed",)),
    "lapscore": (study, ("lapscore",)),
    "probes": (probes, ("probes",)),
    "fashion_matching": (fashion_matching, ("fashion_matching",)),
    "rerank_curve": (rerank_curve, ("rerank_curve",)),
    "rerank": (rerank, ("rerank_query", "rerank_caption")),
}


def render(page: str) -> str:
    """The page with new tables."""

    def block(match: re.Match[str]) -> str:
        table, files = TABLES[match[2]]
        results = [json.loads((RESULTS / f"{file}.json").read_text()) for file in files]
        return f"{match[1]}{table(*results)}{match[3]}"

    return BLOCK.sub(block, page)


def main() -> int:
    checked = "--check" in sys.argv[1:]
    stale = False
    for path in PAGES:
        page = path.read_text(encoding="utf-8")
        made = render(page)
        stale = stale or made != page
        if not checked:
            path.write_text(made, encoding="utf-8")
    return int(checked and stale)


if __name__ == "__main__":
    raise SystemExit(main())
