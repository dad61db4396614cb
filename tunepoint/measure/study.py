"""One study on disk: its manifest, its trials, its sealed test; a killed one resumes."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from tunepoint.arms import Arm, FittedArm
from tunepoint.data.examples import Example
from tunepoint.errors import BudgetReached, StudyError, text_of
from tunepoint.measure.prepare import Prepared
from tunepoint.measure.trials import Trial, TrialLog, make_folder, write_json
from tunepoint.models.chat import Reply
from tunepoint.scorers import Scorer, scorer, scorer_code
from tunepoint.task import Task

Progress = Callable[[str, float, float], None]
"""(what, seconds of work done, seconds of work planned); the planned seconds are estimates."""

SCHEMA = 1
FIELDS = {"task", "seed", "task_sha256", "data_sha256", "sealed_test", "spent_usd", "arms"}
"""Keys of the manifest without which a study cannot go on."""
BATCH = 64
PACKAGES = ("tunepoint", "numpy", "scipy", "scikit-learn", "torch", "transformers", "tokenizers")


def silent(what: str, done: float, planned: float) -> None:
    """Progress that nobody watches."""


class Meter:
    """What the study has spent and may spend; this machine's time counts as money."""

    def __init__(self, cap_usd: float | None, usd_per_second: float, spent_usd: float = 0.0) -> None:
        self.cap_usd = cap_usd
        self.usd_per_second = usd_per_second
        self.spent_usd = spent_usd

    def allow(self, seconds: float, rest_seconds: float) -> None:
        """Raise before a step that would pass the cap.

        Raises:
            BudgetReached: with what the step and the rest of the study would cost.

        """
        step = seconds * self.usd_per_second
        if self.cap_usd is not None and self.spent_usd + step > self.cap_usd:
            rest = rest_seconds * self.usd_per_second
            raise BudgetReached(
                f"spending cap: ${self.spent_usd:.6f} of ${self.cap_usd:.6f} are spent and the next "
                f"step costs about ${step:.6f}; the rest of the study would cost about ${rest:.6f}. "
                "What was measured is kept: run again with a higher --max-usd to go on"
            )

    def charge(self, seconds: float) -> None:
        """Add time that was used."""
        self.spent_usd += seconds * self.usd_per_second


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

    def save(self) -> None:
        """Write the manifest."""
        write_json(self.folder / "manifest.json", self.manifest)

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
        yield study


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
    labels = sorted(prepared.audit.counts)
    return {
        "schema": SCHEMA,
        "task": task.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "task_sha256": task.measured_by(),
        "data_sha256": prepared.fingerprint,
        "scorer_sha256": scorer_code(task.score.metric, task.folder),
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


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
        "data_sha256": "examples",
        "seed": "seed",
    }
    changed = [what for key, what in words.items() if found.get(key) != fresh[key]]
    if changed:
        raise StudyError(
            f"{path.parent}: this study was made with another {' and another '.join(changed)}; "
            "its trials do not answer the new question. Choose another --out"
        )
    return found


# -- measuring -----------------------------------------------------------------------------


class Bench:
    """Fits arms and records their trials; what is recorded already is not done again."""

    def __init__(
        self, study: Study, task: Task, prepared: Prepared, meter: Meter, progress: Progress
    ) -> None:
        self.study = study
        self.task = task
        self.prepared = prepared
        self.meter = meter
        self.progress = progress
        self.done_seconds = 0.0
        self.planned_seconds = 0.0
        self.score: Scorer = scorer(task.score.metric, task.folder)

    def plan(self, seconds: float) -> None:
        """Announce work, in estimated seconds, for the progress and the spending cap."""
        self.planned_seconds += seconds

    def measure(
        self,
        arm: Arm,
        log: TrialLog,
        examples: Sequence[Example],
        train: Sequence[Example],
        *,
        name: str | None = None,
        one_by_one: bool = False,
        seeds: int | None = None,
        expected: float = 0.0,
    ) -> None:
        """Record every missing trial of an arm on these examples, for all its seeds.

        Args:
            name: as what the trials are recorded; the arm's own name if None.
            one_by_one: ask one input at a time and note `seconds`, what a request takes.
            seeds: only the first so many training seeds; all of them if None.
            expected: seconds that were planned for it.

        """
        name = name or arm.name
        for number in range(seeds or arm.seeds):
            seed = str(number) if arm.seeds > 1 else None
            missing = [e for e in examples if (name, e.id, seed) not in log.done]
            share = expected / (seeds or arm.seeds)
            if missing:
                self.meter.allow(share, self.planned_seconds - self.done_seconds)
                self.progress(name, self.done_seconds, self.planned_seconds)
                started = time.perf_counter()
                self._spend(share)  # a killed step counts as what it was expected to take
                fitted = self.fit(arm, train, number, name)
                self._record(fitted, name, seed, log, missing, 1 if one_by_one else BATCH)
                self._spend(time.perf_counter() - started - share)
            self.done_seconds += share
        self.progress(name, self.done_seconds, self.planned_seconds)

    def _spend(self, seconds: float) -> None:
        self.meter.charge(seconds)
        self.study.manifest["spent_usd"] = round(self.meter.spent_usd, 9)
        self.study.save()

    def fit(self, arm: Arm, train: Sequence[Example], number: int, name: str) -> FittedArm:
        """Fit an arm with its training seed, and note what that took."""
        rng = np.random.default_rng([int(self.study.manifest["seed"]), number])
        fitted = arm.fit(self.task, train, rng)
        facts = self.study.manifest["arms"].setdefault(
            name, {"kind": arm.kind, "family": arm.family, "fits": {}}
        )
        facts["fits"].setdefault(
            str(number),
            {
                "examples": fitted.built.examples,
                "seconds": round(fitted.built.seconds, 3),
                "warnings": list(fitted.built.warnings),
            },
        )
        self.study.save()
        return fitted

    def _record(
        self,
        fitted: FittedArm,
        name: str,
        seed: str | None,
        log: TrialLog,
        examples: Sequence[Example],
        size: int,
    ) -> None:
        if size == 1:
            fitted.answer([examples[0].input])  # the first answer of a process is slower
        finished: list[Trial] = []
        for start in range(0, len(examples), size):
            batch = examples[start : start + size]
            started = time.perf_counter()
            replies = fitted.answer([example.input for example in batch])
            seconds = time.perf_counter() - started if size == 1 else None
            finished += [
                self._trial(name, seed, example, reply, seconds)
                for example, reply in zip(batch, replies, strict=True)
            ]
            if len(finished) >= BATCH:
                log.append(finished)
                finished = []
        log.append(finished)

    def _trial(
        self, name: str, seed: str | None, example: Example, reply: Reply, seconds: float | None
    ) -> Trial:
        right = reply.format_ok and reply.answer is not None
        return Trial(
            arm=name,
            item=example.id,
            score=self.score(reply.answer or "", example) if right else 0.0,
            cluster=self.prepared.split.clusters.get(example.id),
            seed=seed,
            slice=example.slice,
            format_ok=reply.format_ok,
            input_tokens=reply.usage.input_tokens or None,
            cached_tokens=reply.usage.cached_tokens or None,
            output_tokens=reply.usage.output_tokens or None,
            seconds=None if seconds is None else round(seconds, 6),
            answer=reply.answer if reply.answer is not None else reply.text,
            confidence=None if reply.confidence is None else round(min(1.0, reply.confidence), 6),
            error=reply.error,
        )
