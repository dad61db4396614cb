"""Studies that are killed again and again, in every phase: what is lost, done twice or paid twice.

A study runs in a forked process. SIGKILL ends it at a random moment of each of its phases, and it is resumed
until it ends. The model is a mock in a process of its own, which writes down every request before it answers.
Checked:

* no trial and no recorded answer that was on disk at a kill is missing at the end;
* no trial stands twice in a log;
* a request that the mock saw twice was under way at a kill: received at most two seconds before it;
* the mock's own sum of dollars never exceeds the cap.

    python benchmarks/kills.py [--kind chat|encoder] [--kills 60] [--seed 0]
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import os
import signal
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from mock_server import completion, start_server

import tunepoint.study.run as study_run
from tunepoint import Task, run
from tunepoint.errors import BudgetReached

PHASES = ("plan", "find_doubtful_labels", "select", "draw_curve", "open_test", "conclude")
"""Of a study, by the functions of `tunepoint.study.run`; validation and search are in `select`."""
SCHEDULE = ("plan", "find_doubtful_labels", *["select"] * 3, "draw_curve", *["open_test"] * 3, "conclude")
"""The phases in which one study is killed, in this order."""
QUEUES = {"billing": "invoice", "device_setup": "pairing", "privacy_security": "password"}
USD_PER_TOKEN = {"input": 1e-6, "output": 4e-6}
OUTPUT_TOKENS, LATENCY_SECONDS = 3, 0.02
UNDER_WAY_SECONDS = 2.0
"""From a request to its recording, at most."""
FAILED, CAPPED = 3, 4
"""Exit status of a study that ended with an error, and with its cap."""


def rows(count: int, seed: int) -> list[tuple[str, str]]:
    """Return messages and their queues; no two have the same words."""
    rng = np.random.default_rng(seed)
    names = list(QUEUES)
    return [
        (
            " ".join(map(str, rng.integers(1_000, 99_999, 4))) + f" {QUEUES[names[i % 3]]} question {i}",
            names[i % 3],
        )
        for i in range(count)
    ]


# -- the mock ------------------------------------------------------------------------------------------


async def answer(log: Path, body: dict[str, Any]) -> dict[str, Any]:
    """Answer with the queue; the request is written down, with its price, before that."""
    words = sum(len(turn["content"].split()) for turn in body["messages"])
    usd = words * USD_PER_TOKEN["input"] + OUTPUT_TOKENS * USD_PER_TOKEN["output"]
    key = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    with log.open("a") as file:
        file.write(json.dumps([key, usd, time.time()]) + "\n")
    await asyncio.sleep(LATENCY_SECONDS)
    last = body["messages"][-1]["content"]
    queue = next((name for name, word in QUEUES.items() if f"{word} question" in last), "billing")
    return completion(queue, words, OUTPUT_TOKENS)


@dataclass
class Mock:
    """The mock's log, as far as it was read."""

    log: Path
    port: int

    def calls(self) -> list[tuple[str, float, float]]:
        """Return key, dollars and time of every request so far."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [tuple(json.loads(line)) for line in lines]


# -- a study that can be killed ------------------------------------------------------------------------


@dataclass
class Attempt:
    """A forked process that runs a study and says which phase it is in."""

    pid: int
    phases: Connection
    status: int | None = None
    """Exit status, once it has ended."""

    def wait_for(self, phase: str) -> bool:
        """Wait until a phase begins; False if the study ended before."""
        while True:
            try:
                if self.phases.recv() == phase:
                    return True
            except EOFError:
                return False

    def kill_after(self, seconds: float) -> bool:
        """Kill it after a time; False if it had ended by then."""
        time.sleep(seconds)
        # A process that has ended is there until somebody asks for its status.
        os.kill(self.pid, signal.SIGKILL)
        return self.finish() == -signal.SIGKILL

    def finish(self) -> int:
        """Wait for its end, and return its exit status."""
        if self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status


def import_libraries() -> None:
    """Import what a study imports on its way, so that its forks need not."""
    import openai  # noqa: F401
    import scipy.stats  # noqa: F401
    import sklearn.linear_model
    import sklearn.model_selection  # noqa: F401

    from tunepoint.models.embedded import installed_encoder

    assert installed_encoder() is not None


def start(task: Task, out: Path, cap: float | None) -> Attempt:
    """Run a study in a fork: what was imported here need not be imported again."""
    inbox, outbox = multiprocessing.Pipe(duplex=False)
    pid = os.fork()
    if pid == 0:
        status = FAILED
        try:
            inbox.close()
            for phase in PHASES:
                setattr(study_run, phase, announced(phase, getattr(study_run, phase), outbox))
            run(task, out=out, max_usd=cap)
            status = 0
        except BudgetReached:
            status = CAPPED
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", flush=True)
        finally:
            os._exit(status)
    outbox.close()
    return Attempt(pid, inbox)


def announced(phase: str, work: Callable[..., Any], outbox: Connection) -> Callable[..., Any]:
    def begin(*args: Any, **more: Any) -> Any:
        outbox.send(phase)
        return work(*args, **more)

    return begin


def durations(task: Task, out: Path) -> dict[str, float]:
    """Run a study to its end, and return the seconds of its phases."""
    attempt, begun = start(task, out, None), list[tuple[str, float]]()
    while True:
        try:
            begun.append((attempt.phases.recv(), time.monotonic()))
        except EOFError:
            break
    ended = time.monotonic()
    assert attempt.finish() == 0, "the study does not even run without kills"
    ends = [moment for _, moment in begun[1:]] + [ended]
    return {phase: end - moment for (phase, moment), end in zip(begun, ends, strict=True)}


# -- what is on disk ------------------------------------------------------------------------------------


@dataclass
class OnDisk:
    """What a study has recorded."""

    trials: Counter[tuple[str, ...]] = field(default_factory=Counter)
    calls: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, folder: Path) -> OnDisk:
        """Read the logs of trials, without a line that a kill cut off, and the recorded requests."""
        disk = cls()
        for name in ("dev.jsonl", "trials.jsonl"):
            path = folder / name
            content = path.read_text() if path.exists() else ""
            for line in content[: content.rfind("\n") + 1].splitlines():
                trial = json.loads(line)
                disk.trials[name, *(str(trial.get(key)) for key in ("arm", "item", "seed", "decode"))] += 1
        if (folder / "calls.sqlite").exists():
            with sqlite3.connect(folder / "calls.sqlite") as database:
                tables = {row[0] for row in database.execute("select name from sqlite_master")}
                if "calls" in tables:
                    disk.calls = {row[0] for row in database.execute("select key from calls")}
        return disk


@dataclass
class Tally:
    """What happened, over all studies."""

    kills: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    doubled: int = 0
    repeated: int = 0
    """Requests that were under way at a kill and sent again."""
    unexplained: int = 0
    """Other requests that were sent twice."""
    over_cap: int = 0
    failed: int = 0
    """Studies that did not end by themselves."""

    @property
    def faults(self) -> int:
        """What must be 0."""
        return self.lost + self.doubled + self.unexplained + self.over_cap + self.failed


@dataclass
class KilledStudy:
    """One study, killed in every phase and resumed to its end."""

    task: Task
    out: Path
    caps: list[float]
    """Spending caps; the next one holds once a run has met one."""
    mock: Mock | None
    tally: Tally
    snapshots: list[OnDisk] = field(default_factory=list)
    kills: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.first_call = len(self.mock.calls()) if self.mock else 0

    def run(self, seconds: dict[str, float], rng: np.random.Generator) -> None:
        """Kill it as scheduled, let it end, and count what went wrong."""
        for phase in SCHEDULE:
            while not self._kill_in(phase, rng.uniform(0, seconds[phase])) and len(self.caps) > 1:
                self.caps.pop(0)
        status = self._end(start(self.task, self.out, self.caps[0]))
        while status == CAPPED and len(self.caps) > 1:
            self.caps.pop(0)
            status = self._end(start(self.task, self.out, self.caps[0]))
        self.tally.failed += status != 0
        self._check()

    def _kill_in(self, phase: str, after: float) -> bool:
        """Kill it in a phase; False if it met its cap before."""
        attempt = start(self.task, self.out, self.caps[0])
        if attempt.wait_for(phase) and attempt.kill_after(after):
            self.kills.append(time.time())
            self.tally.kills[phase] += 1
            self.snapshots.append(OnDisk.read(self.out))
            return True
        status = self._end(attempt)
        self.tally.failed += status == FAILED
        return status != CAPPED

    def _end(self, attempt: Attempt) -> int:
        status = attempt.finish()
        spent = sum(usd for _, usd, _ in self._calls())
        self.tally.over_cap += spent > self.caps[0]
        return status

    def _calls(self) -> list[tuple[str, float, float]]:
        return self.mock.calls()[self.first_call :] if self.mock else []

    def _check(self) -> None:
        final, tally = OnDisk.read(self.out), self.tally
        for snapshot in self.snapshots:
            tally.lost += len(snapshot.trials.keys() - final.trials.keys())
            tally.lost += len(snapshot.calls - final.calls)
        tally.doubled += sum(count - 1 for count in final.trials.values())
        seen: dict[str, float] = {}
        for key, _, moment in self._calls():
            if key in seen:
                known = any(0 <= kill - seen[key] <= UNDER_WAY_SECONDS for kill in self.kills)
                tally.repeated += known
                tally.unexplained += not known
            seen[key] = moment


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=("chat", "encoder"), default="chat")
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--items", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, tally = np.random.default_rng(options.seed), Tally()
    with tempfile.TemporaryDirectory() as base:
        folder, mock, content = Path(base), None, task_content(options.kind)
        lines = [f"{text},{queue}" for text, queue in rows(options.items, options.seed)]
        (folder / "messages.csv").write_text("\n".join(["text,label", *lines]) + "\n")
        if options.kind == "chat":
            log = folder / "mock.jsonl"
            mock = Mock(log, start_server(partial(answer, log))[1])
            price = {name: usd * 1e6 for name, usd in USD_PER_TOKEN.items()}
            content["models"] = [{"name": f"http://127.0.0.1:{mock.port}/v1#mock", "price": price}]
        task = Task.parse(content, folder=folder)
        import_libraries()
        seconds = durations(task, folder / "undisturbed")
        spent = json.loads((folder / "undisturbed" / "manifest.json").read_text())["spent_usd"]
        print("undisturbed: " + ", ".join(f"{phase} {value:.1f} s" for phase, value in seconds.items()))
        number = 0
        while tally.kills.total() < options.kills and number < options.kills:
            number += 1
            plenty = 100 * spent + 1
            caps = [0.6 * spent, plenty] if number % 2 == 0 else [plenty]
            KilledStudy(task, folder / f"study{number}", caps, mock, tally).run(seconds, rng)
            print(f"{number} studies: {tally}", flush=True)
    print(f"{tally.kills.total()} kills of {number} {options.kind} studies: {dict(tally.kills)}")
    of_server = () if mock else ("repeated", "unexplained", "over_cap")  # encoders call none
    figures = {name: n for name, n in vars(tally).items() if name != "kills" and name not in of_server}
    for name, count in figures.items():
        print(f"{name:<14}{count:6}")
    print(
        json.dumps(
            {
                "benchmark": "kills",
                "kind": options.kind,
                "studies": number,
                **figures,
                "kills": tally.kills.total(),
            }
        )
    )
    raise SystemExit(1 if tally.faults else 0)


def task_content(kind: str) -> dict[str, Any]:
    """Return the task: with an encoder, or as text, which only the chat model writes."""
    content: dict[str, Any] = {
        "name": "kills",
        "instruction": "Route the message.",
        "data": {"path": "messages.csv", "input": "text", "target": "label"},
        "traffic": {"queries_per_month": 20_000},
    }
    return content | ({"answer": {"kind": "text"}, "score": {"metric": "exact"}} if kind == "chat" else {})


if __name__ == "__main__":
    main()
