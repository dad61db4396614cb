"""One study on disk: its manifest, its trials, its sealed test; a killed one resumes."""

from __future__ import annotations

import fcntl
import hashlib
import json
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
from tunepoint.files.text import make_folder, text_of, write_json
from tunepoint.stats.streams import Stream, stream
from tunepoint.task.task import Task
from tunepoint.trials.scorers import scorer_code
from tunepoint.trials.trial import TrialLog


def provenance(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Where the decision comes from: versions, seeds, hashes, the opening of the test."""
    keys = ("created", "seed", "task_sha256", "data_sha256", "sealed_test", "machine", "packages")
    return {key: manifest[key] for key in (*keys, "spent_usd")}


def default_folder(task: Task, prepared: Prepared, seed: int) -> Path:
    """`studies/NAME-FINGERPRINT`: the same question goes on, another one starts anew."""
    identity = f"{task.measured_by()[:4]}{prepared.fingerprint[:4]}"
    return Path("studies") / f"{task.name}-{identity}-{seed}"


SCHEMA = 1
FIELDS = {"task", "seed", "task_sha256", "data_sha256", "sealed_test", "spent_usd", "arms"}
"""Keys of the manifest without which a study cannot go on."""
PACKAGES = ("tunepoint", "numpy", "scipy", "scikit-learn", "torch", "transformers", "tokenizers")


class Study:
    """A study directory that this process holds.

    Use `open_study`; the attributes `dev`, `curve` and `test` are the trials on the dev
    items, those of the learning curve, and those on the sealed test.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
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
        """Whether every finalist has answered every test item: then nobody is asked any more."""
        sealed = self.manifest["sealed_test"]
        if sealed is None:
            return False
        answered = {(trial.arm, trial.item) for trial in self.test.trials}
        items = self.manifest["items"]["test"]
        return all((name, item) in answered for name in sealed["finalists"] for item in items)

    def rng(self, purpose: Stream, *numbers: int) -> np.random.Generator:
        """The study's random numbers for a purpose."""
        return stream(int(self.manifest["seed"]), purpose, *numbers)

    def save(self) -> None:
        """Write the manifest."""
        write_json(self.folder / "manifest.json", self.manifest)

    def note_models(self, facts: Mapping[str, Any]) -> None:
        """Write down what was found out about the chat models; a run that asked nobody adds nothing."""
        known = self.manifest.setdefault("models", {})
        known.update(
            {name: found for name, found in facts.items() if found["abilities"] or name not in known}
        )
        self.save()

    def unseal(self, finalists: Sequence[str], items: int) -> None:
        """Open the test for these finalists, once and for all.

        Raises:
            StudyError: it was opened before for others.

        """
        sealed = self.manifest.get("sealed_test")
        if sealed is None:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            self.manifest["sealed_test"] = {"opened": now, "finalists": list(finalists), "items": items}
            self.save()
        elif sealed["finalists"] != list(finalists):
            raise StudyError(
                f"{self.folder}: the sealed test was opened on {sealed['opened']} for "
                f"{', '.join(sealed['finalists'])}; it is not opened again for "
                f"{', '.join(finalists)}. Start a new study with another --out"
            )


@contextmanager
def open_study(folder: Path, task: Task, prepared: Prepared, seed: int) -> Iterator[Study]:
    """Create the study directory, or go on with the one that is there.

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
        fresh = _manifest(task, prepared, seed)
        path = folder / "manifest.json"
        if not path.exists():
            _refuse_strangers(folder)
        manifest = _resumed(path, fresh) if path.exists() else fresh
        study = Study(folder, manifest)
        study.save()
        write_json(folder / TASK, task.portable())
        yield study


TASK = "task.json"
"""The task as it was last asked, with its folder: who serves the study needs no task.toml."""
OURS = ("dev.jsonl", "curve.jsonl", "trials.jsonl", "decision.json", "measurements.json", "arms.toml")


def _refuse_strangers(folder: Path) -> None:
    """Files of these names without a manifest are somebody else's: they are not written to."""
    found = [name for name in OURS if (folder / name).exists()]
    if found:
        raise StudyError(
            f"{folder}: holds {', '.join(found)} but no manifest.json, so it is not a study to go on "
            "with, and nothing in it was touched. Choose another --out"
        )


def _manifest(task: Task, prepared: Prepared, seed: int) -> dict[str, Any]:
    split = prepared.split
    labels = sorted(prepared.audit.counts) if task.answer.kind == "label" else []
    return {
        "schema": SCHEMA,
        "task": task.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "task_sha256": task.measured_by(),
        "data_sha256": prepared.fingerprint,
        "scorer_sha256": scorer_code(task.score.metric, task.folder),
        "logs_sha256": {name: _digest(path) for name, path in task.logs().items()},
        "instruction": task.instruction,
        "labels": task.answer.labels or dict.fromkeys(labels, ""),
        "items": {
            name: [example.id for example in part]
            for name, part in (("train", split.train), ("dev", split.dev), ("test", split.test))
        },
        "sealed_test": None,
        "spent_usd": 0.0,
        "arms": {},
        "machine": {
            "python": platform.python_version(),
            "system": platform.system(),
            "processor": platform.machine(),
            "cores": cores(),
        },
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a study.

    Raises:
        StudyError: the folder holds no study, or one of a later version.

    """
    path = folder / "manifest.json"
    if not path.exists():
        raise StudyError(f"{folder}: no study here (no manifest.json); `tunepoint run` makes one")
    try:
        manifest: Any = json.loads(text_of(path, StudyError))
    except json.JSONDecodeError as error:
        raise StudyError(f"{path}: not JSON at line {error.lineno}; restore it or start anew") from None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else type(manifest).__name__
        raise StudyError(f"{path}: its schema is {found!r}, this version reads {SCHEMA}; start anew")
    missing = sorted(FIELDS - manifest.keys())
    if missing:
        raise StudyError(f"{path}: {', '.join(missing)} missing; restore it or start anew")
    return dict(manifest)


def _resumed(path: Path, fresh: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest on disk, if it is of the same measurement."""
    found = read_manifest(path.parent)
    words = {
        "task_sha256": "instruction, labels, columns, metric or models",
        "scorer_sha256": "scorer's code",
        "logs_sha256": "log of what runs today",
        "data_sha256": "examples",
        "seed": "seed",
    }
    changed = [what for key, what in words.items() if (found.get(key) or None) != (fresh[key] or None)]
    if changed:
        raise StudyError(
            f"{path.parent}: this study was made with another {' and another '.join(changed)}; "
            "its trials do not answer the new question. Choose another --out"
        )
    return found
