"""Figures for Prometheus (https://prometheus.io/docs/instrumenting/exposition_formats)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SIZES = (1, 2, 4, 8, 16)


class Measures:
    """Counts and times of one service. They hold no queries and no addresses of clients."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "finegrain_requests", "Requests", ["route", "status"], registry=self._registry
        )
        self._latency = Histogram(
            "finegrain_request_seconds", "Seconds of a request", ["route"],
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self._batches = Histogram(
            "finegrain_batch_queries", "Queries that were searched in one batch",
            buckets=_SIZES, registry=self._registry,
        )  # fmt: skip
        self._searching = Histogram(
            "finegrain_batch_seconds", "Seconds to encode and search a batch",
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self._waiting = Gauge(
            "finegrain_queue_depth", "Requests in the queue", ["gallery"], registry=self._registry
        )
        self._pictures = Gauge(
            "finegrain_gallery_pictures", "Pictures in the gallery", ["gallery"],
            registry=self._registry,
        )  # fmt: skip

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request by the pattern of its path."""
        self._requests.labels(route, str(status)).inc()
        self._latency.labels(route).observe(seconds)

    def batch(self, size: int, seconds: float) -> None:
        """Count a batch of searches."""
        self._batches.observe(size)
        self._searching.observe(seconds)

    def gallery(self, name: str, *, waiting: int, pictures: int) -> None:
        """Set the figures of a gallery."""
        self._waiting.labels(name).set(waiting)
        self._pictures.labels(name).set(pictures)

    def text(self) -> bytes:
        """All figures in the text format."""
        return generate_latest(self._registry)
