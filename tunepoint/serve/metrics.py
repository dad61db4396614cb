"""Numbers for Prometheus: requests, seconds, tokens and dollars by task and arm, and how capture is doing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tunepoint.capture.records import CapturedRequest
from tunepoint.capture.writer import Writer

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class _Capture(Collector):
    """Reads the writer's counts when it is asked."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer

    def collect(self) -> Iterator[Metric]:
        """The writer's counts, as they are."""
        counts = self.writer.counts
        for name, value, text in (
            ("written", counts.written, "Requests that were written to the store."),
            ("dropped", counts.dropped, "Requests that found the buffer full while the store was away."),
            ("refused", counts.refused, "Requests that the store would not take."),
        ):
            yield CounterMetricFamily(f"tunepoint_capture_{name}", text, value)
        yield GaugeMetricFamily("tunepoint_capture_waiting", "Requests not yet written.", self.writer.waiting)
        failing = float(counts.failing)
        yield GaugeMetricFamily("tunepoint_capture_failing", "1 while the store cannot be written.", failing)


class Metrics:
    """All of them; `text` is what a scrape gets."""

    def __init__(self, writer: Writer) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Capture(writer))
        by = ["task", "arm", "role"]
        self._requests = Counter(
            "tunepoint_requests", "Answers by HTTP status.", [*by, "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "tunepoint_seconds",
            "Seconds from question to answer.",
            by,
            buckets=SECONDS,
            registry=self.registry,
        )
        self._tokens = Counter(
            "tunepoint_tokens", "Tokens by direction.", [*by, "direction"], registry=self.registry
        )
        self._dollars = Counter("tunepoint_usd", "Dollars of answers.", by, registry=self.registry)
        self._refused = Counter(
            "tunepoint_refused",
            "Requests that were not let through, by HTTP status.",
            ["status"],
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "tunepoint_in_flight", "Requests that are being answered.", registry=self.registry
        )
        self._known: dict[tuple[str, str, str, int], tuple[Callable[..., None], ...]] = {}

    def note(self, request: CapturedRequest) -> None:
        """Count one reply."""
        key = (request.task, request.arm, request.role, request.status)
        found = self._known.get(key)
        if found is None:
            by = (request.task, request.arm, request.role)
            found = self._known[key] = (
                self._requests.labels(*by, str(request.status)).inc,
                self._seconds.labels(*by).observe,
                self._tokens.labels(*by, "input").inc,
                self._tokens.labels(*by, "output").inc,
                self._dollars.labels(*by).inc,
            )
        count, seconds, given, output, dollars = found
        count()
        if request.seconds is not None:
            seconds(request.seconds)
        if request.input_tokens:
            given(request.input_tokens)
        if request.output_tokens:
            output(request.output_tokens)
        if request.cost_nanousd:
            dollars(request.cost_nanousd / 1e9)

    def refused(self, status: int) -> None:
        """Count a request that was not let through."""
        self._refused.labels(str(status)).inc()

    def text(self) -> bytes:
        """What a scrape gets."""
        return generate_latest(self.registry)
