"""What a server counts, for Prometheus; no count has a text, a key or a client in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from stepdistill.deploy.answer import Answer

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
REJECTED = {
    400: "malformed",
    401: "key",
    408: "slow",
    413: "body",
    415: "type",
    421: "host",
    422: "request",
    429: "queue",
}
"""Why a request was not answered, by its status; of a 503 there are several reasons, each told as it is."""


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        by, name = self.registry, "stepdistill_"
        self._requests = Counter(name + "requests", "Requests by status", ["path", "status"], registry=by)
        self._seconds = Histogram(
            name + "request_seconds", "Seconds of a request", ["path"], buckets=_SECONDS, registry=by
        )
        self._rejected = Counter(name + "rejected", "Requests that were refused", ["reason"], registry=by)
        self._answers = Counter(name + "answers", "Texts that were answered", ["by"], registry=by)
        self._abstained = Counter(
            name + "abstained", "Texts left without a label for want of confidence", registry=by
        )
        self._routed = Counter(name + "routed", "Texts that the teacher was asked", registry=by)
        self._batches = Histogram(name + "batch_texts", "Texts of a batch", buckets=_SIZES, registry=by)
        self._queue = Gauge(name + "queue_texts", "Texts that wait", registry=by)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request that has ended."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)
        if status in REJECTED:
            self._rejected.labels(REJECTED[status]).inc()

    def refused(self, reason: str) -> None:
        """Count what was refused before it was a request, or for a reason that its status does not tell."""
        self._rejected.labels(reason).inc()

    def answered(self, answers: Sequence[Answer]) -> None:
        """Count answers that go to a client."""
        for answer in answers:
            self._answers.labels(answer.by).inc()
            if answer.abstained:
                self._abstained.inc()

    def routed(self, texts: int) -> None:
        """Count texts that go to the teacher."""
        self._routed.inc(texts)

    def batch(self, size: int) -> None:
        """Count a batch."""
        self._batches.observe(size)

    def watch_queue(self, length: Callable[[], int]) -> None:
        """Where the number of waiting texts is read."""
        self._queue.set_function(length)

    def text(self) -> bytes:
        """All counts in Prometheus' text format."""
        return generate_latest(self.registry)
