"""Records every answer: counted for metrics and budgets, and kept in the capture store."""

from __future__ import annotations

import asyncio
import hashlib
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace

from tunepoint.capture.records import CapturedRequest, Role, attempt_id, nanodollars, without_content
from tunepoint.capture.spending import Reservation
from tunepoint.capture.writer import Writer
from tunepoint.errors import StoreError
from tunepoint.models.parsing import parse
from tunepoint.serve.auth import Access, Key
from tunepoint.serve.backends import ArmResponse
from tunepoint.serve.estimates import estimate_cost
from tunepoint.serve.metrics import Metrics
from tunepoint.serve.protocol import ChatRequest
from tunepoint.serve.tasks import ServedTask
from tunepoint.serve.tracing import Tracer

DISCONNECTED = 499
"""HTTP status, by nginx's convention, of a request whose client disconnected."""
SETTLE_SECONDS = 2.0
"""How long an answer waits until its cost is written."""


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
    reserved: bool = False
    """Whether the store has reserved what the call may cost."""
    settled: Future[None] | None = None
    """Done when what it did cost is written, if it was reserved."""


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

    async def reserve(self, attempt: Attempt) -> None:
        """Reserve what an attempt may cost, if its key has a budget.

        Raises:
            RequestError: it does not fit into the budget.

        """
        key, request = attempt.key, attempt.request
        if key.usd_a_month is None:
            return
        estimate = estimate_cost(attempt.task.arms[attempt.arm], request)
        limit = nanodollars(key.usd_a_month)
        reservation = Reservation(
            attempt_id(request.id, attempt.arm),
            key.name,
            request.at,
            estimate.nanodollars,
            limit,
            estimate.guessed,
        )
        attempt.reserved = await self.access.budgets.reserve(reservation)

    async def settled(self, attempt: Attempt) -> None:
        """Wait until what an attempt cost is written, so that its client's next call finds the right budget.

        If the store is slow the client gets its answer all the same: the reservation counts meanwhile.
        """
        if attempt.settled is not None:
            with suppress(StoreError, TimeoutError):
                async with asyncio.timeout(SETTLE_SECONDS):
                    await asyncio.wrap_future(attempt.settled)

    def record(self, attempt: Attempt, response: ArmResponse, outcome: Outcome = OK) -> CapturedRequest:
        """Count an answer and keep it, with its content if it is in the sample."""
        captured = self._captured(attempt, response, outcome)
        self.metrics.record(captured)
        if self.tracer is not None:
            self.tracer.record(captured)
        request_id = outcome.copy_of or outcome.attempt_of or captured.id
        in_sample = self.sample >= 1 or self._sampling_position(request_id) < self.sample
        kept = captured if in_sample else without_content(captured)
        outcomes = attempt.task.monitor.outcomes(captured)
        if outcomes:
            kept = replace(kept, outcomes=outcomes)
        if attempt.reserved:
            attempt.settled = self.writer.put_acknowledged(kept)
        else:
            self.writer.put(kept)
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
