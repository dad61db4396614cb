"""Answers that are asked for once more: those of an option that could not be read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from tunepoint.errors import StudyError, nearest
from tunepoint.study.directory import Study
from tunepoint.study.records import AskedAnew
from tunepoint.trials.trial import TrialLog

JUDGE_ALONE = "judge"
"""In place of an option: the judge's replies that hold no grade."""
SET_ASIDE = "set_aside.jsonl"
"""Trials in whose place others are measured."""


def set_failed_aside(study: Study, arm: str | None) -> None:
    """Set the trials of an arm aside whose answers could not be read, and note it; none without an arm.

    Before the test is opened they are those of the validation set, and the race of the arm's family is run
    again. After it they are those of the test: what was selected stands.

    Raises:
        StudyError: the study has no such arm, or all its answers could be read.

    """
    if arm is None or arm == JUDGE_ALONE:
        return
    known = {trial.arm for log in (study.dev, study.test) for trial in log.trials}
    if arm not in known:
        raise StudyError(
            f"--fresh {arm}: the study has no option of that name; {nearest(arm, sorted(known))}"
        )
    opened = study.manifest.sealed_test is not None
    where: Literal["test", "validation"] = "test" if opened else "validation"
    log = study.test if opened else study.dev
    failed = [trial for trial in log.of(arm) if not trial.format_ok]
    aside = {trial.key for trial in TrialLog(study.folder / SET_ASIDE).of(arm)}
    if not failed and aside - log.done:
        return  # an earlier run set them aside and was interrupted: they are missing, and asked for now
    if not failed:
        raise StudyError(
            f"--fresh {arm}: all its {len(log.of(arm))} {where} answers could be read, so there is nothing "
            "to ask for again"
        )
    _note(study, AskedAnew(arm=arm, answers=len(failed), part=where, on=_today()))
    TrialLog(study.folder / SET_ASIDE).append(failed)
    log.remove({trial.key for trial in failed})


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _note(study: Study, news: AskedAnew) -> None:
    """Write down that answers are asked for once more, before it is done: the reader has to know."""
    manifest = study.manifest
    races = manifest.races
    if news.part == "validation":
        family = manifest.arms[news.arm].family
        races = {name: race for name, race in races.items() if manifest.arms[name].family != family}
    study.update(asked_anew=[*manifest.asked_anew, news], races=races)
