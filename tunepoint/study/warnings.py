"""What went wrong on the way that the reader should know."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from tunepoint.costs.prices import OLD_DAYS
from tunepoint.decision.caveats import SHOWN
from tunepoint.models.prices import UNKNOWN
from tunepoint.study.directory import Study
from tunepoint.task.task import Task


def training_warnings(study: Study) -> list[str]:
    """What looked wrong in the training runs, each with its arm and seed; parts of a curve are no arms."""
    parts = {trial.arm for trial in study.curve.trials}
    return [
        f"{name}, seed {seed}: {warning}"
        for name, facts in study.manifest["arms"].items()
        if name not in parts
        for seed, fit in facts["fits"].items()
        for warning in fit["warnings"]
    ]


def model_warnings(study: Study, today: date) -> list[str]:
    """What chat models did on the way that the reader should know."""
    found = []
    for name, facts in study.manifest.get("models", {}).items():
        again = ", ".join(f"{what} ({count})" for what, count in facts["asked_again"].items())
        if again:
            found.append(f"{name}: calls that were asked again or failed: {again}")
        if facts["price"] == UNKNOWN:
            found.append(f"{name}: {UNKNOWN}")
        checked = facts.get("price_checked")
        if checked and (today - date.fromisoformat(checked)).days > OLD_DAYS:
            found.append(
                f"{name}: its price was looked up {(today - date.fromisoformat(checked)).days} days ago "
                f"({checked}, {facts['price']}); [[models]] price overrides it"
            )
    return found


def judge_warnings(study: Study, task: Task, finalists: Sequence[str]) -> list[str]:
    """Test answers that the judge gave no grade, and a judge that grades itself."""
    if task.score.judge is None:
        return []
    found = []
    test = set(study.manifest["items"]["test"])
    for name in finalists:
        why = {i: w for i, w in study.manifest.get("ungraded", {}).get(name, {}).items() if i in test}
        if why:
            shown = "; ".join(f"{item}: {text}" for item, text in list(why.items())[:SHOWN])
            found.append(
                f"{name}: the judge gave no grade to {len(why)} of its answers ({shown}); their items are "
                "left out for every arm"
            )
    if task.score.judge.name in [model.name for model in task.models]:
        found.append(
            f"{task.score.judge.name} grades its own answers too, and models like what they wrote: name "
            "another score.judge, or let people grade"
        )
    return found
