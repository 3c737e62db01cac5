"""The log of requests: a line of JSON for each, without personal data."""

from __future__ import annotations

import json
import logging

from finegrain import times

_log = logging.getLogger("finegrain.serve.requests")


def log_requests() -> None:
    """Write a line for each request to standard error from now on."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    _log.propagate = False


def log_request(
    *, method: str, route: str, status: int, seconds: float, client: str | None
) -> None:
    """Log a request by the pattern of its path. Queries, ids and addresses are left out.

    Args:
        client: Name of the key; None if the request had no valid one.
    """
    if _log.isEnabledFor(logging.INFO):
        line = {
            "at": times.utc_text(times.now()),
            "method": method,
            "route": route,
            "status": status,
            "ms": round(1e3 * seconds, 1),
            "client": client,
        }
        _log.info(json.dumps(line))
