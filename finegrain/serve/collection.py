"""The galleries of a service, each with its model, under a name."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from http import HTTPStatus
from typing import Annotated, TypeVar

from fastapi import Depends, Request
from fastapi import Query as Parameter
from PIL import Image
from starlette.concurrency import run_in_threadpool

from finegrain.errors import FinegrainError, GalleryError, ImageError, QueryError
from finegrain.gallery import Gallery
from finegrain.gallery.row import Row
from finegrain.preprocess.image import load_image
from finegrain.search.matches import Matches
from finegrain.search.queries import Query
from finegrain.search.searcher import Searcher
from finegrain.serve import schemas
from finegrain.serve.access import Client
from finegrain.serve.cursors import BEGIN, Cursor
from finegrain.serve.problems import ServiceError
from finegrain.serve.worker import Options, Worker

MOST_DECODING = 2
"""Pictures that are decoded at the same time."""

T = TypeVar("T")
B = TypeVar("B", bound=schemas.Answering)


class Collection:
    """A searcher with its gallery, and the thread that runs its searches and changes.

    Args:
        name: Name in requests.
        searcher: An open searcher with a gallery. :meth:`close` closes it.
        observe: Called with the size and the seconds of each batch of searches.

    Raises:
        GalleryError: There is no gallery.
    """

    def __init__(
        self, name: str, searcher: Searcher, observe: Callable[[int, float], None]
    ) -> None:
        self.name = name
        searcher.gallery  # noqa: B018 - raises without one
        self.worker = Worker(searcher, observe)
        self.decoding = asyncio.Semaphore(MOST_DECODING)

    @property
    def searcher(self) -> Searcher:
        """The searcher of the present plan."""
        return self.worker.searcher

    @property
    def gallery(self) -> Gallery:
        """The gallery, as the present plan has opened it."""
        return self.worker.searcher.gallery

    def replace(self, searcher: Searcher) -> Searcher:
        """Use another searcher from now on; return the one before."""
        old, self.worker.searcher = self.worker.searcher, searcher
        return old

    def close(self, *, keep_open: bool = False) -> None:
        """Finish the requests that wait, and close the searcher unless it is to be kept open."""
        self.worker.close(keep_open=keep_open)

    async def search(
        self, queries: Sequence[Query], body: schemas.Answering, client: Client
    ) -> list[Matches]:
        """Search in the part of the gallery that a client may see, together with others."""
        client.spend(len(queries))
        return await done(self.worker.search(queries, _options(body, client)))

    async def positioned(self, body: B) -> B:
        """A request whose cursor names the newest picture of now, if it is that of a first page.

        Raises:
            QueryError: It has a cursor and an offset.
        """
        if body.cursor is None:
            return body
        if body.offset:
            raise QueryError("expected cursor or offset, got both")
        if body.cursor != BEGIN:
            Cursor.read(body.cursor)
            return body
        newest = await self.read(lambda gallery: max(gallery, default=0))
        return body.model_copy(update={"cursor": Cursor(0, newest).text})

    async def search_one(self, query: Query, body: schemas.Judging, client: Client) -> Matches:
        """Search by one query, which may have judged matches and words that change a picture."""
        judged = [*body.like, *body.unlike]
        changed = body if isinstance(body, schemas.PictureOptions) and body.text else None
        options = _options(body, client)
        if not judged and changed is None:
            client.spend(1)
            return (await done(self.worker.search([query], options)))[0]
        visible = await self.ids(schemas.ChosenBody(ids=judged, reason=None), client)
        if hidden := set(judged) - set(visible):
            raise ServiceError(HTTPStatus.NOT_FOUND, f"There is no picture {min(hidden)}.")
        arguments = {**options.arguments(), "like": body.like, "unlike": body.unlike}
        if changed is None:
            arguments["query"] = query
        else:
            arguments |= {"image": query, "text": changed.text, "weight": changed.weight}
        client.spend(1)
        return await self.run(lambda: self.searcher.query(**arguments))

    async def run(self, run: Callable[[], T]) -> T:
        """Run a function in the worker's thread."""
        return await done(self.worker.call(run))

    async def read(self, read: Callable[[Gallery], T]) -> T:
        """Read from the gallery beside the worker; also while it is switched to another plan."""
        searcher = self.searcher
        try:
            return await run_in_threadpool(read, searcher.gallery)
        except GalleryError:
            await self.run(lambda: None)  # the worker waits for the end of a switch
            if self.searcher is searcher:
                raise
        return await run_in_threadpool(read, self.gallery)

    async def row(self, id_: int, client: Client) -> Row:
        """The columns of a picture.

        Raises:
            ServiceError: There is no such picture in the client's part of the gallery.
        """
        rows = await self.read(lambda gallery: gallery.rows([id_], client.where))
        if not rows:
            raise ServiceError(HTTPStatus.NOT_FOUND, f"There is no picture {id_}.")
        return rows[0]

    async def picture(self, id_: int, client: Client) -> Image.Image:
        """A picture, or its thumbnail if its file cannot be opened."""
        row = await self.row(id_, client)

        def opened(gallery: Gallery) -> Image.Image:
            if row.image is not None:
                try:
                    return load_image(row.image)
                except FinegrainError:
                    pass  # the file may have been moved; a thumbnail still shows it
            thumbnail = gallery.thumbnail(id_)
            if thumbnail is None:
                raise ImageError(f"Picture {id_} cannot be opened and has no thumbnail.")
            return load_image(thumbnail)

        async with self.decoding:
            return await self.read(opened)

    async def ids(self, chosen: schemas.ChosenBody, client: Client) -> list[int]:
        """The ids that a request names, in the part of the gallery that the client may see.

        Columns may change before these ids are used: a change also checks :func:`condition`.
        """
        if (chosen.ids is None) == (chosen.where is None):
            raise QueryError("Give either ids or where.")
        if chosen.where is not None:
            where = client.within(chosen.where)
            return await self.read(lambda gallery: gallery.ids_where(where or ""))
        ids = chosen.ids or []
        if client.where is None:
            return ids
        return [row.id for row in await self.read(lambda g: g.rows(ids, client.where))]


def condition(chosen: schemas.ChosenBody, client: Client) -> str | None:
    """What a picture must match when it is changed: the filter of the request and of the key."""
    return client.within(chosen.where)


def _options(body: schemas.Answering, client: Client) -> Options:
    where, offset = client.within(body.where), body.offset
    if body.cursor is not None:
        cursor = Cursor.read(body.cursor)
        where, offset = cursor.within(where), cursor.offset
    return Options(
        k=body.k,
        where=where,
        group_by=body.group_by,
        distinct=body.distinct,
        offset=offset,
        avoid=tuple(body.avoid),
        negation=body.negation,
        min_probability=body.min_probability,
    )


async def done(future: Future[T]) -> T:
    """The result of a future of another thread."""
    return await asyncio.wrap_future(future)


def _named(
    request: Request,
    gallery: Annotated[
        str | None,
        Parameter(max_length=256, description="Name of the gallery, if there are several."),
    ] = None,
) -> Collection:
    known: dict[str, Collection] = request.app.state.collections
    if gallery is None and len(known) == 1:
        return next(iter(known.values()))
    if gallery not in known:
        names = ", ".join(known)
        given = "no gallery" if gallery is None else f"{gallery!r:.80}"
        raise ServiceError(
            HTTPStatus.NOT_FOUND, f"expected gallery= as one of {names}, got {given}."
        )
    return known[gallery]


Chosen = Annotated[Collection, Depends(_named)]
