"""Sends a study's verdict to the trackers that people have: MLflow, Weights & Biases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tunepoint.report.first_screen import headline, strength_sentence
from tunepoint.report.names import Names
from tunepoint.task.sections import Track

FILES = ("report.html", "decision.json", "measurements.json")
"""What is kept beside the run."""


def track(settings: Track, folder: Path, decision: Mapping[str, Any]) -> list[str]:
    """Send a verdict to every tracker of a task; return what went wrong, in words.

    A tracker that is missing or unreachable does not end the study; a warning says so.

    Args:
        settings: of the task.
        folder: of the study.
        decision: the content of decision.json.

    """
    faults = []
    for name in settings.to:
        try:
            TRACKERS[name](settings.project or decision["task"], folder, decision)
        except ImportError:
            package = "mlflow-skinny" if name == "mlflow" else name
            faults.append(f"[track] {name} is not installed, so nothing was sent: pip install {package}")
        except Exception as error:  # whatever a tracker raises: its errors are not ours
            faults.append(f"[track] {name} took nothing: {type(error).__name__}: {error}")
    return faults


def numbers_of(decision: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a decision, by names that trackers accept."""
    numbers = {"wrong": float(decision["risks"]["wrong"]), "test_examples": float(decision["items"])}
    if decision.get("saving") and decision["saving"]["usd"] is not None:
        numbers["saving_usd"] = float(decision["saving"]["usd"])
    names = Names.of(decision)
    for finalist in decision["finalists"]:
        arm = "".join(c if c.isalnum() or c in "-_. /" else "-" for c in names.short(finalist["arm"]))
        numbers[f"{arm}/score"] = float(finalist["score"]["estimate"])
        if finalist["expected_usd"]["total"] is not None:
            numbers[f"{arm}/total_usd"] = float(finalist["expected_usd"]["total"])
        if finalist["p95_seconds"] is not None:
            numbers[f"{arm}/p95_seconds"] = float(finalist["p95_seconds"])
    return numbers


def _words_of(decision: Mapping[str, Any]) -> dict[str, str]:
    return {
        "verdict": str(decision["verdict"]),
        "strength": str(decision["strength"] or "undecided"),
        "winner": Names.of(decision).short(decision["winner"]),
        "said": f"{headline(decision)} {strength_sentence(decision)}",
    }


def _mlflow(project: str, folder: Path, decision: Mapping[str, Any]) -> None:
    import mlflow

    mlflow.set_experiment(project)
    with mlflow.start_run(run_name=folder.name):
        mlflow.set_tags(_words_of(decision))
        mlflow.log_metrics(numbers_of(decision))
        for name in FILES:
            mlflow.log_artifact(str(folder / name))


def _wandb(project: str, folder: Path, decision: Mapping[str, Any]) -> None:
    import wandb

    with wandb.init(project=project, name=folder.name, config=_words_of(decision)) as run:
        run.summary.update(numbers_of(decision))
        kept = wandb.Artifact(f"study-{folder.name}", type="study")
        for name in FILES:
            kept.add_file(str(folder / name))
        run.log_artifact(kept)


TRACKERS: dict[str, Callable[[str, Path, Mapping[str, Any]], None]] = {"mlflow": _mlflow, "wandb": _wandb}
