"""The verb ``pull``, which also lists the models that have a name."""

from __future__ import annotations

import argparse
from pathlib import Path

from tabulate import tabulate

import finegrain
from finegrain.cli.verb import Verbs, add_verb
from finegrain.errors import DataError
from finegrain.zoo.catalog import KNOWN, KnownModel, best_models


def add_pull_verb(verbs: Verbs) -> None:
    """Add ``finegrain pull`` to the verbs of a parser."""
    pull = add_verb(
        verbs,
        "pull",
        _pull,
        "make a plan from a published model, or list the models that have a name",
        "  finegrain pull\n"
        "  finegrain pull clip-vit-b16 -o model.plan\n"
        "  finegrain pull owner/name --revision v1 -o model.plan\n"
        "  finegrain pull clip-vit-b16 --from downloads/clip/ -o model.plan",
    )
    pull.add_argument(
        "name", nargs="?", metavar="NAME", help="a name of the list, or owner/name[@revision]"
    )
    pull.add_argument("-o", "--out", type=Path, default=Path("model.plan"))
    pull.add_argument(
        "--from", dest="source", type=Path, metavar="PATH",
        help="a folder or a weight file on this machine; nothing is downloaded",
    )  # fmt: skip
    pull.add_argument(
        "--revision", metavar="REV",
        help="a branch, tag or commit of the repository (default: the newest)",
    )  # fmt: skip
    pull.add_argument("--file", metavar="NAME", help="the weight file, where there are several")
    pull.add_argument(
        "--profile",
        type=Path,
        metavar="PROFILE",
        help="export profile, such as cpu_int8 (default: fp32)",
    )
    pull.add_argument(
        "--accept-licence", "--accept-license", action="store_true",
        help="accept a licence other than MIT, Apache and BSD",
    )  # fmt: skip
    pull.add_argument(
        "--prompt", metavar="TEMPLATE",
        help='put each text into this, such as "a photo of {}" (default: texts as they are)',
    )  # fmt: skip


def _pull(arguments: argparse.Namespace) -> None:
    if arguments.name is None and arguments.source is None:
        if arguments.file or arguments.profile or arguments.accept_licence or arguments.revision:
            raise DataError("expected the name of a model, or files by --from PATH")
        print(known_models())
        return
    profile = None
    if arguments.profile is not None:
        from finegrain.exporters import load_profile

        profile = load_profile(arguments.profile)
    out = arguments.out
    print(
        finegrain.pull(
            arguments.name,
            out,
            source=arguments.source,
            revision=arguments.revision,
            file=arguments.file,
            accept_licence=arguments.accept_licence,
            profile=profile,
            prompt=arguments.prompt,
        )
    )
    print(f"\nindex your pictures with it, and search:\n  finegrain index {out} photos/")
    print(f'  finegrain query {out} "woman in red coat" --grid matches.png')


def known_models() -> str:
    """The table of the models that have a name."""
    best = best_models()
    rows = [_row(model, "*" if model.name in best else "") for model in KNOWN]
    table = tabulate(
        rows,
        headers=["", "name", "about", "download", "speed", "Flickr30k", "COCO", "ONNX", "licence"],
        floatfmt=".1f",
    )
    return (
        f"{table}\n\n"
        "*: the most accurate of its speed whose licence needs no acceptance\n"
        "speed: by the operations of the image tower for a picture\n"
        "Flickr30k, COCO: zero-shot text-to-picture rank1 in percent, as published\n"
        "ONNX: needs no PyTorch\n\n"
        "make a plan with:\n  finegrain pull NAME -o model.plan"
    )


def _row(model: KnownModel, mark: str) -> tuple[str | float | None, ...]:
    return (
        mark,
        model.name,
        model.about,
        f"{model.num_bytes / 1e9:.2f} GB",
        model.speed,
        model.flickr30k,
        model.coco,
        "yes" if model.onnx else "",
        model.licence,
    )
