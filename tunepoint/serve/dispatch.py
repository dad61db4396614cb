"""Answers requests: each is routed to an arm, retried on another one where that fails, and recorded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeVar

from tunepoint.capture.records import Feedback, Role, attempt_id
from tunepoint.capture.writer import Writer
from tunepoint.errors import StoreError, nearest
from tunepoint.serve.auth import Key
from tunepoint.serve.backends import ArmResponse, ServedArm
from tunepoint.serve.errors import arm_fault, bad_request_error, no_answer_error, stream_error
from tunepoint.serve.feedback import AnsweredRequests, check_right, check_room, with_target
from tunepoint.serve.protocol import ChatRequest, RequestError, completion_chunks
from tunepoint.serve.recording import DISCONNECTED, DISCONNECTED_BY_CLIENT, OK, Attempt, Outcome, Recorder
from tunepoint.serve.streaming import OpenStream, open_stream
from tunepoint.serve.tasks import ServedTask
from tunepoint.serve.upstream import ArmFault, BadRequestFault

T = TypeVar("T")
MAX_SHADOW_COPIES = 64
"""Copies that shadows answer at the same time; further ones are skipped."""


@dataclass(slots=True)
class Answer:
    """A response with the arm that gave it."""

    response: ArmResponse
    arm: str
    role: Role


class Dispatcher:
    """Answers the requests of all tasks. One for a process; it lives in one event loop.

    Args:
        answered: the requests that feedback may be about.

    """

    def __init__(
        self,
        tasks: Mapping[str, ServedTask],
        writer: Writer,
        recorder: Recorder,
        answered: AnsweredRequests,
    ) -> None:
        self.answered = answered
        self.tasks = dict(tasks)
        self.writer, self.recorder = writer, recorder
        self._shadow_copies: set[asyncio.Task[None]] = set()

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
        await self.recorder.settled(attempt)
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
        attempt, stream = await self._first_success(request, key, lambda arm: open_stream(arm, request))
        on_start(attempt.arm, attempt.role)
        whole = stream.whole
        if whole is None:
            async for event in self._relayed(attempt, stream):
                yield event
            await self.recorder.settled(attempt)
            return
        await stream.close()
        whole.seconds = time.perf_counter() - attempt.started
        self._succeeded(attempt, whole)
        await self.recorder.settled(attempt)
        for event in completion_chunks(request, whole.completion):
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
                await self.recorder.reserve(attempt)
            except BaseException:
                breaker.abandoned()
                raise
            try:
                async with asyncio.timeout(task.timeouts[arm]):
                    return attempt, await call(task.arms[arm])
            except Exception as error:
                faults.append(self._failed(attempt, error))
                await self.recorder.settled(attempt)  # what it reserved is there for the next arm
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

    async def _relayed(self, attempt: Attempt, stream: OpenStream) -> AsyncIterator[bytes]:
        """Relay what the arm streams; it is recorded at its end, however it ends."""
        first_token = time.perf_counter() - attempt.started
        relay, status, reason = stream.relay, 200, None
        try:
            async with aclosing(stream.events()) as passed:
                async for events in passed:
                    yield events
            if relay.error is not None:
                status, reason = 502, relay.error
            elif not relay.done:
                status, reason = 502, "the stream ended without [DONE]"
            if reason is not None:
                yield stream_error(reason)
        except (GeneratorExit, asyncio.CancelledError):
            if not relay.done:  # clients leave at [DONE], which is no interruption
                status, reason = DISCONNECTED_BY_CLIENT.status, DISCONNECTED_BY_CLIENT.error
            raise
        except Exception as error:
            fault = arm_fault(error, attempt.task.timeouts[attempt.arm])
            status, reason = fault.status, str(fault)
            yield stream_error(reason)
        finally:
            response = relay.response(attempt.task.arms[attempt.arm])
            breaker = attempt.task.router.breakers[attempt.arm]
            breaker.succeeded() if status in (200, DISCONNECTED) else breaker.failed()
            response.seconds = time.perf_counter() - attempt.started
            self._record(attempt, response, Outcome(status, reason, first_token))
            if status == 200:
                self._start_shadow(attempt)
            await stream.close()  # last, as it may wait for the server

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
            await self.recorder.reserve(attempt)
        except RequestError:
            breaker.abandoned()  # the key's budget has no room for a copy
            return
        try:
            async with asyncio.timeout(task.timeouts[shadow]):
                response = await task.arms[shadow].answer(copy)
        except BadRequestFault:
            breaker.succeeded()
            self._record_failure(attempt, Outcome(422, copy_of=request.id))
        except Exception as error:
            fault = arm_fault(error, task.timeouts[shadow])
            breaker.failed(fault.wait)
            self._record_failure(attempt, Outcome(fault.status, str(fault), copy_of=request.id))
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
        if outcome.copy_of is None and outcome.status == 200:
            self.answered.remember(captured)

    def _record_failure(self, attempt: Attempt, outcome: Outcome) -> None:
        """Record a failed answer, under an id of its own: another arm may answer under the request's."""
        request, arm = attempt.request, attempt.arm
        seconds = time.perf_counter() - attempt.started
        response = ArmResponse({}, "", attempt.task.arms[arm].model, seconds=seconds)
        failed = replace(attempt, request=replace(request, id=attempt_id(request.id, arm)))
        self._record(failed, response, replace(outcome, attempt_of=request.id))
        attempt.settled = failed.settled

    async def feedback(self, feedback: Feedback, key: Key | None = None) -> None:
        """Keep feedback, and count it for the canary; returns when it is written.

        Args:
            feedback: as it was given.
            key: with which it was given; None where no key is needed.

        Raises:
            RequestError: no such request, one of another key, or a correction that is no answer of the task.
            StoreError: it could not be written.

        """
        answered = await self.answered.find(feedback.request)
        check_right(answered, key)
        task = self.tasks.get(answered.task)
        feedback = with_target(feedback, None if task is None else task.template)
        check_room(answered)
        if task is not None:
            outcomes = task.monitor.outcomes_of_feedback(answered.role, feedback, answered.user)
            feedback = replace(feedback, outcomes=outcomes)
        answered.entries += 1
        try:
            await asyncio.wrap_future(self.writer.put_feedback(feedback))
        except StoreError:
            answered.entries -= 1
            raise
