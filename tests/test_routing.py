"""Routes, breakers, canaries and batches, each on its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gateways import behind, running, settings, until
from test_gateway import ASK, client, get, post

from tunepoint.arms.baselines.nearest_label import NearestLabel
from tunepoint.arms.cascade import Gate
from tunepoint.arms.contract import Built
from tunepoint.capture.canary_values import count_values
from tunepoint.capture.opening import open_store
from tunepoint.capture.records import CapturedRequest, Feedback
from tunepoint.errors import ModelError
from tunepoint.files.machine import cores
from tunepoint.models.chat import Prompt, Reply, Usage
from tunepoint.models.encoder import Encoder
from tunepoint.serve.backends import CascadeArm, LocalArm, Pricer, RemoteArm
from tunepoint.serve.batching import MicroBatcher
from tunepoint.serve.breakers import FAILURES_TO_OPEN, OPEN_SECONDS, Breaker
from tunepoint.serve.canary import Canary, Outcomes, decide_canary
from tunepoint.serve.canary_monitor import CanaryMonitor, feedback_score
from tunepoint.serve.protocol import (
    ChatRequest,
    completion,
    completion_chunks,
    message_text,
    read_request,
    usage_of,
)
from tunepoint.serve.routing import Policy, Router
from tunepoint.serve.settings import ServeSettings
from tunepoint.serve.streaming import Relay
from tunepoint.serve.upstream import ArmFault

RNG = np.random.default_rng


def chat_request(number: int = 0, input_of: str | None = None, **changes: Any) -> ChatRequest:
    text = f"q{number}" if input_of is None else input_of
    body = {"model": "t", "messages": [{"role": "user", "content": text}]}
    fields: dict[str, Any] = {"stream": False, "wants_usage": False, "user": None, **changes}
    return ChatRequest(f"req_{number}", "t", body, text, **fields)


# -- breakers ---------------------------------------------------------------------------------------


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_breaker_opens_lets_one_through_and_closes_again() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    for _ in range(FAILURES_TO_OPEN - 1):
        assert breaker.allows()
        breaker.failed()
    assert breaker.allows() and not breaker.opened
    breaker.failed()
    assert breaker.opened and not breaker.allows()
    clock.now += OPEN_SECONDS
    assert breaker.allows() and not breaker.allows()  # one probe, not two
    breaker.failed()
    assert not breaker.allows()
    clock.now += OPEN_SECONDS
    assert breaker.allows()
    breaker.abandoned()  # the prober went away: the next one is let through
    assert breaker.allows()
    breaker.succeeded()
    assert breaker.allows() and breaker.allows()


def test_a_server_that_asks_to_wait_is_left_alone_so_long() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    breaker.failed(wait=7.0)
    assert not breaker.allows()
    clock.now += 6.9
    assert not breaker.allows()
    clock.now += 0.2
    assert breaker.allows()
    breaker.failed(wait=10**9)
    clock.now += 300.1  # whoever asks for years gets minutes
    assert breaker.allows()


# -- plans ------------------------------------------------------------------------------------------


def test_the_plan_goes_from_the_champion_to_its_fallbacks() -> None:
    policy = Policy("a", ("b", "a", "c"), {"de": "c"})
    router = Router("t", ["a", "b", "c"], policy, None)
    assert router.plan(chat_request()) == [("a", "champion"), ("b", "fallback"), ("c", "fallback")]
    sliced = router.plan(chat_request(slice="de"))
    assert sliced == [("c", "slice"), ("a", "fallback"), ("b", "fallback")]


def test_a_canary_has_its_share_of_the_users_and_always_the_same_ones() -> None:
    router = Router("t", ["a", "b"], Policy("a", canary=Canary("b", (0.2, 0.5))), None)
    users = [f"user {n}" for n in range(4_000)]
    first = {user for user in users if router.is_canary(chat_request(user=user))}
    assert len(first) == pytest.approx(800, abs=100)
    assert first == {user for user in users if router.is_canary(chat_request(7, user=user))}
    router.raise_canary(10, "me", "why not")
    raised = {user for user in users if router.is_canary(chat_request(user=user))}
    assert first < raised and len(raised) == pytest.approx(2_000, abs=130)
    other = Router("t", ["a", "b", "c"], Policy("a", canary=Canary("c", (0.2,))), None)
    overlap = {user for user in users if other.is_canary(chat_request(user=user))} & first
    assert len(overlap) == pytest.approx(160, abs=60)  # another challenger gets other users


# -- the canary's judgement -------------------------------------------------------------------------


def filled(
    canary: Canary, answers: int, *, bad: float = 0.0, score: float | None = None, seed: int = 0
) -> Outcomes:
    rng, outcomes = RNG(seed), Outcomes()
    for _ in range(answers):
        outcomes.record(canary, answered=bool(rng.random() >= bad), readable=True, seconds=0.1, usd=0.001)
        if score is not None:
            outcomes.record_feedback(float(rng.random() < score))
    return outcomes


def test_a_canary_without_anything_against_it_is_raised_step_by_step() -> None:
    canary = Canary("b", requests=50)
    assert decide_canary(canary, filled(canary, 500), filled(canary, 49)).move is None
    assert decide_canary(canary, filled(canary, 500), filled(canary, 50)).move == "raise"
    later = replace(canary, step=1, at_step=50)
    assert decide_canary(later, filled(canary, 500), filled(canary, 60)).move is None
    assert decide_canary(later, filled(canary, 500), filled(canary, 100)).move == "raise"


def test_a_canary_that_is_worse_is_rolled_back_with_the_reason() -> None:
    canary = Canary("b")
    decision = decide_canary(canary, filled(canary, 2_000, bad=0.01), filled(canary, 150, bad=0.4))
    assert decision.move == "roll back" and decision.why.startswith("answered: b 0.6")
    decision = decide_canary(canary, filled(canary, 3_000, score=0.9), filled(canary, 400, score=0.6, seed=1))
    assert decision.move == "roll back" and decision.why.startswith("feedback: b")
    slow = Outcomes()
    limited = Canary("b", seconds=0.5, usd=0.01)
    for _ in range(200):
        slow.record(limited, answered=True, seconds=0.9, usd=0.002)
    decision = decide_canary(limited, filled(limited, 1_000), slow)
    assert decision.move == "roll back" and decision.why.startswith("fast: b 0.000")
    dear = Outcomes()
    for _ in range(200):
        dear.record(limited, answered=True, seconds=0.1, usd=0.02)
    assert decide_canary(limited, filled(limited, 1_000), dear).why.startswith("cheap: b 0.000")


def test_a_canary_is_promoted_only_once_it_is_shown_to_be_no_worse() -> None:
    last = Canary("b", step=2, at_step=0, margin=0.05)
    few = decide_canary(last, filled(last, 400, score=0.9), filled(last, 250, score=0.9, seed=1))
    assert few.move is None and "could still be worse on: " in few.why and "feedback" in few.why
    many = decide_canary(last, filled(last, 20_000, score=0.9), filled(last, 20_000, score=0.9, seed=1))
    assert many.move == "promote"
    silent = decide_canary(
        last, filled(last, 3_000), filled(last, 3_000)
    )  # nobody says anything: all came in time
    assert silent.move == "promote"


@pytest.mark.no_cover  # what it runs, others cover
def test_equal_arms_are_rarely_rolled_back_however_often_one_looks() -> None:
    """Forty canaries of equal arms, looked at forty times each: two would be allowed."""
    canary, gone = Canary("b", margin=0.0), 0
    for seed in range(40):
        champion, challenger = Outcomes(), Outcomes()
        rng = RNG(seed)
        for _ in range(40):
            for side in (champion, challenger):
                for _ in range(25):
                    side.record(canary, answered=bool(rng.random() < 0.95))
                    side.record_feedback(float(rng.random() < 0.7))
            gone += decide_canary(canary, champion, challenger).move == "roll back"
            if gone > 2:
                break
    assert gone <= 2


def test_each_user_has_one_voice_and_callers_faults_say_nothing(tmp_path: Path) -> None:
    canary = Canary("b")
    heavy = Outcomes()
    for _ in range(60):
        heavy.record(canary, user="heavy", answered=False)
        heavy.record_feedback(0.0, "heavy")
    assert heavy.answers == 60 and heavy.values["answered"] == [0.0] and heavy.values["feedback"] == [0.0]
    assert decide_canary(canary, filled(canary, 500, score=0.9), heavy).move is None
    with open_store(tmp_path / "c.sqlite") as store:
        router = Router("t", ["a", "b"], Policy("a"), store)
        router.start_canary(canary, "me")
        monitor = CanaryMonitor(router, store, "me")
        row = CapturedRequest("r", time.time(), "t", "b", "canary", "m", "q", "", status=400)
        assert monitor.outcomes(row) == () and monitor.outcomes(replace(row, status=200, copy_of="x")) == ()
        asked = [replace(row, id=f"r{n}", status=502, user="heavy") for n in range(60)]
        store.add([replace(row, outcomes=monitor.outcomes(row)) for row in asked])
        assert count_values(store, "t", router.policy.canary.since) == 1 + 60  # one voice, sixty answers
        assert monitor.evaluate() is not None and router.policy.canary is not None


@pytest.mark.no_cover  # what it runs, others cover
def test_equal_arms_with_users_that_differ_are_rarely_rolled_back() -> None:
    """A tenth of the users can never be answered readably; they ask forty times each."""
    canary, gone = Canary("b", margin=0.0), 0
    for seed in range(40):
        rng = RNG(seed)
        champion, challenger = Outcomes(), Outcomes()
        for side, users in ((champion, 380), (challenger, 20)):
            for user in range(users):
                good = bool(rng.random() >= 0.1)
                for _ in range(40):
                    side.record(canary, user=str(user), answered=True, readable=good)
        gone += decide_canary(canary, champion, challenger).move == "roll back"
    assert gone <= 2


def test_what_feedback_says_as_a_number() -> None:
    assert feedback_score(Feedback("r", 1.0, 0.25, thumbs=True)) == 0.25
    assert feedback_score(Feedback("r", 1.0, thumbs=False)) == 0.0
    assert feedback_score(Feedback("r", 1.0, correction="billing")) == 0.0
    assert feedback_score(Feedback("r", 1.0, comment="hm")) is None


def test_a_watch_remembers_after_a_restart(tmp_path: Path) -> None:
    with open_store(tmp_path / "c.sqlite") as store:
        router = Router("t", ["a", "b"], Policy("a"), store)
        router.start_canary(Canary("b", requests=30), "me")
        now = time.time()

        def row(number: int, arm: str, role: Any, status: int = 200) -> CapturedRequest:
            return CapturedRequest(
                f"{arm}{number}", now + number / 1e3, "t", arm, role, "m", "q", "x", status=status
            )

        def keep(monitor: CanaryMonitor, rows: Sequence[CapturedRequest], *feedback: Feedback) -> None:
            store.add(
                [replace(row, outcomes=monitor.outcomes(row)) for row in rows],
                [replace(f, outcomes=monitor.outcomes_of_feedback("canary", f)) for f in feedback],
            )

        first = CanaryMonitor(router, store, "first")
        keep(first, [row(n, "a", "champion") for n in range(300)])
        few = [row(n, "b", "canary", 502 if n == 7 else 200) for n in range(20)]
        keep(first, few, Feedback("b0", now, 0.0))
        again = Router("t", ["a", "b"], Policy("a"), store)
        monitor = CanaryMonitor(again, store, "again")
        assert monitor.evaluate() is not None and again.policy.canary is not None
        assert monitor.evaluate() is None  # nothing new
        keep(first, few)  # an acknowledgement was lost, and the same rows come again
        assert monitor.evaluate() is None
        assert first.evaluate() is None and first.decision == monitor.decision  # another one decides
        keep(first, [row(number, "b", "canary", 502) for number in range(20, 120)])
        judged = monitor.evaluate()
        assert judged is not None and judged.move == "roll back"
        assert again.policy.canary is None and again.policy.champion == "a"
        assert store.audit_log("t")[-1]["what"].startswith("rolled back b: answered: b")
        assert Router("t", ["a", "b"], Policy("a"), store).policy.canary is None


@pytest.mark.parametrize("sample", [1.0, 0.0])  # words are kept or not; outcomes always are
def test_a_canary_in_the_gateway_is_raised_promoted_and_survives_a_restart(
    tmp_path: Path, sample: float
) -> None:
    canary = {"arm": "spare", "steps": [0.3, 0.6], "requests": 12, "margin": 0.6}
    body = {"model": "triage", "messages": ASK}

    def use(url: str, users: int) -> set[str]:
        return {
            post(f"{url}/v1/chat/completions", {**body, "user": f"u{n}"})[2]["x-tunepoint-role"]
            for n in range(users)
        }

    def load() -> ServeSettings:
        return settings(tmp_path, server.url, server={"sample": sample})

    with behind() as server:
        with running(load) as gateway:
            assert post(f"{gateway.url}/v1/routes/triage", {"canary": canary})[0] == 200
            assert use(gateway.url, 60) == {"champion", "canary"}
            until(lambda: get(f"{gateway.url}/v1/routes/triage")[1]["policy"]["canary"]["step"] == 1)
        with running(load) as gateway:  # in the middle of it
            routes = get(f"{gateway.url}/v1/routes/triage")[1]
            assert routes["policy"]["canary"]["step"] == 1
            use(gateway.url, 200)
            until(lambda: get(f"{gateway.url}/v1/routes/triage")[1]["policy"]["champion"] == "spare")
            lines = [line["what"] for line in get(f"{gateway.url}/v1/audit?task=triage")[1]["data"]]
            with client(gateway) as asker:
                answer = (
                    asker.chat.completions.create(model="triage", messages=ASK).choices[0].message.content
                )
    assert answer == "spare says billing, perhaps"
    assert lines[1] == "canary: spare for 30% of the users"
    assert lines[2].startswith("spare for 60%: ") and lines[3].startswith("promoted spare: no worse by more")


# -- arms in this process ---------------------------------------------------------------------------


@dataclass
class Echo:
    """A fitted arm that says what it was asked, and notes its batches."""

    batches: list[int] = field(default_factory=list)
    confidence: float = 0.9
    pause: float = 0.0
    fault: bool = False
    built: Any = None
    concurrent: bool = False

    def answer(self, inputs: Sequence[str]) -> list[Reply]:
        self.batches.append(len(inputs))
        time.sleep(self.pause)
        if self.fault:
            raise ModelError("no weights")
        return [Reply(text, text, Usage("echo", 7, 3, 2), confidence=self.confidence) for text in inputs]

    async def answer_one(self, input: str) -> Reply:
        return self.answer([input])[0]


def test_requests_that_come_together_are_answered_together() -> None:
    echo = Echo(pause=0.02)
    batcher = MicroBatcher(echo, max_inputs=16)

    async def ask() -> list[str]:
        replies = await asyncio.gather(*(batcher.answer(f"q{n}") for n in range(40)))
        return [reply.text for reply, _ in replies]

    assert asyncio.run(ask()) == [f"q{n}" for n in range(40)]
    assert echo.batches == [16, 16, 8]
    batcher.close()


def test_a_batch_is_those_who_came_first_and_no_longer_than_it_gains_by() -> None:
    batches: list[list[int]] = []

    class Noting(Echo):
        def answer(self, inputs: Sequence[str]) -> list[Reply]:
            batches.append([len(text) for text in inputs])
            return super().answer(inputs)

    batcher = MicroBatcher(Noting(pause=0.01), max_inputs=4)
    batcher.max_characters = 400
    lengths = [300, 10, 1_000, 35, 280, 5, 290, 200]

    async def ask() -> list[int]:
        replies = await asyncio.gather(*(batcher.answer("x" * n) for n in lengths))
        return [len(reply.text) for reply, _ in replies]

    assert asyncio.run(ask()) == lengths
    assert batches == [[300, 10], [1_000], [35, 280, 5], [290], [200]]
    batcher.close()


def test_batches_are_answered_at_the_same_time_on_several_cores() -> None:
    meeting = threading.Barrier(2, timeout=10)

    class Meeting(Echo):
        def answer(self, inputs: Sequence[str]) -> list[Reply]:
            meeting.wait()  # breaks if nobody else answers meanwhile
            return super().answer(inputs)

    batcher = MicroBatcher(Meeting(), threads=2, max_inputs=1)

    async def ask(count: int) -> list[str]:
        replies = await asyncio.gather(*(batcher.answer(f"q{n}") for n in range(count)))
        return [reply.text for reply, _ in replies]

    assert asyncio.run(ask(2)) == ["q0", "q1"]
    assert asyncio.run(ask(6)) == [f"q{n}" for n in range(6)]
    batcher.close()


def test_a_batch_whose_caller_went_away_answers_the_others_and_faults_are_told() -> None:
    echo = Echo(pause=0.05)
    batcher = MicroBatcher(echo, capacity=3)

    async def leave() -> list[Any]:
        tasks = [asyncio.create_task(batcher.answer(f"q{n}")) for n in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        with pytest.raises(BlockingIOError, match="3 requests are waiting already"):
            await batcher.answer("too many")
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    results = asyncio.run(leave())
    assert isinstance(results[1], asyncio.CancelledError) and results[2][0].text == "q2"
    echo.fault = True
    with pytest.raises(ModelError, match="no weights"):
        asyncio.run(batcher.answer("x"))
    echo.fault = False
    assert asyncio.run(batcher.answer("y"))[0].text == "y"  # it goes on after a fault

    async def end() -> list[Any]:
        tasks = [asyncio.create_task(batcher.answer(f"q{n}")) for n in range(3)]
        await asyncio.sleep(0.01)  # they are being answered
        late = asyncio.create_task(batcher.answer("late"))
        await asyncio.sleep(0)
        batcher.close()
        return list(await asyncio.gather(*tasks, late, return_exceptions=True))

    *answered, late = asyncio.run(end())
    assert [reply.text for reply, _ in answered] == ["q0", "q1", "q2"]
    assert isinstance(late, BlockingIOError) and str(late) == "the arm is closing"
    with pytest.raises(BlockingIOError, match="the arm is closing"):
        asyncio.run(batcher.answer("later still"))


@pytest.mark.parametrize("replies", [[], None])
def test_an_arm_that_answers_wrongly_fails_its_callers_and_goes_on(replies: Any) -> None:
    class Wrong(Echo):
        def answer(self, inputs: Sequence[str]) -> list[Reply]:
            return replies if inputs == ["bad"] else super().answer(inputs)

    batcher = MicroBatcher(Wrong())
    with pytest.raises((ModelError, TypeError)):
        asyncio.run(asyncio.wait_for(batcher.answer("bad"), 10))
    assert asyncio.run(asyncio.wait_for(batcher.answer("good"), 10))[0].text == "good"
    batcher.close()


@pytest.mark.parametrize(("may", "threads"), [(True, cores()), (False, 1)])
def test_an_arm_is_asked_by_several_threads_only_where_it_says_so(may: bool, threads: int) -> None:
    arm = LocalArm("a", Echo(concurrent=may), "here")
    assert arm.batcher.threads == threads
    assert (
        LocalArm("a", NearestLabel(Encoder.__new__(Encoder), Prompt(""), Built(0)), "here").batcher.threads
        == cores()
    )
    arm.close()


def test_arms_of_a_study_answer_in_openais_form() -> None:
    arm = LocalArm("a", Echo(), "here")
    response = asyncio.run(arm.answer(chat_request(3)))
    assert (
        response.completion["choices"][0]["message"]["content"] == "q3"
        and response.completion["model"] == "t"
    )
    assert (response.answer, response.format_ok, response.input_tokens, response.output_tokens) == (
        "q3",
        True,
        7,
        2,
    )
    assert response.core_seconds is not None and response.cost_nanousd is None
    arm.close()
    calling = RemoteArm("b", Echo(), "elsewhere", {}, 2)
    assert asyncio.run(calling.answer(chat_request(4))).text == "q4"
    calling.close()
    broken = RemoteArm("c", Echo(fault=True), "elsewhere", {}, 2)
    with pytest.raises(ArmFault, match="no weights"):
        asyncio.run(broken.answer(chat_request()))
    broken.close()


@pytest.mark.parametrize(("confidence", "who"), [(0.99, "cheap"), (0.2, "strong")])
def test_a_cascade_asks_the_strong_arm_where_the_cheap_one_is_unsure(confidence: float, who: str) -> None:
    cheap, strong = Echo(confidence=confidence), Echo()
    arm = CascadeArm(
        "both", LocalArm("cheap", cheap, "c"), LocalArm("strong", strong, "s"), Gate(1.0, 0.0, 0.5)
    )
    response = asyncio.run(arm.answer(chat_request()))
    assert (len(cheap.batches), len(strong.batches)) == (1, int(who == "strong"))
    assert response.core_seconds is not None
    arm.close()


def test_prices_of_answers_without_looking_them_up() -> None:
    from tunepoint.files.amounts import TokenPrice
    from tunepoint.models.prices import call_price

    own = Pricer(call_price("openai/x", TokenPrice(input=1.0, cached_input=0.5, output=2.0)))
    assert own.nanodollars(40, 10, 6) == 47_000
    assert own.nanodollars(200_000, 0, 0) == 200_000_000
    assert Pricer(None).nanodollars(1, 0, 1) is None


# -- spans ------------------------------------------------------------------------------------------


def test_spans_say_who_answered_and_not_what_was_asked() -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from tunepoint.serve.tracing import Tracer

    exporter, provider = InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = Tracer(provider)
    measured = {"seconds": 0.25, "input_tokens": 7, "cost_nanousd": 1_000}
    tracer.record(
        CapturedRequest("r1", 1_000.5, "t", "a", "champion", "m", "a secret", "another", **measured)
    )  # type: ignore[arg-type]
    tracer.record(CapturedRequest("r2", 1_001.0, "t", "b", "fallback", "m", "a secret", "", status=504))
    good, bad = exporter.get_finished_spans()
    assert good.name == "chat t" and good.end_time - good.start_time == 250_000_000
    assert good.attributes["gen_ai.usage.input_tokens"] == 7 and good.attributes["tunepoint.cost_usd"] == 1e-6
    assert bad.attributes["error.type"] == "504" and not bad.status.is_ok
    assert "secret" not in good.to_json() + bad.to_json()
    tracer.close()


# -- the wire ---------------------------------------------------------------------------------------


def test_streams_cut_anywhere_come_out_whole() -> None:
    request = chat_request(stream=True)
    whole = completion(request, 'say "model" and größe 🙂', usage_of(3, 4))
    raw = b"".join(completion_chunks(request, {**whole, "model": "inner"})).replace(
        b'"model":"t"', b'"model":"inner"'
    )
    for size in (1, 2, 7, 50, 10_000):
        relay = Relay(request)
        events = [
            event for start in range(0, len(raw), size) for event in relay.feed(raw[start : start + size])
        ]
        assert relay.done and b"inner" not in b"".join(events)
        assert relay.kept.text() == 'say "model" and größe 🙂'


def test_requests_are_read_and_their_input_found() -> None:
    request = read_request(
        b'{"model":"t","messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},'
        b'{"role":"user","content":[{"type":"text","text":"c"},{"type":"image_url"}]},{"role":"tool","content":"d"}],'
        b'"temperature":1,"stream":true,"stream_options":{"include_usage":true},"safety_identifier":"u"}'
    )
    assert (request.input, request.stream, request.wants_usage, request.user) == ("c", True, True, "u")
    assert request.conversation is not None and request.parameters == {"temperature": 1}
    assert message_text(None) == "" and message_text([1, {"text": 2}]) == ""
