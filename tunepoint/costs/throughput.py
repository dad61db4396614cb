"""Load test of a server: requests at rising concurrency, until they take too long."""

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
from tunepoint.models.chat import Message
from tunepoint.models.endpoints import Completion, Endpoint, Request, allow_all
from tunepoint.task.task import Task

CONCURRENCY_STEPS = (1, 2, 4, 8, 16, 32, 64, 128)
"""Requests in flight at once, one step after the other."""
SATURATION_GAIN = 1.05
"""A step that serves less than this times the requests a second of the one before shows saturation."""
MIN_WAVES = 16
"""Requests of a step for each place, at least: at the end of a step places stand empty, which biases it."""
MAX_INPUTS = 500
SHORT_QUESTION = "Say hello in one word."
OpenEndpoint = Callable[[int], Endpoint]
"""Concurrency -> an endpoint that sends that many requests at once."""


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
    """All steps of a load test."""

    endpoint: str
    steps: tuple[LoadStep, ...]
    p95_limit: float | None

    @property
    def sustained(self) -> LoadStep | None:
        """The step with the most requests a second, without errors and within the limit; None if none is."""
        within_limits = [
            step
            for step in self.steps
            if not step.errors and (self.p95_limit is None or step.p95_seconds <= self.p95_limit)
        ]
        return max(within_limits, key=lambda step: step.requests_per_second, default=None)

    def write(self, path: Path) -> None:
        """Write all steps as JSON."""
        steps = [vars(step) for step in self.steps]
        write_json(path, {"endpoint": self.endpoint, "p95_limit": self.p95_limit, "steps": steps})


def inputs_of(task: Task, seed: int) -> list[str]:
    """Return some inputs of a task, none from its test set; a short question where it has no data.

    Args:
        task: whose inputs are sent.
        seed: of the split, see `study.seal.seed_of_seal`.

    """
    if task.data is None:
        return [SHORT_QUESTION]
    split = prepare(task, seed).split
    return [example.input for example in (*split.train, *split.dev)[:MAX_INPUTS]]


def measure_throughput(
    name: str,
    open_endpoint: OpenEndpoint,
    inputs: Sequence[str],
    *,
    seconds: float = 5.0,
    p95_limit: float | None = None,
    max_concurrency: int = CONCURRENCY_STEPS[-1],
    output_tokens: int = 64,
    on_step: Callable[[LoadStep], None] | None = None,
) -> Throughput:
    """Raise the concurrency until the server fails, is too slow, or serves no more requests a second.

    Args:
        name: of the endpoint, for the record.
        open_endpoint: makes the endpoint of each step.
        inputs: prompts to send in turn; real ones, because their lengths decide.
        seconds: of each step, roughly; a step has at least sixteen requests per place.
        p95_limit: seconds; a step over it is the last.
        max_concurrency: the highest step.
        output_tokens: limit for each answer.
        on_step: called after each step.

    Raises:
        ModelError: the server answered no request at all.

    """
    steps: list[LoadStep] = []
    for concurrency in (step for step in CONCURRENCY_STEPS if step <= max_concurrency):
        try:
            step = _measure_step(open_endpoint(concurrency), concurrency, inputs, seconds, output_tokens)
        except ModelError:
            if not steps:
                raise
            break  # the server went down under the load; the steps before it stand
        steps.append(step)
        if on_step is not None:
            on_step(step)
        slow = p95_limit is not None and step.p95_seconds > p95_limit
        saturated = (
            len(steps) > 1 and step.requests_per_second < SATURATION_GAIN * steps[-2].requests_per_second
        )
        if slow or saturated or step.errors:
            break
    if steps[0].errors == steps[0].requests:
        raise ModelError(f"{name}: none of {steps[0].requests} requests was answered; see that it is running")
    return Throughput(name, tuple(steps), p95_limit)


def _measure_step(
    endpoint: Endpoint, concurrency: int, inputs: Sequence[str], seconds: float, output_tokens: int
) -> LoadStep:
    """Keep `concurrency` requests in flight for about `seconds`, after two waves that warm the server up."""
    warm_up = _Wave(endpoint, inputs, output_tokens)
    warm_up.send(concurrency)
    # The first wave may have loaded the model, so the second one tells the pace.
    pace = _Wave(endpoint, inputs, output_tokens, start=warm_up.end)
    pace.send(concurrency)
    run = _Wave(endpoint, inputs, output_tokens, start=pace.end)
    run.send(max(MIN_WAVES * concurrency, round(seconds * concurrency / max(pace.elapsed, 1e-3))))
    requests = run.end - run.start
    p50, p95 = float("inf"), float("inf")
    if run.latencies:
        p50, p95 = np.quantile(run.latencies, [0.5, 0.95]).tolist()
    return LoadStep(
        concurrency=concurrency,
        requests_per_second=(requests - run.errors) / run.elapsed,
        tokens_per_second=run.output_tokens / run.elapsed,
        p50_seconds=p50,
        p95_seconds=p95,
        errors=run.errors,
        requests=requests,
    )


class _Wave:
    """Requests that are in flight together, and what comes back.

    `start` and `end` number the requests over all waves of a step: the number is the `sample` of a request,
    so that no cache takes two of them for the same question.
    """

    def __init__(
        self, endpoint: Endpoint, inputs: Sequence[str], token_limit: int, *, start: int = 0
    ) -> None:
        self.endpoint, self.inputs, self.token_limit = endpoint, inputs, token_limit
        self.start = self.end = start
        self.latencies: list[float] = []
        """Seconds of the answers that did not fail."""
        self.errors = self.output_tokens = 0
        self.elapsed = 0.0
        self._lock = threading.Lock()

    def send(self, count: int) -> None:
        """Send `count` requests and wait for all of them."""
        batch = [
            Request((Message("user", self.inputs[i % len(self.inputs)]),), self.token_limit, sample=i)
            for i in range(self.end, self.end + count)
        ]
        started = time.perf_counter()
        self.endpoint.complete(batch, self._record, allow_all)
        self.elapsed = time.perf_counter() - started
        self.end += count

    def _record(self, position: int, completion: Completion) -> None:
        # The endpoint calls back from several threads at once.
        with self._lock:
            failed = completion.error is not None and not completion.text
            self.errors += failed
            self.output_tokens += completion.usage.output_tokens
            if completion.usage.seconds is not None and not failed:
                self.latencies.append(completion.usage.seconds)
