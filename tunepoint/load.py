"""How much one server sustains: requests at rising concurrency, until they take too long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tunepoint.data.examples import read_examples
from tunepoint.errors import ModelError
from tunepoint.measure.trials import write_json
from tunepoint.models.chat import Turn
from tunepoint.models.endpoints import Completion, Endpoint, Request, always
from tunepoint.task import Task

STEPS = (1, 2, 4, 8, 16, 32, 64, 128)
"""Requests at once, one step after the other."""
GAINS = 1.05
"""A step that brings less than this much more requests a second shows saturation."""
MOST_INPUTS = 500
SHORT = "Say hello in one word."
Open = Callable[[int], Endpoint]
"""Requests at once -> an endpoint that sends so many."""


@dataclass(frozen=True)
class Step:
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
class Load:
    """All steps of a server."""

    endpoint: str
    steps: tuple[Step, ...]
    p95_limit: float | None

    @property
    def sustained(self) -> Step | None:
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


def inputs_of(task: Task) -> list[str]:
    """Some inputs of a task, in the order of its file; a short question where it has no data."""
    if task.data is None:
        return [SHORT]
    path = task.data.path if task.data.path is not None else task.data.train
    assert path is not None, "a task with data has one of them"
    examples, _ = read_examples(task.resolve(path), task.data.columns)
    return [example.input for example in examples[:MOST_INPUTS]]


def load(
    name: str,
    open_endpoint: Open,
    inputs: Sequence[str],
    *,
    seconds: float = 5.0,
    p95_limit: float | None = None,
    most: int = STEPS[-1],
    output_tokens: int = 64,
    said: Callable[[Step], None] | None = None,
) -> Load:
    """Ask a server more and more at once, until it fails, is too slow, or gives no more.

    Args:
        name: of the endpoint, for the record.
        inputs: what is asked, in turn; real ones, for lengths decide.
        seconds: of each step, about; a step has four requests for each one at once at least.
        p95_limit: seconds; a step over it is the last.
        output_tokens: that an answer may have.
        said: called after each step.

    Raises:
        ModelError: no request was answered at all.

    """
    steps: list[Step] = []
    for concurrency in (one for one in STEPS if one <= most):
        found = _step(open_endpoint(concurrency), concurrency, inputs, seconds, output_tokens)
        steps.append(found)
        if said is not None:
            said(found)
        slow = p95_limit is not None and found.p95_seconds > p95_limit
        flat = len(steps) > 1 and found.requests_per_second < GAINS * steps[-2].requests_per_second
        if slow or flat or found.errors:
            break
    if steps[0].errors == steps[0].requests:
        raise ModelError(f"{name}: none of {steps[0].requests} requests was answered; see that it is running")
    return Load(name, tuple(steps), p95_limit)


def _step(endpoint: Endpoint, concurrency: int, inputs: Sequence[str], seconds: float, tokens: int) -> Step:
    """Keep so many requests on their way for about so long."""
    lock, asked, taken, errors, answered = threading.Lock(), 0, list[float](), 0, 0
    started = time.perf_counter()
    while time.perf_counter() - started < seconds or asked < 4 * concurrency:
        count = 4 * concurrency
        batch = [
            Request((Turn("user", inputs[(asked + i) % len(inputs)]),), tokens, sample=asked + i)
            for i in range(count)
        ]

        def done(position: int, completion: Completion) -> None:
            nonlocal errors, answered
            with lock:
                failed = completion.error is not None and not completion.text
                errors += failed
                answered += completion.usage.output_tokens
                if completion.usage.seconds is not None and not failed:
                    taken.append(completion.usage.seconds)

        endpoint.complete(batch, done, always)
        asked += count
    elapsed = time.perf_counter() - started
    p50, p95 = np.quantile(taken, [0.5, 0.95]).tolist() if taken else (float("inf"), float("inf"))
    return Step(concurrency, (asked - errors) / elapsed, answered / elapsed, p50, p95, errors, asked)
