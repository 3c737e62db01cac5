"""Runs the verbs of the command line with their parsed arguments."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

import finegrain
from finegrain.cli.terminal_pictures import show_pictures
from finegrain.errors import (
    DataError,
    FinegrainError,
    GalleryError,
    QueryError,
    require,
)
from finegrain.gallery import Gallery
from finegrain.records import printable
from finegrain.search.matches import Matches
from finegrain.search.queries import Query, typed_file

if TYPE_CHECKING:
    from finegrain.data.datasets import Dataset
    from finegrain.evaluation.evaluation import Evaluation
    from finegrain.evaluation.probes import ProbeReport
    from finegrain.evaluation.report import Report


def train(arguments: argparse.Namespace) -> None:
    _require_training()
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


def _require_training() -> None:
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


def evaluate(arguments: argparse.Namespace) -> None:
    require("torch", "train")
    from finegrain.evaluation.probes import probe

    data = _dataset(arguments)
    model, split = arguments.model, arguments.split
    results: Evaluation | ProbeReport
    if arguments.probe:
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
    is_comparable = arguments.split == "test" and not arguments.probe
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


def report(arguments: argparse.Namespace) -> None:
    require("torch", "train")
    from finegrain.evaluation.report import report

    _print_results(report(arguments.runs), arguments.json)


def _print_results(results: Evaluation | ProbeReport | Report, path: Path | None) -> None:
    """Print results, and write them as JSON if there is a path."""
    print(results)
    if path:
        path.write_text(json.dumps(results.to_dict(), indent=1) + "\n")


def export(arguments: argparse.Namespace) -> None:
    require("torch", "train")
    from finegrain.exporters import load_profile
    from finegrain.exporters.triton import require_free, write_triton_repository
    from finegrain.plan import Plan

    profile = load_profile(arguments.profile)
    repository = arguments.out.with_suffix(".triton")
    if profile.triton is not None:
        require_free(repository, arguments.out.stem)
    data = finegrain.load_recipe(arguments.data).data if arguments.data else None
    print(finegrain.export(arguments.run_folder, profile, arguments.out, data=data))
    print(f"\nwrote {arguments.out}; search with it:")
    print(f"  finegrain index {arguments.out} PICTURES/")
    print(f'  finegrain query {arguments.out} "woman in red coat"')
    if profile.triton is not None:
        name = write_triton_repository(Plan(arguments.out), repository, serving=profile.triton)
        print(f"\nwrote {repository}; serve it, and search through it:")
        print(f"  tritonserver --model-repository={repository}")
        print(f'  finegrain query {arguments.out} "red coat" --runtime triton://HOST:8001/{name}')


def convert(arguments: argparse.Namespace) -> None:
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


def open_searcher(arguments: argparse.Namespace) -> finegrain.Searcher:
    """Open the searcher of a verb that takes a plan."""
    return finegrain.Searcher(
        arguments.plan,
        gallery=arguments.gallery,
        runtime=arguments.runtime,
        trust_engines=arguments.trust_engines,
        vectors=arguments.vectors,
        rerank="match" if arguments.rerank else None,
        rerank_k=arguments.rerank_k,
        rerank_by=arguments.rerank_by,
    )


def embed(arguments: argparse.Namespace) -> None:
    from finegrain.search.bulk import embed_dataset

    print(
        embed_dataset(
            arguments.plan,
            arguments.source,
            arguments.out,
            image_column=arguments.image_column,
            concurrency=arguments.actors,
            num_gpus=arguments.gpus,
            address=arguments.ray_address,
        )
    )
    print(f"\nload it with Searcher.load({str(arguments.out)!r})")


def query(arguments: argparse.Namespace) -> None:
    queries = _queries(arguments)
    if len(queries) > 1 and (arguments.grid or arguments.explain):
        raise QueryError(f"--grid and --explain take one query, got {len(queries)}")
    with open_searcher(arguments) as searcher:
        answers = searcher.query(
            queries,
            arguments.k,
            where=arguments.where,
            group_by=arguments.group_by,
            distinct=arguments.distinct,
            offset=arguments.offset,
        )
        if arguments.json:
            _print_json(answers)
        else:
            print("\n\n".join(map(repr, answers)))
            show_pictures(answers, arguments.pictures, advise=not arguments.grid)
        if arguments.grid:
            answers[0].save(arguments.grid)
            print(f"\nwrote {arguments.grid}", file=sys.stderr)
        if arguments.explain and answers[0]:
            answers[0][0].explain().save(arguments.explain)
            print(f"\nwrote {arguments.explain}", file=sys.stderr)


def _queries(arguments: argparse.Namespace) -> list[Query]:
    """The queries of the command line; a text that is the path of a picture becomes the picture."""
    if arguments.image:
        if arguments.texts or arguments.queries:
            raise QueryError("expected --image or texts, got both. Search with one of them.")
        return [typed_file(arguments.image) or Path(arguments.image)]
    texts = list(arguments.texts)
    if arguments.queries:
        try:
            lines = arguments.queries.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            raise QueryError(
                f"{arguments.queries} cannot be read as UTF-8 text: {error}"
            ) from error
        texts += [line for line in lines if line.strip()]
    if not texts:
        raise QueryError(
            "there is nothing to search for: pass texts, --queries FILE or --image PICTURE"
        )
    return [_picture_or_text(text) for text in texts]


def _picture_or_text(text: str) -> Query:
    file = typed_file(text)
    if file is None:
        return text
    print(f"{printable(text)} is a file, so it is searched for as a picture", file=sys.stderr)
    return file


def _print_json(answers: Sequence[Matches]) -> None:
    """Print the matches of one query, or for several queries each query with its matches."""
    for answer in answers:
        for note in answer.notes:
            print(f"note: {printable(note)}", file=sys.stderr)
    results = [{"query": answer.query, "matches": answer.to_dicts()} for answer in answers]
    output = results if len(results) > 1 else results[0]["matches"]
    print(_json(output))


def _json(value: Any) -> str:
    """JSON in which characters that control a terminal, or that stdout cannot encode, are escaped.

    File names may hold any character, and bytes that are not valid Unicode.
    """
    is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    text = json.dumps(value, indent=1, ensure_ascii=not is_unicode)
    return re.sub(
        r"[^ -~\n]", lambda match: match[0] if match[0].isprintable() else _escape(match[0]), text
    )


def _escape(character: str) -> str:
    return f"\\u{ord(character):04x}" if character <= "\x7f" else json.dumps(character)[1:-1]


def demo(arguments: argparse.Namespace) -> None:
    _require_training()
    from finegrain.cli.demo import run_demo

    run_demo(arguments.out, fast=arguments.fast)


def doctor(arguments: argparse.Namespace) -> None:
    from finegrain.cli.doctor import examine, machine_report

    if arguments.subjects[:1] == ["data"]:
        _doctor_data(arguments.subjects[1:])
        return
    print(machine_report())
    invalid = []
    for path in map(Path, arguments.subjects):
        try:
            print(f"\n{printable(str(examine(path)))}")
        except FinegrainError as error:
            invalid.append(str(path))
            print(printable(f"\n{path}: INVALID; {error}"))
    if invalid:
        raise DataError(f"invalid: {', '.join(invalid)}")


def _doctor_data(words: Sequence[str]) -> None:
    from finegrain.cli.doctor import dataset_names, examine_datasets, known_dataset

    if not words or len(words) % 2:
        names = ", ".join(dataset_names())
        raise DataError(f"expected finegrain doctor data NAME ROOT [NAME ROOT ...]; NAME: {names}")
    pairs = zip(words[::2], words[1::2], strict=True)
    is_valid = True
    for finding in examine_datasets([(known_dataset(name), Path(root)) for name, root in pairs]):
        print(f"{printable(str(finding))}\n")
        is_valid = is_valid and not finding.faults
    if not is_valid:
        raise DataError("this data would falsify a result; see what is INVALID above")


def _expected(recipe: finegrain.Recipe) -> str:
    """The rank1 that a recipe expects, with the range that other authors reproduced."""
    if recipe.expected is None:
        return ""
    band = recipe.expected.rank1_band
    reproduced = f" ({band[0]:g} to {band[1]:g} by others)" if band else ""
    by = recipe.expected.rerank_by
    order = f", rerank-k {recipe.expected.rerank_k} by {by}" if by else ""
    return f"{recipe.expected.rank1:g}{reproduced}{order}"


def recipe(arguments: argparse.Namespace) -> None:
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


def gallery_set(arguments: argparse.Namespace) -> None:
    with Gallery(arguments.gallery, create=False) as gallery:
        count = gallery.update(arguments.where, dict(arguments.columns))
        notes = gallery.notes_on(arguments.where) if not count else []
    names = printable(", ".join(name for name, _ in arguments.columns))
    print(f"set {names} of {count} pictures")
    for note in notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    if not count:
        raise GalleryError(f"no picture matches {arguments.where!r:.200}")


def gallery_move(arguments: argparse.Namespace) -> None:
    with Gallery(arguments.gallery, create=False) as gallery:
        print(f"moved {gallery.move(arguments.old, arguments.new)} pictures")
