"""The circle: its steps with a world of paper, then a small one with real studies and a real gateway."""

from __future__ import annotations

import csv
import json
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from conftest import EXAMPLE, QUEUES
from gateways import running

from tunepoint import Task
from tunepoint.capture.harvest import Harvest, Harvested
from tunepoint.capture.opening import open_store
from tunepoint.data.examples import Example
from tunepoint.errors import EvidenceError
from tunepoint.loop.deployment import LocalDeployment
from tunepoint.loop.drift import input_drift, mean_drift
from tunepoint.loop.state import Challenger, Goals, LoopError, LoopState, Step, StudyOutcome
from tunepoint.loop.turn import advance
from tunepoint.models.encoder import Encoder
from tunepoint.serve.settings import ServeSettings

RNG = np.random.default_rng


# -- the steps ------------------------------------------------------------------------------------


@dataclass
class Paper:
    """A world that does what it is told, and notes the moves."""

    now: LoopState = field(default_factory=lambda: LoopState("serve"))
    serves: bool = True
    good: int = 0
    missing: tuple[str, ...] = ()
    studied: list[StudyOutcome] = field(default_factory=list)
    state: Literal["runs", "promoted", "rolled back"] = "runs"
    speaks: tuple[str, ...] = ()
    yes: set[str] = field(default_factory=set)
    moves: list[str] = field(default_factory=list)
    promoted: list[str] = field(default_factory=list)

    def standing(self) -> LoopState:
        return self.now

    def move(self, step: Step, why: str, **facts: Any) -> LoopState:
        number = facts.pop("round", self.now.round)
        self.now = LoopState(step, number, "", {**self.now.facts, **facts})
        self.moves.append(f"{step}: {why}")
        return self.now

    def wait(self, state: LoopState, what: str) -> LoopState:
        self.now = replace(state, waits=what)
        return self.now

    def said_yes(self, to: str) -> bool:
        return to in self.yes

    def serve_prompt(self) -> tuple[str | None, str]:
        return ("prompt", "") if self.serves else (None, "the gateway")

    def harvest(self) -> Harvest:
        one = Harvested(Example("i", "x", "y"), "feedback", "a", "r")
        return Harvest((one,) * self.good, self.good, {})

    def fresh(self, found: Harvest) -> int:
        return 2

    def lacking(self, found: Harvest) -> Sequence[str]:
        return self.missing

    def study(self, found: Harvest) -> StudyOutcome:
        return self.studied.pop(0)

    def canary(self, challenger: Challenger) -> tuple[Literal["runs", "promoted", "rolled back"], str]:
        return self.state, "so it is"

    def promote(self, challenger: Challenger) -> None:
        self.promoted.append(challenger.name)
        self.state = "promoted"

    def reasons(self) -> tuple[Sequence[str], str]:
        return self.speaks, "inputs"


WON = StudyOutcome("hybrid", {"studies": 2}, Challenger("s", "tuned", "tuned #2"))


def test_the_circle_waits_at_every_step_and_goes_on_from_there() -> None:
    world, goals = Paper(serves=False), Goals(good=10)
    assert advance(world, goals).waits == "the gateway"
    world.serves = True
    assert (advance(world, goals).step, world.now.waits) == ("collect", "0 of 10 good examples")
    world.good, world.missing = 12, ("billing",)
    assert advance(world, goals).waits == "more than 10 examples of billing"
    world.missing, world.studied = (), [WON]
    assert (advance(world, goals).step, world.now.waits) == ("canary", "so it is")
    assert world.now.facts["challenger"]["name"] == "tuned #2" and world.now.facts["studies"] == 2
    world.state = "promoted"
    assert (advance(world, goals).step, world.now.waits) == (
        "watch",
        "nothing speaks for asking again (inputs)",
    )
    world.speaks = ("drift",)
    assert (advance(world, goals).step, world.now.round) == ("collect", 2)
    assert world.now.waits == "2 of 100 good examples"  # what the last study has seen does not count again
    assert world.moves == [
        "collect: prompt serves",
        "tune: 12 good examples were collected",
        "canary: hybrid",
        "watch: tuned #2 was promoted: so it is",
        "collect: asked again: drift",
    ]


def test_each_step_can_wait_for_a_persons_yes() -> None:
    goals = Goals(good=1, ask=frozenset({"tune", "canary", "promote", "collect"}))
    world = Paper(good=5, studied=[WON])
    assert advance(world, goals).waits == "a person's yes to tuning"
    world.yes.add("tune")
    assert advance(world, goals).waits == "a person's yes to the canary"
    world.yes.add("canary")
    assert advance(world, goals).waits == "so it is" and not world.promoted
    world.yes.add("promote")
    assert advance(world, goals).step == "watch" and world.promoted == ["tuned #2"]
    world.speaks = ("drift",)
    assert advance(world, goals).waits == "a person's yes to asking again: drift"


def test_an_undecided_study_asks_for_more_examples_and_a_lost_one_goes_on_watching() -> None:
    world = Paper(good=10, studied=[StudyOutcome("undecided", {}, needed=15), StudyOutcome("prompt", {})])
    assert advance(world, Goals(good=5)).waits == "10 of 15 good examples"
    world.good = 15
    assert advance(world, Goals(good=5)).step == "watch"
    # In a later round what the last study has seen does not count: it is not asked again at once.
    again = Paper(LoopState("tune", 2), good=50, studied=[StudyOutcome("undecided", {}, needed=75)])
    assert (advance(again, Goals(good=5)).step, again.now.waits) == ("collect", "2 of 100 good examples")
    world = Paper(good=10, studied=[WON], state="rolled back")
    assert advance(world, Goals(good=5)).step == "watch"
    assert world.moves[-1] == "watch: tuned #2 was rolled back: so it is"


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


def test_drift_of_the_example_by_the_real_encoder(encoder: Encoder) -> None:
    with (EXAMPLE / "messages.csv").open(newline="", encoding="utf-8") as file:
        old = [row["text"] for row in csv.DictReader(file) if row["text"]]
    with (EXAMPLE / "new_product.csv").open(newline="", encoding="utf-8") as file:
        new = [row["text"] for row in csv.DictReader(file)]
    known = [old[i] for i in RNG(0).permutation(len(old))[:700].tolist()]
    rest = [text for text in old if text not in set(known)]
    assert not input_drift(encoder.embed, known, rest, RNG(1)).drifted
    assert input_drift(encoder.embed, known, new, RNG(1)).drifted


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
materiality = 0.5
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
        found = json.load(reply)
        return found["choices"][0]["message"]["content"], reply.headers["x-request-id"]


def say(url: str, request: str, answer: str, right: str) -> None:
    said = (
        {"request_id": request, "thumbs": "up"}
        if answer == right
        else {"request_id": request, "correction": right}
    )
    sent = urllib.request.Request(
        f"{url}/v1/feedback", json.dumps(said).encode(), {"content-type": "application/json"}
    )
    urllib.request.urlopen(sent, timeout=60).close()


def test_a_small_circle_from_prompt_to_promotion_and_drift(tmp_path: Path) -> None:
    path, traffic = parts(tmp_path)
    folder, where = tmp_path / "loop", str(tmp_path / "capture.sqlite")
    goals = Goals(good=60, per_label=5)
    canary = {"steps": [0.5], "requests": 15, "margin": 0.6}
    with open_store(where) as store:
        circle = LocalDeployment(
            Task.load(path), folder, store, where, "http://127.0.0.1:1", goals, canary_settings=canary
        )
        waits = advance(circle, goals)
        assert waits.step == "serve" and "tunepoint serve" in waits.waits
        with pytest.raises(LoopError, match="no step that waits"):
            circle.say_yes("dance", "me")
        with running(lambda: ServeSettings.load(folder / "serve.toml")) as gateway:
            circle.gateway = gateway.url
            assert advance(circle, goals).waits == "0 of 60 good examples"
            for row in traffic[:90]:
                answer, request = ask(gateway.url, row["text"], row["customer_id"])
                say(gateway.url, request, answer, row["queue"])
            deadline = time.monotonic() + 20
            while len(list(store.requests())) < 90 and time.monotonic() < deadline:
                time.sleep(0.05)
            again = LocalDeployment(
                Task.load(path), folder, store, where, gateway.url, goals, canary_settings=canary
            )
            stands = advance(again, goals)  # another process goes on where the first one stopped
            assert stands.step == "canary", store.log("small")
            challenger = stands.facts["challenger"]["name"]
            assert challenger.endswith("#2")
            for number, row in enumerate(traffic * 3):
                answer, request = ask(gateway.url, row["text"], f"user {number}")
                say(gateway.url, request, answer, row["queue"])
                if number % 60 == 59 and advance(again, goals).step == "watch":
                    break
            assert again.standing().step == "watch", again.standing()
            routes = json.load(urllib.request.urlopen(f"{gateway.url}/v1/routes/small"))
            assert routes["policy"]["champion"] == challenger
            with (EXAMPLE / "new_product.csv").open(newline="", encoding="utf-8") as file:
                for number, row in enumerate(csv.DictReader(file)):
                    ask(gateway.url, row["text"], f"farmer {number}")
            deadline = time.monotonic() + 20
            while advance(again, goals).round < 2 and time.monotonic() < deadline:
                time.sleep(0.2)
        lines = [line["what"] for line in store.log("small")]
    assert again.standing().round == 2 and again.standing().step == "collect"
    assert again.standing().waits.endswith(" of 100 good examples")
    assert any(
        line.startswith("watch -> collect: asked again: drift, share of novel inputs") for line in lines
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
