"""Prometheus metrics: requests, seconds, tokens and dollars by task and arm; and the state of capture."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tunepoint.capture.records import CapturedRequest
from tunepoint.capture.writer import Writer

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds in seconds."""


class _CaptureCollector(Collector):
    """Reads the writer's counts at each scrape."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer

    def collect(self) -> Iterator[Metric]:
        """Yield the writer's counts."""
        counts = self.writer.counts
        for name, value, description in (
            ("written", counts.written, "Requests written to the store."),
            ("dropped", counts.dropped, "Requests dropped because the buffer was full."),
            ("refused", counts.refused, "Requests that the store rejected."),
            ("shortened", counts.shortened, "Requests written without their texts, of which too many came."),
        ):
            yield CounterMetricFamily(f"tunepoint_capture_{name}", description, value)
        yield GaugeMetricFamily("tunepoint_capture_waiting", "Requests not yet written.", self.writer.waiting)
        failing = float(counts.failing)
        yield GaugeMetricFamily("tunepoint_capture_failing", "1 while the store cannot be written.", failing)


class Metrics:
    """All metrics of the gateway; `text` is what a scrape gets."""

    def __init__(self, writer: Writer) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_CaptureCollector(writer))
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
        self.in_flight = Gauge("tunepoint_in_flight", "Requests being answered.", registry=self.registry)
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

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
