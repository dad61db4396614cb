"""manifest.json as a typed, frozen record: what a study is of, and what has happened in it so far.

Field names are the keys of the file. Keys that this version does not know are kept when the file is
written again, and keys that were never set are not written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from tunepoint.errors import StudyError
from tunepoint.files.foreign_json import read_json
from tunepoint.study.records import (
    AskedAnew,
    Bought,
    CurvePoint,
    Decided,
    Items,
    LabelOrder,
    Machine,
    MeasuredArm,
    ModelFacts,
    PromptSearch,
    RaceResult,
    Record,
    SealedTest,
    SearchHeadroom,
    Taught,
)

SCHEMA = 1
"""Version of the file's format."""
MANIFEST = "manifest.json"


class Manifest(Record):
    """The content of manifest.json."""

    schema_version: int = Field(alias="schema")
    """Version of this format."""
    task: str
    """Name of the task."""
    created: str
    """When the study began, ISO 8601."""
    seed: int
    """Seed of all randomness, the sealed split included."""
    task_sha256: str
    """What is measured: instruction, labels, columns, metric and models."""
    data_sha256: str
    """The examples, and which of them may be trained on."""
    scorer_sha256: str | None = None
    """The user's scorer; None for a metric of ours."""
    logs_sha256: dict[str, str | None] = Field(default_factory=dict)
    """Log of what runs today -> its hash."""
    replies_sha256: dict[str, str | None] = Field(default_factory=dict)
    """Name of a model -> hash of the file that its replies come from."""
    instruction: str
    """The task's instruction."""
    labels: dict[str, str]
    """Label -> description; empty where answers are no labels."""
    items: Items
    """Ids of the examples in each part."""
    sealed_test: SealedTest | None
    """The opening of the test set; None before it."""
    spent_usd: float
    """Dollars spent, this machine's time included."""
    calls_usd: float | None = None
    """The part of `spent_usd` that went to calls of chat models; None before the first."""
    arms: dict[str, MeasuredArm]
    """Name -> an arm that was fitted, parts of the learning curve included."""
    machine: Machine
    """Where the study began."""
    packages: dict[str, str | None]
    """Package -> version; None where it is not installed."""
    races: dict[str, RaceResult] = Field(default_factory=dict)
    """Name of an arm -> how far it came in its race."""
    look_growth: float | None = None
    """Items at a look of a race over those at the look before, where it is not the usual one."""
    headroom: SearchHeadroom | None = None
    """The test whether a search for a better instruction is worth it; None where there was none."""
    search: PromptSearch | None = None
    """The search for a better instruction; None where there was none."""
    taught: Taught | None = None
    """The distilled training set; None where there is none."""
    curve: list[CurvePoint] = Field(default_factory=list)
    """Sizes of the learning curve, without the whole training set; empty in studies made before the key."""
    ungraded: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Name of an arm -> item -> why the judge gave its answer no grade."""
    asked_anew: list[AskedAnew] = Field(default_factory=list)
    """Answers that were asked for once more, because they could not be read."""
    bought: Bought | None = None
    """How far the test was measured; None where errors have no price."""
    decodes: list[int] | None = None
    """Answers to each test item by the task's models; None before the test was measured."""
    models: dict[str, ModelFacts] = Field(default_factory=dict)
    """Name of a chat model -> what was found out about it."""
    decided: Decided | None = None
    """What the decision rests on; None before it."""
    pool_answered: int | None = None
    """Inputs of the pool that all finalists have answered; None without a pool."""
    label_order: LabelOrder | None = None
    """Which inputs of the pool are labelled first; None without a pool."""

    @property
    def finalists(self) -> list[str]:
        """Names of the arms that the test was opened for; empty before that."""
        return [] if self.sealed_test is None else self.sealed_test.finalists

    def title(self, arm: str) -> str:
        """What people read instead of an arm's name."""
        measured = self.arms.get(arm)
        return arm if measured is None else measured.label or arm

    def provenance(self) -> dict[str, Any]:
        """Where a decision comes from: versions, seeds, hashes, the opening of the test."""
        keys = ("created", "seed", "task_sha256", "data_sha256", "sealed_test", "machine", "packages")
        content = self.content()
        return {key: content[key] for key in (*keys, "spent_usd")}


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a study.

    Raises:
        StudyError: the folder holds no study, or one of another version, or a damaged one.

    """
    path = folder / MANIFEST
    if not path.exists():
        raise StudyError(f"{folder}: no study here (no manifest.json); `tunepoint run` makes one")
    content = read_json(path, StudyError, advice="restore it or start anew")
    schema = content.get("schema") if isinstance(content, dict) else type(content).__name__
    if schema != SCHEMA:
        raise StudyError(f"{path}: its schema is {schema!r}, this version reads {SCHEMA}; start anew")
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise StudyError(f"{path}: {_faults(error)}; restore it or start anew") from None


def _faults(error: ValidationError) -> str:
    """Missing keys first, else the first key that cannot be read."""
    faults = error.errors()
    missing = sorted(".".join(map(str, fault["loc"])) for fault in faults if fault["type"] == "missing")
    if missing:
        return f"{', '.join(missing)} missing"
    place = ".".join(map(str, faults[0]["loc"]))
    return f"{place} is {faults[0]['input']!r}: {faults[0]['msg']}"
