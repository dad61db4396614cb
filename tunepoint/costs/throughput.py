"""How much one server sustains: requests at rising concurrency, until they take too long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tunepoint.data.prepare import prepare
from tunepoint.errors import ModelError
from tunepoint.files.text import write_json
from tunepoint.models.chat import Turn
from tunepoint.models.endpoints import Completion, Endpoint, Request, always
from tunepoint.task.task import Task

STEPS = (1, 2, 4, 8, 16, 32, 64, 128)
"""Requests at once, one step after the other."""
GAINS = 1.05
"""A step that brings less than this much more requests a second shows saturation."""
MOST_INPUTS = 500
SHORT = "Say hello in one word."
Open = Callable[[int], Endpoint]
"""Requests at once -> an endpoint that sends so many."""


@dataclass(frozen=True)
class LoadStep:
    """What one concurrency gave."""

    concurrency: int
    requests_per_second: float
    tokens_per_second: float
    """Of output."""
    p50_seconds: float
    p95_seconds: float
    errors: int
    requests: int


@dataclass(frozen=True)
class Throughput:
    """All steps of a server."""

    endpoint: str
    steps: tuple[LoadStep, ...]
    p95_limit: float | None

    @property
    def sustained(self) -> LoadStep | None:
        """The step with the most requests a second without an error and within the limit; None if none is."""
        fit = [
            one
            for one in self.steps
            if not one.errors and (self.p95_limit is None or one.p95_seconds <= self.p95_limit)
        ]
        return max(fit, key=lambda one: one.requests_per_second, default=None)

    def write(self, path: Path) -> None:
        """As JSON."""
        steps = [vars(one) for one in self.steps]
        write_json(path, {"endpoint": self.endpoint, "p95_limit": self.p95_limit, "steps": steps})


def inputs_of(task: Task, seed: int) -> list[str]:
    """Some inputs of a task, none of them sealed; a short question where it has no data.

    Args:
        task: whose inputs are sent.
        seed: of the split, see `study.seal.seed_of_seal`.

    """
    if task.data is None:
        return [SHORT]
    split = prepare(task, seed).split
    return [example.input for example in (*split.train, *split.dev)[:MOST_INPUTS]]


def measure_throughput(
    name: str,
    open_endpoint: Open,
    inputs: Sequence[str],
    *,
    seconds: float = 5.0,
    p95_limit: float | None = None,
    most: int = STEPS[-1],
    output_tokens: int = 64,
    said: Callable[[LoadStep], None] | None = None,
) -> Throughput:
    """Ask a server more and more at once, until it fails, is too slow, or gives no more.

    Args:
        name: of the endpoint, for the record.
        inputs: what is asked, in turn; real ones, for lengths decide.
        seconds: of each step, about; a step has sixteen requests for each one at once at least.
        p95_limit: seconds; a step over it is the last.
        output_tokens: that an answer may have.
        said: called after each step.

    Raises:
        ModelError: no request was answered at all.

    """
    steps: list[LoadStep] = []
    for concurrency in (one for one in STEPS if one <= most):
        try:
            found = _step(open_endpoint(concurrency), concurrency, inputs, seconds, output_tokens)
        except ModelError:
            if not steps:
                raise
            break  # what held before it is what counts
        steps.append(found)
        if said is not None:
            said(found)
        slow = p95_limit is not None and found.p95_seconds > p95_limit
        flat = len(steps) > 1 and found.requests_per_second < GAINS * steps[-2].requests_per_second
        if slow or flat or found.errors:
            break
    if steps[0].errors == steps[0].requests:
        raise ModelError(f"{name}: none of {steps[0].requests} requests was answered; see that it is running")
    return Throughput(name, tuple(steps), p95_limit)


WAVES = 16
"""Answers of each place in a step, at least: at its end places stand empty."""


def _step(
    endpoint: Endpoint, concurrency: int, inputs: Sequence[str], seconds: float, tokens: int
) -> LoadStep:
    """Keep so many requests on their way for about so long; two waves before it warm the server up."""
    wave = _Run(endpoint, inputs, tokens)
    wave.ask(concurrency)
    again = _Run(endpoint, inputs, tokens, wave.asked)
    again.ask(concurrency)  # the first wave may have loaded the model: the second one tells the pace
    run = _Run(endpoint, inputs, tokens, again.asked)
    run.ask(max(WAVES * concurrency, round(seconds * concurrency / max(again.elapsed, 1e-3))))
    p50, p95 = np.quantile(run.taken, [0.5, 0.95]).tolist() if run.taken else (float("inf"), float("inf"))
    served = (run.asked - again.asked - run.errors) / run.elapsed
    return LoadStep(
        concurrency, served, run.answered / run.elapsed, p50, p95, run.errors, run.asked - again.asked
    )


class _Run:
    """Requests that were sent at once, and what came back."""

    def __init__(self, endpoint: Endpoint, inputs: Sequence[str], tokens: int, asked: int = 0) -> None:
        self.endpoint, self.inputs, self.tokens, self.asked = endpoint, inputs, tokens, asked
        self.taken: list[float] = []
        self.errors = self.answered = 0
        self.elapsed = 0.0
        self._lock = threading.Lock()

    def ask(self, count: int) -> None:
        """Send so many and wait for all."""
        batch = [
            Request((Turn("user", self.inputs[i % len(self.inputs)]),), self.tokens, sample=i)
            for i in range(self.asked, self.asked + count)
        ]
        started = time.perf_counter()
        self.endpoint.complete(batch, self._done, always)
        self.elapsed = time.perf_counter() - started
        self.asked += count

    def _done(self, position: int, completion: Completion) -> None:
        with self._lock:
            failed = completion.error is not None and not completion.text
            self.errors += failed
            self.answered += completion.usage.output_tokens
            if completion.usage.seconds is not None and not failed:
                self.taken.append(completion.usage.seconds)
