"""What one server sustains, against a server whose limits are known."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from servers import Fake, serving
from typer.testing import CliRunner

from tunepoint.cli.app import app
from tunepoint.costs.throughput import LoadStep, Throughput, measure_throughput
from tunepoint.errors import ModelError
from tunepoint.models.endpoints import Endpoint
from tunepoint.models.openai import OpenAIEndpoint


def hello(messages: list[dict[str, str]], body: dict[str, Any]) -> str:
    return "hello"


def opening(fake: Fake, kept: list[OpenAIEndpoint]) -> Any:
    def opened(concurrency: int) -> Endpoint:
        kept.append(OpenAIEndpoint(f"{fake.url}#tiny", concurrency=concurrency, attempts=1))
        return kept[-1]

    return opened


def measured(fake: Fake, **options: Any) -> Throughput:
    kept: list[OpenAIEndpoint] = []
    try:
        return measure_throughput("x", opening(fake, kept), ["one", "two"], seconds=0.2, **options)
    finally:
        for endpoint in kept:
            endpoint.close()


def test_throughput_rises_with_concurrency_and_the_time_of_an_answer_is_the_server_s() -> None:
    with serving(Fake(hello, latency=0.05)) as fake:
        throughput = measured(fake, max_concurrency=4)
    assert [step.concurrency for step in throughput.steps] == [1, 2, 4]
    assert all(step.p50_seconds > 0.05 and step.errors == 0 for step in throughput.steps)
    assert throughput.sustained == throughput.steps[-1]
    for (
        step
    ) in throughput.steps:  # each place is busy all the time: requests/s = places / seconds of an answer
        assert step.requests_per_second == pytest.approx(step.concurrency / step.p50_seconds, rel=0.15)


def test_a_server_that_loads_its_model_first_is_not_judged_by_that() -> None:
    with serving(Fake(hello, latency=0.02)) as fake:
        fake.faults = {}
        late = {"once": True}
        answer = fake.answer

        def slow_at_first(messages: list[dict[str, str]], body: dict[str, Any]) -> str:
            if late.pop("once", False):
                time.sleep(0.5)
            return answer(messages, body)

        fake.answer = slow_at_first
        throughput = measured(fake, max_concurrency=1, p95_limit=0.3)
    assert throughput.sustained is not None and throughput.steps[0].p95_seconds < 0.3


def test_what_held_before_a_server_went_down_is_kept() -> None:
    opened: list[OpenAIEndpoint] = []
    with serving(Fake(hello)) as fake:
        whole = opening(fake, opened)

        def breaking(concurrency: int) -> Endpoint:
            if concurrency > 2:
                opened.append(OpenAIEndpoint("http://127.0.0.1:9/v1#gone", attempts=1))
                return opened[-1]
            return whole(concurrency)

        try:
            throughput = measure_throughput("x", breaking, ["one"], seconds=0.05)
        finally:
            for endpoint in opened:
                endpoint.close()
    assert [step.concurrency for step in throughput.steps] in ([1, 2], [1])
    assert throughput.steps[0].tokens_per_second == pytest.approx(
        2 * throughput.steps[0].requests_per_second, rel=0.01
    )


def test_a_step_that_is_too_slow_or_fails_is_the_last_and_does_not_count() -> None:
    with serving(Fake(hello, latency=0.05)) as fake:
        slow = measured(fake, max_concurrency=8, p95_limit=0.001)
        assert len(slow.steps) == 1 and slow.sustained is None
        fake.faults = {len(fake.calls) + 30: "500"}
        failed = measured(fake, max_concurrency=8)
    assert failed.steps[-1].errors == 1
    assert failed.sustained is None or failed.sustained.errors == 0


def test_a_server_that_answers_nothing_is_an_error() -> None:
    with serving(Fake(hello, always="bad json")) as fake, pytest.raises(ModelError):
        measured(fake, max_concurrency=2)


def test_the_best_step_is_the_fastest_within_the_limit() -> None:
    steps = tuple(
        LoadStep(n, rate, 1.0, 0.1, p95, bad, 10)
        for n, rate, p95, bad in ((1, 5, 0.1, 0), (2, 9, 0.4, 0), (4, 12, 2.0, 0), (8, 20, 0.1, 1))
    )
    assert (
        Throughput("x", steps, 1.0).sustained == steps[1]
        and Throughput("x", steps, None).sustained == steps[2]
    )


def test_the_command_prints_the_table_and_the_hosting_to_declare(small_task: Path, tmp_path: Path) -> None:
    with serving(Fake(hello)) as fake:
        words = ["load", f"{fake.url}#tiny", "--task", str(small_task), "--seconds", "0.1", "--most", "2"]
        done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "load.json")])
        assert done.exit_code == 0, done.output
        questions = {call["messages"][0]["content"] for call in fake.calls}
    assert "requests_per_second = " in done.output and "at once" in done.output and len(questions) > 3
    kept = json.loads((tmp_path / "load.json").read_text())
    assert kept["steps"][0]["concurrency"] == 1 and kept["endpoint"].endswith("#tiny")
