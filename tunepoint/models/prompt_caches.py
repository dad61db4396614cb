"""How providers cache the start of a prompt: from which length, for how long, asked for or not."""

from __future__ import annotations

import tomllib
from datetime import date
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tunepoint.files.amounts import Amount
from tunepoint.stats.ranges import Range


class PromptCache(BaseModel):
    """What a provider does with the start of a prompt that it has seen before."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
    minimum_tokens: Annotated[int, Field(ge=0, le=10**9)] = 1_024
    """Shortest start of a prompt that is cached."""
    step_tokens: Annotated[int, Field(ge=1, le=10**6)] = 1
    """Cached tokens are a multiple of it."""
    minutes: Amount = Range(5, 5, 5)
    """How long it is kept."""
    renewed: bool = True
    """Whether every use starts that time anew."""
    asked_for: bool = False
    """Whether a call has to ask for it."""
    reached: Amount = Range(1, 1, 1)
    """Share of the calls that reach a machine with the cached tokens, while these are kept."""

    @field_validator("reached")
    @classmethod
    def _is_share(cls, reached: Range) -> Range:
        if reached.high > 1:
            raise ValueError(f"must be a share of the calls, at most 1, got {reached.high:g}")
        return reached

    def cacheable(self, shared_tokens: float) -> int:
        """Return how many of the tokens that all prompts begin with are cached."""
        whole_steps = int(shared_tokens // self.step_tokens) * self.step_tokens
        return whole_steps if shared_tokens >= self.minimum_tokens else 0


class KnownCache(PromptCache):
    """The cache of some models, as their provider describes it."""

    models: tuple[str, ...]
    """Patterns of their names, as in `openai/gpt-5*`."""
    checked: date
    source: str


MAKERS = ("anthropic", "amazon")
"""Of Bedrock's models whose caching is known: their names hold the maker's."""


@cache
def known_caches() -> tuple[KnownCache, ...]:
    """Return the caches that Tunepoint knows; the first whose pattern matches a name counts."""
    text = resources.files("tunepoint.models").joinpath("prompt_caches.toml").read_text(encoding="utf-8")
    return tuple(KnownCache.model_validate(entry) for entry in tomllib.loads(text)["cache"])


def prompt_cache(name: str) -> KnownCache | None:
    """Return how the provider of a model caches prompts; None if nothing is known."""
    name = _name_at_maker(name)
    return next((known for known in known_caches() if any(fnmatchcase(name, p) for p in known.models)), None)


def _name_at_maker(name: str) -> str:
    """Return the name at its maker of a cloud's model, as of `bedrock/us.anthropic.claude-sonnet-5`.

    The clouds cache as the makers do (docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html,
    learn.microsoft.com/azure/ai-foundry/openai/how-to/prompt-caching).
    """
    cloud, _, model = name.partition("/")
    if cloud == "azure":
        return f"openai/{model}"
    if cloud == "bedrock":
        return next(
            (f"{maker}/{model.rpartition(f'{maker}.')[2]}" for maker in MAKERS if maker in model), name
        )
    if cloud == "vertex":
        base = model.removeprefix("ft:").partition(":")[0]
        return f"anthropic/{model}" if "claude" in model else f"google/{base}"
    return name
