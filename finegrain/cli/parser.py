"""The command line: its verbs are the names of the Python API."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, get_args

import finegrain
from finegrain.cli import commands as verbs
from finegrain.cli import index as index_verb
from finegrain.cli.completion import INSTALL, SHELLS, completion_script
from finegrain.cli.exit_status import run_to_status
from finegrain.cli.gallery import add_gallery_verb, named_value
from finegrain.cli.pull import add_pull_verb
from finegrain.cli.terminal_pictures import PicturesChoice
from finegrain.errors import GalleryError, did_you_mean
from finegrain.rerank import RerankBy
from finegrain.runtime.base import RuntimeName
from finegrain.search.retriever import VectorPlace
from finegrain.search.searcher import RERANK_K
from finegrain.search.sync import AllowRemoving, checked_allowance

_RERANK_BY = (
    "the order: both uses cosine and match probability, match uses the match head alone, "
    "as in RaSa's paper (default: %(default)s)"
)


class _Parser(argparse.ArgumentParser):
    """A parser that suggests the correct spelling of an unknown option or verb."""

    def error(self, message: str) -> NoReturn:
        if option := re.search(r"unrecognized arguments: (--[\w-]+)", message):
            message += did_you_mean(option[1], self._options())
        elif choice := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
            message += did_you_mean(choice[1], re.findall(r"'(.*?)'", choice[2]))
        super().error(message)

    def _options(self) -> list[str]:
        """The long options of all verbs."""
        verbs = [action.choices for action in self._actions if isinstance(action.choices, dict)]
        shown = (verb.format_help() for choices in verbs for verb in choices.values())
        return [option for text in shown for option in re.findall(r"--[a-z][a-z-]+", text)]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; errors of finegrain become one line and exit status 1."""

    def run() -> None:
        arguments = _parsed(argv)
        arguments.run(arguments)

    return run_to_status(run)


def _character(text: str) -> str:
    return {"tab": "\t", "\\t": "\t"}.get(text, text)


def _allowance(text: str) -> AllowRemoving:
    try:
        return checked_allowance(text if text == "all" else int(text))
    except (ValueError, GalleryError) as error:
        raise argparse.ArgumentTypeError(f"expected a number or 'all', got {text!r}") from error


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse arguments; texts and pictures may be before, between and after the options.

    argparse accepts positional arguments with ``nargs="*"`` only in one place.
    """
    parser = _parser()
    arguments, others = parser.parse_known_args(argv)
    several: str = getattr(arguments, "several", "")
    if others and (not several or any(word.startswith("-") for word in others)):
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    for word in others:
        getattr(arguments, several).append(Path(word) if several == "pictures" else word)
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="finegrain",
        description="Fine-grained text-to-person and text-to-fashion image search.",
        epilog="Help for a verb: finegrain VERB --help",
    )
    parser.add_argument("--version", action="version", version=finegrain.__version__)
    subparsers = parser.add_subparsers(metavar="VERB", required=True)

    def verb(
        name: str, run: Callable[[argparse.Namespace], None], about: str, example: str
    ) -> argparse.ArgumentParser:
        added = subparsers.add_parser(
            name,
            help=about,
            description=f"{about[0].upper()}{about[1:]}.",
            epilog=f"examples:\n{example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        return added

    add_pull_verb(subparsers)

    train = verb(
        "train",
        verbs.train,
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

    evaluate = verb(
        "evaluate",
        verbs.evaluate,
        "measure rank1/5/10, mAP and mINP of a run or a plan",
        "  finegrain evaluate runs/tiny_synthetic\n"
        "  finegrain evaluate model.plan --split test --json metrics.json\n"
        "  finegrain evaluate model.plan --data flickr30k --root data/flickr30k --split test\n"
        "  finegrain evaluate runs/rasa_cuhk_pedes --split test --rerank-k 128 --rerank-by match\n"
        "  finegrain evaluate runs/tiny_synthetic --split test --probe",
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
    evaluate.add_argument(
        "--rerank-by", choices=get_args(RerankBy), default="both", help=_RERANK_BY
    )
    evaluate.add_argument(
        "--probe", action="store_true",
        help="instead test swapped colours, changed attributes and negation against chance",
    )  # fmt: skip

    report = verb(
        "report",
        verbs.report,
        "report test metrics of runs, selected on validation and as papers select",
        "  finegrain train irra_cuhk_pedes --set watch_test=true -o runs/s1\n"
        "  finegrain report runs/s1\n"
        "  finegrain report runs/s1 runs/s2 runs/s3        # mean and spread over seeds",
    )
    report.add_argument("runs", type=Path, nargs="+", help="runs of one recipe with several seeds")
    report.add_argument("--json", type=Path, help="also write the metrics here")

    export = verb(
        "export",
        verbs.export,
        "export a run to a model.plan, checked against the eager model",
        "  finegrain export runs/tiny_synthetic -o model.plan\n"
        "  finegrain export runs/tiny_synthetic cpu_int8 -o model.plan\n"
        "  finegrain export runs/irra --data tiny_synthetic",
    )
    export.add_argument("run_folder", type=Path, metavar="RUN")
    export.add_argument(
        "profile", type=Path, nargs="?", default=Path("onnx_fp32"),
        help="a name, such as cpu_int8, or a .py (default: onnx_fp32)",
    )  # fmt: skip
    export.add_argument("-o", "--out", type=Path, default=Path("model.plan"))
    export.add_argument("--data", type=Path, help="check on the dataset of this recipe instead")

    convert = verb(
        "convert",
        verbs.convert,
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

    index = verb(
        "index",
        index_verb.index,
        "add pictures to the gallery of a plan; the exit status is 1 if nothing of what was given "
        "is in the gallery, and 3 if one of several inputs is not, or --sync kept what is gone",
        "  finegrain index model.plan crops/ --metadata camera=gate-3\n"
        "  finegrain index model.plan crops/ --expire-days 30\n"
        "  finegrain index model.plan catalog.csv --sync --dry-run\n"
        "  finegrain index model.plan gate-3.mp4 --every 2 --start 2026-05-01T08:00\n"
        "  finegrain index model.plan catalog.csv --image-column file --caption-column title\n"
        "  finegrain index model.plan shopify_export.csv --images-root downloads/\n"
        "  finegrain index model.plan styles.csv --image-pattern 'images/{id}.jpg'\n"
        "  finegrain index model.plan market/ --name-pattern '{pid}_c{camera}s{seq}_{frame}'\n"
        "  finegrain index new.plan crops/ --gallery model.gallery --reindex",
    )
    index.add_argument("plan", type=Path)
    index.add_argument(
        "pictures", type=Path, nargs="*", help="folders, pictures, videos, or catalogues"
    )
    index.add_argument(
        "--metadata", type=named_value, action="append", default=[], metavar="NAME=VALUE",
        help="a column for all pictures",
    )  # fmt: skip
    index.add_argument(
        "--expire-days", type=float, metavar="DAYS",
        help="delete pictures this long after they were taken (--metadata time=...) or added",
    )  # fmt: skip
    index.add_argument(
        "--reindex", action="store_true",
        help="first encode pictures of another plan again; continues after an interruption",
    )  # fmt: skip
    index.set_defaults(several="pictures")
    index.add_argument(
        "--drop-unreadable", action="store_true",
        help="with --reindex: delete pictures that cannot be read any more",
    )  # fmt: skip
    follow = index.add_argument_group("pictures that are in the gallery already")
    follow.add_argument(
        "--replace", action="store_true",
        help="encode changed files again, and set changed columns (default: skip both)",
    )  # fmt: skip
    follow.add_argument(
        "--sync", action="store_true",
        help="as --replace; also find moved files, and remove those that the source lacks now",
    )  # fmt: skip
    follow.add_argument(
        "--allow-empty", action="store_true",
        help="with --sync: remove the pictures of a folder or table that is empty or gone now",
    )  # fmt: skip
    follow.add_argument(
        "--allow-removing", type=_allowance, metavar="N|all",
        help="with --sync: remove up to N pictures (default: five, or a fifth of the source, and "
        "none below a folder that is empty now)",
    )  # fmt: skip
    follow.add_argument(
        "--dry-run", action="store_true",
        help="only report what would be done; pictures inside archives and tables are unpacked",
    )  # fmt: skip
    index.add_argument(
        "--left-out", metavar="FILE",
        help="list everything that was left out there (default: GALLERY.left-out.txt)",
    )  # fmt: skip
    index.add_argument(
        "--every", type=float, default=1.0, metavar="SECONDS",
        help="videos: time between the frames (default: 1)",
    )  # fmt: skip
    index.add_argument(
        "--start", metavar="TIME",
        help="videos: time of the first frame, such as 2026-05-01T08:00+02:00",
    )  # fmt: skip
    index.add_argument(
        "--exclude", action="append", default=[], metavar="PATTERN",
        help="folders: skip these names or paths, such as '*.png' or 'old/*'",
    )  # fmt: skip
    index.add_argument(
        "--name-pattern", metavar="PATTERN",
        help="folders: columns in file names, such as {pid}_c{camera}s{seq}_{frame}",
    )  # fmt: skip
    table = index.add_argument_group("tables, feeds and shards")
    table.add_argument("--image-column", metavar="NAME", help="default: by the kind of table")
    table.add_argument(
        "--image-pattern", metavar="PATTERN",
        help="path of the picture of a row, such as images/{id}.jpg",
    )  # fmt: skip
    table.add_argument("--caption-column", metavar="NAME", help="default: by the kind of table")
    table.add_argument("--pid-column", metavar="NAME", help="identifies the person or product")
    table.add_argument("--camera-column", metavar="NAME", help="default: camera")
    table.add_argument("--time-column", metavar="NAME", help="default: time")
    table.add_argument(
        "--time-format", metavar="FORMAT",
        help="format of times, such as '%%d/%%m/%%Y %%H:%%M' (default: ISO 8601, and "
        "unambiguous formats)",
    )  # fmt: skip
    table.add_argument(
        "--images-root", type=Path, metavar="FOLDER",
        help="folder of the downloaded pictures of a feed; nothing is downloaded",
    )  # fmt: skip
    table.add_argument("--encoding", metavar="NAME", help="encoding of tables, such as gbk")
    table.add_argument(
        "--fallback-encoding", metavar="NAME", help="encoding of tables that are not UTF-8",
    )  # fmt: skip
    table.add_argument(
        "--separator", metavar="CHARACTER", type=_character,
        help="separator of cells; tab for a tab (default: detected)",
    )  # fmt: skip
    table.add_argument(
        "--max-bad-share", type=float, default=0.1, metavar="SHARE",
        help="stop if a larger share of the rows of a catalogue is bad (default: 0.1)",
    )  # fmt: skip

    def add_opening(to: argparse.ArgumentParser) -> None:
        """Add the options for opening a plan and its gallery."""
        to.add_argument(
            "--runtime", default="onnxruntime", metavar="NAME",
            help=f"{', '.join(get_args(RuntimeName))} or triton://HOST:PORT/NAME "
            "(default: onnxruntime)",
        )  # fmt: skip
        to.add_argument("--gallery", help="file or address (default: next to the plan)")
        to.add_argument(
            "--vectors", default="memory", choices=get_args(VectorPlace),
            help="also keep the vectors on a GPU and search there (default: memory)",
        )  # fmt: skip
        to.add_argument(
            "--trust-engines", action="store_true",
            help="load the TensorRT engines of the plan, which are code: only from trusted sources",
        )  # fmt: skip
        to.add_argument(
            "--rerank", action="store_true",
            help="re-rank the first pictures with the match head of the plan",
        )  # fmt: skip
        to.add_argument(
            "--rerank-k", type=int, default=RERANK_K, metavar="K",
            help="how many pictures to re-rank (default: %(default)s)",
        )  # fmt: skip
        to.add_argument("--rerank-by", choices=get_args(RerankBy), default="both", help=_RERANK_BY)

    add_opening(index)

    embed = verb(
        "embed",
        verbs.embed,
        "encode many pictures on a Ray cluster, into a folder that a gallery loads",
        "  finegrain embed model.plan crops/ -o embedded/ --actors 2\n"
        "  finegrain embed model.plan crops.parquet -o embedded/ --ray-address auto --actors 64\n"
        "  finegrain embed model.plan crops.parquet -o embedded/ --actors 8 --gpus 1",
    )
    embed.add_argument("plan", type=Path)
    embed.add_argument("source", type=Path, help="a folder, or Parquet with a row for each picture")
    embed.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        help="output folder, or an unfinished one",
    )
    embed.add_argument(
        "--image-column", default="image_path", help="column of the paths (%(default)s)"
    )
    embed.add_argument("--ray-address", help="default: RAY_ADDRESS, else this machine alone")
    embed.add_argument("--actors", type=int, default=1, help="processes with a model (default: 1)")
    embed.add_argument("--gpus", type=float, default=0, help="GPUs of each actor (default: 0)")

    query = verb(
        "query",
        verbs.query,
        "search by text or by picture",
        '  finegrain query model.plan "woman in red coat"\n'
        '  finegrain query model.plan "man with a backpack" --where "camera = \'gate-3\'" -k 5\n'
        '  finegrain query model.plan "red coat" "blue dress" --json\n'
        "  finegrain query model.plan --image crop.jpg --grid matches.png\n"
        '  finegrain query model.plan "red coat, no bag" --rerank --explain why.png',
    )
    query.add_argument("plan", type=Path)
    query.add_argument("texts", nargs="*", metavar="TEXT", help="one or more queries")
    query.set_defaults(several="texts")
    query.add_argument("--queries", type=Path, metavar="FILE", help="further texts, one per line")
    query.add_argument("--image", metavar="PICTURE", help="search by this picture instead")
    query.add_argument("-k", type=int, help="number of matches (default: 10)")
    query.add_argument("--offset", type=int, default=0, metavar="N", help="skip the first N")
    query.add_argument("--where", help="filter, such as: camera = 'gate-3' and price < 80")
    query.add_argument("--group-by", metavar="COLUMN", help="only the best of each pid, track, ...")
    query.add_argument(
        "--distinct", type=float, metavar="COSINE",
        help="leave out pictures with a higher cosine to a better match, such as 0.98",
    )  # fmt: skip
    query.add_argument("--grid", type=Path, help="write a picture grid here")
    query.add_argument(
        "--explain", type=Path, metavar="PICTURE",
        help="write here a picture of which words the first match fits, and where",
    )  # fmt: skip
    query.add_argument("--json", action="store_true", help="print JSON instead of a table")
    query.add_argument(
        "--pictures", choices=get_args(PicturesChoice), default="auto",
        help="show pictures in the terminal (default: auto, which needs finegrain[terminal])",
    )  # fmt: skip

    add_opening(query)

    add_gallery_verb(subparsers)

    demo = verb(
        "demo",
        verbs.demo,
        "render people, train, evaluate, export, index and query, in minutes on a CPU",
        "  finegrain demo\n  FINEGRAIN_FAST=1 finegrain demo -o runs/fast",
    )
    demo.add_argument("-o", "--out", type=Path, default=Path("runs/demo"))
    demo.add_argument("--fast", action="store_true", help="less training (or FINEGRAIN_FAST=1)")

    doctor = verb(
        "doctor",
        verbs.doctor,
        "report on this machine, and check plans, galleries and datasets",
        "  finegrain doctor\n"
        "  finegrain doctor model.plan model.gallery\n"
        "  finegrain doctor data cuhk_pedes data/CUHK-PEDES\n"
        "  finegrain doctor data icfg_pedes data/ICFG-PEDES rstpreid data/RSTPReid\n"
        "  finegrain doctor data fashion_gen data/Fashion-Gen",
    )
    doctor.add_argument(
        "subjects", nargs="*", metavar="SUBJECT",
        help="plans and galleries to check; or data NAME ROOT [NAME ROOT ...]: datasets, and "
        "the pictures that the training and test splits of person datasets share",
    )  # fmt: skip

    completion = verb(
        "completion",
        lambda arguments: print(completion_script(_parser(), arguments.shell)),
        "print a script that completes commands in a shell",
        INSTALL,
    )
    completion.add_argument("shell", choices=SHELLS)

    recipe = verb(
        "recipe",
        verbs.recipe,
        "list, show or compare recipes",
        "  finegrain recipe list\n"
        "  finegrain recipe show tiny_synthetic\n"
        "  finegrain recipe diff tiny_synthetic runs/tiny_synthetic",
    )
    recipe.add_argument("action", choices=["list", "show", "diff"])
    recipe.add_argument("recipes", type=Path, nargs="*")
    recipe.add_argument("--set", action="append", default=[], metavar="A.B=C", help="one field")
    return parser
