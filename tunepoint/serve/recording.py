"""Records every answer: counted for metrics and budgets, and kept in the capture store."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from tunepoint.capture.records import CapturedRequest, Role
from tunepoint.capture.writer import Writer
from tunepoint.models.parsing import parse
from tunepoint.serve.auth import Access, Key
from tunepoint.serve.backends import ArmResponse
from tunepoint.serve.metrics import Metrics
from tunepoint.serve.protocol import ChatRequest
from tunepoint.serve.tasks import ServedTask
from tunepoint.serve.tracing import Tracer

DISCONNECTED = 499
"""HTTP status, by nginx's convention, of a request whose client disconnected."""


@dataclass(slots=True)
class Attempt:
    """One arm's turn at a request."""

    request: ChatRequest
    task: ServedTask
    arm: str
    role: Role
    """Why this arm was called."""
    key: Key
    started: float
    """`time.perf_counter()` when the arm was called."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an answer ended."""

    status: int = 200
    error: str | None = None
    first_token: float | None = None
    """Seconds until the first event of a stream."""
    copy_of: str | None = None
    """Of a shadow's answer: the id of the request that it copies."""
    attempt_of: str | None = None
    """Of a failed answer: the id of the request, which another arm may have answered."""


OK = Outcome()
DISCONNECTED_BY_CLIENT = Outcome(DISCONNECTED, "the client disconnected")


class Recorder:
    """Counts answers, adds up their costs, and hands them to the capture store.

    Args:
        sample: share of the requests whose content is kept; the store gets the rest of every request, so
            that counts, costs and a canary's outcomes cover all of them.
        salt: for the hashes of users' names.
        tracer: makes spans; None makes none.

    """

    def __init__(
        self,
        writer: Writer,
        access: Access,
        metrics: Metrics,
        *,
        sample: float = 1.0,
        salt: str = "",
        tracer: Tracer | None = None,
    ) -> None:
        self.tracer = tracer
        self.writer, self.access, self.metrics = writer, access, metrics
        self.sample, self._salt = sample, salt

    def record(self, attempt: Attempt, response: ArmResponse, outcome: Outcome = OK) -> CapturedRequest:
        """Count an answer and keep it, with its content if it is in the sample."""
        captured = self._captured(attempt, response, outcome)
        self.metrics.record(captured)
        if self.tracer is not None:
            self.tracer.record(captured)
        self.access.spend(attempt.key.name, response.cost_nanousd or 0)
        request_id = outcome.copy_of or outcome.attempt_of or captured.id
        in_sample = self.sample >= 1 or self._sampling_position(request_id) < self.sample
        self.writer.put(captured if in_sample else without_content(captured))
        return captured

    def _captured(self, attempt: Attempt, response: ArmResponse, outcome: Outcome) -> CapturedRequest:
        request = attempt.request
        answer, format_ok = _parsed(attempt, response, outcome)
        return CapturedRequest(
            id=request.id,
            at=request.at,
            task=request.task,
            arm=attempt.arm,
            role=attempt.role,
            model=response.model,
            input=request.input,
            output=response.text,
            answer=answer,
            format_ok=format_ok,
            status=outcome.status,
            error=outcome.error,
            messages=request.conversation,
            parameters=request.parameters,
            streamed=request.stream,
            input_tokens=response.input_tokens,
            cached_tokens=response.cached_tokens,
            output_tokens=response.output_tokens,
            seconds=response.seconds,
            first_token_seconds=outcome.first_token,
            core_seconds=response.core_seconds,
            cost_nanousd=response.cost_nanousd,
            confidence=response.confidence,
            slice=request.slice,
            user=self._hashed_user(request.user),
            key=attempt.key.name or None,
            copy_of=outcome.copy_of,
        )

    def _sampling_position(self, request_id: str) -> float:
        """Hash a request to [0, 1); copies and attempts share its id, so they are sampled together."""
        digest = hashlib.sha256(f"{self._salt}{request_id}".encode("utf-8", "replace")).digest()
        return int.from_bytes(digest[:8]) / 2**64

    def _hashed_user(self, user: str | None) -> str | None:
        """Hash a user's name: users stay apart, and nobody can be named."""
        if user is None:
            return None
        return hashlib.sha256(f"{self._salt}{user}".encode("utf-8", "replace")).hexdigest()[:32]


def _parsed(attempt: Attempt, response: ArmResponse, outcome: Outcome) -> tuple[str | None, bool | None]:
    """The parsed answer and whether it has the task's form; arms of a study have parsed it already."""
    template = attempt.task.template
    if response.format_ok is not None or template is None or outcome.status != 200:
        return response.answer, response.format_ok
    answer = parse(template, response.text).answer
    return answer, answer is not None


def without_content(request: CapturedRequest) -> CapturedRequest:
    """Return a copy without question and answer; without the error too, which may quote either."""
    return replace(request, input="", output="", answer=None, error=None, messages=None, parameters={})
