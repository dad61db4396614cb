"""Which models their providers shut down, and when."""

from __future__ import annotations

import tomllib
from datetime import date
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources

from pydantic import BaseModel, ConfigDict


class Retirement(BaseModel):
    """The day on which a provider shuts some models down, as it announced it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    models: tuple[str, ...]
    """Patterns of their names, as in `openai/gpt-5-mini*`."""
    on: date
    checked: date
    source: str

    def when(self, today: date) -> str:
        """Return the day, as in "shuts down on 2027-01-14, in 50 days"."""
        return in_its_tense(self.on, today, "was shut down", "shuts down")

    def sentence(self, name: str, today: date) -> str:
        """Return it for one of the models."""
        when = self.when(today)
        return f"{name}: {when} ({self.source}, checked {self.checked}); [[models]] retires overrides it"


def in_its_tense(day: date, today: date, past: str, future: str) -> str:
    """Return what a provider does on a day, with the days until then."""
    if day <= today:
        return f"{past} on {day}"
    return f"{future} on {day}, in {(day - today).days} days"


@cache
def known_retirements() -> tuple[Retirement, ...]:
    """Return the retirements that Tunepoint knows; the first whose pattern matches a name counts."""
    text = resources.files("tunepoint.models").joinpath("retirements.toml").read_text(encoding="utf-8")
    return tuple(Retirement.model_validate(entry) for entry in tomllib.loads(text)["retirement"])


def announced_retirement(name: str) -> Retirement | None:
    """Return when the provider of a model shuts it down; None where nothing is announced."""
    known = known_retirements()
    return next((notice for notice in known if any(fnmatchcase(name, p) for p in notice.models)), None)
