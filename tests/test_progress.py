"""How far a study is: a line now and then in a log, lines of JSON for programs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tunepoint.cli import terminal
from tunepoint.cli.terminal import progress_bar
from tunepoint.study.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the terminal reads; a test moves it on."""
    now = [1_000.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    return now


def test_the_time_left_follows_from_the_pace_so_far() -> None:
    assert Progress("x", 25, 100).seconds_left(60) == 180
    assert Progress("x", 0, 100).seconds_left(60) is None and Progress("x", 0, 0).share is None
    assert Progress("x", 110, 100).share == 1 and Progress("x", 110, 100).seconds_left(60) == 0


def test_a_log_file_gets_a_line_every_half_minute(clock: list[float], capsys: Any) -> None:
    with progress_bar(quiet=False) as (show, _):
        for second in range(0, 100, 5):
            clock[0] = 1_000 + second
            show(Progress("few-shot", second, 400, calls=3 * second, calls_usd=0.01 * second))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0] == (
        "0.5 min, about 8% of the work (6 min left), 180 calls a minute: few-shot ($0.3000 for calls so far)"
    )


def test_the_last_minute_is_not_called_none(clock: list[float], capsys: Any) -> None:
    with progress_bar(quiet=False) as (show, _):
        clock[0] += 30
        show(Progress("fine-tuned encoder", 90, 100))
    assert "about 90% of the work (under 1 min left): fine-tuned" in capsys.readouterr().err


def test_a_program_gets_a_line_of_json_a_second(clock: list[float], capsys: Any) -> None:
    with progress_bar(quiet=False, form="json") as (show, _):
        for tenth in range(40):
            clock[0] = 1_000 + tenth / 10
            show(Progress("zero-shot", tenth, 80, calls=tenth, calls_usd=tenth / 1_000))
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["calls"] for line in lines] == [0, 10, 20, 30, 39]  # the last one ends the study
    assert lines[2] == {
        "what": "zero-shot",
        "elapsed_seconds": 2.0,
        "seconds_left": 6,
        "share": 0.25,
        "calls": 20,
        "calls_usd": 0.02,
    }
    assert lines[0]["seconds_left"] is None


def test_quiet_is_quiet(capsys: Any) -> None:
    with progress_bar(quiet=True, form="json") as (show, _):
        show(Progress("x", 1, 2))
    assert capsys.readouterr().err == ""
