"""The loop: its steps with a fake deployment, then a small one with real studies and a real gateway."""

from __future__ import annotations

import csv
import json
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import EXAMPLE, QUEUES
from gateways import behind, running

from tunepoint import Task
from tunepoint.arms import catalog
from tunepoint.arms.baselines.nearest_examples import NearestExamples
from tunepoint.capture.acceptance import HarvestedExample
from tunepoint.capture.harvest import Harvest
from tunepoint.capture.opening import open_store
from tunepoint.data.examples import Example
from tunepoint.errors import EvidenceError
from tunepoint.loop.deployment import LocalDeployment, _beaten_by, _untuned_champion
from tunepoint.loop.drift import input_drift, mean_drift
from tunepoint.loop.gateway_client import GatewayClient
from tunepoint.loop.settings_file import LoopSettings, write_settings
from tunepoint.loop.state import (
    NO_CHANGES,
    CanaryStatus,
    Challenger,
    Goals,
    LoopError,
    LoopFacts,
    LoopState,
    Step,
    StudyOutcome,
)
from tunepoint.loop.turn import advance
from tunepoint.serve.settings import ServeSettings

RNG = np.random.default_rng


# -- the steps ------------------------------------------------------------------------------------


@dataclass
class FakeDeployment:
    """A deployment that does what it is told, and lists the moves."""

    now: LoopState = field(default_factory=lambda: LoopState("serve"))
    serves: bool = True
    good: int = 0
    missing: tuple[str, ...] = ()
    studied: list[StudyOutcome] = field(default_factory=list)
    status: CanaryStatus = "runs"
    reasons: tuple[str, ...] = ()
    approvals: set[str] = field(default_factory=set)
    moves: list[str] = field(default_factory=list)
    promoted: list[str] = field(default_factory=list)

    def state(self) -> LoopState:
        return self.now

    def move(
        self, step: Step, why: str, changes: LoopFacts = NO_CHANGES, *, round: int | None = None
    ) -> LoopState:
        number = self.now.round if round is None else round
        self.now = LoopState(step, number, facts=self.now.facts.updated(changes))
        self.moves.append(f"{step}: {why}")
        return self.now

    def wait(self, state: LoopState, reason: str) -> LoopState:
        self.now = replace(state, waits=reason)
        return self.now

    def approved(self, step: str) -> bool:
        return step in self.approvals

    def serve_prompt(self) -> tuple[str | None, str]:
        return ("prompt", "") if self.serves else (None, "the gateway")

    def harvest(self) -> Harvest:
        item = HarvestedExample(Example("i", "x", "y"), "feedback", "a", "r")
        return Harvest((item,) * self.good, self.good, {})

    def count_new(self, harvest: Harvest) -> int:
        return 2

    def lacking_labels(self, harvest: Harvest) -> Sequence[str]:
        return self.missing

    def study(self, harvest: Harvest) -> StudyOutcome:
        return self.studied.pop(0)

    def canary(self, challenger: Challenger) -> tuple[CanaryStatus, str]:
        return self.status, "so it is"

    def promote(self, challenger: Challenger) -> None:
        self.promoted.append(challenger.name)
        self.status = "promoted"

    def reasons_to_retrain(self) -> tuple[Sequence[str], str]:
        return self.reasons, "inputs"


CHALLENGER = Challenger("s", "tuned", "tuned #2")


def undecided(examples: int) -> StudyOutcome:
    facts = LoopFacts(examples_needed=examples)
    return StudyOutcome("undecided", facts, examples_needed=examples)


WON = StudyOutcome("hybrid", LoopFacts(study_count=2, challenger=CHALLENGER), CHALLENGER)


def test_the_loop_waits_at_every_step_and_goes_on_from_there() -> None:
    deployment, goals = FakeDeployment(serves=False), Goals(min_examples=10)
    assert advance(deployment, goals).waits == "the gateway"
    deployment.serves = True
    assert (advance(deployment, goals).step, deployment.now.waits) == ("collect", "0 of 10 good examples")
    deployment.good, deployment.missing = 12, ("billing",)
    assert advance(deployment, goals).waits == "at least 10 examples of each label; too few of billing"
    deployment.missing, deployment.studied = (), [WON]
    assert (advance(deployment, goals).step, deployment.now.waits) == ("canary", "so it is")
    assert deployment.now.facts.challenger == CHALLENGER and deployment.now.facts.study_count == 2
    deployment.status = "promoted"
    assert (advance(deployment, goals).step, deployment.now.waits) == (
        "watch",
        "a reason to retrain (checked: inputs)",
    )
    deployment.reasons = ("drift",)
    assert (advance(deployment, goals).step, deployment.now.round) == ("collect", 2)
    assert deployment.now.waits == "2 of 100 good examples"  # the last study has seen the others
    assert deployment.moves == [
        "collect: prompt serves",
        "tune: 12 good examples were collected",
        "canary: hybrid",
        "watch: tuned #2 was promoted: so it is",
        "collect: retraining: drift",
    ]


def test_each_step_can_wait_for_a_persons_yes() -> None:
    goals = Goals(min_examples=1, ask=frozenset({"tune", "canary", "promote", "collect"}))
    deployment = FakeDeployment(good=5, studied=[WON])
    assert advance(deployment, goals).waits == "approval to tune (--yes tune)"
    deployment.approvals.add("tune")
    assert advance(deployment, goals).waits == "approval to start the canary (--yes canary)"
    deployment.approvals.add("canary")
    assert advance(deployment, goals).waits == "so it is" and not deployment.promoted
    deployment.approvals.add("promote")
    assert advance(deployment, goals).step == "watch" and deployment.promoted == ["tuned #2"]
    deployment.reasons = ("drift",)
    assert advance(deployment, goals).waits == "approval to retrain (--yes collect): drift"


def test_an_undecided_study_asks_for_more_examples_and_a_lost_one_goes_on_watching() -> None:
    deployment = FakeDeployment(good=10, studied=[undecided(15), StudyOutcome("prompt")])
    assert advance(deployment, Goals(min_examples=5)).waits == "10 of 15 good examples"
    deployment.good = 15
    assert advance(deployment, Goals(min_examples=5)).step == "watch"
    # In a later round what the last study has seen does not count: it is not asked again at once.
    again = FakeDeployment(LoopState("tune", 2), good=50, studied=[undecided(75)])
    assert (advance(again, Goals(min_examples=5)).step, again.now.waits) == (
        "collect",
        "2 of 100 good examples",
    )
    deployment = FakeDeployment(good=10, studied=[WON], status="rolled back")
    assert advance(deployment, Goals(min_examples=5)).step == "watch"
    assert deployment.moves[-1] == "watch: tuned #2 was rolled back: so it is"


def test_facts_keep_their_keys_in_the_store_and_change_field_by_field() -> None:
    content = {
        "studies": 2,
        "studied": 5.0,
        "challenger": {"study": "s", "arm": "tuned", "name": "tuned #2"},
        "arms": [{"study": "s", "arm": "tuned", "name": "tuned #2"}],
        "first": "prompt",
        "tried": "tuned #2",
        "asked": ["drift"],
        "yes": ["tune"],
    }
    facts = LoopFacts.model_validate(content)
    assert facts.challenger == CHALLENGER and facts.challengers == (CHALLENGER,)
    assert facts.document() == content
    changed = facts.updated(LoopFacts(approvals=())).updated(LoopFacts(examples_needed=None))
    assert changed.document() == {**content, "yes": []}


def test_the_gateways_settings_hold_every_challenger(tmp_path: Path) -> None:
    settings = LoopSettings(8_500, str(tmp_path / "c.sqlite"), 'a "task"', tmp_path, "p", (CHALLENGER,))
    write_settings(tmp_path / "serve.toml", settings)
    loaded = ServeSettings.load(tmp_path / "serve.toml")
    (task,) = loaded.tasks
    assert (loaded.server.port, loaded.store()) == (8_500, str(tmp_path / "c.sqlite"))
    assert (task.name, task.champion, task.only, task.study) == ('a "task"', "p", ("p",), tmp_path)
    assert [vars(arm) for arm in task.more] == [vars(CHALLENGER) | {"study": Path("s")}]


def test_a_gateway_that_is_down_and_another_server_say_so(tmp_path: Path) -> None:
    down = GatewayClient("http://127.0.0.1:1", None, tmp_path / "serve.toml")
    assert not down.is_running() and down.port == 1
    with pytest.raises(LoopError, match=r"start it with `tunepoint serve .*serve.toml`"):
        down.routes("t")
    with behind() as server:
        other = GatewayClient(server.url.removesuffix("/v1"), "key", tmp_path / "serve.toml")
        with pytest.raises(LoopError, match=r"rejected POST /v1/reload \(HTTP 404\)"):
            other.reload()


# -- drift ----------------------------------------------------------------------------------------


def test_inputs_of_another_kind_are_drift_and_more_of_the_same_are_not() -> None:
    def embed(texts: Sequence[str]) -> np.ndarray:
        angle = np.array([float(text) for text in texts])
        return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)

    rng = RNG(0)
    known = [str(value) for value in rng.normal(0, 0.3, 400)]
    same = input_drift(embed, known, [str(v) for v in rng.normal(0, 0.3, 200)], RNG(1))
    assert not same.drifted and same.now.estimate < 0.12
    copied = input_drift(embed, known * 3, [str(v) for v in rng.normal(0, 0.3, 200)], RNG(1))
    assert not copied.drifted and copied.now.estimate < 0.12  # copies are not each other's neighbours
    other = input_drift(embed, known, [str(v) for v in rng.normal(2.5, 0.3, 60)], RNG(1))
    assert other.drifted and other.now.estimate > 0.9
    with pytest.raises(EvidenceError, match="got 400 and 19"):
        input_drift(embed, known, known[:19], RNG(1))


def test_feedback_that_falls_is_drift_beyond_the_margin() -> None:
    rng = RNG(0)
    before = (rng.random(1_000) < 0.9).astype(float).tolist()
    assert mean_drift("feedback", before, (rng.random(300) < 0.6).astype(float).tolist(), 0.05).drifted
    assert not mean_drift("feedback", before, (rng.random(300) < 0.89).astype(float).tolist(), 0.05).drifted


# -- a small real one -----------------------------------------------------------------------------


def parts(folder: Path) -> tuple[Path, list[dict[str, str]]]:
    """A task with few examples, and the messages that will be its traffic."""
    with (EXAMPLE / "messages.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["queue"] in QUEUES and row["text"]]
    rows = [rows[i] for i in RNG(3).permutation(len(rows)).tolist()]
    labelled, traffic = rows[:120], rows[120:]
    with (folder / "messages.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["date", "customer_id", "queue", "text"])
        writer.writeheader()
        writer.writerows(labelled)
    (folder / "task.toml").write_text(
        """
name = "small"
instruction = "Route the message."
[data]
path = "messages.csv"
input = "text"
target = "queue"
group = "customer_id"
split = [0.2, 0.2, 0.6]
[answer.labels]
billing = "charges and invoices"
device_setup = "pairing and installing"
privacy_security = "personal data and security"
[traffic]
queries_per_month = 90_000
[value]
error_usd = 2.0
materiality = 0.75
""",
        encoding="utf-8",
    )
    return folder / "task.toml", traffic


def ask(url: str, text: str, user: str) -> tuple[str, str]:
    body = {"model": "small", "messages": [{"role": "user", "content": text}], "user": user}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        completion = json.load(reply)
        return completion["choices"][0]["message"]["content"], reply.headers["x-request-id"]


def say(url: str, request: str, answer: str, right: str) -> None:
    feedback = (
        {"request_id": request, "thumbs": "up"}
        if answer == right
        else {"request_id": request, "correction": right}
    )
    sent = urllib.request.Request(
        f"{url}/v1/feedback", json.dumps(feedback).encode(), {"content-type": "application/json"}
    )
    urllib.request.urlopen(sent, timeout=60).close()


@pytest.fixture
def baselines_without_retrieval(monkeypatch: pytest.MonkeyPatch) -> None:
    """On so few messages, the nearest examples are as good as a tuned model, and no challenger would win."""
    offered = catalog.label_baselines

    def fewer(*arguments: Any) -> tuple[Any, ...]:
        return tuple(arm for arm in offered(*arguments) if not isinstance(arm, NearestExamples))

    monkeypatch.setattr(catalog, "label_baselines", fewer)


@pytest.mark.usefixtures("baselines_without_retrieval")
def test_a_small_loop_from_prompt_to_promotion_and_drift(tmp_path: Path) -> None:
    path, traffic = parts(tmp_path)
    folder, where = tmp_path / "loop", str(tmp_path / "capture.sqlite")
    goals = Goals(min_examples=60, min_per_label=5)
    canary = {"steps": [0.5], "requests": 15, "margin": 0.6}
    with open_store(where) as store:
        loop = LocalDeployment(
            Task.load(path), folder, store, where, "http://127.0.0.1:1", goals, canary_settings=canary
        )
        waits = advance(loop, goals)
        assert waits.step == "serve" and "tunepoint serve" in waits.waits
        with pytest.raises(LoopError, match="not a step that needs approval"):
            loop.approve("dance", "me")
        with running(lambda: ServeSettings.load(folder / "serve.toml")) as gateway:
            loop.gateway = gateway.url
            assert advance(loop, goals).waits == "0 of 60 good examples"
            for row in traffic[:90]:
                answer, request = ask(gateway.url, row["text"], row["customer_id"])
                say(gateway.url, request, answer, row["queue"])
            deadline = time.monotonic() + 20
            while len(list(store.requests())) < 90 and time.monotonic() < deadline:
                time.sleep(0.05)
            again = LocalDeployment(
                Task.load(path), folder, store, where, gateway.url, goals, canary_settings=canary
            )
            state = advance(again, goals)  # another process goes on where the first one stopped
            assert state.step == "canary", store.audit_log("small")
            assert state.facts.challenger is not None
            challenger = state.facts.challenger.name
            assert challenger.endswith("#2")
            for number, row in enumerate(traffic * 3):
                answer, request = ask(gateway.url, row["text"], f"user {number}")
                say(gateway.url, request, answer, row["queue"])
                if number % 60 == 59 and advance(again, goals).step == "watch":
                    break
            assert again.state().step == "watch", again.state()
            with urllib.request.urlopen(f"{gateway.url}/v1/routes/small") as reply:
                routes = json.load(reply)
            assert routes["policy"]["champion"] == challenger
            with (EXAMPLE / "new_product.csv").open(newline="", encoding="utf-8") as file:
                for number, row in enumerate(csv.DictReader(file)):
                    ask(gateway.url, row["text"], f"farmer {number}")
            deadline = time.monotonic() + 20
            while advance(again, goals).round < 2 and time.monotonic() < deadline:
                time.sleep(0.2)
        lines = [line["what"] for line in store.audit_log("small")]
    assert again.state().round == 2 and again.state().step == "collect"
    assert again.state().waits.endswith(" of 100 good examples")
    assert any(
        line.startswith("watch -> collect: retraining: drift, share of novel inputs") for line in lines
    )
    heads = (
        "serve -> collect",
        "collect -> tune",
        "tune -> canary",
        "canary:",
        f"promoted {challenger}",
        "canary -> watch",
    )
    places = [next(i for i, line in enumerate(lines) if line.startswith(head)) for head in heads]
    assert places == sorted(places)
    train = (folder / "examples-2" / "train.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["origin"] != "human" for line in train) > 0


def test_an_option_that_is_surely_beaten_is_not_served_unasked() -> None:
    difference = {"arm": "tuned", "against": "few-shot", "low": 0.05, "high": 0.11, "conclusion": "better"}
    decision = {"strength": "confident", "winner": "tuned", "differences": [difference]}
    assert _beaten_by(decision, "few-shot") == "'tuned' scores +5.0 to +11.0 points more"
    assert _beaten_by(decision, "tuned") is None and _beaten_by(decision, "other") is None
    assert _beaten_by({**decision, "strength": "leaning"}, "few-shot") is None
    # The winner may be the cheaper of two that are equally good.
    cheaper = {**decision, "differences": [{**difference, "conclusion": "not worse"}]}
    assert _beaten_by(cheaper, "few-shot") is None


def test_the_loop_begins_with_a_prompt_else_with_a_baseline() -> None:
    def finalist(arm: str, kind: str, score: float) -> dict[str, Any]:
        return {"arm": arm, "kind": kind, "score": {"estimate": score}}

    tuned, vote = finalist("t", "tuned", 0.9), finalist("b", "baseline", 0.8)
    prompts = [finalist("p", "prompt", 0.6), finalist("q", "prompt", 0.7)]
    assert _untuned_champion({"finalists": [tuned, vote, *prompts]}) == "q"
    assert _untuned_champion({"finalists": [tuned, vote]}) == "b"
    assert _untuned_champion({"finalists": [tuned]}) is None
