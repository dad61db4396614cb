"""Spending that outlives a killed process: each call counts at its most until its cost is known."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tunepoint.errors import BudgetReached, ModelError, StudyError
from tunepoint.files.amounts import TokenPrice
from tunepoint.models.budget import Budget, BudgetedEndpoint
from tunepoint.models.chat import Message, Usage
from tunepoint.models.endpoints import Allow, Completion, Done, Request, allow_all
from tunepoint.models.payments import PaymentLog
from tunepoint.models.prices import call_price

REQUEST = Request((Message("user", "x" * 400),), max_output_tokens=100)
PRICE = call_price("http://host/v1#m", TokenPrice(input=1, output=10))
assert PRICE is not None
MOST = PRICE.max_dollars(REQUEST)


class Once:
    """Answers the first request, and fails at the second in a way of its own."""

    name = "m"

    def __init__(self, fault: BaseException) -> None:
        self.fault = fault

    def complete(self, requests: Sequence[Request], done: Done, allow: Allow) -> None:
        assert allow(requests[0])
        done(0, Completion("ok", Usage("m", input_tokens=100, output_tokens=10)))
        assert allow(requests[1])
        raise self.fault


def test_a_call_without_a_known_cost_counts_as_the_most_that_it_may_cost(tmp_path: Path) -> None:
    log = PaymentLog(tmp_path / "p.jsonl")
    budget = Budget(1.0, 0.0, payments=log)
    first, _ = budget.reserve(0.5), budget.reserve(0.25)  # the process is killed after one answer
    assert first is not None
    budget.settle(first, 0.125)
    log.close()
    with (tmp_path / "p.jsonl").open("ab") as file:
        file.write(b"[3, 0.")
    with closing(PaymentLog(tmp_path / "p.jsonl")) as resumed:
        assert resumed.usd == 0.125 + 0.25
        assert resumed.intend(0.5) == 3
        with pytest.raises(BudgetReached, match="the next call may cost"):
            Budget(1.0, 0.0, resumed.usd, resumed).reserve(0.2)


@pytest.mark.parametrize(("fault", "counted"), [(KeyboardInterrupt(), MOST), (ModelError("no server"), 0.0)])
def test_a_stopped_call_counts_unless_no_server_took_it(
    fault: BaseException, counted: float, tmp_path: Path
) -> None:
    with closing(PaymentLog(tmp_path / "p.jsonl")) as log:
        budget = Budget(1.0, 0.0, payments=log)
        endpoint = BudgetedEndpoint(Once(fault), budget, PRICE)
        with pytest.raises(type(fault)):
            endpoint.complete([replace(REQUEST), REQUEST], lambda position, completion: None, allow_all)
    assert budget.spent_usd == pytest.approx(100e-6 + 10 * 10e-6 + counted)
    with closing(PaymentLog(tmp_path / "p.jsonl")) as read:
        assert read.usd == pytest.approx(budget.calls_usd)


def test_a_server_that_passes_its_limit_is_expected_to_do_so_again() -> None:
    class Endless:
        name = "m"

        def complete(self, requests: Sequence[Request], done: Done, allow: Allow) -> None:
            for position, request in enumerate(requests):
                assert allow(request)
                done(position, Completion("ok", Usage("m", input_tokens=100, output_tokens=20_000)))

    budget = Budget(0.5, 0.0)
    requests = [Request((Message("user", str(number)),), 100) for number in range(9)]
    with pytest.raises(BudgetReached):
        BudgetedEndpoint(Endless(), budget, PRICE).complete(requests, lambda *_: None, allow_all)
    assert 0.2 < budget.spent_usd <= 0.5


def test_under_a_cap_the_first_call_shows_alone_whether_the_server_keeps_limits() -> None:
    class AllAtOnce:
        """Sends as many requests as it may, then answers them: none keeps its limit."""

        name = "m"

        def complete(self, requests: Sequence[Request], done: Done, allow: Allow) -> None:
            waiting = list(range(len(requests)))
            while waiting:
                sent = [position for position in waiting if allow(requests[position])]
                at_once.append(len(sent))
                for position in sent:
                    waiting.remove(position)
                    done(position, Completion("ok", Usage("m", input_tokens=100, output_tokens=20_000)))

    at_once: list[int] = []
    budget = Budget(0.7, 0.0)
    requests = [Request((Message("user", str(number)),), 100) for number in range(64)]
    with pytest.raises(BudgetReached):
        BudgetedEndpoint(AllAtOnce(), budget, PRICE).complete(requests, lambda *_: None, allow_all)
    assert at_once == [1, 2] and budget.spent_usd == pytest.approx(3 * 0.2001)


def test_a_study_without_calls_leaves_no_log(tmp_path: Path) -> None:
    PaymentLog(tmp_path / "p.jsonl").close()
    assert not (tmp_path / "p.jsonl").exists()


def test_a_damaged_log_is_named(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text("[1, 0.5]\nnonsense\n")
    with pytest.raises(StudyError, match=r"p.jsonl:2: is no payment"):
        PaymentLog(tmp_path / "p.jsonl")
