"""Searches by text, by picture and by a picture of the gallery.

Annotations are evaluated here, since FastAPI cannot look up the names of a function that are text.
"""

import hashlib
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, File, Form, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from finegrain.errors import FinegrainError, QueryError
from finegrain.gallery.filters.syntax import joined
from finegrain.search.matches import Matches
from finegrain.serve import schemas
from finegrain.serve.access import Client, Reader
from finegrain.serve.answer_files import as_csv, as_zip
from finegrain.serve.collection import Chosen, Collection
from finegrain.serve.pictures import as_jpeg, decoded, json_object
from finegrain.serve.rates import PICTURE_COST
from finegrain.serve.routes.recording import Record, Recorder

router = APIRouter(prefix="/v1/search", tags=["search"])
EXPORTED_SIDE = 512


@router.post("")
async def search(
    body: schemas.SearchBody, client: Reader, collection: Chosen, record: Recorder
) -> schemas.SearchOut:
    """Search by one text or several. Judged matches belong to a search by one text."""
    body = await collection.positioned(body)
    if isinstance(body.query, str):
        every = [await collection.search_one(body.query, body, client)]
    elif body.like or body.unlike:
        raise QueryError("like and unlike belong to one query; search for them one by one")
    else:
        every = await collection.search(body.query, body, client)
    queries = [body.query] if isinstance(body.query, str) else body.query
    return await _answered(every, queries, body, client, collection, record)


@router.post("/picture")
async def search_by_picture(
    client: Reader,
    collection: Chosen,
    record: Recorder,
    picture: Annotated[UploadFile, File(description="JPEG, PNG or WebP")],
    options: Annotated[str, Form(max_length=20_000, description="JSON, as for /v1/search")] = "{}",
) -> schemas.SearchOut:
    """Search by a picture, and by words that change it if ``options`` have a ``text``."""
    body = await collection.positioned(_options(options))
    async with collection.decoding:
        data = await picture.read()
        image = await decoded(data)
    digest = hashlib.sha256(data).hexdigest()
    matches = await collection.search_one(image, body, client)
    queries = [f"picture sha256:{digest}"]
    return await _answered([matches], queries, body, client, collection, record)


@router.post("/similar")
async def search_similar(
    body: schemas.SimilarBody, client: Reader, collection: Chosen, record: Recorder
) -> schemas.SearchOut:
    """Search for pictures similar to one of the gallery, which is left out.

    Words in ``text`` change what is searched for.
    """
    body = await collection.positioned(body)
    image = await collection.picture(body.id, client)
    others = joined([*([body.where] if body.where else []), f"id != {body.id}"])
    body = body.model_copy(update={"where": others})
    answer = schemas.AnswerOut.of(await collection.search_one(image, body, client), body)
    await _record(record, client, collection, [f"picture {body.id}"], body, [answer])
    return schemas.SearchOut(answers=[answer])


@router.post(
    "/export",
    response_class=Response,
    responses={200: {"content": {"text/csv": {}, "application/zip": {}}}},
)
async def export(
    body: schemas.ExportBody, client: Reader, collection: Chosen, record: Recorder
) -> Response:
    """Search by a text, and answer with a file.

    The file is a table, or a ZIP file with the table and up to 200 pictures.
    """
    if body.format == "zip" and body.k > schemas.MOST_PICTURES:
        raise QueryError(
            f"expected k up to {schemas.MOST_PICTURES} for a ZIP file, got {body.k}; ask for "
            "further pages with offset"
        )
    body = await collection.positioned(body)
    (matches,) = await collection.search([body.query], body, client)
    answer = schemas.AnswerOut.of(matches, body)
    await _record(record, client, collection, [body.query], body, [answer], action="export")
    if body.format == "csv":
        return _file(await run_in_threadpool(as_csv, matches), "text/csv; charset=utf-8", "csv")
    client.spend(PICTURE_COST * len(matches))
    pictures = [(match.id, await _jpeg(match.id, client, collection)) for match in matches]
    return _file(await run_in_threadpool(as_zip, matches, pictures), "application/zip", "zip")


def _options(text: str) -> schemas.PictureOptions:
    try:
        return schemas.PictureOptions.model_validate(json_object(text))
    except ValidationError as error:
        causes = [{**cause, "loc": ("options", *cause["loc"])} for cause in error.errors()]
        raise RequestValidationError(causes) from error


async def _answered(
    every: Sequence[Matches],
    queries: Sequence[str],
    body: schemas.Answering,
    client: Client,
    collection: Collection,
    record: Record,
) -> schemas.SearchOut:
    answers = [schemas.AnswerOut.of(matches, body) for matches in every]
    await _record(record, client, collection, queries, body, answers)
    return schemas.SearchOut(answers=answers)


async def _record(
    record: Record,
    client: Client,
    collection: Collection,
    queries: Sequence[str],
    body: schemas.Answering,
    answers: Sequence[schemas.AnswerOut],
    *,
    action: str = "search",
) -> None:
    details = {
        "gallery": collection.name,
        "queries": list(queries),
        "where": client.within(body.where),
        "avoid": body.avoid,
        "reason": body.reason,
        "shown": [[match.id for match in answer.matches] for answer in answers],
    }
    await record(action, client, details)


async def _jpeg(id_: int, client: Client, collection: Collection) -> bytes | None:
    try:
        opened = await collection.picture(id_, client)
    except FinegrainError:
        return None
    return await run_in_threadpool(as_jpeg, opened, EXPORTED_SIDE)


def _file(content: bytes, media_type: str, ending: str) -> Response:
    name = {"Content-Disposition": f'attachment; filename="matches.{ending}"'}
    return Response(content, media_type=media_type, headers=name)
