"""Pictures of a gallery: their columns and files, and changes.

Annotations are evaluated here, since FastAPI cannot look up the names of a function that are text.
"""

from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, File, Form, Header, Request, Response, UploadFile
from starlette.concurrency import run_in_threadpool

from finegrain.errors import ImageError, QueryError
from finegrain.search.searcher import Added
from finegrain.serve import schemas
from finegrain.serve.access import Admin, Reader, Writer
from finegrain.serve.collection import Chosen, condition
from finegrain.serve.pictures import as_jpeg, decoded, json_object
from finegrain.serve.problems import ServiceError
from finegrain.serve.rates import PICTURE_COST
from finegrain.serve.repeats import Repeats
from finegrain.serve.routes.recording import Recorder

router = APIRouter(prefix="/v1", tags=["pictures"])


def _repeats(request: Request) -> Repeats:
    repeats: Repeats = request.app.state.repeats
    return repeats


def _roots(request: Request) -> Sequence[Path]:
    roots: Sequence[Path] = request.app.state.roots
    return roots


Remembered = Annotated[Repeats, Depends(_repeats)]
Roots = Annotated[Sequence[Path], Depends(_roots)]
IdempotencyKey = Annotated[
    str | None,
    Header(max_length=256, description="A change with a key that was seen is not done again."),
]


@router.get("/pictures/{id_}")
async def picture(id_: schemas.Id, client: Reader, collection: Chosen) -> schemas.PictureOut:
    """The columns of a picture."""
    client.spend(PICTURE_COST)
    row = await collection.row(id_, client)
    names = schemas.PictureOut.model_fields
    return schemas.PictureOut(**{name: getattr(row, name) for name in names})


@router.get(
    "/pictures/{id_}/image",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}},
)
async def image(id_: schemas.Id, client: Reader, collection: Chosen, side: int = 512) -> Response:
    """The picture as a JPEG file whose longer side is at most ``side`` pixels."""
    if not 16 <= side <= 2048:
        raise QueryError(f"side is from 16 to 2048 pixels, got {side}")
    client.spend(PICTURE_COST)
    opened = await collection.picture(id_, client)
    return Response(await run_in_threadpool(as_jpeg, opened, side), media_type="image/jpeg")


@router.post("/pictures")
async def add(
    client: Writer,
    collection: Chosen,
    remembered: Remembered,
    record: Recorder,
    pictures: Annotated[list[UploadFile], File(description="JPEG, PNG or WebP")],
    metadata: Annotated[str, Form(max_length=100_000, description="JSON object")] = "{}",
    expire_after: Annotated[float | None, Form(gt=0, description="Seconds.")] = None,
    reason: Annotated[str | None, Form(max_length=500)] = None,
    idempotency_key: IdempotencyKey = None,
) -> schemas.AddedOut:
    """Add pictures. A picture that cannot be read is named and does not stop the others."""
    client.check_unlimited()
    columns = json_object(metadata)

    async def added() -> schemas.AddedOut:
        client.spend(1)
        images, left_out = [], []
        for number, file in enumerate(pictures):
            try:
                async with collection.decoding:
                    images.append(await decoded(await file.read()))
            except ImageError as error:
                left_out.append(f"picture {number + 1}: {error}")
        if not images:
            raise ImageError("; ".join(left_out[:5]) or "no picture was sent")
        done = await collection.run(
            lambda: collection.searcher.add(
                images, columns, expire_after=expire_after, progress=False
            )
        )
        await record("add", client, _change(collection.name, done.ids, reason))
        return _added(done, left_out)

    return await remembered.once(client.name, "add", idempotency_key, added)


@router.post("/pictures/by-reference")
async def add_by_reference(
    body: schemas.ReferenceBody,
    client: Writer,
    collection: Chosen,
    roots: Roots,
    record: Recorder,
) -> schemas.AddedOut:
    """Add a file or folder of the server. Files that are known already stay as they are."""
    client.check_unlimited()
    path = _below(body.path, roots)
    client.spend(1)
    done = await collection.run(
        lambda: collection.searcher.add(
            path, body.metadata, expire_after=body.expire_after, progress=False
        )
    )
    await record("add", client, _change(collection.name, done.ids, body.reason))
    return _added(done, [])


@router.patch("/pictures")
async def change(
    body: schemas.ChangeBody, client: Writer, collection: Chosen, record: Recorder
) -> schemas.CountOut:
    """Set columns of pictures."""
    client.spend(1)
    ids = await collection.ids(body, client)
    details = _change(collection.name, ids, body.reason) | {"set": body.set}
    await record("change", client, details)
    where = condition(body, client)
    count = await collection.run(lambda: collection.gallery.update(ids, body.set, where=where))
    return schemas.CountOut(count=count)


@router.post("/pictures/delete")
async def delete(
    body: schemas.ChosenBody, client: Writer, collection: Chosen, record: Recorder
) -> schemas.CountOut:
    """Delete pictures; their bytes are overwritten when this returns."""
    client.spend(1)
    ids = await collection.ids(body, client)
    await record("delete", client, _change(collection.name, ids, body.reason))
    where = condition(body, client)
    count = await collection.run(lambda: collection.gallery.delete(ids, where=where))
    return schemas.CountOut(count=count)


@router.post("/expire")
async def expire(client: Admin, collection: Chosen, record: Recorder) -> schemas.CountOut:
    """Delete the pictures that have expired."""
    await record("expire", client, {"gallery": collection.name})
    return schemas.CountOut(count=await collection.run(lambda: collection.searcher.expire()))


def _change(gallery: str, ids: Sequence[int], reason: str | None) -> dict[str, object]:
    return {"gallery": gallery, "ids": list(ids), "reason": reason}


def _below(path: str, roots: Sequence[Path]) -> Path:
    """A path of the server that is below one of the roots, also after its links are followed."""
    if not roots:
        raise ServiceError(
            HTTPStatus.FORBIDDEN, "No folder is open for references: start with --root FOLDER."
        )
    try:
        resolved = Path(path).resolve(strict=True)
    except (OSError, ValueError):
        resolved = None
    if resolved is None or not any(resolved.is_relative_to(root) for root in roots):
        # The same answer for both, so that nobody learns which files exist.
        raise ServiceError(HTTPStatus.NOT_FOUND, "There is no such file below the open folders.")
    return resolved


def _added(added: Added, left_out: Sequence[str]) -> schemas.AddedOut:
    problems = [f"{Path(p.where).name}: {p.why}" for p in added.problems]
    return schemas.AddedOut(
        ids=added.ids,
        num_new=added.num_new,
        num_known=added.num_known,
        left_out=[*left_out, *problems],
    )
