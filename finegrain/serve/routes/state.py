"""What the service holds, and whether it works.

Annotations are evaluated here, since FastAPI cannot look up the names of a function that are text.
"""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

import finegrain
from finegrain.gallery import Gallery
from finegrain.serve import schemas
from finegrain.serve.access import Admin, Reader
from finegrain.serve.collection import Chosen, Collection
from finegrain.serve.measures import CONTENT_TYPE, Measures
from finegrain.serve.problems import ServiceError
from finegrain.serve.reloading import Reloader
from finegrain.serve.routes.recording import Recorder

router = APIRouter(tags=["service"])

_PRIVATE = ("id", "image")
"""Built-in columns that are no descriptions: paths are places on the server."""


@router.get("/v1/galleries")
async def galleries(request: Request, client: Reader) -> list[str]:
    """Names of the galleries."""
    return list(request.app.state.collections)


@router.get("/v1/stats")
async def stats(request: Request, client: Reader, collection: Chosen) -> schemas.StatsOut:
    """The gallery and the model; a key with a filter counts its own part."""

    def read(gallery: Gallery) -> tuple[int, dict[str, str]]:
        count = len(gallery.ids_where(client.where) if client.where else gallery)
        return count, gallery.columns()

    pictures, columns = await collection.read(read)
    manifest = collection.searcher.manifest
    return schemas.StatsOut(
        pictures=pictures,
        dim=manifest.embed_dim,
        method=manifest.method,
        fingerprint=manifest.fingerprint,
        version=finegrain.__version__,
        columns=columns,
        alerts=request.app.state.alerts is not None,
    )


@router.get("/v1/columns")
async def columns(client: Reader, collection: Chosen) -> list[schemas.ColumnOut]:
    """The columns, each with up to 50 values; a key with a filter sees no values."""

    def read(gallery: Gallery) -> list[schemas.ColumnOut]:
        return [
            schemas.ColumnOut(
                name=name,
                kind=kind,
                values=[] if client.where else gallery.values(name, schemas.MOST_VALUES),
            )
            for name, kind in gallery.columns().items()
            if name not in _PRIVATE
        ]

    return await collection.read(read)


def _reloader(request: Request, collection: Chosen) -> Reloader:
    reloader: Reloader | None = request.app.state.reloaders.get(collection.name)
    if reloader is None:
        raise ServiceError(HTTPStatus.NOT_FOUND, "This service cannot reload its plan.")
    return reloader


Reloading = Annotated[Reloader, Depends(_reloader)]


@router.post("/v1/reload", status_code=HTTPStatus.ACCEPTED)
async def reload(
    body: schemas.ReloadBody,
    client: Admin,
    collection: Chosen,
    reloader: Reloading,
    record: Recorder,
) -> schemas.ReloadOut:
    """Load the plan again from its file, which was replaced, and encode all pictures with it.

    Searches use the old plan meanwhile. A reload that fails leaves it in use.
    """
    await record("reload", client, {"gallery": collection.name, "reason": body.reason})
    return schemas.ReloadOut.of(reloader.start(drop_unreadable=body.drop_unreadable))


@router.get("/v1/reload")
async def reload_progress(client: Admin, reloader: Reloading) -> schemas.ReloadOut:
    """How far the last reload is."""
    return schemas.ReloadOut.of(reloader.progress)


@router.get("/healthz")
async def health() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def ready(request: Request) -> dict[str, str]:
    """Whether the models are loaded and have answered a query."""
    if not request.app.state.ready:
        raise ServiceError(HTTPStatus.SERVICE_UNAVAILABLE, "The model is not loaded yet.")
    return {"status": "ready"}


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request, client: Reader) -> Response:
    """Figures for Prometheus."""
    measures: Measures = request.app.state.measures
    collections: dict[str, Collection] = request.app.state.collections
    for name, collection in collections.items():
        pictures = await collection.read(len)
        measures.gallery(name, waiting=collection.worker.num_waiting, pictures=pictures)
    return Response(measures.text(), media_type=CONTENT_TYPE)
