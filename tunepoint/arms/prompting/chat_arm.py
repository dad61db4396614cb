"""What every arm that prompts a chat model has in common."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

from tunepoint.models.chat import ChatModel
from tunepoint.models.endpoints import Resampled
from tunepoint.models.providers import short_names
from tunepoint.task.hosting import Dedicated
from tunepoint.trials.trial import ArmKind


@dataclass
class ChatArm:
    """An arm that prompts one chat model; subclasses say how, and set `name` and `family`."""

    model: ChatModel
    title: str | None = field(default=None, kw_only=True)
    """The model in the arm's name; the model's own name if None."""
    hosting: Dedicated | None = field(default=None, kw_only=True)
    """Machines that are reserved for the model."""
    kind: ArmKind = field(default="prompt", kw_only=True)
    seeds: int = field(default=1, kw_only=True)
    decodes: int = field(default=1, kw_only=True)
    name: str = field(init=False)
    family: str = field(init=False)

    @property
    def remote(self) -> bool:
        """Whether its model answers elsewhere."""
        return self.model.remote

    @property
    def base_model(self) -> str:
        """Its model, as task.toml names it."""
        return self.model.name

    @property
    def title_in_name(self) -> str:
        """The model in `name` and `family`: with its provider where the catalog gave no title."""
        return self.title or self.model.name

    @property
    def title_in_label(self) -> str:
        """The model in the label."""
        return self.title or short_names([self.model.name])[0]

    def decoded(self, number: int) -> Self:
        """Return the arm that gives the answers of one decode, 0 for the first."""
        return replace(self, model=Resampled(self.model, number)) if number else self
