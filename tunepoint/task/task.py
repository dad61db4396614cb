"""The task: what to do, with which examples, how it is scored, and what limits hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from tunepoint.files.amounts import as_given
from tunepoint.files.toml import Section, read_toml, validated
from tunepoint.task.assumptions import Costs, Limits, Traffic, Value
from tunepoint.task.sections import (
    _ASIDE,
    EMBEDDED,
    RECORDED,
    Answer,
    ChainSteps,
    Data,
    ModelName,
    Score,
    Search,
    Stability,
    Tune,
)


class Task(Section):
    """Everything a study needs to know; read from `task.toml`."""

    name: Annotated[str, Field(min_length=1, pattern=r"^[\w.-]+$")]
    instruction: str = ""
    data: Data | None = None
    answer: Answer = Answer()
    score: Score = Score()
    traffic: Traffic = Traffic()
    limits: Limits = Limits()
    value: Value = Value()
    costs: Costs = Costs()
    declared: Stability = Stability()
    search: Search = Search()
    chains: tuple[ChainSteps, ...] = ()
    tune: tuple[Tune, ...] = ()
    models: tuple[ModelName, ...] = (ModelName(name=EMBEDDED),)
    currencies: dict[str, float] = Field(default_factory=dict)
    """Dollars of one unit of other currencies in which amounts of this file are given."""
    folder: Path = Field(default=Path(), exclude=True)
    """Where relative paths start: the folder of task.toml."""

    @classmethod
    def load(cls, path: str | Path) -> Task:
        """Read `task.toml`.

        Raises:
            TaskError: no such file, not TOML, an unknown key, a value out of its range;
                the message names the key and the nearest known one.

        """
        path = Path(path)
        if path.is_dir():
            path = path / "task.toml"
        content = read_toml(path, "`tunepoint init DATA.csv` writes one from your data")
        return cls.parse(content, where=str(path), folder=path.resolve().parent)

    @classmethod
    def parse(cls, content: Mapping[str, Any], *, where: str = "task", folder: Path = Path()) -> Task:
        """A task from the mapping that task.toml holds.

        Raises:
            TaskError: as `load`.

        """
        return validated(cls, content, where=where, folder=folder)

    def resolve(self, path: Path) -> Path:
        """The path as seen from the folder of task.toml."""
        return path if path.is_absolute() else self.folder / path

    def logs(self) -> dict[str, Path]:
        """Logs of what runs today: the name of the model -> its file."""
        names = [model.name for model in self.models if model.name.startswith(RECORDED)]
        return {name: self.resolve(Path(name.removeprefix(RECORDED))) for name in names}

    def portable(self) -> dict[str, Any]:
        """The task as JSON, with the folder that its paths start from: `Task.parse` reads it again."""
        content = as_given(self.model_dump(mode="json"))
        if self.answer.json_schema is not None:  # null means something in it
            content["answer"]["json_schema"] = self.answer.json_schema
        return {"folder": str(self.folder.resolve()), "task": content}

    def measured_by(self) -> str:
        """SHA-256 of all that trials depend on.

        Limits, traffic and costs are not among it: when they change, the verdict is
        computed anew from the same trials.
        """
        parts = self.model_dump(mode="json", include={"instruction", "data", "answer", "chains", "search"})
        parts["score"] = self.score.identity()
        parts["models"] = [model.name for model in self.models]
        if any(one.distil for one in self.tune):
            parts["accept"] = self.score.accept
        if self.tune:
            parts["tune"] = [one.model_dump(exclude=_ASIDE) for one in self.tune]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
