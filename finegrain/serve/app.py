"""Puts the service together: galleries, access, routes and the page."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool

import finegrain
from finegrain.errors import FinegrainError
from finegrain.search.searcher import Searcher
from finegrain.serve import DEFAULT
from finegrain.serve.access import LOCAL, Access
from finegrain.serve.alerts.addresses import IpNetwork
from finegrain.serve.alerts.book import AlertBook, Standing
from finegrain.serve.alerts.runner import AlertRunner
from finegrain.serve.audit import AuditLog
from finegrain.serve.bounds import BodyLimit, SameSite
from finegrain.serve.collection import Collection, done
from finegrain.serve.keys import Keys
from finegrain.serve.logs import log_request
from finegrain.serve.measures import Measures
from finegrain.serve.problems import DOCUMENTED, add_problem_handlers
from finegrain.serve.reloading import Reloader, Source
from finegrain.serve.repeats import Repeats
from finegrain.serve.routes import alerts as alert_routes
from finegrain.serve.routes import pictures, search, state
from finegrain.serve.worker import Options

PAGE = Path(__file__).parent / "page"
MOST_BODY_BYTES = 32 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a service is protected.

    Attributes:
        keys: Keys of the clients; None lets every local client do everything.
        roots: Folders below which files may be added by reference.
        read_only: Refuse all changes.
        most_body_bytes: Largest body of a request.
        audit: Log of searches and changes; the service closes it.
        alerts: File of standing queries, which the service runs; None for no alerts.
        webhook_networks: Private networks that webhooks may lead to.
        sources: How to open the searchers again, by the name of their gallery, for reloads.
        keep_open: Leave the searchers open when the service stops.
    """

    keys: Keys | None = None
    roots: tuple[Path, ...] = ()
    read_only: bool = False
    most_body_bytes: int = MOST_BODY_BYTES
    audit: AuditLog | None = None
    alerts: Path | None = None
    webhook_networks: tuple[IpNetwork, ...] = ()
    sources: Mapping[str, Source] = field(default_factory=dict)
    keep_open: bool = False


def create_app(searchers: Searcher | Mapping[str, Searcher], settings: Settings) -> FastAPI:
    """The app of a service, which closes the searchers when it stops unless they are to be kept.

    Args:
        searchers: An open searcher with a gallery, or several by the name of their gallery.
        settings: How the service is protected.

    Raises:
        GalleryError: A searcher has no gallery.
        DataError: The file of alerts cannot be used.
    """
    named = {DEFAULT: searchers} if isinstance(searchers, Searcher) else searchers
    measures = Measures()
    collections = {
        name: Collection(name, searcher, measures.batch) for name, searcher in named.items()
    }

    access = Access(settings.keys, read_only=settings.read_only)
    alerts = None if settings.alerts is None else _alerts(settings, collections, access)

    reloaders = {
        name: Reloader(collections[name], source) for name, source in settings.sources.items()
    }

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for collection in collections.values():
            with suppress(FinegrainError):  # an empty gallery refuses queries
                await done(collection.worker.search(["person"], Options(1)))
        if alerts is not None:
            alerts.start()
        app.state.ready = True
        yield
        app.state.ready = False
        app.state.stopping.set()
        if alerts is not None:
            await alerts.close()
        for reloader in reloaders.values():
            await reloader.close()
        for collection in collections.values():
            await run_in_threadpool(partial(collection.close, keep_open=settings.keep_open))
        if settings.audit is not None:
            settings.audit.close()

    app = FastAPI(
        title="finegrain",
        version=finegrain.__version__,
        description="Search of pictures by text, by picture and by their columns.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.ready = False
    app.state.collections = collections
    app.state.access = access
    app.state.alerts = alerts
    app.state.reloaders = reloaders
    app.state.streams = Counter()
    app.state.stopping = asyncio.Event()
    app.state.audit = settings.audit
    app.state.measures = measures
    app.state.repeats = Repeats()
    app.state.roots = settings.roots
    add_problem_handlers(app)
    app.add_middleware(BodyLimit, most_bytes=settings.most_body_bytes)
    app.add_middleware(SameSite, local_only=settings.keys is None)

    @app.middleware("http")
    async def measured(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        began = time.perf_counter()
        response = await call_next(request)
        route = request.scope.get("route")
        pattern = getattr(route, "path", "other")
        seconds = time.perf_counter() - began
        measures.request(pattern, response.status_code, seconds)
        log_request(
            method=request.method,
            route=pattern,
            status=response.status_code,
            seconds=seconds,
            client=getattr(request.state, "client", None),
        )
        return response

    for routes in (search, pictures, alert_routes, state):
        app.include_router(routes.router, responses=DOCUMENTED)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    return app


def _alerts(
    settings: Settings, collections: Mapping[str, Collection], access: Access
) -> AlertRunner:
    """Runs the standing queries of a service."""

    async def record(standing: Standing, ids: Sequence[int]) -> None:
        if settings.audit is not None:
            client = access.name_of(standing.owner) or LOCAL
            details = {"gallery": standing.gallery, "alert": standing.name, "shown": [list(ids)]}
            await run_in_threadpool(settings.audit.append, "alarm", client, details)

    assert settings.alerts is not None
    return AlertRunner(
        AlertBook(settings.alerts),
        collections,
        networks=settings.webhook_networks,
        allowed=lambda standing: access.name_of(standing.owner) is not None,
        record=record,
    )
