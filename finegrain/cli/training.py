"""The verbs of the training wing: train, evaluate, report, export, convert and recipe."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from tabulate import tabulate

import finegrain
from finegrain.cli.opening import RERANK_BY
from finegrain.cli.verb import Verbs, add_verb
from finegrain.errors import DataError, EvaluationError, require
from finegrain.rerank import RerankBy

if TYPE_CHECKING:
    from finegrain.data.datasets import Dataset
    from finegrain.evaluation.evaluation import Evaluation
    from finegrain.evaluation.global_share import GlobalShare
    from finegrain.evaluation.measured_runs import MeasuredRuns
    from finegrain.evaluation.open_set import OpenSet
    from finegrain.evaluation.probes import ProbeReport
    from finegrain.evaluation.report import Report


def add_train_verb(verbs: Verbs) -> None:
    train = add_verb(
        verbs,
        "train",
        _train,
        "train a recipe",
        "  finegrain train tiny_synthetic\n"
        "  finegrain train tiny_synthetic --set optimizer.lr=3e-4 -o runs/lr3\n"
        "  finegrain train my_recipe.py --tiny\n"
        "  torchrun --nproc-per-node 2 -m finegrain train tiny_synthetic",
    )
    train.add_argument(
        "recipe",
        type=Path,
        help="a name of `finegrain recipe list`, a .py, a .json, or a run folder",
    )
    train.add_argument("-o", "--out", type=Path, help="run folder (default: runs/<name>)")
    train.add_argument("--set", action="append", default=[], metavar="A.B=C", help="one field")
    train.add_argument("--resume", action="store_true", help="continue from the newest checkpoint")
    train.add_argument(
        "--tiny",
        action="store_true",
        help="shrink to seconds, on synthetic people unless --set names data",
    )
    train.add_argument("--checkpoint-minutes", type=float, default=5.0, help="time between two")


def _train(arguments: argparse.Namespace) -> None:
    require_training()
    if arguments.tiny:
        recipe = finegrain.load_recipe(arguments.recipe).tiny(arguments.set)
    else:
        recipe = finegrain.load_recipe(arguments.recipe, arguments.set)
    run = finegrain.train(
        recipe,
        arguments.out,
        resume=arguments.resume,
        checkpoint_minutes=arguments.checkpoint_minutes,
    )
    print(run)
    if recipe.schedule.evaluate_first:
        from finegrain.evaluation.report import improvement

        print(f"\n{improvement(run.folder)}\nthe curves are in {run.folder / 'curves.png'}")
    if recipe.export_plan:
        _export_best(run.folder)


def require_training() -> None:
    """Check that PyTorch is installed, and choose how its threads wait."""
    require("psutil", "train")
    from finegrain.cli.shared_cores import let_threads_sleep_on_shared_cores

    chosen = let_threads_sleep_on_shared_cores()  # before PyTorch loads OpenMP
    require("torch", "train")
    if chosen:
        print(chosen)


def _export_best(run: Path) -> None:
    """Export the best checkpoint of a run, and say how to search with it."""
    from finegrain.exporters import ExportProfile

    plan = run / "model.plan"
    print(f"\n{finegrain.export(run, ExportProfile(name='onnx_fp32'), plan)}\nwrote {plan}")
    print(f'search with it:\n  finegrain index {plan} PICTURES\n  finegrain query {plan} "TEXT"')


def add_evaluate_verb(verbs: Verbs) -> None:
    evaluate = add_verb(
        verbs,
        "evaluate",
        _evaluate,
        "measure rank1/5/10, mAP and mINP of a run or a plan",
        "  finegrain evaluate runs/tiny_synthetic\n"
        "  finegrain evaluate model.plan --split test --json metrics.json\n"
        "  finegrain evaluate model.plan --data flickr30k --root data/flickr30k --split test\n"
        "  finegrain evaluate runs/rasa_cuhk_pedes --split test --rerank-k 128 --rerank-by match\n"
        "  finegrain evaluate runs/tiny_synthetic --split test --probe\n"
        "  finegrain evaluate runs/itself_rstpreid --shares\n"
        "  finegrain evaluate model.plan --split test --open-set --plot reliability.png",
    )
    evaluate.add_argument("model", type=Path, help="a run folder or a model.plan")
    evaluate.add_argument("--split", default="val", help="val (default), test or train")
    other = evaluate.add_mutually_exclusive_group()
    other.add_argument("--recipe", type=Path, help="use the dataset of this recipe instead")
    other.add_argument("--data", metavar="NAME", help="use a published dataset, such as flickr30k")
    evaluate.add_argument("--root", help="the folder of --data (default: data/NAME)")
    evaluate.add_argument("--json", type=Path, help="also write the metrics here")
    evaluate.add_argument(
        "--prompt", metavar="TEMPLATE", help='put each caption into this, such as "a photo of {}"'
    )
    evaluate.add_argument(
        "--rerank-k", type=int, metavar="K",
        help="also re-rank the first K results of each caption with the match head",
    )  # fmt: skip
    evaluate.add_argument("--rerank-by", choices=get_args(RerankBy), default="both", help=RERANK_BY)
    instead = evaluate.add_mutually_exclusive_group()
    instead.add_argument(
        "--probe", action="store_true",
        help="instead test swapped colours, changed attributes and negation against chance",
    )  # fmt: skip
    instead.add_argument(
        "--open-set", action="store_true",
        help="instead remove the right pictures of half of the queries, and measure FNIR at FPIR, "
        "reliability, Brier score and graded NDCG",
    )  # fmt: skip
    instead.add_argument(
        "--shares", action="store_true",
        help="instead measure shares of the global embedding of RDE or ITSELF, not on test",
    )  # fmt: skip
    evaluate.add_argument(
        "--plot", type=Path, metavar="PICTURE", help="draw the results of --open-set here"
    )


def _evaluate(arguments: argparse.Namespace) -> None:
    require("torch", "train")
    from finegrain.evaluation.global_share import measure_shares
    from finegrain.evaluation.open_set import open_set
    from finegrain.evaluation.probes import probe

    data = _dataset(arguments)
    model, split = arguments.model, arguments.split
    results: Evaluation | ProbeReport | OpenSet | GlobalShare
    if arguments.plot and not arguments.open_set:
        raise EvaluationError("--plot draws the results of --open-set; also give --open-set")
    if arguments.shares:
        results = measure_shares(model, data, split=split)
    elif arguments.open_set:
        results = open_set(model, data, split=split)
        if arguments.plot:
            results.plot(arguments.plot)
    elif arguments.probe:
        results = probe(model, data, split=split)
    else:
        results = finegrain.evaluate(
            model,
            data,
            split=split,
            rerank_k=arguments.rerank_k,
            rerank_by=arguments.rerank_by,
            prompt=arguments.prompt,
        )
    _print_results(results, arguments.json)
    if (published := _published_rank1(arguments)) is not None:
        print(f"published: text to image, rank1 {published:g}")


def _published_rank1(arguments: argparse.Namespace) -> float | None:
    """The published zero-shot rank1 of a pulled model on the dataset that it is evaluated on."""
    from finegrain.plan import Plan
    from finegrain.zoo.catalog import KNOWN

    figures = {
        "flickr30k": {model.name: model.flickr30k for model in KNOWN},
        "mscoco": {model.name: model.coco for model in KNOWN},
    }
    is_instead = arguments.probe or arguments.open_set or arguments.shares
    is_comparable = arguments.split == "test" and not is_instead
    if arguments.data not in figures or not is_comparable or arguments.model.is_dir():
        return None  # without reading the plan again
    return figures[arguments.data].get(Plan(arguments.model).manifest.source.get("name", ""))


def _dataset(arguments: argparse.Namespace) -> Dataset | None:
    """The dataset that is named instead of the model's own."""
    from finegrain.data.datasets import dataset_named

    if arguments.data is not None:
        return dataset_named(arguments.data, arguments.root)
    if arguments.root is not None:
        raise DataError("--root says where the dataset of --data is; also give --data NAME")
    return finegrain.load_recipe(arguments.recipe).data if arguments.recipe else None


def add_report_verb(verbs: Verbs) -> None:
    report = add_verb(
        verbs,
        "report",
        _report,
        "report test metrics of runs, selected on validation and as papers select",
        "  finegrain train irra_cuhk_pedes --set watch_test=true -o runs/s1\n"
        "  finegrain report runs/s1\n"
        "  finegrain report runs/s1 runs/s2 runs/s3        # mean and spread over seeds\n"
        "  finegrain report runs/s1 runs/s2 runs/s3 --decisions --plot decisions.png",
    )
    report.add_argument("runs", type=Path, nargs="+", help="runs of one recipe with several seeds")
    report.add_argument("--json", type=Path, help="also write the metrics here")
    report.add_argument(
        "--decisions", action="store_true",
        help="instead evaluate the selected checkpoints on test: hub correction, FNIR at FPIR, "
        "reliability, Brier score, precision and recall at thresholds, NDCG",
    )  # fmt: skip
    report.add_argument(
        "--plot", type=Path, metavar="PICTURE", help="draw the results of --decisions here"
    )


def _report(arguments: argparse.Namespace) -> None:
    require("torch", "train")
    from finegrain.evaluation.measured_runs import measure_runs
    from finegrain.evaluation.report import check_one_recipe, report

    if arguments.plot and not arguments.decisions:
        raise EvaluationError("--plot draws the results of --decisions; also give --decisions")
    if not arguments.decisions:
        _print_results(report(arguments.runs), arguments.json)
        return
    check_one_recipe(arguments.runs)
    measured = measure_runs(arguments.runs)
    _print_results(measured, arguments.json)
    if arguments.plot:
        measured.plot(arguments.plot)


def _print_results(
    results: Evaluation | ProbeReport | OpenSet | GlobalShare | Report | MeasuredRuns,
    path: Path | None,
) -> None:
    """Print results, and write them as JSON if there is a path."""
    print(results)
    if path:
        path.write_text(json.dumps(results.to_dict(), indent=1) + "\n")


def add_export_verb(verbs: Verbs) -> None:
    export = add_verb(
        verbs,
        "export",
        _export,
        "export a run to a model.plan, checked against the eager model",
        "  finegrain export runs/tiny_synthetic -o model.plan\n"
        "  finegrain export runs/tiny_synthetic cpu_int8 -o model.plan\n"
        "  finegrain export runs/irra --dim 128 -o short.plan\n"
        "  finegrain export runs/irra --data tiny_synthetic",
    )
    export.add_argument("run_folder", type=Path, metavar="RUN")
    export.add_argument(
        "profile", type=Path, nargs="?", default=Path("onnx_fp32"),
        help="a name, such as cpu_int8, or a .py (default: onnx_fp32)",
    )  # fmt: skip
    export.add_argument("-o", "--out", type=Path, default=Path("model.plan"))
    export.add_argument("--data", type=Path, help="check on the dataset of this recipe instead")
    export.add_argument(
        "--dim", type=int, metavar="D",
        help="shorten embeddings to their first D principal components",
    )  # fmt: skip
    export.add_argument(
        "--global-share", metavar="SHARE",
        help="share of the global embedding of RDE or ITSELF, such as 0.6; `best` measures shares "
        "on the validation split and takes the best",
    )  # fmt: skip


def _export(arguments: argparse.Namespace) -> None:
    require("torch", "train")
    from finegrain.exporters import load_profile
    from finegrain.exporters.triton import require_free, write_triton_repository
    from finegrain.plan import Plan

    profile = load_profile(arguments.profile)
    repository = arguments.out.with_suffix(".triton")
    if profile.triton is not None:
        require_free(repository, arguments.out.stem)
    data = finegrain.load_recipe(arguments.data).data if arguments.data else None
    share = _global_share(arguments)
    print(
        finegrain.export(
            arguments.run_folder,
            profile,
            arguments.out,
            data=data,
            dim=arguments.dim,
            global_share=share,
        )
    )
    print(f"\nwrote {arguments.out}; search with it:")
    print(f"  finegrain index {arguments.out} PICTURES/")
    print(f'  finegrain query {arguments.out} "woman in red coat"')
    if profile.triton is not None:
        name = write_triton_repository(Plan(arguments.out), repository, serving=profile.triton)
        print(f"\nwrote {repository}; serve it, and search through it:")
        print(f"  tritonserver --model-repository={repository}")
        print(f'  finegrain query {arguments.out} "red coat" --runtime triton://HOST:8001/{name}')


def _global_share(arguments: argparse.Namespace) -> float | None:
    """The share of the global embedding to export with: given, measured, or that of the run."""
    from finegrain.evaluation.global_share import measure_shares

    if arguments.global_share is None:
        return None
    if arguments.global_share == "best":
        shares = measure_shares(arguments.run_folder)
        print(f"{shares}\n")
        return shares.best
    try:
        return float(arguments.global_share)
    except ValueError:
        raise EvaluationError(
            f"expected --global-share best, or a number such as 0.6, got {arguments.global_share!r}"
        ) from None


def add_convert_verb(verbs: Verbs) -> None:
    convert = add_verb(
        verbs,
        "convert",
        _convert,
        "convert a released checkpoint (IRRA, RDE, RaSa, CLIP) to a run, or a run to a checkpoint",
        "  finegrain convert best.pth -o runs/irra --set data.root=/data/CUHK-PEDES\n"
        "  finegrain convert best.pth -o runs/irra --config configs.yaml --heads\n"
        "  finegrain convert open_clip_model.safetensors -o runs/clip\n"
        "  finegrain convert runs/irra -o best.pth",
    )
    convert.add_argument("source", type=Path, help="a weight file, or a run folder")
    convert.add_argument("-o", "--out", type=Path, required=True, help="run folder, or best.pth")
    convert.add_argument("--config", type=Path, help="its configs.yaml (default: beside it)")
    convert.add_argument("--recipe", type=Path, help="recipe of the model (default: recognised)")
    convert.add_argument("--set", action="append", default=[], metavar="A.B=C", help="one field")
    convert.add_argument("--heads", action="store_true", help="keep the training heads too")


def _convert(arguments: argparse.Namespace) -> None:
    require("torch", "train")
    from finegrain.runs.conversion import released_to_run, run_to_released

    out = arguments.out
    if (arguments.source / "recipe.json").is_file():
        if arguments.config or arguments.recipe or arguments.set or arguments.heads:
            raise DataError(
                f"{arguments.source} is a run, which holds its recipe; use --config, --recipe, "
                "--set and --heads only with a released checkpoint"
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


def add_recipe_verb(verbs: Verbs) -> None:
    recipe = add_verb(
        verbs,
        "recipe",
        _recipe,
        "list, show or compare recipes",
        "  finegrain recipe list\n"
        "  finegrain recipe show tiny_synthetic\n"
        "  finegrain recipe diff tiny_synthetic runs/tiny_synthetic",
    )
    recipe.add_argument("action", choices=["list", "show", "diff"])
    recipe.add_argument("recipes", type=Path, nargs="*")
    recipe.add_argument("--set", action="append", default=[], metavar="A.B=C", help="one field")


def _recipe(arguments: argparse.Namespace) -> None:
    require("torch", "train")
    from finegrain.recipe import difference
    from finegrain.recipe.named_file import named_files

    recipes = [finegrain.load_recipe(path, arguments.set) for path in arguments.recipes]
    if arguments.action == "list":
        rows = []
        for name, path in sorted(named_files("recipes").items()):
            recipe = finegrain.load_recipe(path)
            rows.append((name, recipe.about, _expected(recipe)))
        print(tabulate(rows, headers=["recipe", "about", "expected rank1"]))
    elif arguments.action == "diff" and len(recipes) == 2:
        rows = [(name, *values) for name, values in difference(*recipes).items()]
        print(tabulate(rows, headers=["field", *map(str, arguments.recipes)]))
    elif arguments.action == "show" and len(recipes) == 1:
        print(recipes[0].to_json(), end="")
    else:
        raise DataError(
            f"`recipe show` takes one recipe, and `recipe diff` takes two; got {len(recipes)}"
        )


def _expected(recipe: finegrain.Recipe) -> str:
    """The rank1 that a recipe expects, with the range that other authors reproduced."""
    if recipe.expected is None:
        return ""
    band = recipe.expected.rank1_band
    reproduced = f" ({band[0]:g} to {band[1]:g} by others)" if band else ""
    by = recipe.expected.rerank_by
    order = f", rerank-k {recipe.expected.rerank_k} by {by}" if by else ""
    return f"{recipe.expected.rank1:g}{reproduced}{order}"
