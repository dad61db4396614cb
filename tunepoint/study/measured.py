"""What a study of this very task measured, for those who export a model of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunepoint.arms.parity import measured_reply
from tunepoint.data.prepare import Prepared, prepare
from tunepoint.errors import StudyError
from tunepoint.models.chat import Reply
from tunepoint.study.manifest import read_manifest
from tunepoint.study.records import Taught
from tunepoint.task.task import Task
from tunepoint.trials.trial import Trial, read_trials


@dataclass(frozen=True)
class MeasuredStudy:
    """The trials of a study, and the split that they were measured on."""

    folder: Path
    seed: int
    prepared: Prepared
    dev: dict[str, list[Trial]]
    """Name of an arm -> its trials on the validation set."""
    test: dict[str, list[Trial]]
    """The same on the sealed test; empty before it was opened."""
    taught: Taught | None = None
    """What was distilled in it."""

    def dev_replies(self, arm: str) -> dict[str, Reply]:
        """Return item -> what the run of the first seed answered to the validation set."""
        return {t.item: measured_reply(t) for t in self.dev.get(arm, []) if t.seed in (None, "0")}


def read_measured(task: Task, folder: Path) -> MeasuredStudy:
    """Read the trials of a study of this task.

    Raises:
        StudyError: the folder holds no study, or one of other examples or of another task.

    """
    manifest = read_manifest(folder)
    prepared = prepare(task, manifest.seed)
    if (manifest.data_sha256, manifest.task_sha256) != (prepared.fingerprint, task.trials_fingerprint()):
        raise StudyError(
            f"{folder}: is a study of other examples, or of another task, than {task.name} is now"
        )
    dev, test = (_trials_by_arm(folder / name) for name in ("dev.jsonl", "trials.jsonl"))
    return MeasuredStudy(folder, manifest.seed, prepared, dev, test, manifest.taught)


def _trials_by_arm(path: Path) -> dict[str, list[Trial]]:
    by_arm: dict[str, list[Trial]] = {}
    for trial in read_trials(path) if path.exists() and path.stat().st_size else []:
        by_arm.setdefault(trial.arm, []).append(trial)
    return by_arm
