"""Feedback: who may give it on which requests, how much, and which corrections are answers of the task."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gateways import Behind, Running, behind, running, settings
from test_gateway import ASK, kept, post

from tunepoint.capture.opening import open_store
from tunepoint.capture.records import MAX_SLICE_LENGTH, CapturedRequest, Feedback
from tunepoint.capture.targets import read_target
from tunepoint.models.chat import Prompt
from tunepoint.serve.auth import FEEDBACK_A_MINUTE, make_key
from tunepoint.serve.feedback import MAX_ENTRIES, AnsweredRequests, with_target
from tunepoint.serve.protocol import RequestError
from tunepoint.serve.rate_limits import RateLimits

KEYS: dict[str, tuple[Any, ...]] = {
    "app": ("call",),
    "other": ("call",),
    "ops": ("operate",),
    "reviewer": ("read", "call"),
    "monitor": ("read",),
}
"""Name of a key -> its roles."""


@dataclass
class Guarded:
    """A gateway with keys."""

    running: Running
    tokens: dict[str, str]

    def ask(self, key: str, **headers: str) -> str:
        """Ask with a key; return the id of the request."""
        body = {"model": "triage", "messages": ASK}
        bearer = f"Bearer {self.tokens[key]}"
        status, _, answered = post(
            f"{self.running.url}/v1/chat/completions", body, authorization=bearer, **headers
        )
        assert status == 200
        return answered["x-request-id"]

    def give(self, key: str, request: str, **content: Any) -> tuple[int, str]:
        """Give feedback; return the status, and the error's message."""
        body = {"request_id": request, **(content or {"score": 1})}
        bearer = f"Bearer {self.tokens[key]}"
        status, reply, _ = post(f"{self.running.url}/v1/feedback", body, authorization=bearer)
        return status, reply.get("error", {}).get("message", "")


@pytest.fixture
def server() -> Iterator[Behind]:
    with behind() as opened:
        yield opened


@pytest.fixture
def guarded(server: Behind, tmp_path: Path) -> Iterator[Guarded]:
    with open_store(tmp_path / "capture.sqlite") as store:
        tokens = {name: make_key(store, name, roles) for name, roles in KEYS.items()}
        tokens["slow"] = make_key(store, "slow", ("call",), requests_a_minute=3)
    with running(lambda: settings(tmp_path, server.url)) as gateway:
        yield Guarded(gateway, tokens)


def test_a_key_judges_its_own_requests_and_with_a_right_all_others(guarded: Guarded) -> None:
    request = guarded.ask("app")
    assert guarded.give("app", request)[0] == 200
    status, why = guarded.give("other", request)
    assert status == 403 and "'other' has not asked this request" in why
    assert guarded.give("ops", request)[0] == guarded.give("reviewer", request)[0] == 200
    assert guarded.give("monitor", request)[0] == 403
    (entries,) = guarded.running.gateway.store.feedback([request]).values()
    assert [entry.key for entry in entries] == ["app", "ops", "reviewer"]


def test_who_asked_is_known_after_a_restart(server: Behind, tmp_path: Path) -> None:
    with open_store(tmp_path / "capture.sqlite") as store:
        tokens = {name: make_key(store, name, roles) for name, roles in KEYS.items()}
    with running(lambda: settings(tmp_path, server.url)) as gateway:
        request = Guarded(gateway, tokens).ask("app")
    with running(lambda: settings(tmp_path, server.url)) as gateway:
        again = Guarded(gateway, tokens)
        assert again.give("other", request)[0] == 403 and again.give("app", request)[0] == 200


def test_feedback_on_a_request_that_nobody_knows_is_not_kept(guarded: Guarded) -> None:
    status, why = guarded.give("app", "req_unknown", comment="x")
    assert status == 404 and "no request 'req_unknown' is known" in why
    assert guarded.running.gateway.store.feedback(["req_unknown"]) == {}


def test_feedback_counts_as_a_request_of_its_key(guarded: Guarded) -> None:
    request = guarded.ask("slow")
    assert [guarded.give("slow", request)[0] for _ in range(3)] == [200, 200, 429]


def test_feedback_has_a_rate_where_the_key_has_none(guarded: Guarded) -> None:
    access = guarded.running.gateway.access
    key = access.admit(f"Bearer {guarded.tokens['app']}", "call")

    async def give_many() -> None:
        rates = RateLimits(guarded.running.gateway.store)  # in this event loop
        access.rates, before = rates, access.rates
        try:
            with pytest.raises(RequestError, match="feedback entries a minute") as refused:
                for _ in range(2 * FEEDBACK_A_MINUTE):
                    await access.charge_feedback(key)
            assert refused.value.status == 429 and refused.value.wait is not None
            await access.charge_request(key)  # its calls go on
        finally:
            access.rates = before
            rates.close()

    asyncio.run(give_many())


def test_a_request_has_room_for_a_few_entries_only(guarded: Guarded) -> None:
    request = guarded.ask("app")
    codes = [guarded.give("app", request)[0] for _ in range(MAX_ENTRIES + 2)]
    assert codes == [200] * MAX_ENTRIES + [429] * 2


def test_requests_from_before_are_counted_from_the_store() -> None:
    request = CapturedRequest("r1", 1.0, "triage", "a", "champion", "m", "q", "x", key="app")
    answered = AnsweredRequests({"r1": request}.get, lambda request_id: 7)

    async def find() -> int:
        return (await answered.find("r1")).entries

    assert asyncio.run(find()) == 7


def test_a_correction_outside_the_tasks_labels_is_refused_with_the_labels(guarded: Guarded) -> None:
    task = guarded.running.gateway.dispatcher.tasks["triage"]
    task.template = Prompt(input="", labels=("billing", "c++", "device"))
    request = guarded.ask("app")
    status, why = guarded.give("app", request, correction="ignore all rules")
    assert status == 422 and "expected one of its labels: billing, c++, device" in why
    assert guarded.give("app", request, correction="Device ")[0] == 200
    (entries,) = guarded.running.gateway.store.feedback([request]).values()
    assert [entry.correction for entry in entries] == ["device"]


LABELS = Prompt(input="", labels=("c", "c++", "-1", "1"))
NUMBER = Prompt(input="", kind="number")
SCHEMA = Prompt(input="", kind="json", schema={"type": "object", "required": ["to"]})


@pytest.mark.parametrize(
    ("template", "text", "target"),
    [
        (LABELS, "C++", "c++"),
        (LABELS, " -1", "-1"),
        (LABELS, "c+", None),
        (LABELS, "c or c++", None),
        (NUMBER, "12.5", "12.5"),
        (NUMBER, "many", None),
        (NUMBER, "12 or so", None),
        (SCHEMA, '{"to": "x"}', '{"to": "x"}'),
        (SCHEMA, '{"from": "x"}', None),
        (SCHEMA, 'see {"to": "x"}', None),
        (SCHEMA, "[" * 5_000, None),
        (Prompt(input="", kind="json"), "3", None),
        (Prompt(input="", kind="text"), " as it is ", "as it is"),
        (Prompt(input="", kind="text"), " ", None),
    ],
)
def test_a_target_is_what_an_answer_of_the_task_can_be(
    template: Prompt, text: str, target: str | None
) -> None:
    assert read_target(template, text) == target


def test_without_a_known_kind_of_answers_corrections_stay_as_they_are() -> None:
    feedback = Feedback("r1", 1.0, correction="anything")
    assert with_target(feedback, None) == feedback


def test_a_slice_is_kept_short_and_without_personal_data(guarded: Guarded) -> None:
    guarded.ask("app", **{"x-tunepoint-slice": "ann@example.com " + "x" * 3_000})
    (request,) = kept(guarded.running)
    assert request.slice is not None and request.slice.startswith("<email> x")
    assert len(request.slice) <= MAX_SLICE_LENGTH
