"""Answers that could not be read, asked for once more."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import Fake, serving
from test_chat_study import asked, extract, goods, task
from typer.testing import CliRunner

from tunepoint import Trial, run
from tunepoint.cli.app import app
from tunepoint.errors import ModelError, StudyError
from tunepoint.study.fresh import SET_ASIDE
from tunepoint.trials.trial import TrialLog, read_trials

pytestmark = pytest.mark.usefixtures("chat_alone")

FAILED = "7"
"""Last digit of the sizes about which the server says nothing that can be read, at first."""


@pytest.fixture
def fake() -> Iterator[Fake]:
    with serving(Fake(extract)) as running:
        yield running


def broken(messages: list[dict[str, str]], body: dict[str, Any]) -> str:
    """Nothing readable about some sizes, at the second attempt neither."""
    last = next(m["content"] for m in reversed(messages) if "box of" in m["content"] and m["role"] == "user")
    sizes = re.findall(r"box of (\d+)", last)
    return "…" if sizes[-1].endswith(FAILED) else extract(messages, body)


def test_unreadable_test_answers_are_asked_for_once_more_and_the_reader_is_told(
    fake: Fake, tmp_path: Path
) -> None:
    fake.answer = broken
    asking = task(goods(tmp_path, 240), fake, models=[asked(fake)], search={"calls": 0})
    first, out = run(asking, out=tmp_path / "study"), tmp_path / "study"
    winner = first.decision.winner
    before = {trial.key: trial for trial in read_trials(out / "trials.jsonl")}
    failed = {key for key, trial in before.items() if trial.arm == winner and not trial.format_ok}
    assert 0 < len(failed) < 30
    fake.answer = extract
    calls = len(fake.calls)
    again = run(asking, out=out, fresh=winner)
    assert len(fake.calls) - calls == len(failed)
    after = {trial.key: trial for trial in read_trials(out / "trials.jsonl")}
    assert after.keys() == before.keys()
    assert {key for key in after if after[key] != before[key]} == failed
    assert all(after[key].format_ok for key in failed)
    assert {trial.key for trial in read_trials(out / SET_ASIDE)} == failed
    (words,) = [caveat for caveat in again.decision.caveats if "--fresh" in caveat]
    assert f"{len(failed)} test answers could not be read" in words
    assert json.loads((out / "manifest.json").read_text())["asked_anew"][0]["arm"] == winner
    # once is enough: what is readable now is not asked for again, and a plain run asks nobody
    with pytest.raises(StudyError, match=r"all its \d+ test answers could be read"):
        run(asking, out=out, fresh=winner)
    run(asking, out=out)
    assert len(fake.calls) - calls == len(failed)


def test_an_unfinished_study_is_quoted_as_a_whole(fake: Fake, tmp_path: Path) -> None:
    fake.answer = broken
    asking = task(goods(tmp_path, 240), fake, models=[asked(fake)], search={"calls": 0})
    out, quotes = tmp_path / "study", list[Any]()
    with pytest.raises(RuntimeError), pytest.MonkeyPatch.context() as patch:
        patch.setattr("tunepoint.study.run.open_test", _stop)
        run(asking, out=out)
    arm = next(trial.arm for trial in read_trials(out / "dev.jsonl") if not trial.format_ok)
    result = run(asking, out=out, fresh=arm, confirm=quotes.append)
    assert len(quotes) == 1  # the rest of the study is paid for too
    run(asking, out=out, fresh=result.decision.winner, confirm=quotes.append)
    assert len(quotes) == 1


def test_an_interrupted_second_chance_is_taken_up_again(fake: Fake, tmp_path: Path) -> None:
    fake.answer = broken
    asking = task(goods(tmp_path, 240), fake, models=[asked(fake)], search={"calls": 0})
    out = tmp_path / "study"
    winner = run(asking, out=out).decision.winner
    fake.always = "quota"
    with pytest.raises(ModelError):
        run(asking, out=out, fresh=winner)
    fake.always, fake.answer = None, extract
    run(asking, out=out, fresh=winner)
    assert all(trial.format_ok for trial in read_trials(out / "trials.jsonl") if trial.arm == winner)


def test_before_the_test_the_races_are_run_again(fake: Fake, tmp_path: Path) -> None:
    fake.answer = broken
    asking = task(goods(tmp_path, 240), fake, models=[asked(fake)], search={"calls": 0})
    out = tmp_path / "study"
    with pytest.raises(RuntimeError), pytest.MonkeyPatch.context() as patch:
        patch.setattr("tunepoint.study.run.open_test", _stop)
        run(asking, out=out)
    races = json.loads((out / "manifest.json").read_text())["races"]
    arm = next(
        trial.arm for trial in read_trials(out / "dev.jsonl") if not trial.format_ok and trial.arm in races
    )
    fake.answer = extract
    result = run(asking, out=out, fresh=arm)
    (words,) = [caveat for caveat in result.decision.caveats if "--fresh" in caveat]
    assert " validation answers could not be read" in words
    assert all(trial.format_ok for trial in read_trials(out / "dev.jsonl") if trial.arm == arm)


def _stop(*_: Any) -> None:
    raise RuntimeError


def test_a_name_that_is_none_is_an_error_with_the_nearest(fake: Fake, tmp_path: Path) -> None:
    asking = task(goods(tmp_path), fake, models=[asked(fake)], search={"calls": 0})
    winner = run(asking, out=tmp_path / "study").decision.winner
    with pytest.raises(StudyError, match="has no option of that name; did you mean"):
        run(asking, out=tmp_path / "study", fresh=winner[:-1])
    (tmp_path / "task.toml").write_text('name = "t"\n')
    result = CliRunner().invoke(app, ["run", str(tmp_path), "--fresh", winner])
    assert result.exit_code == 2 and "money is spent with a yes only" in result.output


def test_trials_are_removed_in_one_step(tmp_path: Path) -> None:
    log = TrialLog(tmp_path / "trials.jsonl")
    log.append([Trial(arm="x", item=item, score=1.0) for item in "ab"])
    log.remove({("x", "a", None, None)})
    assert [trial.item for trial in log.trials] == ["b"] and log.done == {("x", "b", None, None)}
    assert [trial.item for trial in read_trials(log.path)] == ["b"]
