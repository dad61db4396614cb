"""What was forecast, beside what the capture store holds: restated by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tunepoint import Result
from tunepoint.capture.opening import open_store
from tunepoint.capture.records import CapturedRequest, Role, nanodollars
from tunepoint.capture.store import Store
from tunepoint.cli.app import app
from tunepoint.errors import StoreError, StudyError
from tunepoint.loop.savings import realized_savings
from tunepoint.loop.savings_report import savings_words, write_savings
from tunepoint.loop.traffic import SECONDS_A_MONTH
from tunepoint.study.whatif import reopen

DAY = 86_400.0


def serve(
    store: Store,
    task: str,
    arm: str,
    count: int,
    *,
    days: float,
    dollars: float | None = None,
    core_seconds: float | None = None,
    role: Role = "champion",
) -> None:
    """So many requests, evenly over so many days; their prices alternate a tenth around the mean."""
    store.add(
        [
            CapturedRequest(
                f"{arm}-{role}-{n}",
                1e9 + n * days * DAY / (count - 1),
                task,
                arm,
                role,
                "m",
                "q",
                "a",
                seconds=0.2 + 0.1 * (n % 2),
                input_tokens=100,
                output_tokens=2,
                cost_nanousd=None if dollars is None else nanodollars(dollars * (0.9 + 0.2 * (n % 2))),
                core_seconds=core_seconds,
            )
            for n in range(count)
        ]
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "capture.sqlite")


def test_savings_by_hand(finished: Result, store: Store) -> None:
    study = finished.folder
    assert study is not None
    before = reopen(study)
    first, second = [cost for cost in before.costs if cost.kind != "cascade"][:2]
    serve(store, "small", first.arm, 10_000, days=30, dollars=0.0001)
    serve(store, "small", second.arm, 500, days=30, dollars=0.004, role="canary")
    serve(store, "small", second.arm, 200, days=30, dollars=0.004, role="shadow")
    serve(store, "small", "an arm of last year", 10, days=30)
    with store:
        savings = realized_savings(study, store, against=second.arm)
    assert (savings.arm, savings.against, savings.requests) == (first.arm, second.arm, 10_500)
    assert savings.volume == pytest.approx(10_500 * SECONDS_A_MONTH / (30 * DAY))
    # 10,000 requests at $.0001 in place of $.004; 200 copies for the shadow were paid on top.
    assert savings.saved.likely == pytest.approx(10_000 * (0.004 - 0.0001) - 200 * 0.004, rel=0.01)
    assert savings.saved.low < savings.saved.likely < savings.saved.high
    served = next(arm for arm in savings.arms if arm.arm == second.arm)
    assert (served.requests, served.shadows, served.input_tokens, served.output_tokens) == (700, 200, 100, 2)
    assert served.seconds == pytest.approx(0.25) and served.forecast_input_tokens is None
    timed = before.table.arms[before.table.names.index(second.arm)].seconds
    assert served.forecast_seconds == pytest.approx(timed.mean())
    assert served.measured is not None and served.measured.likely == pytest.approx(0.004)
    half = 1.96 * 0.0004 * np.sqrt(700 / 699) / np.sqrt(700)  # prices are a tenth off on either side
    assert served.measured.high - served.measured.likely == pytest.approx(half, rel=1e-6)
    assert "1 arm in the store not of this study, left out" in savings.notes


def test_an_arm_that_the_loop_serves_under_a_number_is_known(finished: Result, store: Store) -> None:
    study = finished.folder
    assert study is not None
    arm = finished.document["winner"]
    serve(store, "small", f"{arm} #2", 50, days=2, dollars=0.001)
    with store:
        assert realized_savings(study, store).arm == arm


def test_the_break_even_moves_with_what_was_measured(finished: Result, store: Store) -> None:
    study = finished.folder
    assert study is not None
    before = reopen(study)
    prompt = next(cost for cost in before.costs if cost.kind == "baseline")
    tuned = next(cost for cost in before.costs if cost.kind == "tuned")
    serve(store, "small", prompt.arm, 2_001, days=10, dollars=0.01)
    serve(store, "small", tuned.arm, 2_000, days=10, core_seconds=0.02)
    with store:
        savings = realized_savings(study, store, against=tuned.arm)
    moved = savings.break_even
    assert moved.cheaper_to_run == tuned.arm and moved.queries_per_month is not None
    forecast = savings.forecast_break_even.queries_per_month
    assert forecast is None or moved.queries_per_month.likely < forecast.likely
    text = " ".join(savings_words(savings))
    assert "Break-even at measured prices and volume: " in text and "forecast: " in text


def with_costs(finished: Result, tmp_path: Path, hosting: str = "", **costs: object) -> Path:
    """A copy of a study with other rates, or with machines for its first arm."""
    assert finished.folder is not None
    study = tmp_path / "copy"
    shutil.copytree(finished.folder, study)
    content = json.loads((study / "decision.json").read_text())
    content["provenance"]["assumptions"]["costs"] |= costs
    (study / "decision.json").write_text(json.dumps(content))
    if hosting:
        head, _, rest = (study / "arms.toml").read_text().partition("[[arm]]")
        (study / "arms.toml").write_text(f"{head}[[arm]]\n{hosting}\n{rest}")
    return study


def test_review_is_on_both_sides_and_left_out(finished: Result, store: Store, tmp_path: Path) -> None:
    ranged = {"low": 10.0, "likely": 10.0, "high": 10.0}
    study = with_costs(finished, tmp_path, review_hours_per_month=ranged)
    first, second = [cost for cost in reopen(study).costs if cost.kind != "cascade"][:2]
    serve(store, "small", first.arm, 3_000, days=30, dollars=0.001)
    serve(store, "small", second.arm, 100, days=30, dollars=0.002, role="shadow")
    with store:
        savings = realized_savings(study, store, against=second.arm)
    assert savings.saved.likely == pytest.approx(3_000 * (0.002 - 0.001) - 100 * 0.002, rel=0.01)


def test_machines_are_paid_for_as_long_as_an_arm_was_asked(
    finished: Result, store: Store, tmp_path: Path
) -> None:
    machine = 'hosting = { mode = "dedicated", usd_per_hour = 0.1, requests_per_second = 100 }'
    study = with_costs(finished, tmp_path, machine)
    first, second = reopen(study).costs[:2]
    assert first.dedicated is not None
    serve(store, "small", second.arm, 3_000, days=30, dollars=0.001)
    serve(store, "small", first.arm, 2, days=1, role="shadow")
    with store:
        savings = realized_savings(study, store, against=first.arm)
    month = 0.1 * 730
    served = 30 * DAY / SECONDS_A_MONTH * month - DAY / SECONDS_A_MONTH * month - 3_000 * 0.001
    assert savings.saved.likely == pytest.approx(served, rel=0.01)
    machines = next(arm for arm in savings.arms if arm.arm == first.arm)
    assert machines.measured is None


def test_what_was_paid_counts_and_failures_do_not(finished: Result, store: Store) -> None:
    study = finished.folder
    assert study is not None
    first, second = [cost for cost in reopen(study).costs if cost.kind != "cascade"][:2]
    serve(store, "small", first.arm, 1_000, days=10, dollars=0.01)
    store.add(
        [
            CapturedRequest(f"f{n}", 1e9 + n, "small", first.arm, "champion", "m", "q", "", status=502)
            for n in range(9_000)
        ]
    )
    serve(store, "small", second.arm, 400, days=10, dollars=0.02, role="fallback")
    with store:
        savings = realized_savings(study, store, against=second.arm)
    assert savings.requests == 1_400
    assert savings.volume == pytest.approx(1_400 * SECONDS_A_MONTH / (10 * DAY))
    assert savings.saved.likely == pytest.approx(1_400 * 0.02 - 1_000 * 0.01 - 400 * 0.02, rel=0.01)


def test_few_answers_count_with_the_money_they_took(finished: Result, store: Store) -> None:
    study = finished.folder
    assert study is not None
    first, second = [cost for cost in reopen(study).costs if cost.kind != "cascade"][:2]
    serve(store, "small", first.arm, 29, days=2, dollars=1.0)
    with store:
        savings = realized_savings(study, store, against=second.arm)
        with pytest.raises(StudyError, match="is what serves; compare it --against another arm"):
            realized_savings(study, store, against=first.arm)
    assert savings.saved.likely == pytest.approx(-29 * 1.0, rel=0.02)


def test_a_short_time_keeps_the_volume_and_few_requests_the_price(finished: Result, store: Store) -> None:
    study = finished.folder
    assert study is not None
    arm = finished.document["winner"]
    serve(store, "small", arm, 20, days=0.5, dollars=5.0)
    with store:
        savings = realized_savings(study, store)
    assert savings.volume is None and savings.against != arm
    (only,) = savings.arms
    assert only.measured is None  # 20 requests say too little
    assert "less than a day of traffic was captured, so the volume is the task's" in savings.notes


def test_nothing_captured_is_an_error_and_not_zero(finished: Result, store: Store) -> None:
    study = finished.folder
    assert study is not None
    with store:
        with pytest.raises(
            StoreError, match=r"no question of task 'small' was .*captured of this task: none"
        ):
            realized_savings(study, store)
        serve(store, "small", finished.document["winner"], 40, days=2)
        with pytest.raises(StudyError, match="no finalist named 'nobody'"):
            realized_savings(study, store, against="nobody")


def test_the_report_shows_it_and_the_command_too(finished: Result, tmp_path: Path) -> None:
    assert finished.folder is not None
    study = tmp_path / "study"
    shutil.copytree(finished.folder, study)
    arm = finished.document["winner"]
    with open_store(tmp_path / "c.sqlite") as store:
        serve(store, "small", arm, 400, days=20, dollars=0.002)
        write_savings(study, realized_savings(study, store))
    page = (study / "report.html").read_text()
    assert (
        "<h2>In production</h2>" in page
        and "400 questions were answered" in page
        and "–, –" in page
        and "250 ms" in page
    )
    result = CliRunner().invoke(app, ["savings", str(study), "--store", str(tmp_path / "c.sqlite"), "--json"])
    assert result.exit_code == 0, result.output
    content = json.loads(result.output)
    assert content["requests"] == 400 and content["arms"][0]["measured"]["likely"] == pytest.approx(0.002)
    with open_store(tmp_path / "c.sqlite") as store:
        kept = store.state("savings/small")
        assert kept is not None and "400 questions were answered" in kept["words"][0]
    lines = CliRunner().invoke(app, ["savings", str(study), "--store", str(tmp_path / "c.sqlite")]).output
    assert f"Serving {arm} in place of" in lines and "Report: " in lines
    lost = CliRunner().invoke(app, ["savings", str(study), "--store", str(tmp_path / "none.sqlite")])
    assert lost.exit_code == 2 and "no such capture store" in lost.output
    for damaged in ("{dam", '{"words": []}', "[1]"):
        (study / "realised.json").write_text(damaged)
        assert CliRunner().invoke(app, ["report", str(study)]).exit_code == 0
        assert "<h2>In production</h2>" not in (study / "report.html").read_text()
