"""One endpoint over several workers, each of which has the model: processes of a cluster, as a rule.

Who decides stays here: the recording, the spending cap and the order of the requests. A worker that dies
costs the requests it was answering, which another one gets.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Protocol

from tunepoint.errors import ModelError
from tunepoint.models.endpoints import Allow, Completion, Done, Request

POLL_SECONDS = 0.02
"""How often a request that may not be sent yet asks again."""
START_SECONDS = 1_800.0
"""After which a cluster where no worker starts is an error: time in which it trains for us does not count."""
QUICK_SECONDS = 1.0
"""A worker that is lost so soon after it got a request was lost before, and not over the request."""
MAX_DEATHS = 3
"""Deaths of workers that were answering the same request, from which the request counts as the cause."""


class WorkerLost(Exception):
    """A worker died, or its machine did."""


@dataclass(frozen=True)
class Answers:
    """What a worker made of some requests."""

    completions: dict[int, Completion]
    """Position among the requests -> completion; all of them without a fault."""
    fault: str | None = None
    """A fault that every request would have."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """What went wrong with single attempts, and how often."""


class Worker(Protocol):
    """A process that has the model."""

    started: Future[None]
    """Done when it can answer, or with the fault that keeps it from starting."""

    def answer(self, requests: Sequence[Request]) -> Future[Answers]:
        """Complete requests; the future fails with `WorkerLost` if it dies."""
        ...

    def stop(self) -> None:
        """End the process."""
        ...


@dataclass(frozen=True)
class Sharing:
    """How many requests a worker has."""

    at_once: int = 2
    """Groups of requests that are with one worker: the next is there when it has done one."""
    group: int = 8
    """Requests of a group, at most."""


@dataclass
class _Sent:
    """Requests that are with a worker."""

    worker: Worker
    positions: list[int]
    at: float = field(default_factory=time.monotonic)


@dataclass
class _Progress:
    """Where the completion of many requests stands."""

    waiting: deque[int]
    flying: dict[Future[Answers], _Sent] = field(default_factory=dict)
    deaths: dict[int, int] = field(default_factory=dict)
    """Position of a request -> workers that died over it."""
    fault: BaseException | None = None


class SpreadEndpoint:
    """Requests that several workers complete, under the name of one model."""

    def __init__(
        self,
        name: str,
        start: Callable[[], Worker],
        workers: int,
        sharing: Sharing,
        failures: dict[str, int] | None = None,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        """Prepare to start workers; the first request does.

        Args:
            name: of the model.
            start: starts a worker, and does not wait for it.
            workers: that are started; those for which no machine has room yet answer nothing.
            sharing: how many requests each has.
            failures: counts what went wrong with single attempts; a count of its own if None.
            busy: says whether the machines have other work of ours, for which workers wait.

        """
        self.name = name
        self._start = start
        self._size = workers
        self._sharing = sharing
        self.failures = {} if failures is None else failures
        self._busy = busy
        self._workers: list[Worker] = []
        self._last_loss = ""
        self._lost_early = 0
        """Workers that died before or as soon as they were asked, since the last answer."""

    def complete(self, requests: Sequence[Request], done: Done, allow: Allow) -> None:
        """Complete all requests; see `Endpoint`."""
        if not requests:
            return
        progress = _Progress(deque(range(len(requests))))
        idle_since = time.monotonic()
        while progress.flying or (progress.waiting and progress.fault is None):
            self._fill()
            if progress.fault is None:
                self._send(requests, allow, progress)
            if progress.flying:
                self._collect(done, progress)
                continue
            if self._busy():
                idle_since = time.monotonic()
            self._check_started(time.monotonic() - idle_since)
            time.sleep(POLL_SECONDS)
        if progress.fault is not None:
            raise progress.fault

    def close(self) -> None:
        """Stop the workers; the next request starts new ones."""
        for worker in self._workers:
            worker.stop()
        self._workers = []

    def _fill(self) -> None:
        """Start the workers that are missing, those included that died before they could answer."""
        lost = [worker for worker in self._workers if _lost(worker)]
        self._lost_early += len(lost)
        if self._lost_early > MAX_DEATHS * self._size:
            why = lost[-1].started.exception() if lost else self._last_loss
            self.close()
            raise ModelError(
                f"{self.name}: its workers die as soon as they start ({why}); see whether the model fits the "
                "machines' memory"
            )
        self._workers = [worker for worker in self._workers if worker not in lost]
        while len(self._workers) < self._size:
            self._workers.append(self._start())

    def _send(self, requests: Sequence[Request], allow: Allow, progress: _Progress) -> None:
        """Give every worker that has room the next requests that may be sent."""
        ready = [worker for worker in self._workers if _ready(worker)]
        for turn in range(self._sharing.at_once):
            for worker in ready:
                if sum(sent.worker is worker for sent in progress.flying.values()) > turn:
                    continue
                positions = self._allowed(requests, allow, progress, len(ready))
                if not positions:
                    return
                future = worker.answer([requests[position] for position in positions])
                progress.flying[future] = _Sent(worker, positions)

    def _allowed(
        self, requests: Sequence[Request], allow: Allow, progress: _Progress, workers: int
    ) -> list[int]:
        """The next positions; fewer near the end, so that all workers end at about the same time."""
        waiting, positions = progress.waiting, list[int]()
        share = -(-len(waiting) // (workers * self._sharing.at_once))
        while waiting and len(positions) < min(self._sharing.group, share):
            try:
                # one that comes back from a dead worker too: it may have been paid for, and is paid again
                if not allow(requests[waiting[0]]):
                    break
            except BaseException as stop:
                progress.fault = stop
                break
            positions.append(waiting.popleft())
        return positions

    def _collect(self, done: Done, progress: _Progress) -> None:
        finished, _ = wait(progress.flying, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
        for future in finished:
            sent = progress.flying.pop(future)
            try:
                answers = future.result()
            except WorkerLost as lost:
                self._replace(sent, progress, str(lost))
                continue
            except Exception as error:  # what is under way is waited for, and kept
                progress.fault = progress.fault or error
                continue
            self._lost_early = 0
            for failure, count in answers.failures.items():
                self.failures[failure] = self.failures.get(failure, 0) + count
            for place, completion in answers.completions.items():
                done(sent.positions[place], completion)
            if answers.fault is not None:
                progress.fault = progress.fault or ModelError(answers.fault)

    def _replace(self, sent: _Sent, progress: _Progress, why: str) -> None:
        """Give the requests of a dead worker back, and forget it."""
        self._last_loss = why
        self._workers = [worker for worker in self._workers if worker is not sent.worker]
        sent.worker.stop()
        early = time.monotonic() - sent.at < QUICK_SECONDS
        self._lost_early += early
        for position in reversed(sent.positions):
            progress.deaths[position] = progress.deaths.get(position, 0) + (not early)
            progress.waiting.appendleft(position)
        if max(progress.deaths.values()) >= MAX_DEATHS and progress.fault is None:
            progress.fault = ModelError(
                f"{self.name}: {MAX_DEATHS} workers died over the same request ({why}). All answers so far "
                "are kept: see whether the model fits the machines' memory, and run again"
            )

    def _check_started(self, seconds: float) -> None:
        """Raise the fault of workers that cannot start, once none is left that may."""
        ended = [worker.started for worker in self._workers if worker.started.done() and not _lost(worker)]
        faults = [error for started in ended if (error := started.exception()) is not None]
        if faults and len(faults) == len(self._workers):
            self.close()
            raise ModelError(f"{self.name}: no worker of the cluster could open it: {faults[0]}")
        if seconds > START_SECONDS and not any(map(_ready, self._workers)):
            raise ModelError(
                f"{self.name}: no worker started within {START_SECONDS:.0f} s; no machine of the cluster has "
                "room for one (`ray status` lists what is asked for)"
            )


def _ready(worker: Worker) -> bool:
    return worker.started.done() and worker.started.exception() is None


def _lost(worker: Worker) -> bool:
    return worker.started.done() and isinstance(worker.started.exception(), WorkerLost)
