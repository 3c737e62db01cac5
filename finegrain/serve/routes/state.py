"""What the service holds, and whether it works.

Annotations are evaluated here, since FastAPI cannot look up the names of a function that are text.
"""

from http import HTTPStatus

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

import finegrain
from finegrain.serve import schemas
from finegrain.serve.access import Reader
from finegrain.serve.collection import Chosen, Collection
from finegrain.serve.measures import CONTENT_TYPE, Measures
from finegrain.serve.problems import ServiceError

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
    gallery, manifest = collection.gallery, collection.searcher.manifest

    def count() -> int:
        return len(gallery.ids_where(client.where) if client.where else gallery)

    return schemas.StatsOut(
        pictures=await run_in_threadpool(count),
        dim=gallery.dim,
        method=manifest.method,
        fingerprint=manifest.fingerprint,
        version=finegrain.__version__,
        columns=await run_in_threadpool(gallery.columns),
        alerts=request.app.state.alerts is not None,
    )


@router.get("/v1/columns")
async def columns(client: Reader, collection: Chosen) -> list[schemas.ColumnOut]:
    """The columns, each with up to 50 values; a key with a filter sees no values."""
    gallery = collection.gallery

    def read() -> list[schemas.ColumnOut]:
        return [
            schemas.ColumnOut(
                name=name,
                kind=kind,
                values=[] if client.where else gallery.values(name, schemas.MOST_VALUES),
            )
            for name, kind in gallery.columns().items()
            if name not in _PRIVATE
        ]

    return await run_in_threadpool(read)


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
        pictures = await run_in_threadpool(len, collection.gallery)
        measures.gallery(name, waiting=collection.worker.num_waiting, pictures=pictures)
    return Response(measures.text(), media_type=CONTENT_TYPE)
