"""One study on disk: its manifest, its trials, its sealed test; a killed one resumes."""

from __future__ import annotations

import fcntl
import hashlib
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from tunepoint.data.prepare import Prepared
from tunepoint.errors import StudyError
from tunepoint.files.machine import cores
from tunepoint.files.text import make_folder, write_json, write_text
from tunepoint.stats.streams import Stream, stream
from tunepoint.study.manifest import MANIFEST, SCHEMA, Manifest, read_manifest
from tunepoint.study.records import Items, Machine, ModelFacts, SealedTest
from tunepoint.task.task import Task
from tunepoint.trials.scorers import scorer_code
from tunepoint.trials.trial import TrialLog

TASK = "task.json"
"""The task as the last run read it, with its folder: serving a study needs no task.toml."""
CALLS = "calls.sqlite"
"""Every call of a chat model, with its completion."""
STUDY_FILES = ("dev.jsonl", "curve.jsonl", "trials.jsonl", "decision.json", "measurements.json", "arms.toml")
PACKAGES = ("tunepoint", "numpy", "scipy", "scikit-learn", "torch", "transformers", "tokenizers")
"""Packages whose versions can change a result."""
IDENTITY = {
    "task_sha256": "instruction, labels, columns, metric or models",
    "scorer_sha256": "scorer's code",
    "logs_sha256": "log of what runs today",
    "replies_sha256": "recording of a model's replies",
    "data_sha256": "examples",
    "seed": "seed",
}
"""Entries of the manifest that make it the same measurement, and their names in an error."""


def default_folder(task: Task, prepared: Prepared, seed: int) -> Path:
    """`studies/NAME-FINGERPRINT-SEED`: the same question resumes its study, another one starts a new one."""
    identity = f"{task.trials_fingerprint()[:4]}{prepared.fingerprint[:4]}"
    return Path("studies") / f"{task.name}-{identity}-{seed}"


class Study:
    """A study directory that this process holds.

    Use `open_study`; the attributes `dev`, `curve` and `test` are the trials on the validation
    set, those of the learning curve, and those on the sealed test.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self.dev = TrialLog(folder / "dev.jsonl")
        self.curve = TrialLog(folder / "curve.jsonl")
        self.test = TrialLog(folder / "trials.jsonl")

    @property
    def repairs(self) -> list[str]:
        """Logs whose last line was cut off by a killed process, in words."""
        logs = (self.dev, self.curve, self.test)
        return [
            f"{log.path.name}: an unfinished last line of {log.repaired} bytes was removed; its "
            "trial is measured again"
            for log in logs
            if log.repaired
        ]

    @property
    def measured(self) -> bool:
        """Whether every finalist has answered every test item."""
        if self.manifest.sealed_test is None:
            return False
        answered = {(trial.arm, trial.item) for trial in self.test.trials}
        items = self.manifest.items.test
        return all((name, item) in answered for name in self.manifest.finalists for item in items)

    def rng(self, purpose: Stream, *numbers: int) -> np.random.Generator:
        """The study's random numbers for a purpose."""
        return stream(self.manifest.seed, purpose, *numbers)

    def save(self) -> None:
        """Write the manifest."""
        write_text(self.folder / MANIFEST, self.manifest.text())

    def update(self, **entries: Any) -> None:
        """Replace entries of the manifest, and write it.

        Args:
            entries: fields of `Manifest` and their new values.

        """
        unknown = entries.keys() - Manifest.model_fields.keys()
        assert not unknown, f"the manifest has no {unknown}"
        self.manifest = self.manifest.model_copy(update=entries)
        self.save()

    def note_models(self, facts: Mapping[str, Any]) -> None:
        """Record what was found out about the chat models; a model that was not called keeps its entry."""
        models = self.manifest.models
        news = {name: ModelFacts.model_validate(fact) for name, fact in facts.items()}
        news = {name: fact for name, fact in news.items() if fact.abilities or name not in models}
        self.update(models={**models, **news})

    def unseal(self, finalists: Sequence[str], items: int) -> None:
        """Open the test for these finalists, once and for all.

        Raises:
            StudyError: it was opened before for others.

        """
        sealed = self.manifest.sealed_test
        if sealed is None:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            self.update(sealed_test=SealedTest(opened=now, finalists=list(finalists), items=items))
        elif sealed.finalists != list(finalists):
            raise StudyError(
                f"{self.folder}: the test set was opened on {sealed.opened} for "
                f"{', '.join(sealed.finalists)}; it is not opened again for "
                f"{', '.join(finalists)}. Start a new study with another --out"
            )


@contextmanager
def open_study(folder: Path, task: Task, prepared: Prepared, seed: int) -> Iterator[Study]:
    """Create the study directory, or resume the study in it.

    Raises:
        StudyError: another process works on it, or it measures something else.

    """
    make_folder(folder)
    try:
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise StudyError(f"{folder}: cannot be written ({error.strerror}); choose another --out") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StudyError(f"{folder}: another process is working on this study; wait for it") from None
        manifest = _new_manifest(task, prepared, seed)
        if (folder / MANIFEST).exists():
            manifest = _resumed(folder, manifest, task)
        else:
            _refuse_foreign_files(folder)
        study = Study(folder, manifest)
        study.save()
        write_json(folder / TASK, task.portable())
        yield study


def _refuse_foreign_files(folder: Path) -> None:
    """Refuse a folder with files of a study's names but no manifest: another program wrote them."""
    names = [name for name in STUDY_FILES if (folder / name).exists()]
    if names:
        raise StudyError(
            f"{folder}: holds {', '.join(names)} but no manifest.json, so it is not a study to resume; "
            "nothing in it was touched. Choose another --out"
        )


def _new_manifest(task: Task, prepared: Prepared, seed: int) -> Manifest:
    split = prepared.split
    labels = sorted(prepared.audit.counts) if task.answer.kind == "label" else []
    # entries that are passed here stand in the file from the start, the others from their first value on
    return Manifest(
        schema_version=SCHEMA,
        task=task.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=seed,
        task_sha256=task.trials_fingerprint(),
        data_sha256=prepared.fingerprint,
        scorer_sha256=scorer_code(task.score.metric, task.folder),
        logs_sha256={name: _digest(path) for name, path in task.logs().items()},
        replies_sha256={name: _digest(path) for name, path in task.replies().items()},
        instruction=task.instruction,
        labels=task.answer.labels or dict.fromkeys(labels, ""),
        items=Items(
            train=[example.id for example in split.train],
            dev=[example.id for example in split.dev],
            test=[example.id for example in split.test],
        ),
        sealed_test=None,
        spent_usd=0.0,
        arms={},
        machine=Machine(
            python=platform.python_version(),
            system=platform.system(),
            processor=platform.machine(),
            cores=cores(),
        ),
        packages={name: _version(name) for name in PACKAGES},
    )


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _resumed(folder: Path, fresh: Manifest, task: Task) -> Manifest:
    """The manifest on disk, if it is of the same measurement as a fresh one."""
    manifest = read_manifest(folder)
    changed = [
        words
        for key, words in IDENTITY.items()
        # studies made before a key existed have none or {} there, which is no change
        if (getattr(manifest, key) or None) != (getattr(fresh, key) or None)
    ]
    if changed:
        version = ""
        if task.answer.kind == "json" and task.answer.json_schema is None:
            version = ", or by a version whose prompts for JSON without [answer.json_schema] named no fields"
        raise StudyError(
            f"{folder}: this study was made with another {' and another '.join(changed)}{version}; "
            "its trials do not answer the new question. Choose another --out"
        )
    return manifest
