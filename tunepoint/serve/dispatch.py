"""What happens to a request: routed, answered, tried elsewhere where that fails, captured."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace

from tunepoint.capture.records import CapturedRequest, Feedback, Role
from tunepoint.capture.writer import Writer
from tunepoint.errors import nearest
from tunepoint.serve.auth import Key
from tunepoint.serve.backends import ArmResponse, ServedArm
from tunepoint.serve.canary_monitor import CanaryMonitor
from tunepoint.serve.errors import broken, callers_refusal, fault_of, nobody_answered
from tunepoint.serve.opening import TaskArms
from tunepoint.serve.protocol import ChatRequest, RequestError, chunks
from tunepoint.serve.recording import DISCONNECTED, DISCONNECTED_BY_CALLER, OK, AnsweredBy, Outcome, Recorder
from tunepoint.serve.routing import Router
from tunepoint.serve.streaming import Relay, first_of
from tunepoint.serve.upstream import ArmFault, CallersFault

MOST_SHADOWS = 64
"""Copies that are being answered at the same time; more are left out."""
REMEMBERED = 10_000
"""Requests whose arm is known without the store, for feedback; others are looked up."""


@dataclass
class ServedTask:
    """One task as it serves."""

    arms: dict[str, ServedArm]
    timeouts: Mapping[str, float]
    router: Router
    opened: TaskArms
    watch: CanaryMonitor

    def take_over(self, before: ServedTask) -> None:
        """Go on from routes and outcomes of the same task before a reload."""
        if before.router.policy.arms() <= set(self.arms) and before.router.given == self.router.given:
            self.router.policy = before.router.policy
            self.watch = before.watch
            self.watch.router = self.router


@dataclass(slots=True)
class RequestOutcome:
    """An answer with the arm that gave it."""

    answered: ArmResponse
    arm: str
    role: Role


class Service:
    """Answers requests. One for a process; it lives in one event loop.

    Args:
        find: a request by its id, where it is too old to be remembered.

    """

    def __init__(
        self,
        tasks: Mapping[str, ServedTask],
        writer: Writer,
        recorder: Recorder,
        find: Callable[[str], CapturedRequest | None] = lambda request: None,
    ) -> None:
        self._find = find
        self.tasks = dict(tasks)
        self.writer, self.recorder = writer, recorder
        self._shadows: set[asyncio.Task[None]] = set()
        self._recent: OrderedDict[str, tuple[str, Role, str | None]] = OrderedDict()

    def task(self, name: str) -> ServedTask:
        """The task that a request names as its model.

        Raises:
            Refused: there is none.

        """
        found = self.tasks.get(name)
        if found is None:
            hint = nearest(name, self.tasks)
            raise RequestError(
                404, f"no task {name!r} is served; {hint}", code="model_not_found", param="model"
            )
        return found

    # -- whole answers ---------------------------------------------------------------------------

    async def answer(self, request: ChatRequest, key: Key) -> RequestOutcome:
        """The answer of the first arm that gives one.

        Raises:
            Refused: no arm answered, or the server says that the request is wrong.

        """
        served = self.task(request.task)
        faults: list[ArmFault] = []
        for name, role in served.router.plan(request):
            breaker = served.router.breakers[name]
            if not breaker.allows():
                faults.append(ArmFault("is not asked for a while: it failed too often", status=503))
                continue
            started = time.perf_counter()
            try:
                async with asyncio.timeout(served.timeouts[name]):
                    answered = await served.arms[name].answer(request)
            except Exception as error:
                faults.append(self._fault(request, served, AnsweredBy(name, role), key, error, started))
                continue
            except asyncio.CancelledError:
                breaker.left()
                self._failed(request, served, AnsweredBy(name, role), key, DISCONNECTED_BY_CALLER, started)
                raise
            breaker.succeeded()
            self._note(request, served, AnsweredBy(name, role), key, answered)
            self._shadow(request, served, name, key)
            return RequestOutcome(answered, name, role)
        raise nobody_answered(faults)

    # -- streams ---------------------------------------------------------------------------------

    async def stream(
        self, request: ChatRequest, key: Key, started_by: Callable[[str, Role], None]
    ) -> AsyncIterator[bytes]:
        """The events of an answer; another arm is tried until the first event has come.

        Args:
            started_by: called with the arm and its role before the first event.

        Raises:
            Refused: as `answer`, before the first event. Later faults are an event of their own.

        """
        served = self.task(request.task)
        faults: list[ArmFault] = []
        for name, role in served.router.plan(request):
            arm, breaker = served.arms[name], served.router.breakers[name]
            if not breaker.allows():
                faults.append(ArmFault("is not asked for a while: it failed too often", status=503))
                continue
            started = time.perf_counter()
            events = self._events(arm, request)
            try:
                async with asyncio.timeout(served.timeouts[name]):
                    first = await first_of(events)
            except Exception as error:
                faults.append(self._fault(request, served, AnsweredBy(name, role), key, error, started))
                continue
            except asyncio.CancelledError:
                breaker.left()
                self._failed(request, served, AnsweredBy(name, role), key, DISCONNECTED_BY_CALLER, started)
                raise
            started_by(name, role)
            rest = self._rest(request, served, AnsweredBy(name, role), key, events, first, started)
            async for event in rest:
                yield event
            return
        raise nobody_answered(faults)

    async def _events(self, arm: ServedArm, request: ChatRequest) -> AsyncIterator[bytes | ArmResponse]:
        """Raw bytes of a server's stream; or one whole answer."""
        opened = arm.stream(request)
        if opened is None:
            yield await arm.answer(request)
            return
        async with opened as raw:
            async for chunk in raw:
                yield chunk

    async def _rest(
        self,
        request: ChatRequest,
        served: ServedTask,
        by: AnsweredBy,
        key: Key,
        events: AsyncIterator[bytes | ArmResponse],
        first: bytes | ArmResponse,
        started: float,
    ) -> AsyncIterator[bytes]:
        """What the chosen arm sends, passed on as it comes; captured at its end, however it ends."""
        name, breaker = by.arm, served.router.breakers[by.arm]
        if isinstance(first, ArmResponse):
            breaker.succeeded()
            first.seconds = time.perf_counter() - started
            self._note(request, served, by, key, first)
            self._shadow(request, served, name, key)
            for event in chunks(request, first.whole):
                yield event
            return
        soon = time.perf_counter() - started
        relay, status, why = Relay(request), 200, None
        try:
            for event in relay.feed(first):
                yield event
            async for chunk in events:
                assert isinstance(chunk, bytes)
                for event in relay.feed(chunk):
                    yield event
            if not relay.done:
                status, why = 502, "the stream ended before its end"
                yield broken(why)
        except ArmFault as fault:
            status, why = fault.status, str(fault)
            yield broken(why)
        except (GeneratorExit, asyncio.CancelledError):
            status, why = DISCONNECTED, "the caller went away"
            raise
        finally:
            arm = served.arms[name]
            found = relay.answered(arm)
            if status == 200 and relay.error is not None:
                status, why = 502, relay.error
            breaker.succeeded() if status in (200, DISCONNECTED) else breaker.failed()
            found.seconds = time.perf_counter() - started
            self._note(request, served, by, key, found, Outcome(status, why, soon))
            if status == 200:
                self._shadow(request, served, name, key)

    # -- copies ----------------------------------------------------------------------------------

    def _shadow(self, request: ChatRequest, served: ServedTask, by: str, key: Key) -> None:
        """Have the shadow answer a copy, if it is its turn; the user does not wait for it."""
        shadow = served.router.policy.shadow
        if shadow is None or shadow == by or not served.router.is_shadowed(request):
            return
        if len(self._shadows) >= MOST_SHADOWS or not served.router.breakers[shadow].allows():
            return
        task = asyncio.get_running_loop().create_task(self._copy(request, served, shadow, key))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)

    async def _copy(self, request: ChatRequest, served: ServedTask, name: str, key: Key) -> None:
        copy = replace(request, id=f"{request.id}-copy")
        breaker, started = served.router.breakers[name], time.perf_counter()
        try:
            async with asyncio.timeout(served.timeouts[name]):
                answered = await served.arms[name].answer(copy)
        except CallersFault:
            breaker.succeeded()
            self._failed(
                copy, served, AnsweredBy(name, "shadow"), key, Outcome(422, copy_of=request.id), started
            )
            return
        except Exception as error:
            breaker.failed(getattr(error, "wait", None))
            ending = Outcome(502, type(error).__name__, copy_of=request.id)
            self._failed(copy, served, AnsweredBy(name, "shadow"), key, ending, started)
            return
        except BaseException:
            breaker.left()
            raise
        breaker.succeeded()
        self._note(copy, served, AnsweredBy(name, "shadow"), key, answered, Outcome(copy_of=request.id))

    # -- capture ---------------------------------------------------------------------------------

    def _note(
        self,
        request: ChatRequest,
        served: ServedTask,
        by: AnsweredBy,
        key: Key,
        found: ArmResponse,
        ending: Outcome = OK,
    ) -> None:
        """Count an answer, keep it, and remember who gave it."""
        one = self.recorder.note(request, served.opened.template, by, key, found, ending)
        served.watch.note(one)
        if ending.copy_of is None and ending.status == 200:
            self._recent[one.id] = (one.task, one.role, one.user)
            if len(self._recent) > REMEMBERED:
                self._recent.popitem(last=False)

    def _failed(
        self,
        request: ChatRequest,
        served: ServedTask,
        by: AnsweredBy,
        key: Key,
        ending: Outcome,
        started: float,
    ) -> None:
        """Count and keep a reply that did not come; its id is its own, for another arm may answer yet."""
        found = ArmResponse({}, "", served.arms[by.arm].model, seconds=time.perf_counter() - started)
        again = replace(request, id=f"{request.id}-{hashlib.sha256(by.arm.encode()).hexdigest()[:8]}")
        self._note(again, served, by, key, found, replace(ending, attempt_of=request.id))

    def _fault(
        self,
        request: ChatRequest,
        served: ServedTask,
        by: AnsweredBy,
        key: Key,
        error: Exception,
        started: float,
    ) -> ArmFault:
        """Why an arm did not answer; noted, and counted against it.

        Raises:
            Refused: its server says that the request is wrong; no other arm is asked.

        """
        breaker = served.router.breakers[by.arm]
        if isinstance(error, CallersFault):
            breaker.succeeded()
            self._failed(request, served, by, key, Outcome(error.status, "the request is wrong"), started)
            raise callers_refusal(error) from None
        fault = fault_of(error, served.timeouts[by.arm])
        breaker.failed(fault.wait)
        self._failed(request, served, by, key, Outcome(fault.status, str(fault)), started)
        return fault

    async def feedback(self, said: Feedback) -> None:
        """Keep feedback; returns when it is written.

        Raises:
            StoreError: it could not be written.

        """
        await asyncio.wrap_future(self.writer.say(said))
        known = self._recent.get(said.request)
        if known is None and any(one.router.policy.canary for one in self.tasks.values()):
            kept = await asyncio.to_thread(self._find, said.request)
            known = None if kept is None else (kept.task, kept.role, kept.user)
        if known is not None and known[0] in self.tasks:
            self.tasks[known[0]].watch.said(known[1], said, known[2])

    async def drain(self) -> None:
        """Wait for copies that are on their way."""
        if self._shadows:
            await asyncio.wait(self._shadows, timeout=5.0)
