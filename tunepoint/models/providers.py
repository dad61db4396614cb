"""Names of models: the address behind each, and the environment variable that holds its key."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from tunepoint.errors import ModelError, nearest


def short_names(names: Sequence[str]) -> list[str]:
    """Return model names without provider or URL, unless two collide."""
    short = [name.rpartition("#")[2].rstrip("/").rpartition("/")[2] or name for name in names]
    short = [name.removeprefix(LOCAL_PREFIX) or names[i] for i, name in enumerate(short)]
    return [name if short.count(name) == 1 else names[i] for i, name in enumerate(short)]


LOCAL_PREFIX = "local:"
"""Begins the name of a model that runs in this process."""


@dataclass(frozen=True)
class Provider:
    """The address of a provider's OpenAI-compatible API."""

    url: str
    key: str | None
    """Environment variable with the key; None if it needs none."""


PROVIDERS: dict[str, Provider] = {
    "openai": Provider("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "anthropic": Provider("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
    "google": Provider("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
    "openrouter": Provider("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "together": Provider("https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    "groq": Provider("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "ollama": Provider("http://127.0.0.1:11434/v1", None),
}
"""By the first part of a model's name, as in `openai/gpt-5-mini`."""

CUSTOM_ENDPOINT_KEY = "TUNEPOINT_API_KEY"
"""Environment variable with the key of an endpoint that is named by its URL."""


@dataclass(frozen=True)
class Address:
    """The parts of a model's name."""

    name: str
    url: str
    model: str
    """What the server calls it."""
    key_name: str | None
    """Environment variable with the key; None for a custom endpoint, and where none is needed."""
    query: tuple[tuple[str, str], ...] = ()
    """Parameters that every call's address ends in, as Azure's api-version."""

    def key(self) -> str:
        """Return the key from the environment.

        Raises:
            ModelError: the provider needs a key and it is not set.

        """
        if self.key_name is None:
            # The client insists on a key; servers without authentication ignore it.
            return os.environ.get(CUSTOM_ENDPOINT_KEY) or "none"
        key = os.environ.get(self.key_name)
        if not key:
            raise ModelError(f"{self.name} needs a key: set {self.key_name} in the environment")
        return key


def parse_model_name(name: str) -> Address:
    """Split a model's name: `provider/MODEL`, or `http://host:port/v1#MODEL`.

    Raises:
        ModelError: the name has neither form, or the provider is unknown.

    """
    if name.startswith(("http://", "https://")):
        url, mark, model = name.partition("#")
        if not mark or not model:
            raise ModelError(f"{name}: names no model; write it as {url}#MODEL")
        parts = urlsplit(url)
        # People copy the address of a call; the calls of Tunepoint add its end themselves.
        path = re.sub(r"(/chat)?/completions/?$|/$", "", parts.path)
        base = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
        return Address(name, base, model, None, tuple(parse_qsl(parts.query)))
    provider, slash, model = name.partition("/")
    if provider in PROVIDERS and slash and model:
        return Address(name, PROVIDERS[provider].url, model, PROVIDERS[provider].key)
    raise ModelError(
        f"{name!r} names no model: write provider/MODEL ({nearest(provider, PROVIDERS)}) or "
        "http://host:port/v1#MODEL"
    )
