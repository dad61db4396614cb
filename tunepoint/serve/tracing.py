"""OpenTelemetry spans by the GenAI conventions, one for each answer, without questions and answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunepoint.capture.records import CapturedRequest
from tunepoint.errors import MissingExtra

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


class Tracer:
    """Makes spans of answers, exported to OTEL_EXPORTER_OTLP_ENDPOINT.

    Args:
        provider: in place of one that exports by OTLP over HTTP.

    Raises:
        MissingExtra: the packages are missing.

    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        if provider is None:
            try:
                from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
                from opentelemetry.sdk.resources import Resource
                from opentelemetry.sdk.trace import TracerProvider as Provider
                from opentelemetry.sdk.trace.export import BatchSpanProcessor
            except ImportError as error:
                raise MissingExtra(f"server.traces needs {error.name}", "otel", ", or leave it out") from None
            provider = Provider(resource=Resource.create({"service.name": "tunepoint"}))
            provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._provider = provider
        self._tracer = provider.get_tracer("tunepoint.gateway")

    def record(self, request: CapturedRequest) -> None:
        """Make the span of one answer, which lasts from the request to its last token."""
        from opentelemetry.trace import SpanKind, Status, StatusCode

        start = int(request.at * 1e9)
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": request.task,
            "gen_ai.response.model": request.model,
            "gen_ai.usage.input_tokens": request.input_tokens,
            "gen_ai.usage.output_tokens": request.output_tokens,
            "http.response.status_code": request.status,
            "tunepoint.arm": request.arm,
            "tunepoint.role": request.role,
            "tunepoint.request_id": request.id,
            "tunepoint.cost_usd": None if request.cost_usd is None else float(request.cost_usd),
            "tunepoint.format_ok": request.format_ok,
        }
        if request.status >= 400:
            attributes["error.type"] = str(request.status)
        span = self._tracer.start_span(
            f"chat {request.task}",
            kind=SpanKind.SERVER,
            start_time=start,
            attributes={key: value for key, value in attributes.items() if value is not None},
        )
        if request.status >= 400:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end_time=start + int((request.seconds or 0.0) * 1e9))

    def close(self) -> None:
        """Export the spans that are waiting."""
        self._provider.shutdown()
