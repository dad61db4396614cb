"""Models that their providers shut down: known by date and source, priced and said."""

from __future__ import annotations

from datetime import date

from tunepoint import Task
from tunepoint.models.retirements import announced_retirement, known_retirements


def test_every_notice_has_a_source_and_is_not_older_than_the_day_it_was_checked() -> None:
    for notice in known_retirements():
        assert notice.models and "." in notice.source and notice.checked >= date(2026, 11, 27)


def test_a_snapshot_and_its_alias_retire_and_a_newer_model_does_not() -> None:
    for name in ("openai/gpt-5-mini", "openai/gpt-5-mini-2025-08-07", "openai/gpt-5"):
        notice = announced_retirement(name)
        assert notice is not None and notice.on == date(2026, 12, 11)
    for name in (
        "openai/gpt-5.1",
        "openai/gpt-6-luna",
        "openai/gpt-4o-mini",
        "embedded:minilm",
        "recorded:x",
    ):
        assert announced_retirement(name) is None


def test_a_notice_says_the_day_in_its_tense() -> None:
    notice = announced_retirement("openai/gpt-5-mini")
    assert notice is not None
    before = notice.sentence("openai/gpt-5-mini", date(2026, 12, 1))
    assert before.startswith("openai/gpt-5-mini: shuts down on 2026-12-11, in 10 days (developers.openai.com")
    assert "was shut down on 2026-12-11" in notice.sentence("openai/gpt-5-mini", date(2026, 12, 11))


def test_the_task_overrides_what_a_provider_announced() -> None:
    models = [{"name": "openai/gpt-5-mini"}, {"name": "openai/gpt-5", "retires": "2999-01-01"}]
    task = Task.parse({"name": "t", "models": models})
    assert [model.last_day for model in task.models] == [date(2026, 12, 11), date(2999, 1, 1)]
