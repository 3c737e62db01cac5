"""Errors as ``application/problem+json`` (https://www.rfc-editor.org/rfc/rfc9457)."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from finegrain.errors import (
    FilterError,
    FinegrainError,
    GalleryError,
    ImageError,
    MissingExtraError,
    QueryError,
)

MEDIA_TYPE = "application/problem+json"

_SCHEMA = {
    "type": "object",
    "required": ["title", "status", "detail"],
    "properties": {
        "title": {"type": "string", "description": "Class of the error, or name of the status."},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What was expected, and what to do."},
    },
}
DOCUMENTED: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "Refused", "content": {MEDIA_TYPE: {"schema": _SCHEMA}}},
    "5XX": {"description": "Failed", "content": {MEDIA_TYPE: {"schema": _SCHEMA}}},
}
"""Errors of every route, for the OpenAPI document."""

_STATUS: tuple[tuple[type[FinegrainError], HTTPStatus], ...] = (
    (QueryError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (FilterError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (ImageError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (GalleryError, HTTPStatus.CONFLICT),
    (MissingExtraError, HTTPStatus.NOT_IMPLEMENTED),
)
_MOST_ERRORS = 5

_log = logging.getLogger("finegrain.serve")


class ServiceError(FinegrainError):
    """A request that the service refuses.

    Args:
        status: HTTP status.
        message: What was expected, what came, and what to do.
        headers: Further headers, such as ``Retry-After``.
    """

    def __init__(
        self, status: HTTPStatus, message: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


def problem(
    status: HTTPStatus,
    detail: str,
    *,
    title: str | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """A response in the format of RFC 9457."""
    body = {"title": title or status.phrase, "status": status.value, "detail": detail}
    return JSONResponse(body, status.value, headers=headers, media_type=MEDIA_TYPE)


def add_problem_handlers(app: FastAPI) -> None:
    """Answer every error of an app with a problem document."""

    @app.exception_handler(FinegrainError)
    async def refused(request: Request, error: FinegrainError) -> JSONResponse:
        if isinstance(error, ServiceError):
            return problem(error.status, str(error), headers=error.headers)
        status = next(
            (status for kind, status in _STATUS if isinstance(error, kind)),
            HTTPStatus.BAD_REQUEST,
        )
        return problem(status, str(error), title=type(error).__name__)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        causes = [
            f"{'.'.join(map(str, cause['loc'][1:])) or 'body'}: {cause['msg']}"
            for cause in error.errors()[:_MOST_ERRORS]
        ]
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join(causes))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers) if error.headers else None
        return problem(HTTPStatus(error.status_code), str(error.detail), headers=headers)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        # The message may hold a query or a path, so it goes to the log and not to the client.
        _log.error("error in %s %s", request.method, request.url.path, exc_info=error)
        return problem(
            HTTPStatus.INTERNAL_SERVER_ERROR, "The service failed; its log has the details."
        )
