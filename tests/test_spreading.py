"""One endpoint over several workers: who gets what, what a dead worker costs, and what stops all of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from tunepoint.errors import BudgetReached, ModelError
from tunepoint.models import spreading
from tunepoint.models.budget import Budget, BudgetedEndpoint
from tunepoint.models.chat import Message, Usage
from tunepoint.models.endpoints import Completion, Request, allow_all
from tunepoint.models.spreading import Answers, Sharing, SpreadEndpoint, WorkerLost

NAME = "model"


def asked(count: int) -> list[Request]:
    return [Request((Message("user", str(number)),)) for number in range(count)]


def echo(requests: Sequence[Request]) -> Answers:
    texts = [request.messages[0].content for request in requests]
    return Answers({place: Completion(f"to {text}", Usage(NAME)) for place, text in enumerate(texts)})


def ready(error: BaseException | None = None) -> Future[None]:
    started: Future[None] = Future()
    if error is None:
        started.set_result(None)
    else:
        started.set_exception(error)
    return started


@dataclass
class Threaded:
    """A worker in a thread."""

    respond: Callable[[Sequence[Request]], Answers] = echo
    started: Future[None] = field(default_factory=ready)
    groups: list[int] = field(default_factory=list)
    stopped: bool = False
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    def answer(self, requests: Sequence[Request]) -> Future[Answers]:
        self.groups.append(len(requests))
        return self.pool.submit(self.respond, requests)

    def stop(self) -> None:
        self.stopped = True
        self.pool.shutdown()


@dataclass
class Team:
    """Starts workers, each with the next behavior."""

    behaviors: list[Callable[[], Threaded]]
    workers: list[Threaded] = field(default_factory=list)

    def start(self) -> Threaded:
        made = self.behaviors.pop(0)() if self.behaviors else Threaded()
        self.workers.append(made)
        return made

    def endpoint(self, size: int, sharing: Sharing | None = None) -> SpreadEndpoint:
        return SpreadEndpoint(NAME, self.start, size, sharing or Sharing(2, 4))


def completed(endpoint: SpreadEndpoint, count: int) -> dict[int, str]:
    answers: dict[int, str] = {}

    def done(position: int, completion: Completion) -> None:
        assert position not in answers, "a request is answered once"
        answers[position] = completion.text

    endpoint.complete(asked(count), done, allow_all)
    endpoint.close()
    return answers


def dying(after: int) -> Callable[[], Threaded]:
    """A worker that dies over its group of a number."""

    def make() -> Threaded:
        worker = Threaded()

        def respond(requests: Sequence[Request]) -> Answers:
            if len(worker.groups) > after:
                raise WorkerLost("the machine is gone")
            return echo(requests)

        worker.respond = respond
        return worker

    return make


def test_every_request_is_answered_once_by_all_workers() -> None:
    team = Team([])
    answers = completed(team.endpoint(3), 50)
    assert answers == {number: f"to {number}" for number in range(50)}
    assert len(team.workers) == 3 and all(worker.groups for worker in team.workers)
    assert max(max(worker.groups) for worker in team.workers) == 4
    assert all(worker.stopped for worker in team.workers)


def test_groups_get_smaller_where_few_requests_are_left() -> None:
    team = Team([])
    completed(team.endpoint(2, Sharing(2, 32)), 9)
    assert max(max(worker.groups, default=0) for worker in team.workers) == 3  # 9 over 2 times 2 groups


def test_workers_that_died_while_nothing_was_asked_cost_nothing() -> None:
    team = Team([dying(after=0) for _ in range(4)])
    assert completed(team.endpoint(4), 1) == {0: "to 0"}  # machines went between two calls


def test_workers_that_die_at_every_request_are_an_error() -> None:
    team = Team([dying(after=0) for _ in range(90)])
    with pytest.raises(ModelError, match=r"die as soon as they start \(the machine is gone\)"):
        completed(team.endpoint(2), 5)


def test_an_error_that_is_not_ours_waits_for_what_is_under_way() -> None:
    def odd(requests: Sequence[Request]) -> Answers:
        raise ValueError("odd")

    def slow(requests: Sequence[Request]) -> Answers:
        time.sleep(0.3)
        return echo(requests)

    team = Team([lambda: Threaded(slow), lambda: Threaded(odd)])
    endpoint, kept = team.endpoint(2), list[int]()
    with pytest.raises(ValueError, match="odd"):
        endpoint.complete(asked(8), lambda position, _: kept.append(position), allow_all)
    assert kept
    endpoint.close()


def test_time_in_which_the_machines_train_for_us_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreading, "START_SECONDS", 0.2)
    until = time.monotonic() + 0.6
    started: Future[None] = Future()
    threading.Timer(0.6, started.set_result, [None]).start()
    team = Team([lambda: Threaded(started=started)])
    endpoint = SpreadEndpoint(
        NAME, team.start, 1, Sharing(2, 4), busy=lambda: time.monotonic() < until - 0.05
    )
    assert completed(endpoint, 3) == {0: "to 0", 1: "to 1", 2: "to 2"}


def test_a_dead_worker_costs_only_what_it_was_answering() -> None:
    team = Team([dying(after=2)])
    assert completed(team.endpoint(2), 60) == {number: f"to {number}" for number in range(60)}
    assert len(team.workers) == 3  # one took the place of the dead one


def test_a_request_over_which_workers_die_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreading, "QUICK_SECONDS", 0.0)
    team = Team([dying(after=0) for _ in range(20)])
    with pytest.raises(ModelError, match=r"3 workers died over the same request \(the machine is gone\)"):
        completed(team.endpoint(2), 5)


def test_workers_that_die_while_they_load_are_an_error() -> None:
    team = Team([lambda: Threaded(started=ready(WorkerLost("out of memory"))) for _ in range(50)])
    with pytest.raises(ModelError, match=r"die as soon as they start \(out of memory\)"):
        completed(team.endpoint(2), 5)


def test_a_worker_that_cannot_open_the_model_says_why() -> None:
    team = Team([lambda: Threaded(started=ready(ModelError("no such file"))) for _ in range(2)])
    with pytest.raises(ModelError, match="no worker of the cluster could open it: no such file"):
        completed(team.endpoint(2), 5)


def test_workers_that_never_start_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreading, "START_SECONDS", 0.05)
    team = Team([lambda: Threaded(started=Future()) for _ in range(2)])
    with pytest.raises(ModelError, match="no machine of the cluster has room for one"):
        completed(team.endpoint(2), 5)


def test_a_fault_of_all_requests_keeps_what_arrived() -> None:
    def refused(requests: Sequence[Request]) -> Answers:
        return Answers(
            dict(list(echo(requests).completions.items())[:1]), "the key was refused", {"HTTP 401": 1}
        )

    team = Team([lambda: Threaded(refused)])
    endpoint, kept = team.endpoint(1), list[int]()
    with pytest.raises(ModelError, match="the key was refused"):
        endpoint.complete(asked(8), lambda position, _: kept.append(position), allow_all)
    assert kept and len(kept) < 8 and endpoint.failures["HTTP 401"] == len(kept)


def test_the_cap_is_one_for_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer costs $1 and may cost $2: of $10, ten are bought, whoever answers."""

    class Dollar:
        def max_dollars(self, request: Request) -> float:
            return 2.0

        def dollars(self, usage: Usage) -> float:
            return 1.0

    team, budget, kept = Team([]), Budget(10.0, 0.0), list[int]()
    paid = BudgetedEndpoint(team.endpoint(4, Sharing(3, 2)), budget, Dollar())  # type: ignore[arg-type]
    with pytest.raises(BudgetReached):
        paid.complete(asked(50), lambda position, _: kept.append(position), allow_all)
    assert len(kept) == 9 and budget.spent_usd == 9.0  # the tenth might have cost two


def test_a_call_that_is_made_again_is_counted_twice() -> None:
    """Whoever made it died: nobody knows whether it was paid for."""

    class Dollar:
        def max_dollars(self, request: Request) -> float:
            return 2.0

        def dollars(self, usage: Usage) -> float:
            return 1.0

    team, budget = Team([dying(after=0)]), Budget(None, 0.0)
    paid = BudgetedEndpoint(team.endpoint(1, Sharing(1, 4)), budget, Dollar())  # type: ignore[arg-type]
    kept: list[int] = []
    paid.complete(asked(4), lambda position, _: kept.append(position), allow_all)
    assert sorted(kept) == [0, 1, 2, 3] and budget.spent_usd == 4 * 1.0 + 4 * 2.0


def test_rented_machines_are_charged_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("tunepoint.models.budget.time.monotonic", lambda: now[0])
    budget = Budget(1.0, 5.0)
    budget.rent(36.0)  # a cent a second
    now[0] += 50
    budget.charge_seconds(1_000.0)  # time of a step is in the clock already
    assert budget.spent_usd == pytest.approx(0.5)
    now[0] += 40
    with pytest.raises(
        BudgetReached, match=r"\$0.900000 of \$1.000000 are spent, the next step costs about \$0.200"
    ):
        budget.check(20.0, 20.0)
    budget.check(10.0, 10.0)
    now[0] += 11
    with pytest.raises(BudgetReached):
        budget.reserve(0.0)
