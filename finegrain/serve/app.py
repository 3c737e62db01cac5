"""The routes of the service.

Annotations are evaluated here, since FastAPI cannot look up the names of a function that are text.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, File, Form, Request, Response, UploadFile
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from PIL import Image
from starlette.concurrency import run_in_threadpool

import finegrain
from finegrain.errors import FinegrainError, ImageError, QueryError
from finegrain.gallery.filters.syntax import joined
from finegrain.gallery.row import Row
from finegrain.preprocess.image import load_image
from finegrain.search.queries import Query
from finegrain.search.searcher import Added, Searcher
from finegrain.serve import schemas
from finegrain.serve.bounds import BodyLimit, SameSite
from finegrain.serve.keys import Key, KeyRing, Scope
from finegrain.serve.measures import CONTENT_TYPE, Measures
from finegrain.serve.pictures import as_jpeg, uploaded
from finegrain.serve.problems import ServiceError, add_problem_handlers
from finegrain.serve.worker import Options, Worker

PAGE = Path(__file__).parent / "page"
MOST_BODY_BYTES = 32 << 20
MOST_DECODING = 2
"""Pictures that are decoded at the same time."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a service is protected.

    Attributes:
        keys: Keys of the clients; None lets every local client do everything.
        roots: Folders below which files may be added by reference.
        read_only: Refuse all changes.
        most_body_bytes: Largest body of a request.
    """

    keys: KeyRing | None = None
    roots: tuple[Path, ...] = ()
    read_only: bool = False
    most_body_bytes: int = MOST_BODY_BYTES


@dataclass(frozen=True, slots=True)
class _Client:
    """Who sent a request: the part of the gallery that it may see."""

    where: str | None

    def within(self, where: str | None) -> str | None:
        """A filter that also keeps to this client's part of the gallery."""
        given = [expression for expression in (where, self.where) if expression]
        return joined(given) if given else None


def create_app(searcher: Searcher, settings: Settings) -> FastAPI:
    """The app of a service, which closes the searcher when it stops.

    Args:
        searcher: An open searcher. It needs a gallery.
        settings: How the service is protected.

    Raises:
        GalleryError: There is no gallery.
    """
    gallery = searcher.gallery
    measures = Measures()
    worker = Worker(searcher, measures.batch)
    decoding = asyncio.Semaphore(MOST_DECODING)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with suppress(FinegrainError):  # an empty gallery refuses queries
            await _done(worker.search(["person"], Options(1)))
        app.state.ready = True
        yield
        app.state.ready = False
        await run_in_threadpool(worker.close)

    app = FastAPI(
        title="finegrain",
        version=finegrain.__version__,
        description="Search of pictures by text, by picture and by their columns.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.ready = False
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
        measures.request(pattern, response.status_code, time.perf_counter() - began)
        return response

    def allowed(scope: Scope) -> Callable[[Request], _Client]:
        def check(request: Request) -> _Client:
            if settings.read_only and scope != "read":
                raise ServiceError(HTTPStatus.FORBIDDEN, "This service is read-only.")
            if settings.keys is None:
                return _Client(None)
            key = _key_of(request, settings.keys)
            if not key.may(scope):
                raise ServiceError(
                    HTTPStatus.FORBIDDEN, f"This needs the scope {scope}; the key has {key.scope}."
                )
            return _Client(key.where)

        return check

    reader = Annotated[_Client, Depends(allowed("read"))]
    writer = Annotated[_Client, Depends(allowed("write"))]
    admin = Annotated[_Client, Depends(allowed("admin"))]

    async def answers(
        queries: Sequence[Query], body: schemas.Answering, client: _Client, *, extra: int = 0
    ) -> list[schemas.AnswerOut]:
        options = Options(
            body.k + extra, client.within(body.where), body.group_by, body.distinct, body.offset
        )
        every = await _done(worker.search(queries, options))
        return [schemas.AnswerOut.of(matches) for matches in every]

    async def row_of(id_: int, client: _Client) -> Row:
        def find() -> list[Row]:
            if client.where and not gallery.ids_where(joined([f"id = {id_}", client.where])):
                return []
            return gallery.rows([id_])

        rows = await run_in_threadpool(find)
        if not rows:
            raise ServiceError(HTTPStatus.NOT_FOUND, f"There is no picture {id_}.")
        return rows[0]

    async def picture_of(id_: int, client: _Client) -> Image.Image:
        row = await row_of(id_, client)

        def opened() -> Image.Image:
            if row.image is not None:
                try:
                    return load_image(row.image)
                except FinegrainError:
                    pass  # the file may have been moved; a thumbnail still shows it
            thumbnail = gallery.thumbnail(id_)
            if thumbnail is None:
                raise ImageError(f"Picture {id_} cannot be opened and has no thumbnail.")
            return load_image(thumbnail)

        async with decoding:
            return await run_in_threadpool(opened)

    async def ids_of(chosen: schemas.Chosen, client: _Client) -> list[int]:
        if (chosen.ids is None) == (chosen.where is None):
            raise QueryError("Give either ids or where.")
        if chosen.where is not None:
            where = client.within(chosen.where)
            return await run_in_threadpool(gallery.ids_where, where or "")
        ids = chosen.ids or []
        if client.where is None:
            return ids
        visible = set(await run_in_threadpool(gallery.ids_where, client.where))
        return [id_ for id_ in ids if id_ in visible]

    def unlimited(client: _Client) -> None:
        if client.where is not None:
            raise ServiceError(
                HTTPStatus.FORBIDDEN, "A key for a part of the gallery cannot add pictures."
            )

    @app.post("/v1/search", tags=["search"])
    async def search(body: schemas.SearchBody, client: reader) -> schemas.SearchOut:
        """Search by one text or several."""
        queries = [body.query] if isinstance(body.query, str) else body.query
        return schemas.SearchOut(answers=await answers(queries, body, client))

    @app.post("/v1/search/picture", tags=["search"])
    async def search_by_picture(
        client: reader,
        picture: Annotated[UploadFile, File(description="JPEG, PNG or WebP")],
        options: Annotated[
            str, Form(max_length=20_000, description="JSON, as for /v1/search")
        ] = "{}",
    ) -> schemas.SearchOut:
        """Search by a picture."""
        body = schemas.Answering.model_validate(_json(options))
        async with decoding:
            image = await uploaded(picture)
        return schemas.SearchOut(answers=await answers([image], body, client))

    @app.post("/v1/search/similar", tags=["search"])
    async def search_similar(body: schemas.SimilarBody, client: reader) -> schemas.SearchOut:
        """Search for pictures similar to one of the gallery, which is left out."""
        image = await picture_of(body.id, client)
        (answer,) = await answers([image], body, client, extra=1)
        answer.matches = [match for match in answer.matches if match.id != body.id][: body.k]
        return schemas.SearchOut(answers=[answer])

    @app.get("/v1/pictures/{id_}", tags=["pictures"])
    async def picture(id_: schemas.Id, client: reader) -> schemas.PictureOut:
        """The columns of a picture."""
        row = await row_of(id_, client)
        names = schemas.PictureOut.model_fields
        return schemas.PictureOut(**{name: getattr(row, name) for name in names})

    @app.get("/v1/pictures/{id_}/image", tags=["pictures"], response_class=Response)
    async def image(id_: schemas.Id, client: reader, side: int = 512) -> Response:
        """The picture as a JPEG file whose longer side is at most ``side`` pixels."""
        if not 16 <= side <= 2048:
            raise QueryError(f"side is from 16 to 2048 pixels, got {side}")
        opened = await picture_of(id_, client)
        return Response(await run_in_threadpool(as_jpeg, opened, side), media_type="image/jpeg")

    @app.post("/v1/pictures", tags=["pictures"])
    async def add(
        client: writer,
        pictures: Annotated[list[UploadFile], File(description="JPEG, PNG or WebP")],
        metadata: Annotated[str, Form(max_length=100_000, description="JSON object")] = "{}",
        expire_after: Annotated[float | None, Form(gt=0)] = None,
    ) -> schemas.AddedOut:
        """Add pictures. A picture that cannot be read is named and does not stop the others."""
        unlimited(client)
        columns = _json(metadata)
        images, left_out = [], []
        for number, file in enumerate(pictures):
            try:
                async with decoding:
                    images.append(await uploaded(file))
            except ImageError as error:
                left_out.append(f"picture {number + 1}: {error}")
        if not images:
            raise ImageError("; ".join(left_out[:5]) or "no picture was sent")
        added = await _done(
            worker.call(
                lambda: searcher.add(images, columns, expire_after=expire_after, progress=False)
            )
        )
        return _added(added, left_out)

    @app.post("/v1/pictures/by-reference", tags=["pictures"])
    async def add_by_reference(body: schemas.ReferenceBody, client: writer) -> schemas.AddedOut:
        """Add a file or folder of the server."""
        unlimited(client)
        path = _below(body.path, settings.roots)
        added = await _done(
            worker.call(
                lambda: searcher.add(
                    path, body.metadata, expire_after=body.expire_after, progress=False
                )
            )
        )
        return _added(added, [])

    @app.patch("/v1/pictures", tags=["pictures"])
    async def change(body: schemas.ChangeBody, client: writer) -> schemas.CountOut:
        """Set columns of pictures."""
        ids = await ids_of(body, client)
        return schemas.CountOut(
            count=await _done(worker.call(lambda: gallery.update(ids, body.set)))
        )

    @app.post("/v1/pictures/delete", tags=["pictures"])
    async def delete(body: schemas.Chosen, client: writer) -> schemas.CountOut:
        """Delete pictures; their bytes are overwritten when this returns."""
        ids = await ids_of(body, client)
        return schemas.CountOut(count=await _done(worker.call(lambda: gallery.delete(ids))))

    @app.post("/v1/expire", tags=["pictures"])
    async def expire(client: admin) -> schemas.CountOut:
        """Delete the pictures that have expired."""
        return schemas.CountOut(count=await _done(worker.call(searcher.expire)))

    @app.get("/v1/stats", tags=["service"])
    async def stats(client: reader) -> schemas.StatsOut:
        """The gallery and the model; a key with a filter counts its own part."""

        def count() -> int:
            return len(gallery.ids_where(client.where) if client.where else gallery)

        return schemas.StatsOut(
            pictures=await run_in_threadpool(count),
            dim=gallery.dim,
            method=searcher.manifest.method,
            fingerprint=searcher.manifest.fingerprint,
            version=finegrain.__version__,
            columns=await run_in_threadpool(gallery.columns),
        )

    @app.get("/healthz", tags=["service"])
    async def health() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["service"])
    async def ready() -> dict[str, str]:
        """Whether the model is loaded and has answered a query."""
        if not app.state.ready:
            raise ServiceError(HTTPStatus.SERVICE_UNAVAILABLE, "The model is not loaded yet.")
        return {"status": "ready"}

    @app.get("/metrics", tags=["service"], response_class=Response)
    async def metrics(client: reader) -> Response:
        """Figures for Prometheus."""
        pictures = await run_in_threadpool(len, gallery)
        text = measures.text(waiting=worker.num_waiting, pictures=pictures)
        return Response(text, media_type=CONTENT_TYPE)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    return app


async def _done(future: Future[T]) -> T:
    return await asyncio.wrap_future(future)


def _key_of(request: Request, keys: KeyRing) -> Key:
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    key = keys.holder(secret.strip()) if scheme.lower() == "bearer" else None
    if key is None:
        raise ServiceError(
            HTTPStatus.UNAUTHORIZED,
            "Send a key in the header Authorization: Bearer KEY. An operator makes one with: "
            "finegrain keys make",
            {"WWW-Authenticate": "Bearer"},
        )
    return key


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


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise QueryError(f"expected a JSON object, got {text!r:.60}")
    return value


def _added(added: Added, left_out: Sequence[str]) -> schemas.AddedOut:
    problems = [f"{Path(p.where).name}: {p.why}" for p in added.problems]
    return schemas.AddedOut(
        ids=added.ids,
        num_new=added.num_new,
        num_known=added.num_known,
        left_out=[*left_out, *problems],
    )
