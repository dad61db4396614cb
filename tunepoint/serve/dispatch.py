"""Answers requests: each is routed to an arm, retried on another one where that fails, and recorded."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from tunepoint.capture.records import CapturedRequest, Feedback, Role
from tunepoint.capture.writer import Writer
from tunepoint.errors import nearest
from tunepoint.serve.auth import Key
from tunepoint.serve.backends import ArmResponse, ServedArm
from tunepoint.serve.errors import arm_fault, bad_request_error, no_answer_error, stream_error
from tunepoint.serve.protocol import ChatRequest, RequestError, completion_chunks
from tunepoint.serve.recording import DISCONNECTED, DISCONNECTED_BY_CLIENT, OK, Attempt, Outcome, Recorder
from tunepoint.serve.streaming import Relay, read_first_event
from tunepoint.serve.tasks import ServedTask
from tunepoint.serve.upstream import ArmFault, BadRequestFault

T = TypeVar("T")
MAX_SHADOW_COPIES = 64
"""Copies that shadows answer at the same time; further ones are skipped."""
MAX_REMEMBERED = 10_000
"""Requests whose arm is remembered for feedback; older ones are looked up in the store."""


@dataclass(slots=True)
class Answer:
    """A response with the arm that gave it."""

    response: ArmResponse
    arm: str
    role: Role


class Dispatcher:
    """Answers the requests of all tasks. One for a process; it lives in one event loop.

    Args:
        find: looks up a request by its id, where it is too old to be remembered.

    """

    def __init__(
        self,
        tasks: Mapping[str, ServedTask],
        writer: Writer,
        recorder: Recorder,
        find: Callable[[str], CapturedRequest | None] = lambda request_id: None,
    ) -> None:
        self._find = find
        self.tasks = dict(tasks)
        self.writer, self.recorder = writer, recorder
        self._shadow_copies: set[asyncio.Task[None]] = set()
        self._recent: OrderedDict[str, tuple[str, Role, str | None]] = OrderedDict()
        """Request id -> task, role and user."""

    def task(self, name: str) -> ServedTask:
        """Return the task that a request names as its model.

        Raises:
            RequestError: no such task is served.

        """
        task = self.tasks.get(name)
        if task is None:
            hint = nearest(name, self.tasks)
            raise RequestError(
                404, f"no task {name!r} is served; {hint}", code="model_not_found", param="model"
            )
        return task

    # -- answers ---------------------------------------------------------------------------------

    async def answer(self, request: ChatRequest, key: Key) -> Answer:
        """Answer with the first arm that succeeds.

        Raises:
            RequestError: no arm answered, or the server says that the request is wrong.

        """
        attempt, response = await self._first_success(request, key, lambda arm: arm.answer(request))
        self._succeeded(attempt, response)
        return Answer(response, attempt.arm, attempt.role)

    async def stream(
        self, request: ChatRequest, key: Key, on_start: Callable[[str, Role], None]
    ) -> AsyncGenerator[bytes, None]:
        """Stream the events of an answer; another arm is tried until the first event is there.

        Args:
            on_start: called with the arm and its role before the first event.

        Raises:
            RequestError: as `answer`, before the first event. Later faults are an event of their own.

        """
        attempt, (first, events) = await self._first_success(
            request, key, lambda arm: _open_stream(arm, request)
        )
        on_start(attempt.arm, attempt.role)
        if isinstance(first, ArmResponse):
            first.seconds = time.perf_counter() - attempt.started
            self._succeeded(attempt, first)
            for event in completion_chunks(request, first.completion):
                yield event
            return
        async for event in self._relayed(attempt, first, events):
            yield event

    async def _first_success(
        self, request: ChatRequest, key: Key, call: Callable[[ServedArm], Awaitable[T]]
    ) -> tuple[Attempt, T]:
        """Call the arms of the plan in turn until one succeeds; failures are recorded."""
        task = self.task(request.task)
        faults: list[ArmFault] = []
        for arm, role in task.router.plan(request):
            breaker = task.router.breakers[arm]
            if not breaker.allows():
                faults.append(ArmFault("it is paused after repeated failures", status=503))
                continue
            attempt = Attempt(request, task, arm, role, key, time.perf_counter())
            try:
                async with asyncio.timeout(task.timeouts[arm]):
                    return attempt, await call(task.arms[arm])
            except Exception as error:
                faults.append(self._failed(attempt, error))
            except asyncio.CancelledError:
                breaker.abandoned()
                self._record_failure(attempt, DISCONNECTED_BY_CLIENT)
                raise
        raise no_answer_error(faults)

    def _succeeded(self, attempt: Attempt, response: ArmResponse) -> None:
        attempt.task.router.breakers[attempt.arm].succeeded()
        self._record(attempt, response)
        self._start_shadow(attempt)

    def _failed(self, attempt: Attempt, error: Exception) -> ArmFault:
        """Record a failure and count it against the arm.

        Raises:
            RequestError: the server says that the request is wrong; no other arm is called.

        """
        breaker = attempt.task.router.breakers[attempt.arm]
        if isinstance(error, BadRequestFault):
            breaker.succeeded()
            self._record_failure(attempt, Outcome(error.status, "the request is wrong"))
            raise bad_request_error(error) from None
        fault = arm_fault(error, attempt.task.timeouts[attempt.arm])
        breaker.failed(fault.wait)
        self._record_failure(attempt, Outcome(fault.status, str(fault)))
        return fault

    async def _relayed(
        self, attempt: Attempt, first: bytes, events: AsyncIterator[bytes | ArmResponse]
    ) -> AsyncIterator[bytes]:
        """Relay what the arm streams; it is recorded at its end, however it ends."""
        first_token = time.perf_counter() - attempt.started
        relay, status, reason = Relay(attempt.request), 200, None
        try:
            for event in relay.feed(first):
                yield event
            async for chunk in events:
                assert isinstance(chunk, bytes)
                for event in relay.feed(chunk):
                    yield event
            if not relay.done:
                status, reason = 502, "the stream ended without [DONE]"
                yield stream_error(reason)
        except ArmFault as fault:
            status, reason = fault.status, str(fault)
            yield stream_error(reason)
        except (GeneratorExit, asyncio.CancelledError):
            status, reason = DISCONNECTED_BY_CLIENT.status, DISCONNECTED_BY_CLIENT.error
            raise
        finally:
            response = relay.response(attempt.task.arms[attempt.arm])
            if status == 200 and relay.error is not None:
                status, reason = 502, relay.error
            breaker = attempt.task.router.breakers[attempt.arm]
            breaker.succeeded() if status in (200, DISCONNECTED) else breaker.failed()
            response.seconds = time.perf_counter() - attempt.started
            self._record(attempt, response, Outcome(status, reason, first_token))
            if status == 200:
                self._start_shadow(attempt)

    # -- copies for the shadow -------------------------------------------------------------------

    def _start_shadow(self, attempt: Attempt) -> None:
        """Let the shadow answer a copy in the background, if the request is in its share."""
        router = attempt.task.router
        shadow = router.policy.shadow
        if shadow is None or shadow == attempt.arm or not router.is_shadowed(attempt.request):
            return
        if len(self._shadow_copies) >= MAX_SHADOW_COPIES or not router.breakers[shadow].allows():
            return
        copy = asyncio.get_running_loop().create_task(self._answer_copy(attempt, shadow))
        # The loop keeps only weak references to its tasks: without ours a copy could vanish.
        self._shadow_copies.add(copy)
        copy.add_done_callback(self._shadow_copies.discard)

    async def _answer_copy(self, original: Attempt, shadow: str) -> None:
        request, task = original.request, original.task
        copy = replace(request, id=f"{request.id}-copy")
        attempt = Attempt(copy, task, shadow, "shadow", original.key, time.perf_counter())
        breaker = task.router.breakers[shadow]
        try:
            async with asyncio.timeout(task.timeouts[shadow]):
                response = await task.arms[shadow].answer(copy)
        except BadRequestFault:
            breaker.succeeded()
            self._record_failure(attempt, Outcome(422, copy_of=request.id))
        except Exception as error:
            breaker.failed(error.wait if isinstance(error, ArmFault) else None)
            self._record_failure(attempt, Outcome(502, type(error).__name__, copy_of=request.id))
        except BaseException:
            breaker.abandoned()
            raise
        else:
            breaker.succeeded()
            self._record(attempt, response, Outcome(copy_of=request.id))

    async def drain(self) -> None:
        """Wait for the shadow's copies that are on their way."""
        if self._shadow_copies:
            await asyncio.wait(self._shadow_copies, timeout=5.0)

    # -- recording -------------------------------------------------------------------------------

    def _record(self, attempt: Attempt, response: ArmResponse, outcome: Outcome = OK) -> None:
        """Record an answer, and remember who gave it."""
        captured = self.recorder.record(attempt, response, outcome)
        attempt.task.monitor.record(captured)
        if outcome.copy_of is None and outcome.status == 200:
            self._recent[captured.id] = (captured.task, captured.role, captured.user)
            if len(self._recent) > MAX_REMEMBERED:
                self._recent.popitem(last=False)

    def _record_failure(self, attempt: Attempt, outcome: Outcome) -> None:
        """Record a failed answer, under an id of its own: another arm may answer under the request's."""
        request, arm = attempt.request, attempt.arm
        seconds = time.perf_counter() - attempt.started
        response = ArmResponse({}, "", attempt.task.arms[arm].model, seconds=seconds)
        suffix = hashlib.sha256(arm.encode()).hexdigest()[:8]
        failed = replace(attempt, request=replace(request, id=f"{request.id}-{suffix}"))
        self._record(failed, response, replace(outcome, attempt_of=request.id))

    async def feedback(self, feedback: Feedback) -> None:
        """Keep feedback, and count it for the canary; returns when it is written.

        Raises:
            StoreError: it could not be written.

        """
        await asyncio.wrap_future(self.writer.put_feedback(feedback))
        answered = self._recent.get(feedback.request)
        if answered is None and any(task.router.policy.canary for task in self.tasks.values()):
            stored = await asyncio.to_thread(self._find, feedback.request)
            answered = None if stored is None else (stored.task, stored.role, stored.user)
        if answered is None:
            return
        task, role, user = answered
        if task in self.tasks:
            self.tasks[task].monitor.record_feedback(role, feedback, user)


async def _open_stream(
    arm: ServedArm, request: ChatRequest
) -> tuple[bytes | ArmResponse, AsyncIterator[bytes | ArmResponse]]:
    """Start an arm's answer: what its stream begins with, or the whole answer; and the rest."""
    events = _events(arm, request)
    return await read_first_event(events), events


async def _events(arm: ServedArm, request: ChatRequest) -> AsyncIterator[bytes | ArmResponse]:
    """Raw bytes of a server's stream; or one whole answer, from an arm that cannot stream."""
    stream = arm.stream(request)
    if stream is None:
        yield await arm.answer(request)
        return
    async with stream as chunks:
        async for chunk in chunks:
            yield chunk
