"""What became of a request is counted and kept; its words only if it is in the sample."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from tunepoint.capture.records import CapturedRequest, Role
from tunepoint.capture.writer import Writer
from tunepoint.models.chat import Prompt
from tunepoint.models.parsing import parse
from tunepoint.serve.auth import Access, Key
from tunepoint.serve.backends import ArmResponse
from tunepoint.serve.metrics import Metrics
from tunepoint.serve.protocol import ChatRequest
from tunepoint.serve.tracing import Tracer

DISCONNECTED = 499
"""HTTP status, by nginx's convention, of a request whose caller went away."""


@dataclass(frozen=True, slots=True)
class AnsweredBy:
    """Who answered, and as what."""

    arm: str
    role: Role


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an answer ended."""

    status: int = 200
    error: str | None = None
    first_token: float | None = None
    """Seconds until the first event of a stream."""
    copy_of: str | None = None
    """Of a shadow's answer: the request that it copies."""
    attempt_of: str | None = None
    """Of an answer that did not come: the request, which another arm may have answered."""


OK = Outcome()
DISCONNECTED_BY_CALLER = Outcome(DISCONNECTED, "the caller went away")


class Recorder:
    """Counts answers, adds up what they cost, and hands them to the capture store.

    Args:
        sample: share of the requests whose words are kept; of the others the store gets the rest, so that
            counts, costs and a canary's outcomes are those of all.
        salt: what users' names are hashed with.
        tracer: makes spans; None makes none.

    """

    def __init__(
        self,
        writer: Writer,
        access: Access,
        meters: Metrics,
        *,
        sample: float = 1.0,
        salt: str = "",
        tracer: Tracer | None = None,
    ) -> None:
        self.tracer = tracer
        self.writer, self.access, self.meters = writer, access, meters
        self.sample, self._salt = sample, salt

    def note(
        self,
        asked: ChatRequest,
        template: Prompt | None,
        by: AnsweredBy,
        key: Key,
        found: ArmResponse,
        ending: Outcome,
    ) -> CapturedRequest:
        """Count an answer and keep it, with its words if it is in the sample.

        Args:
            template: how answers are read; None where nobody said of what kind they are.

        """
        answer, format_ok = found.answer, found.format_ok
        if format_ok is None and template is not None and ending.status == 200:
            answer = parse(template, found.text).answer
            format_ok = answer is not None
        one = CapturedRequest(
            id=asked.id,
            at=asked.at,
            task=asked.task,
            arm=by.arm,
            role=by.role,
            model=found.model,
            input=asked.input,
            output=found.text,
            answer=answer,
            format_ok=format_ok,
            status=ending.status,
            error=ending.error,
            messages=asked.conversation,
            parameters=asked.parameters,
            streamed=asked.stream,
            input_tokens=found.input_tokens,
            cached_tokens=found.cached_tokens,
            output_tokens=found.output_tokens,
            seconds=found.seconds,
            first_token_seconds=ending.first_token,
            core_seconds=found.core_seconds,
            cost_nanousd=found.cost_nanousd,
            confidence=found.confidence,
            slice=asked.slice,
            user=self._who(asked.user),
            key=key.name or None,
            copy_of=ending.copy_of,
        )
        self.meters.note(one)
        if self.tracer is not None:
            self.tracer.note(one)
        self.access.spend(key.name, found.cost_nanousd or 0)
        request = ending.copy_of or ending.attempt_of or one.id
        in_sample = self.sample >= 1 or self._place(request) < self.sample
        self.writer.put(one if in_sample else without_content(one))
        return one

    def _place(self, request: str) -> float:
        """Of a request in 0..1; copies and attempts have their request's, so that all are kept or none."""
        digest = hashlib.sha256(f"{self._salt}{request}".encode("utf-8", "replace")).digest()
        return int.from_bytes(digest[:8]) / 2**64

    def _who(self, user: str | None) -> str | None:
        """A hash that tells users apart, and no more."""
        if user is None:
            return None
        return hashlib.sha256(f"{self._salt}{user}".encode("utf-8", "replace")).hexdigest()[:32]


def without_content(request: CapturedRequest) -> CapturedRequest:
    """What an answer took and who gave it, without what was asked and said; errors may quote both."""
    return replace(request, input="", output="", answer=None, error=None, messages=None, parameters={})
