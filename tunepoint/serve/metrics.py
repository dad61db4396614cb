"""Prometheus metrics: requests, seconds, tokens and dollars by task and arm; and the state of capture."""

from __future__ import annotations

import os
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

from tunepoint.capture.records import CapturedRequest
from tunepoint.capture.writer import Writer
from tunepoint.serve.workers import METRICS_FOLDER

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds in seconds."""


CAPTURED = {
    "written": "Requests written to the store.",
    "dropped": "Requests dropped because the buffer was full.",
    "refused": "Requests that the store rejected.",
    "shortened": "Requests written without their texts, of which too many came.",
}
"""Counts of the writer, and what they are."""


class Metrics:
    """All metrics of the gateway; `text` is what a scrape gets.

    Of several workers on one machine, whichever is scraped tells the sums over all of them.
    """

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.registry = CollectorRegistry()
        self._captured = {
            name: Counter(f"tunepoint_capture_{name}", words, registry=self.registry)
            for name, words in CAPTURED.items()
        }
        self._told = dict.fromkeys(CAPTURED, 0)
        """What of the writer's counts is in the metrics."""
        self._waiting, self._spooled, self._failing = (
            Gauge(f"tunepoint_capture_{name}", words, registry=self.registry, multiprocess_mode="livesum")
            for name, words in (
                ("waiting", "Requests not yet written."),
                ("spooled", "Requests that wait on disk for the store."),
                ("failing", "Processes that cannot write the store."),
            )
        )
        labels = ["task", "arm", "role"]
        self._requests = Counter(
            "tunepoint_requests", "Answers by HTTP status.", [*labels, "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "tunepoint_seconds",
            "Seconds from request to answer.",
            labels,
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self._tokens = Counter(
            "tunepoint_tokens", "Tokens by direction.", [*labels, "direction"], registry=self.registry
        )
        self._dollars = Counter("tunepoint_usd", "Cost of answers.", labels, registry=self.registry)
        self._refused = Counter(
            "tunepoint_refused",
            "Requests rejected by the gateway, by HTTP status.",
            ["status"],
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "tunepoint_in_flight",
            "Requests being answered.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        # `labels()` takes a lock and builds its key anew; the hot path keeps the bound methods.
        self._bound: dict[tuple[str, str, str, int], tuple[Callable[..., None], ...]] = {}

    def record(self, request: CapturedRequest) -> None:
        """Count one answer."""
        key = (request.task, request.arm, request.role, request.status)
        bound = self._bound.get(key)
        if bound is None:
            labels = (request.task, request.arm, request.role)
            bound = self._bound[key] = (
                self._requests.labels(*labels, str(request.status)).inc,
                self._seconds.labels(*labels).observe,
                self._tokens.labels(*labels, "input").inc,
                self._tokens.labels(*labels, "output").inc,
                self._dollars.labels(*labels).inc,
            )
        count_request, observe_seconds, count_input, count_output, count_dollars = bound
        count_request()
        if request.seconds is not None:
            observe_seconds(request.seconds)
        if request.input_tokens:
            count_input(request.input_tokens)
        if request.output_tokens:
            count_output(request.output_tokens)
        if request.cost_nanousd:
            count_dollars(request.cost_nanousd / 1e9)

    def record_refused(self, status: int) -> None:
        """Count a request that the gateway rejected."""
        self._refused.labels(str(status)).inc()

    def update(self) -> None:
        """Take over the state of capture; other workers' scrapes see it from then on."""
        counts = self.writer.counts
        for name, counter in self._captured.items():
            count = getattr(counts, name)
            counter.inc(count - self._told[name])
            self._told[name] = count
        self._waiting.set(self.writer.waiting)
        self._spooled.set(self.writer.spooled)
        self._failing.set(float(counts.failing))

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        self.update()
        if METRICS_FOLDER not in os.environ:
            return generate_latest(self.registry)
        everybody = CollectorRegistry()
        multiprocess.MultiProcessCollector(everybody)  # type: ignore[no-untyped-call]
        return generate_latest(everybody)
