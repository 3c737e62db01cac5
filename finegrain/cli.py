"""The command line: its verbs are the names of the Python API."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

import finegrain
from finegrain.errors import DataError, FinegrainError, GalleryError, require
from finegrain.records import Scalar

TABLES = {".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; errors of finegrain become one line and exit status 1."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except FinegrainError as error:
        print(f"finegrain: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("finegrain: stopped", file=sys.stderr)
        return 130
    return 0


def _train(arguments: argparse.Namespace) -> None:
    require("torch", "train")
    recipe = finegrain.load_recipe(arguments.recipe, arguments.set)
    if arguments.tiny:
        recipe = recipe.tiny()
    run = finegrain.train(recipe, arguments.out, resume=arguments.resume)
    print(run)


def _evaluate(arguments: argparse.Namespace) -> None:
    require("torch", "train")
    data = finegrain.load_recipe(arguments.recipe).data if arguments.recipe else None
    evaluation = finegrain.evaluate(arguments.model, data, split=arguments.split)
    print(evaluation)
    if arguments.json:
        arguments.json.write_text(json.dumps(evaluation.to_dict(), indent=1) + "\n")


def _report(arguments: argparse.Namespace) -> None:
    require("torch", "train")
    from finegrain.report import report

    found = report(arguments.runs)
    print(found)
    if arguments.json:
        arguments.json.write_text(json.dumps(found.to_dict(), indent=1) + "\n")


def _export(arguments: argparse.Namespace) -> None:
    require("torch", "train")
    from finegrain.exporters import load_profile

    profile = load_profile(arguments.profile)
    data = finegrain.load_recipe(arguments.data).data if arguments.data else None
    print(finegrain.export(arguments.run_folder, profile, arguments.out, data=data))
    print(f"\nwrote {arguments.out}; search with it:")
    print(f"  finegrain index {arguments.out} PICTURES/")
    print(f'  finegrain query {arguments.out} "woman in red coat"')


def _convert(arguments: argparse.Namespace) -> None:
    require("torch", "train")
    from finegrain.conversion import released_to_run, run_to_released

    out = arguments.out
    if (arguments.source / "recipe.json").is_file():
        if arguments.config or arguments.recipe or arguments.set or arguments.heads:
            raise DataError(
                f"{arguments.source} is a run, which knows its recipe; --config, --recipe, --set "
                "and --heads go with a released checkpoint"
            )
        print(f"wrote {run_to_released(arguments.source, out)}")
        return
    recipe = finegrain.load_recipe(arguments.recipe) if arguments.recipe else None
    print(
        released_to_run(
            arguments.source,
            out,
            config=arguments.config,
            recipe=recipe,
            overrides=arguments.set,
            heads=arguments.heads,
        )
    )
    print(f"\nexport it with:\n  finegrain export {out}")


def _index(arguments: argparse.Namespace) -> None:
    if arguments.reindex:
        done = finegrain.Searcher.reindex(arguments.plan, gallery=arguments.gallery)
        print(done)
        if not done.switched:
            raise GalleryError("the gallery still holds the vectors of its old plan")
    retention = None if arguments.expire_days is None else arguments.expire_days * 86_400
    with finegrain.Searcher(arguments.plan, gallery=arguments.gallery) as searcher:
        for source in arguments.pictures:
            if source.suffix.lower() in TABLES:
                from finegrain.data.catalog import read_catalog

                splits = read_catalog(
                    source,
                    image_column=arguments.image_column,
                    caption_columns=(arguments.caption_column,),
                    pid_column=arguments.pid_column,
                )
                for split in splits.values():
                    for problem in split.problems:
                        print(problem, file=sys.stderr)
                    print(
                        searcher.add_samples(
                            split.samples, dict(arguments.metadata), expire_after=retention
                        )
                    )
            else:
                print(searcher.add(source, dict(arguments.metadata), expire_after=retention))
        print(searcher)


def _query(arguments: argparse.Namespace) -> None:
    query = Path(arguments.image) if arguments.image else arguments.text
    with finegrain.Searcher(arguments.plan, gallery=arguments.gallery) as searcher:
        matches = searcher.query(
            query,
            arguments.k,
            where=arguments.where,
            group_by=arguments.group_by,
            distinct=arguments.distinct,
        )
        if arguments.json:
            print(json.dumps(matches.to_dicts(), indent=1, ensure_ascii=False))
        else:
            print(matches)
        if arguments.grid:
            matches.save(arguments.grid)
            print(f"\nwrote {arguments.grid}", file=sys.stderr)


def _demo(arguments: argparse.Namespace) -> None:
    require("torch", "train")
    from finegrain.demo import run_demo

    run_demo(arguments.out, fast=arguments.fast)


def _doctor(arguments: argparse.Namespace) -> None:
    from finegrain.doctor import examine, machine_report

    if arguments.subjects[:1] == ["data"]:
        _doctor_data(arguments.subjects[1:])
        return
    print(machine_report())
    unsound = []
    for path in map(Path, arguments.subjects):
        try:
            print(f"\n{examine(path)}")
        except FinegrainError as error:
            unsound.append(str(path))
            print(f"\n{path}: NOT SOUND; {error}")
    if unsound:
        raise DataError(f"not sound: {', '.join(unsound)}")


def _doctor_data(words: Sequence[str]) -> None:
    from finegrain.data.person_datasets import PERSON_DATASETS, person_dataset
    from finegrain.doctor import examine_datasets

    if not words or len(words) % 2:
        names = ", ".join(dataset.name for dataset in PERSON_DATASETS)
        raise DataError(f"expected finegrain doctor data NAME ROOT [NAME ROOT ...]; NAME: {names}")
    pairs = zip(words[::2], words[1::2], strict=True)
    sound = True
    for finding in examine_datasets([(person_dataset(name), Path(root)) for name, root in pairs]):
        print(f"{finding}\n")
        sound = sound and not finding.faults
    if not sound:
        raise DataError("this data would falsify a result; see what is NOT SOUND above")


def _recipe(arguments: argparse.Namespace) -> None:
    require("torch", "train")
    from finegrain.recipe import difference

    recipes = [finegrain.load_recipe(path, arguments.set) for path in arguments.recipes]
    if arguments.action == "list":
        rows = []
        for path in sorted(Path("recipes").glob("*.py")):
            recipe = finegrain.load_recipe(path)
            rank1 = recipe.expected.rank1 if recipe.expected else None
            rows.append((str(path), recipe.about, rank1))
        if not rows:
            raise DataError("there is no recipes/*.py here; run this in a checkout of finegrain")
        print(tabulate(rows, headers=["recipe", "about", "expected rank1"]))
    elif arguments.action == "diff" and len(recipes) == 2:
        rows = [(name, *values) for name, values in difference(*recipes).items()]
        print(tabulate(rows, headers=["field", *map(str, arguments.recipes)]))
    elif arguments.action == "show" and len(recipes) == 1:
        print(recipes[0].to_json(), end="")
    else:
        raise DataError("`recipe show` takes one recipe, and `recipe diff` takes two")


def _pair(text: str) -> tuple[str, Scalar]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    try:
        parsed = json.loads(value)
    except ValueError:
        parsed = value
    if not isinstance(parsed, str | int | float | bool | None):
        raise argparse.ArgumentTypeError(f"{value!r} is not a text, a number or a truth value")
    return name, parsed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="finegrain",
        description="Fine-grained text-to-person and text-to-fashion image search.",
        epilog="Every verb explains itself: finegrain VERB --help",
    )
    parser.add_argument("--version", action="version", version=finegrain.__version__)
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def verb(name: str, run: object, about: str, example: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(
            name,
            help=about,
            description=f"{about[0].upper()}{about[1:]}.",
            epilog=f"examples:\n{example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        return added

    train = verb(
        "train",
        _train,
        "train a recipe",
        "  finegrain train recipes/tiny_synthetic.py\n"
        "  finegrain train recipes/tiny_synthetic.py --set optimizer.lr=3e-4 -o runs/lr3\n"
        "  torchrun --nproc-per-node 2 -m finegrain train recipes/tiny_synthetic.py",
    )
    train.add_argument("recipe", type=Path, help="a recipe's .py, its .json, or a run folder")
    train.add_argument("-o", "--out", type=Path, help="run folder (default: runs/<name>)")
    train.add_argument("--set", action="append", default=[], metavar="A.B=C", help="one field")
    train.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    train.add_argument("--tiny", action="store_true", help="shrink to seconds, on synthetic people")

    evaluate = verb(
        "evaluate",
        _evaluate,
        "measure rank1/5/10, mAP and mINP of a run or a plan",
        "  finegrain evaluate runs/tiny_synthetic\n"
        "  finegrain evaluate model.plan --split test --json metrics.json",
    )
    evaluate.add_argument("model", type=Path, help="a run folder or a model.plan")
    evaluate.add_argument("--split", default="val", help="val (default), test or train")
    evaluate.add_argument("--recipe", type=Path, help="take the dataset of this recipe instead")
    evaluate.add_argument("--json", type=Path, help="also write the metrics here")

    report = verb(
        "report",
        _report,
        "say what runs reached on test: selected on validation, and as papers select",
        "  finegrain train recipes/irra_cuhk_pedes.py --set watch_test=true -o runs/s1\n"
        "  finegrain report runs/s1\n"
        "  finegrain report runs/s1 runs/s2 runs/s3        # mean and spread over seeds",
    )
    report.add_argument("runs", type=Path, nargs="+", help="runs of one recipe by several seeds")
    report.add_argument("--json", type=Path, help="also write the metrics here")

    export = verb(
        "export",
        _export,
        "export a run to a model.plan, checked against the eager model",
        "  finegrain export runs/tiny_synthetic -o model.plan\n"
        "  finegrain export runs/tiny_synthetic export/cpu_int8.py -o model.plan\n"
        "  finegrain export runs/irra --data recipes/tiny_synthetic.py",
    )
    export.add_argument("run_folder", type=Path, metavar="RUN")
    export.add_argument("profile", type=Path, nargs="?", default=Path("export/onnx_fp32.py"))
    export.add_argument("-o", "--out", type=Path, default=Path("model.plan"))
    export.add_argument("--data", type=Path, help="check on the dataset of this recipe instead")

    convert = verb(
        "convert",
        _convert,
        "make a run of a released checkpoint (IRRA and its forks, CLIP), or the other way round",
        "  finegrain convert best.pth -o runs/irra --set data.root=/data/CUHK-PEDES\n"
        "  finegrain convert best.pth -o runs/irra --config configs.yaml --heads\n"
        "  finegrain convert clip.pt -o runs/clip --recipe recipes/my_clip.py\n"
        "  finegrain convert runs/irra -o best.pth",
    )
    convert.add_argument("source", type=Path, help="a weight file, or a run folder")
    convert.add_argument("-o", "--out", type=Path, required=True, help="run folder, or best.pth")
    convert.add_argument("--config", type=Path, help="its configs.yaml (default: beside it)")
    convert.add_argument("--recipe", type=Path, help="start from it (default: IRRA on ViT-B/16)")
    convert.add_argument("--set", action="append", default=[], metavar="A.B=C", help="one field")
    convert.add_argument("--heads", action="store_true", help="keep the training heads too")

    index = verb(
        "index",
        _index,
        "add pictures to the gallery of a plan",
        "  finegrain index model.plan crops/ --metadata camera=gate-3\n"
        "  finegrain index model.plan crops/ --expire-days 30\n"
        "  finegrain index model.plan catalog.csv --image-column file --caption-column title\n"
        "  finegrain index new.plan crops/ --gallery model.gallery --reindex",
    )
    index.add_argument("plan", type=Path)
    index.add_argument("pictures", type=Path, nargs="+", help="folders, pictures, or catalogues")
    index.add_argument("--gallery", type=Path, help="default: beside the plan")
    index.add_argument(
        "--metadata", type=_pair, action="append", default=[], metavar="NAME=VALUE",
        help="a column for all pictures",
    )  # fmt: skip
    index.add_argument(
        "--expire-days", type=float, metavar="DAYS",
        help="remove the pictures so long after they were taken (--metadata time=...) or added",
    )  # fmt: skip
    index.add_argument(
        "--reindex", action="store_true",
        help="first encode what the gallery holds of another plan again; after a stop, go on",
    )  # fmt: skip
    index.add_argument("--image-column", default="image", help="of a catalogue")
    index.add_argument("--caption-column", default="caption", help="of a catalogue")
    index.add_argument("--pid-column", help="of a catalogue: pictures of one product share it")

    query = verb(
        "query",
        _query,
        "search by text or by picture",
        '  finegrain query model.plan "woman in red coat"\n'
        '  finegrain query model.plan "man with a backpack" --where "camera = \'gate-3\'" -k 5\n'
        "  finegrain query model.plan --image crop.jpg --grid matches.png",
    )
    query.add_argument("plan", type=Path)
    what = query.add_mutually_exclusive_group(required=True)
    what.add_argument("text", nargs="?")
    what.add_argument("--image", type=Path, help="search by this picture instead")
    query.add_argument("-k", type=int, help="how many (default: 10)")
    query.add_argument("--where", help="filter, such as: camera = 'gate-3' and price < 80")
    query.add_argument("--group-by", choices=["pid", "track"], help="only the best of each")
    query.add_argument(
        "--distinct", type=float, metavar="COSINE",
        help="leave out pictures nearer than this to a better one, such as 0.98",
    )  # fmt: skip
    query.add_argument("--gallery", type=Path, help="default: beside the plan")
    query.add_argument("--grid", type=Path, help="write a picture grid here")
    query.add_argument("--json", action="store_true", help="print JSON instead of a table")

    demo = verb(
        "demo",
        _demo,
        "render people, train, evaluate, export, index and query, in minutes on a CPU",
        "  finegrain demo\n  FINEGRAIN_FAST=1 finegrain demo -o runs/fast",
    )
    demo.add_argument("-o", "--out", type=Path, default=Path("runs/demo"))
    demo.add_argument("--fast", action="store_true", help="less training (or FINEGRAIN_FAST=1)")

    doctor = verb(
        "doctor",
        _doctor,
        "say what this machine has, and whether plans, galleries and datasets are sound",
        "  finegrain doctor\n"
        "  finegrain doctor model.plan model.gallery\n"
        "  finegrain doctor data cuhk_pedes data/CUHK-PEDES\n"
        "  finegrain doctor data icfg_pedes data/ICFG-PEDES rstpreid data/RSTPReid",
    )
    doctor.add_argument(
        "subjects", nargs="*", metavar="SUBJECT",
        help="plans and galleries to examine; or data NAME ROOT [NAME ROOT ...]: person-search "
        "datasets, and the pictures that their training and test splits share",
    )  # fmt: skip

    recipe = verb(
        "recipe",
        _recipe,
        "list, show or compare recipes",
        "  finegrain recipe list\n"
        "  finegrain recipe show recipes/tiny_synthetic.py\n"
        "  finegrain recipe diff recipes/tiny_synthetic.py runs/tiny_synthetic",
    )
    recipe.add_argument("action", choices=["list", "show", "diff"])
    recipe.add_argument("recipes", type=Path, nargs="*")
    recipe.add_argument("--set", action="append", default=[], metavar="A.B=C", help="one field")
    return parser
