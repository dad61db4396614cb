"""The loop's world: studies in a folder, the gateway over HTTP, the capture store."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from tunepoint.capture.harvest import Harvest, Rules, harvest, write_examples
from tunepoint.capture.records import CapturedRequest
from tunepoint.capture.store import Store
from tunepoint.data.examples import Example
from tunepoint.data.prepare import prepare
from tunepoint.errors import EvidenceError, StoreError, StudyError, nearest
from tunepoint.files.text import make_folder, write_text
from tunepoint.loop.drift import Drift, input_drift, mean_drift
from tunepoint.loop.savings import realized_savings, save_savings_words
from tunepoint.loop.state import (
    ASKABLE,
    Challenger,
    Goals,
    LoopError,
    LoopState,
    Step,
    StudyOutcome,
    _state,
    load_state,
)
from tunepoint.models.embedded import installed_encoder
from tunepoint.serve.canary_monitor import feedback_score
from tunepoint.stats.streams import Stream, stream
from tunepoint.study.run import run
from tunepoint.task.task import Task

WEEK = 7 * 86_400.0
MORE = 150
"""Percent of the examples of an undecided study with which it is asked again."""
SOON_DAYS = 60
"""Days before the retirement of a base model from which the question is asked again."""
WHO = "loop"


@dataclass
class LocalDeployment:
    """Where the loop keeps what it makes, and whom it asks.

    Args:
        task: with the labelled examples that there are; its test stays sealed for the choice of arms.
        folder: of studies, harvested examples and serve.toml.
        gateway: base URL of the gateway, without /v1.
        key: of the roles read and operate; none is needed on this machine.
        window: seconds of traffic that drift looks at.
        canary_settings: further settings of canaries, as in serve.toml.

    """

    task: Task
    folder: Path
    store: Store
    where: str
    """Of the store: what serve.toml says."""
    gateway: str
    goals: Goals
    key: str | None = None
    seed: int = 0
    window: float = WEEK
    canary_settings: Mapping[str, Any] | None = None
    margin: float = 0.05
    """How much feedback and formats may fall before it is drift."""

    # -- where it is ---------------------------------------------------------------------------------

    def standing(self) -> LoopState:
        """Where it stopped; the first step if it never ran."""
        return load_state(self.store, self.task.name)

    def move(self, step: Step, why: str, **facts: Any) -> LoopState:
        """Go to a step; written down, and in the audit log."""
        before = self.standing()
        number = int(facts.pop("round", before.round))
        kept = {**before.facts, **facts}
        if step != before.step:
            kept["yes"] = []  # a yes is for one step
        if number != before.round:
            kept.pop("needed", None)
        if step == "watch":
            kept["watching"] = time.time()
        found = LoopState(step, number, "", kept)
        self._keep(found)
        self.store.note(self.task.name, WHO, f"{before.step} -> {step}: {why}")
        return found

    def wait(self, state: LoopState, what: str) -> LoopState:
        """Stay, and say what is waited for."""
        found = replace(self.standing(), step=state.step, round=state.round, waits=what)
        self._keep(found)
        return found

    def _keep(self, found: LoopState) -> None:
        content = {"step": found.step, "round": found.round, "waits": found.waits, "facts": dict(found.facts)}
        self.store.set_state(_state(self.task.name), content)

    def said_yes(self, to: str) -> bool:
        """Whether a person has agreed to a step of this round."""
        return to in self.standing().facts.get("yes", [])

    def say_yes(self, to: str, who: str) -> None:
        """Agree to a step of this round.

        Raises:
            LoopError: it is none that could be agreed to.

        """
        if to not in ASKABLE:
            raise LoopError(f"{to!r} is no step that waits for a yes; {nearest(to, ASKABLE)}")
        now = self.standing()
        yes = [*now.facts.get("yes", []), to]
        self._keep(replace(now, facts={**now.facts, "yes": yes}))
        self.store.note(self.task.name, who, f"said yes to {to}")

    # -- serve ---------------------------------------------------------------------------------------

    def serve_prompt(self) -> tuple[str | None, str]:
        """Measure what can be prompted now, write serve.toml, and see that the gateway serves it."""
        make_folder(self.folder)
        study = self.folder / "study-1"
        found = run(self.task, out=study, seed=self.seed)
        prompts = [one for one in found.document["finalists"] if one["kind"] in ("prompt", "incumbent")]
        if not prompts:
            raise LoopError(f"{study}: no prompting arm among its finalists, so nothing to begin with")
        champion = max(prompts, key=lambda one: one["score"]["estimate"])["arm"]
        if not (self.folder / "serve.toml").exists():
            self._write_settings(champion, [])
        if self._asked("GET", "/healthz") is None:
            return None, f"the gateway at {self.gateway}: `tunepoint serve {self.folder / 'serve.toml'}`"
        return champion, ""

    def _write_settings(self, champion: str, more: Sequence[Challenger]) -> None:
        port = self.gateway.rpartition(":")[2]
        lines = [
            "# Written by the loop, and written anew with every challenger; the gateway keeps who serves.",
            "[server]",
            f"port = {int(port) if port.isdigit() else 8_484}",
            f"store = {_quoted(self.where if '://' in self.where else str(Path(self.where).resolve()))}",
            "",
            "[[tasks]]",
            f"name = {_quoted(self.task.name)}",
            f"study = {_quoted(str((self.folder / 'study-1').resolve()))}",
            f"only = [{_quoted(champion)}]",
            f"champion = {_quoted(champion)}",
        ]
        for one in more:
            lines += ["", "[[tasks.more]]"]
            lines += [f"{key} = {_quoted(value)}" for key, value in vars(one).items()]
        write_text(self.folder / "serve.toml", "\n".join(lines) + "\n")

    # -- collect -------------------------------------------------------------------------------------

    def _parts(self) -> tuple[list[Example], list[Example], list[Example]]:
        """Train as it was labelled, dev and the sealed test; what was harvested is not among them."""
        split = prepare(self.task, self.seed).split
        return list(split.train), list(split.dev), list(split.test)

    def harvest(self) -> Harvest:
        """Examples from the traffic so far; near duplicates of those that are there are left."""
        train, dev, test = self._parts()
        rng = stream(self.seed, Stream.HARVEST, self.standing().round)
        return harvest(self.store, self.task, (*train, *dev), test, rng, Rules(self.task.score.accept))

    def fresh(self, found: Harvest) -> int:
        """How many of them came since the last study."""
        since = float(self.standing().facts.get("studied", 0.0))
        return sum(one.at >= since for one in found.taken)

    def lacking(self, found: Harvest) -> list[str]:
        """Declared labels that have too few examples."""
        if self.task.answer.kind != "label" or not self.task.answer.labels:
            return []
        counts = Counter(found.counts)
        counts.update(example.target for example in self._parts()[0])
        return [label for label in self.task.answer.labels if counts[label] < self.goals.per_label]

    # -- tune ----------------------------------------------------------------------------------------

    def study(self, found: Harvest) -> StudyOutcome:
        """Tune on train and what was harvested, and decide on the same sealed test as before."""
        number, started = int(self.standing().facts.get("studies", 1)) + 1, time.time()
        folder = self.folder / f"study-{number}"
        decision = run(self._with_harvest(found, number), out=folder, seed=self.seed).document
        strength = decision["strength"] or "not settled"
        why = f"study {number}: {decision['verdict']} ({strength}), {decision['winner']}"
        facts = {"studies": number, "studied": started}
        if number > 2:  # each study opens it once; how often that was stands in the log
            self.store.note(self.task.name, WHO, f"the sealed test was opened by {number} studies")
        if decision["verdict"] in ("fine-tune", "hybrid"):
            arm = str(decision["winner"])
            return StudyOutcome(why, facts, Challenger(str(folder.resolve()), arm, f"{arm} #{number}"))
        if decision["verdict"] == "undecided":
            needed = len(found.taken) * MORE // 100
            return StudyOutcome(f"{why}; asked again with {needed} examples", facts, needed=needed)
        return StudyOutcome(why, facts)

    def _with_harvest(self, found: Harvest, number: int) -> Task:
        """The task on given parts: dev and test as they were, train with what was harvested.

        Written once: a study that was killed goes on with the same examples.
        """
        folder = self.folder / f"examples-{number}"
        make_folder(folder)
        files = {name: folder / f"{name}.jsonl" for name in ("train", "dev", "test")}
        if not all(path.exists() for path in files.values()):
            write_examples(found, self.task.model_copy(update={"data": None}), folder / "harvested.jsonl")
            for (name, path), examples in zip(files.items(), self._parts(), strict=True):
                more = [one.example for one in found.taken] if name == "train" else []
                lines = [json.dumps(_row(example), ensure_ascii=False) for example in (*examples, *more)]
                write_text(path, "".join(f"{line}\n" for line in lines))
        content = self.task.portable()["task"]
        columns = {name: name for name in ("input", "target", "group", "origin", "id")}
        content["data"] = {**{name: str(path.resolve()) for name, path in files.items()}, **columns}
        return Task.parse(content, where=str(folder), folder=self.task.folder)

    # -- canary --------------------------------------------------------------------------------------

    def canary(self, challenger: Challenger) -> tuple[Literal["runs", "promoted", "rolled back"], str]:
        """See that the gateway has the challenger, and that it is tried; how it stands."""
        routes = self._routes()
        if challenger.name not in routes["arms"]:
            champion = routes["policy"]["champion"]
            known = [Challenger(**one) for one in self.standing().facts.get("arms", [])]
            arms = [*(one for one in known if one.name != challenger.name), challenger]
            first = self.standing().facts.get("first", champion)
            self._write_settings(first, arms)
            self.move("canary", f"{challenger.name} was added", arms=[vars(one) for one in arms], first=first)
            self._told("POST", "/v1/reload", {})
            routes = self._routes()
        policy = routes["policy"]
        if policy["champion"] == challenger.name:
            return "promoted", self._last_word()
        if policy["canary"] is None:
            if self.standing().facts.get("tried") == challenger.name:
                return "rolled back", self._last_word()
            ask = {"ask": True} if "promote" in self.goals.ask else {}
            settings = {"arm": challenger.name, **(self.canary_settings or {}), **ask}
            self._keep(replace(self.standing(), facts={**self.standing().facts, "tried": challenger.name}))
            self._told("POST", self._route, {"canary": settings})
        why = (routes["canary"] or {}).get("why", "it has just begun")
        return "runs", f"the canary of {challenger.name}: {why}"

    def promote(self, challenger: Challenger) -> None:
        """A person said yes."""
        self._told("POST", self._route, {"promote": challenger.name, "why": "a person's yes"})

    def _last_word(self) -> str:
        """What the audit log says of the last promotion or rollback."""
        lines = [str(line["what"]) for line in self.store.log(self.task.name)]
        found = [line for line in lines if line.startswith(("promoted", "rolled back"))]
        return found[-1].partition(": ")[2] if found else "as the gateway says"

    # -- watch ---------------------------------------------------------------------------------------

    def reasons(self) -> tuple[list[str], str]:
        """What speaks for asking again, and what was looked at."""
        looked: list[str] = []
        found: list[str] = []
        for drift in self.drifts():
            looked.append(str(drift))
            if drift.drifted:
                found.append(f"drift, {drift}")
        known = self.standing().facts.get("asked", [])  # what a round has answered does not begin another
        self.store.set_state(f"drift/{self.task.name}", {"words": looked, "drifted": bool(found)})
        found += [reason for reason in (*self._reversed(), *self._retiring()) if reason not in known]
        return found, "; ".join(looked) or "too little traffic since"

    def drifts(self) -> list[Drift]:
        """Inputs, feedback and formats of the last while against what was before."""
        started = float(self.standing().facts.get("watching", 0.0))
        recent = [one for one in self._traffic(max(started, time.time() - self.window)) if one.status < 400]
        earlier = [one for one in self._traffic(0.0, started) if one.status < 400]
        found = []
        encoder = installed_encoder()
        known = [example.input for example in self._parts()[0]] + _asked(earlier)
        if encoder is not None:
            rng = stream(self.seed, Stream.DRIFT)
            with contextlib.suppress(EvidenceError):
                found.append(input_drift(encoder.embed, known, _asked(recent), rng))
        for what, values in (("feedback", self._scores), ("share of readable answers", _readable)):
            before, now = values(earlier), values(recent)
            if len(before) >= 20 and len(now) >= 20:
                found.append(mean_drift(what, before, now, self.margin))
        return found

    def _traffic(self, since: float, until: float = float("inf")) -> list[CapturedRequest]:
        rows = self.store.requests(self.task.name, since=since, until=until)
        return [one for one in rows if one.copy_of is None and one.role != "imported"]

    def _scores(self, rows: Sequence[CapturedRequest]) -> list[float]:
        said = self.store.feedback([one.id for one in rows])
        values = [feedback_score(one) for found in said.values() for one in found]
        return [value for value in values if value is not None]

    def _reversed(self) -> list[str]:
        """Whether the last study would be decided otherwise at measured prices and volume."""
        study = self.folder / f"study-{self.standing().facts.get('studies', 1)}"
        if not study.exists():
            return []
        with contextlib.suppress(StoreError, StudyError):
            found = realized_savings(study, self.store)
            save_savings_words(self.store, self.task.name, found)
            decided = json.loads((study / "decision.json").read_text(encoding="utf-8"))
            if found.volume is not None and found.verdict != decided["verdict"]:
                return [f"with measured volume and prices the verdict is {found.verdict}: {found.winner}"]
        return []

    def _retiring(self) -> list[str]:
        """Base models that retire soon."""
        today = datetime.now(UTC).date()
        named = [(one.name, one.retires) for one in self.task.models]
        named += [(one.base, one.retires) for one in self.task.tune]
        return [
            f"{name} retires on {day}"
            for name, day in named
            if day is not None and (day - today).days <= SOON_DAYS
        ]

    # -- the gateway ---------------------------------------------------------------------------------

    @property
    def _route(self) -> str:
        return f"/v1/routes/{urllib.parse.quote(self.task.name)}"

    def _routes(self) -> dict[str, Any]:
        return self._told("GET", self._route)

    def _told(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        found = self._asked(method, path, body)
        if found is None:
            raise LoopError(
                f"no gateway answers at {self.gateway}: start it with `tunepoint serve "
                f"{self.folder / 'serve.toml'}` and run the loop again: it goes on where it is"
            )
        return found

    def _asked(self, method: str, path: str, body: Any = None) -> dict[str, Any] | None:
        """The gateway's answer; None where nobody answers."""
        headers = {"content-type": "application/json"}
        if self.key is not None:
            headers["authorization"] = f"Bearer {self.key}"
        data = None if body is None else json.dumps(body).encode()
        try:
            request = urllib.request.Request(self.gateway + path, data, headers, method=method)
            with urllib.request.urlopen(request, timeout=120) as reply:
                content: dict[str, Any] = json.load(reply)
                return content
        except urllib.error.HTTPError as error:
            said = ""
            with error, contextlib.suppress(ValueError, AttributeError):
                said = json.loads(error.read()).get("error", {}).get("message", "")
            raise LoopError(f"the gateway refuses {method} {path} (HTTP {error.code}): {said}") from None
        except OSError:
            return None
        except (ValueError, http.client.HTTPException):
            raise LoopError(f"{self.gateway}: no gateway of ours answers there; give its address") from None


def _asked(rows: Sequence[CapturedRequest]) -> list[str]:
    """Inputs that were kept."""
    return [one.input for one in rows if one.input]


def _readable(rows: Sequence[CapturedRequest]) -> list[float]:
    return [float(one.format_ok) for one in rows if one.format_ok is not None]


def _row(example: Example) -> dict[str, Any]:
    keys = ("id", "input", "target", "origin")
    return {**{key: getattr(example, key) for key in keys}, "group": example.group or example.id}


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
