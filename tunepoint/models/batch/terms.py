"""Which provider takes calls by batch, at what discount, and how many of them."""

from __future__ import annotations

import tomllib
from datetime import date
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

BATCH_WAIT = "minutes as a rule, 24 hours at most"
"""How long a batch takes: of 230,000 at OpenRouter half took 7 minutes and nine in ten an hour
(openrouter.ai/blog/announcements/batch-api, read 2026-11-27); OpenAI and Anthropic promise 24 hours."""


class BatchTerms(BaseModel):
    """What a provider says of its batch API."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    models: tuple[str, ...]
    """Patterns of their names, as in `openai/*`."""
    discount: Annotated[float, Field(gt=0, lt=1)]
    """Share of the ordinary price that a call by batch saves."""
    max_requests: Annotated[int, Field(ge=1)]
    """Of one batch."""
    max_bytes: Annotated[int, Field(ge=1)]
    """Of one batch."""
    checked: date
    source: str


@cache
def known_terms() -> tuple[BatchTerms, ...]:
    """Return the batch APIs that Tunepoint speaks."""
    text = resources.files("tunepoint.models.batch").joinpath("batches.toml").read_text(encoding="utf-8")
    return tuple(BatchTerms.model_validate(entry) for entry in tomllib.loads(text)["batch"])


def batch_terms(name: str) -> BatchTerms | None:
    """Return the terms of a model's provider; None where its batch API is not spoken, or it has none."""
    return next((terms for terms in known_terms() if any(fnmatchcase(name, p) for p in terms.models)), None)


def batch_discount(name: str) -> float:
    """Return the share of the ordinary price that a model's calls by batch save; 0 where none go by batch."""
    terms = batch_terms(name)
    return 0.0 if terms is None else terms.discount
