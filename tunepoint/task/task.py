"""The task: what to do, with which examples, how to score it, and within which limits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from tunepoint.errors import TaskError
from tunepoint.files.amounts import as_file_content
from tunepoint.files.toml import Section, read_toml, validated
from tunepoint.models.batch.terms import batch_terms, known_terms
from tunepoint.models.chat import Message
from tunepoint.models.endpoints import AS_USUAL
from tunepoint.task.assumptions import Costs, Limits, Traffic, Value
from tunepoint.task.sections import (
    EMBEDDED,
    JUDGE,
    RECORDED_PREFIX,
    Answer,
    ChainSteps,
    Data,
    ModelName,
    Score,
    Search,
    Stability,
    Track,
    Tune,
)
from tunepoint.task.written_prompts import WrittenPrompt, read_messages


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
    track: Track = Track()
    chains: tuple[ChainSteps, ...] = ()
    prompts: tuple[WrittenPrompt, ...] = ()
    tune: tuple[Tune, ...] = ()
    models: tuple[ModelName, ...] = (ModelName(name=EMBEDDED),)
    currencies: dict[str, float] = Field(default_factory=dict)
    """US dollars for one unit of each other currency that this file uses."""
    folder: Path = Field(default=Path(), exclude=True)
    """The folder of task.toml, where relative paths start."""

    @classmethod
    def load(cls, path: str | Path) -> Task:
        """Read `task.toml`.

        Args:
            path: of the file, or of its folder.

        Raises:
            TaskError: no such file, not TOML, an unknown key, or a value out of its range.

        """
        path = Path(path)
        if path.is_dir():
            path = path / "task.toml"
        content = read_toml(path, "`tunepoint init DATA.csv` writes one from your data")
        return cls.parse(content, where=str(path), folder=path.resolve().parent)

    @classmethod
    def parse(cls, content: Mapping[str, Any], *, where: str = "task", folder: Path = Path()) -> Task:
        """Return a task from the content of a task.toml.

        Args:
            content: its keys and sections.
            where: the source, for messages.
            folder: where relative paths start.

        Raises:
            TaskError: an unknown key, or a value out of its range.

        """
        return validated(cls, content, where=where, folder=folder)

    def resolve(self, path: Path) -> Path:
        """Return the path, relative ones from the folder of task.toml."""
        return path if path.is_absolute() else self.folder / path

    @property
    def takes_labels(self) -> bool:
        """Whether people can label inputs for it after a study: its scorer is known and no judge."""
        return self.data is not None and self.score.metric != JUDGE and ":" not in self.score.metric

    def logs(self) -> dict[str, Path]:
        """Return the logs of what runs today: the name of the model -> its file."""
        names = [model.name for model in self.models if model.name.startswith(RECORDED_PREFIX)]
        return {name: self.resolve(Path(name.removeprefix(RECORDED_PREFIX))) for name in names}

    def written_messages(self) -> dict[str, tuple[Message, ...]]:
        """Return the messages of the prompts that somebody wrote, with placeholders: name -> messages.

        Raises:
            TaskError: a file cannot be read as a prompt, or two prompts have the same name.

        """
        columns = self.data.columns.input if self.data else ()
        messages: dict[str, tuple[Message, ...]] = {}
        for prompt in self.prompts:
            if prompt.name in messages:
                raise TaskError(f"[[prompts]] has two named {prompt.name!r}; give each its own name")
            messages[prompt.name] = read_messages(prompt, self.folder, columns)
        return messages

    def asking_models(self) -> Task:
        """Return the task with its models asked now, also those whose replies come with it."""
        models = tuple(model.model_copy(update={"replies": None}) for model in self.models)
        judge = self.score.judge
        called = None if judge is None else judge.model_copy(update={"replies": None})
        score = self.score.model_copy(update={"judge": called})
        return self.model_copy(update={"models": models, "score": score})

    def asking_by_batch(self) -> Task:
        """Return the task with every model asked by batch whose provider has a batch API that is known.

        Raises:
            TaskError: there is none.

        """
        judge = self.score.judge
        judges = [] if judge is None else [judge]
        if not any(batch_terms(model.name) for model in (*self.models, *judges)):
            known = ", ".join(pattern for terms in known_terms() for pattern in terms.models)
            raise TaskError(f"no model of this task can be asked by batch; known are those of {known}")
        models = tuple(_by_batch(model) for model in self.models)
        score = self.score.model_copy(update={"judge": None if judge is None else _by_batch(judge)})
        return self.model_copy(update={"models": models, "score": score})

    def replies(self) -> dict[str, Path]:
        """Return the files that replies come from: the name of the model -> its file."""
        named = (model for model in self._answering if model.replies is not None)
        return {model.name: self.resolve(Path(str(model.replies))) for model in named}

    @property
    def _answering(self) -> tuple[ModelName, ...]:
        """The models and the judge."""
        return (*self.models, *(() if self.score.judge is None else (self.score.judge,)))

    def portable(self) -> dict[str, Any]:
        """Return the task as JSON with the folder of its paths; `Task.parse` reads it again."""
        content = as_file_content(self.model_dump(mode="json"))
        if self.answer.json_schema is not None:  # its nulls, which are dropped above, have a meaning
            content["answer"]["json_schema"] = self.answer.json_schema
        written = self.written_messages().values()
        for prompt, messages in zip(content.get("prompts", ()), written, strict=True):
            # what was measured, whatever becomes of the file
            prompt["messages"] = [{"role": m.role, "content": m.content} for m in messages]
        return {"folder": str(self.folder.resolve()), "task": content}

    def trials_fingerprint(self) -> str:
        """Return the SHA-256 of all settings that trials depend on.

        Limits, traffic and costs are not among them: when they change, the verdict is computed anew
        from the same trials.
        """
        parts = self.model_dump(mode="json", include={"instruction", "data", "answer", "chains", "search"})
        if self.data is not None:
            del parts["data"]["pool"]  # inputs without right answers are labeled after the trials
        parts["score"] = self.score.identity()
        parts["models"] = [model.name for model in self.models]
        styles = {model.name: model.styles for model in self.models if model.styles is not None}
        # Keys are added only where they apply: older studies, without these settings, keep their identity.
        if any(tune.distil for tune in self.tune):
            parts["accept"] = self.score.accept
        if styles:
            parts["styles"] = styles
        if efforts := {model.name: model.efforts for model in self.models if model.efforts}:
            parts["efforts"] = efforts
        settings = {model.name: model.settings for model in self.models if model.settings != AS_USUAL}
        if settings:
            parts["settings"] = {name: asdict(own) for name, own in settings.items()}
        if self.answer.kind == "json" and self.answer.json_schema is None:
            parts["json_schema"] = "inferred"  # older prompts named no field
        recorded = [model for model in self._answering if model.replies is not None]
        if recorded:
            parts["replies"] = {model.name: str(model.replies) for model in recorded}
        if self.prompts:
            written = self.written_messages()
            parts["prompts"] = [
                [prompt.name, prompt.models, [[m.role, m.content] for m in written[prompt.name]]]
                for prompt in self.prompts
            ]
        if self.tune:
            parts["tune"] = [tune.identity() for tune in self.tune]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _by_batch(model: ModelName) -> ModelName:
    """A model asked by batch, if its provider has a batch API that is known."""
    return model.model_copy(update={"batch": model.batch or batch_terms(model.name) is not None})
