"""What happens to a request: routed, answered, tried elsewhere where that fails, captured."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace

from tunepoint.capture.records import Captured, Feedback, Role
from tunepoint.capture.writer import Writer
from tunepoint.errors import nearest
from tunepoint.serve.auth import Key
from tunepoint.serve.backends import Answered, ServedArm
from tunepoint.serve.canary_monitor import Watch
from tunepoint.serve.errors import broken, callers_refusal, fault_of, nobody_answered
from tunepoint.serve.opening import TaskArms
from tunepoint.serve.protocol import Asked, Refused, chunks
from tunepoint.serve.recording import DISCONNECTED, DONE_WELL, LEFT, By, Ending, Recorder
from tunepoint.serve.routing import Router
from tunepoint.serve.streaming import Relay, first_of
from tunepoint.serve.upstream import ArmFault, CallersFault

MOST_SHADOWS = 64
"""Copies that are being answered at the same time; more are left out."""
REMEMBERED = 10_000
"""Requests whose arm is known without the store, for feedback; others are looked up."""


@dataclass
class Served:
    """One task as it serves."""

    arms: dict[str, ServedArm]
    timeouts: Mapping[str, float]
    router: Router
    opened: TaskArms
    watch: Watch

    def take_over(self, before: Served) -> None:
        """Go on from routes and outcomes of the same task before a reload."""
        if before.router.policy.arms() <= set(self.arms) and before.router.given == self.router.given:
            self.router.policy = before.router.policy
            self.watch = before.watch
            self.watch.router = self.router


@dataclass(slots=True)
class Outcome:
    """An answer with the arm that gave it."""

    answered: Answered
    arm: str
    role: Role


class Service:
    """Answers requests. One for a process; it lives in one event loop.

    Args:
        find: a request by its id, where it is too old to be remembered.

    """

    def __init__(
        self,
        tasks: Mapping[str, Served],
        writer: Writer,
        recorder: Recorder,
        find: Callable[[str], Captured | None] = lambda request: None,
    ) -> None:
        self._find = find
        self.tasks = dict(tasks)
        self.writer, self.recorder = writer, recorder
        self._shadows: set[asyncio.Task[None]] = set()
        self._recent: OrderedDict[str, tuple[str, Role, str | None]] = OrderedDict()

    def task(self, name: str) -> Served:
        """The task that a request names as its model.

        Raises:
            Refused: there is none.

        """
        found = self.tasks.get(name)
        if found is None:
            hint = nearest(name, self.tasks)
            raise Refused(404, f"no task {name!r} is served; {hint}", code="model_not_found", param="model")
        return found

    # -- whole answers ---------------------------------------------------------------------------

    async def answer(self, asked: Asked, key: Key) -> Outcome:
        """The answer of the first arm that gives one.

        Raises:
            Refused: no arm answered, or the server says that the request is wrong.

        """
        served = self.task(asked.task)
        faults: list[ArmFault] = []
        for name, role in served.router.plan(asked):
            breaker = served.router.breakers[name]
            if not breaker.allows():
                faults.append(ArmFault("is not asked for a while: it failed too often", status=503))
                continue
            started = time.perf_counter()
            try:
                async with asyncio.timeout(served.timeouts[name]):
                    answered = await served.arms[name].answer(asked)
            except Exception as error:
                faults.append(self._fault(asked, served, By(name, role), key, error, started))
                continue
            except asyncio.CancelledError:
                breaker.left()
                self._failed(asked, served, By(name, role), key, LEFT, started)
                raise
            breaker.succeeded()
            self._note(asked, served, By(name, role), key, answered)
            self._shadow(asked, served, name, key)
            return Outcome(answered, name, role)
        raise nobody_answered(faults)

    # -- streams ---------------------------------------------------------------------------------

    async def stream(
        self, asked: Asked, key: Key, started_by: Callable[[str, Role], None]
    ) -> AsyncIterator[bytes]:
        """The events of an answer; another arm is tried until the first event has come.

        Args:
            started_by: called with the arm and its role before the first event.

        Raises:
            Refused: as `answer`, before the first event. Later faults are an event of their own.

        """
        served = self.task(asked.task)
        faults: list[ArmFault] = []
        for name, role in served.router.plan(asked):
            arm, breaker = served.arms[name], served.router.breakers[name]
            if not breaker.allows():
                faults.append(ArmFault("is not asked for a while: it failed too often", status=503))
                continue
            started = time.perf_counter()
            events = self._events(arm, asked)
            try:
                async with asyncio.timeout(served.timeouts[name]):
                    first = await first_of(events)
            except Exception as error:
                faults.append(self._fault(asked, served, By(name, role), key, error, started))
                continue
            except asyncio.CancelledError:
                breaker.left()
                self._failed(asked, served, By(name, role), key, LEFT, started)
                raise
            started_by(name, role)
            rest = self._rest(asked, served, By(name, role), key, events, first, started)
            async for event in rest:
                yield event
            return
        raise nobody_answered(faults)

    async def _events(self, arm: ServedArm, asked: Asked) -> AsyncIterator[bytes | Answered]:
        """Raw bytes of a server's stream; or one whole answer."""
        opened = arm.stream(asked)
        if opened is None:
            yield await arm.answer(asked)
            return
        async with opened as raw:
            async for chunk in raw:
                yield chunk

    async def _rest(
        self,
        asked: Asked,
        served: Served,
        by: By,
        key: Key,
        events: AsyncIterator[bytes | Answered],
        first: bytes | Answered,
        started: float,
    ) -> AsyncIterator[bytes]:
        """What the chosen arm sends, passed on as it comes; captured at its end, however it ends."""
        name, breaker = by.arm, served.router.breakers[by.arm]
        if isinstance(first, Answered):
            breaker.succeeded()
            first.seconds = time.perf_counter() - started
            self._note(asked, served, by, key, first)
            self._shadow(asked, served, name, key)
            for event in chunks(asked, first.whole):
                yield event
            return
        soon = time.perf_counter() - started
        relay, status, why = Relay(asked), 200, None
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
            self._note(asked, served, by, key, found, Ending(status, why, soon))
            if status == 200:
                self._shadow(asked, served, name, key)

    # -- copies ----------------------------------------------------------------------------------

    def _shadow(self, asked: Asked, served: Served, by: str, key: Key) -> None:
        """Have the shadow answer a copy, if it is its turn; the user does not wait for it."""
        shadow = served.router.policy.shadow
        if shadow is None or shadow == by or not served.router.is_shadowed(asked):
            return
        if len(self._shadows) >= MOST_SHADOWS or not served.router.breakers[shadow].allows():
            return
        task = asyncio.get_running_loop().create_task(self._copy(asked, served, shadow, key))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)

    async def _copy(self, asked: Asked, served: Served, name: str, key: Key) -> None:
        copy = replace(asked, id=f"{asked.id}-copy")
        breaker, started = served.router.breakers[name], time.perf_counter()
        try:
            async with asyncio.timeout(served.timeouts[name]):
                answered = await served.arms[name].answer(copy)
        except CallersFault:
            breaker.succeeded()
            self._failed(copy, served, By(name, "shadow"), key, Ending(422, copy_of=asked.id), started)
            return
        except Exception as error:
            breaker.failed(getattr(error, "wait", None))
            ending = Ending(502, type(error).__name__, copy_of=asked.id)
            self._failed(copy, served, By(name, "shadow"), key, ending, started)
            return
        except BaseException:
            breaker.left()
            raise
        breaker.succeeded()
        self._note(copy, served, By(name, "shadow"), key, answered, Ending(copy_of=asked.id))

    # -- capture ---------------------------------------------------------------------------------

    def _note(
        self, asked: Asked, served: Served, by: By, key: Key, found: Answered, ending: Ending = DONE_WELL
    ) -> None:
        """Count an answer, keep it, and remember who gave it."""
        one = self.recorder.note(asked, served.opened.template, by, key, found, ending)
        served.watch.note(one)
        if ending.copy_of is None and ending.status == 200:
            self._recent[one.id] = (one.task, one.role, one.user)
            if len(self._recent) > REMEMBERED:
                self._recent.popitem(last=False)

    def _failed(self, asked: Asked, served: Served, by: By, key: Key, ending: Ending, started: float) -> None:
        """Count and keep a reply that did not come; its id is its own, for another arm may answer yet."""
        found = Answered({}, "", served.arms[by.arm].model, seconds=time.perf_counter() - started)
        again = replace(asked, id=f"{asked.id}-{hashlib.sha256(by.arm.encode()).hexdigest()[:8]}")
        self._note(again, served, by, key, found, replace(ending, attempt_of=asked.id))

    def _fault(
        self, asked: Asked, served: Served, by: By, key: Key, error: Exception, started: float
    ) -> ArmFault:
        """Why an arm did not answer; noted, and counted against it.

        Raises:
            Refused: its server says that the request is wrong; no other arm is asked.

        """
        breaker = served.router.breakers[by.arm]
        if isinstance(error, CallersFault):
            breaker.succeeded()
            self._failed(asked, served, by, key, Ending(error.status, "the request is wrong"), started)
            raise callers_refusal(error) from None
        fault = fault_of(error, served.timeouts[by.arm])
        breaker.failed(fault.wait)
        self._failed(asked, served, by, key, Ending(fault.status, str(fault)), started)
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
