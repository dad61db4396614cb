"""What was forecast, beside what the capture store holds: restated by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tunepoint import Result
from tunepoint.capture.records import Captured, Role, nanodollars
from tunepoint.capture.store import Store, open_store
from tunepoint.cli import app
from tunepoint.errors import StoreError, StudyError
from tunepoint.savings import SECONDS_A_MONTH, realised, realised_words, write_realised
from tunepoint.whatif import reopen

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
            Captured(
                f"{arm}-{role}-{n}",
                1e9 + n * days * DAY / (count - 1),
                task,
                arm,
                role,
                "m",
                "q",
                "a",
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
        found = realised(study, store, against=second.arm)
    assert (found.arm, found.against, found.requests) == (first.arm, second.arm, 10_500)
    assert found.volume == pytest.approx(10_500 * SECONDS_A_MONTH / (30 * DAY))
    # 10,000 requests at $.0001 in place of $.004; 200 copies for the shadow were paid on top.
    assert found.saved.likely == pytest.approx(10_000 * (0.004 - 0.0001) - 200 * 0.004, rel=0.01)
    assert found.saved.low < found.saved.likely < found.saved.high
    served = next(one for one in found.arms if one.arm == second.arm)
    assert (served.requests, served.shadows, served.input_tokens, served.output_tokens) == (700, 200, 100, 2)
    assert served.measured is not None and served.measured.likely == pytest.approx(0.004)
    half = 1.96 * 0.0004 * np.sqrt(700 / 699) / np.sqrt(700)  # prices are a tenth off on either side
    assert served.measured.high - served.measured.likely == pytest.approx(half, rel=1e-6)
    assert any("1 arms in the store are none of this study" in note for note in found.notes)


def test_the_break_even_moves_with_what_was_measured(finished: Result, store: Store) -> None:
    study = finished.folder
    assert study is not None
    before = reopen(study)
    prompt = next(cost for cost in before.costs if cost.kind == "prompt")
    tuned = next(cost for cost in before.costs if cost.kind == "tuned")
    serve(store, "small", prompt.arm, 2_000, days=10, dollars=0.01)
    serve(store, "small", tuned.arm, 2_000, days=10, core_seconds=0.02)
    with store:
        found = realised(study, store, against=tuned.arm)
    moved = found.break_even
    assert moved.cheaper_to_run == tuned.arm and moved.queries_per_month is not None
    forecast = found.forecast_break_even.queries_per_month
    assert forecast is None or moved.queries_per_month.likely < forecast.likely
    text = " ".join(realised_words(found))
    assert "Break-even with measured prices and volume: " in text and "forecast: " in text


def test_a_short_time_keeps_the_volume_and_few_requests_the_price(finished: Result, store: Store) -> None:
    study = finished.folder
    assert study is not None
    arm = finished.document["winner"]
    serve(store, "small", arm, 20, days=0.5, dollars=5.0)
    with store:
        found = realised(study, store)
    assert found.volume is None and found.against != arm
    (one,) = found.arms
    assert one.measured is None  # 20 requests say too little
    assert "less than a day was captured: the volume of the task stands" in found.notes


def test_nothing_captured_is_an_error_and_not_zero(finished: Result, store: Store) -> None:
    study = finished.folder
    assert study is not None
    with store:
        with pytest.raises(StoreError, match=r"no request of task 'small' was .*captured arms: none"):
            realised(study, store)
        serve(store, "small", finished.document["winner"], 40, days=2)
        with pytest.raises(StudyError, match="no finalist named 'nobody'"):
            realised(study, store, against="nobody")


def test_the_report_shows_it_and_the_command_too(finished: Result, tmp_path: Path) -> None:
    import shutil

    assert finished.folder is not None
    study = tmp_path / "study"
    shutil.copytree(finished.folder, study)
    arm = finished.document["winner"]
    with open_store(tmp_path / "c.sqlite") as store:
        serve(store, "small", arm, 400, days=20, dollars=0.002)
        write_realised(study, realised(study, store))
    page = (study / "report.html").read_text()
    assert "Since it serves" in page and "400 requests were answered" in page
    found = CliRunner().invoke(app, ["savings", str(study), "--store", str(tmp_path / "c.sqlite"), "--json"])
    assert found.exit_code == 0, found.output
    content = json.loads(found.output)
    assert content["requests"] == 400 and content["arms"][0]["measured"]["likely"] == pytest.approx(0.002)
    lines = CliRunner().invoke(app, ["savings", str(study), "--store", str(tmp_path / "c.sqlite")]).output
    assert f"Serving {arm} in place of" in lines and "Report: " in lines
    lost = CliRunner().invoke(app, ["savings", str(study), "--store", str(tmp_path / "none.sqlite")])
    assert lost.exit_code == 2 and "no such capture store" in lost.output
    (study / "realised.json").write_text("{dam")
    assert "Since it serves" not in CliRunner().invoke(app, ["report", str(study)]).output
