"""The verbs ``query`` and ``embed``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import finegrain
from finegrain.cli.asking import ask, check_askable
from finegrain.cli.json_output import printable_json
from finegrain.cli.opening import add_opening_options, open_searcher
from finegrain.cli.terminal_pictures import PicturesChoice, show_pictures
from finegrain.cli.verb import Verbs, add_verb
from finegrain.errors import QueryError
from finegrain.records import printable
from finegrain.search.matches import Matches
from finegrain.search.queries import Query, typed_file


def add_query_verb(verbs: Verbs) -> None:
    query = add_verb(
        verbs,
        "query",
        _query,
        "search by text or by picture",
        '  finegrain query model.plan "woman in red coat"\n'
        '  finegrain query model.plan "man with a backpack" --where "camera = \'gate-3\'" -k 5\n'
        '  finegrain query model.plan "red coat" "blue dress" --json\n'
        "  finegrain query model.plan --image crop.jpg --grid matches.png\n"
        '  finegrain query model.plan --image crop.jpg "but in a blue jacket"\n'
        '  finegrain query model.plan "red coat, no bag" --rerank --explain why.png',
    )
    query.add_argument("plan", type=Path)
    query.add_argument("texts", nargs="*", metavar="TEXT", help="one or more queries")
    query.set_defaults(several="texts")
    query.add_argument("--queries", type=Path, metavar="FILE", help="further texts, one per line")
    query.add_argument(
        "--image", action="append", metavar="PICTURE",
        help="search by this picture, or by several; a TEXT then changes it",
    )  # fmt: skip
    query.add_argument(
        "--weight", type=float, metavar="W", help="weight of the TEXT beside --image (default: 0.7)"
    )
    query.add_argument(
        "--like", type=int, nargs="+", default=(), metavar="ID",
        help="pictures of the gallery that are right; --json shows the ids",
    )  # fmt: skip
    query.add_argument(
        "--unlike", type=int, nargs="+", default=(), metavar="ID", help="pictures that are wrong"
    )
    query.add_argument(
        "--avoid", action="append", default=[], metavar="TEXT", help="what must not be there"
    )
    query.add_argument(
        "--no-negation", action="store_false", dest="negation",
        help="search for words such as 'without a bag' as they are",
    )  # fmt: skip
    query.add_argument(
        "--no-words", action="store_false", dest="words",
        help="search for words that the model does not know as they are typed",
    )  # fmt: skip
    query.add_argument(
        "--min-probability", type=float, metavar="P",
        help="leave out matches of a lower probability; the plan needs a calibration",
    )  # fmt: skip
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
    query.add_argument(
        "--ask", action="store_true",
        help="ask questions about what is searched for, until the answer is clear",
    )  # fmt: skip
    query.add_argument("--json", action="store_true", help="print JSON instead of a table")
    query.add_argument(
        "--pictures", choices=get_args(PicturesChoice), default="auto",
        help="show pictures in the terminal (default: auto, which needs finegrain[terminal])",
    )  # fmt: skip

    add_opening_options(query)


def _query(arguments: argparse.Namespace) -> None:
    pictures = [typed_file(image) or Path(image) for image in arguments.image or ()]
    queries = _queries(arguments, required=not pictures)
    _check_number(arguments, pictures, queries)
    with open_searcher(arguments) as searcher:
        if arguments.ask:
            answers = [ask(searcher, str(queries[0]), arguments)]
        else:
            answers = _answers(searcher, arguments, pictures, queries)
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


def _check_number(
    arguments: argparse.Namespace, pictures: Sequence[Path], queries: Sequence[Query]
) -> None:
    """Check options for one query, and that at most one text changes a picture."""
    if arguments.ask:
        check_askable(arguments, pictures, queries)
    for_one = {
        "--grid": arguments.grid,
        "--explain": arguments.explain,
        "--like": arguments.like,
        "--unlike": arguments.unlike,
        "--weight": arguments.weight is not None,
    }
    given = [name for name, value in for_one.items() if value]
    if pictures:
        if len(queries) > 1 or not all(isinstance(query, str) for query in queries):
            raise QueryError(
                f"expected one text beside --image, which changes the picture, got {len(queries)} "
                "texts or a picture. Pass several pictures with several --image."
            )
    elif len(queries) > 1 and given:
        raise QueryError(f"expected one query for {' and '.join(given)}, got {len(queries)}")


def _answers(
    searcher: finegrain.Searcher,
    arguments: argparse.Namespace,
    pictures: Sequence[Path],
    queries: list[Query],
) -> list[Matches]:
    """Search by pictures, for one text, or for several."""
    if pictures or len(queries) == 1:
        return [
            searcher.query(
                None if pictures else queries[0],
                arguments.k,
                images=pictures or None,
                text=str(queries[0]) if pictures and queries else None,
                weight=arguments.weight,
                like=arguments.like,
                unlike=arguments.unlike,
                avoid=arguments.avoid,
                negation=arguments.negation,
                words=arguments.words,
                min_probability=arguments.min_probability,
                where=arguments.where,
                group_by=arguments.group_by,
                distinct=arguments.distinct,
                offset=arguments.offset,
            )
        ]
    return searcher.query(
        queries,
        arguments.k,
        avoid=arguments.avoid,
        negation=arguments.negation,
        words=arguments.words,
        min_probability=arguments.min_probability,
        where=arguments.where,
        group_by=arguments.group_by,
        distinct=arguments.distinct,
        offset=arguments.offset,
    )


def _queries(arguments: argparse.Namespace, *, required: bool) -> list[Query]:
    """The texts of the command line; a text that is the path of a picture becomes the picture."""
    texts = list(arguments.texts)
    if arguments.queries:
        try:
            lines = arguments.queries.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            raise QueryError(
                f"{arguments.queries} cannot be read as UTF-8 text: {error}"
            ) from error
        texts += [line for line in lines if line.strip()]
    if required and not texts:
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
    results = [
        {"query": answer.query, "notes": answer.notes, "matches": answer.to_dicts()}
        for answer in answers
    ]
    output = results if len(results) > 1 else results[0]["matches"]
    print(printable_json(output))


def add_embed_verb(verbs: Verbs) -> None:
    embed = add_verb(
        verbs,
        "embed",
        _embed,
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


def _embed(arguments: argparse.Namespace) -> None:
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
