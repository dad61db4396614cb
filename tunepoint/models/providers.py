"""Names of models: the address behind each, and the environment variable that holds its key."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from tunepoint.errors import ModelError, nearest


def short_names(names: Sequence[str]) -> list[str]:
    """Return model names without provider or URL, unless two collide."""
    short = [name.rpartition("#")[2].rstrip("/").rpartition("/")[2] or name for name in names]
    for prefix in (*HERE_PREFIXES, VLLM_PREFIX):
        short = [name.removeprefix(prefix) or names[i] for i, name in enumerate(short)]
    short = [name.removesuffix(".gguf") for name in short]
    return [name if short.count(name) == 1 else names[i] for i, name in enumerate(short)]


LOCAL_PREFIX = "local:"
"""Begins the name of a model of transformers that runs in this process."""
EMBEDDED_PREFIX = "embedded:"
"""Begins the name of a model whose weights Tunepoint knows."""
ANTHROPIC_PREFIX = "anthropic/"
"""Begins the name of a model that Anthropic's own API serves."""
BEDROCK_PREFIX, VERTEX_PREFIX = "bedrock/", "vertex/"
"""Begin the names of models that a cloud serves."""
GGUF_PREFIX = "gguf:"
"""Begins the name of a model in a GGUF file of the user's."""
VLLM_PREFIX = "vllm:"
"""Begins the name of a model that a vLLM server of ours runs, which is reached or started."""
VLLM_ADDRESS = "TUNEPOINT_VLLM_URL"
"""Environment variable with the address of a vLLM server, as in http://127.0.0.1:8000/v1, its default."""
HERE_PREFIXES = (LOCAL_PREFIX, EMBEDDED_PREFIX, GGUF_PREFIX)
"""Begin the names of models that run in this process."""


def is_gguf(name: str) -> bool:
    """Return whether a model is a GGUF file that llama.cpp runs in this process."""
    return name.startswith((EMBEDDED_PREFIX, GGUF_PREFIX))


@dataclass(frozen=True)
class Provider:
    """The address of a provider's OpenAI-compatible API."""

    url: str
    key: str | None
    """Environment variable with the key; None if it needs none."""
    key_needed: bool = True
    """Whether the key must be set: a cloud has other credentials."""


PROVIDERS: dict[str, Provider] = {
    "openai": Provider("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "anthropic": Provider("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
    "bedrock": Provider("https://bedrock-runtime.amazonaws.com", "AWS_BEARER_TOKEN_BEDROCK", False),
    "vertex": Provider("https://aiplatform.googleapis.com", "VERTEX_ACCESS_TOKEN", False),
    "azure": Provider("https://openai.azure.com", "AZURE_OPENAI_API_KEY"),
    "google": Provider("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
    "openrouter": Provider("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "together": Provider("https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    "fireworks": Provider("https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY"),
    "groq": Provider("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "ollama": Provider("http://127.0.0.1:11434/v1", None),
}
"""By the first part of a model's name, as in `openai/gpt-6-luna`."""

AZURE_RESOURCE = "AZURE_OPENAI_ENDPOINT"
"""Environment variable with the address of an Azure OpenAI resource, as Azure's own clients name it."""
CLOUD_HOSTS = {
    "AZURE_OPENAI_API_KEY": re.compile(
        r"[\w-]+\.(openai\.azure\.com|services\.ai\.azure\.com|cognitiveservices\.azure\.com)"
    ),
    "AWS_BEARER_TOKEN_BEDROCK": re.compile(r"bedrock-(runtime|mantle)[\w.-]*\.(amazonaws\.com|api\.aws)"),
    "VERTEX_ACCESS_TOKEN": re.compile(r"([\w-]+-)?aiplatform(\.[a-z]+\.rep)?\.googleapis\.com"),
}
"""Environment variable with a cloud's key -> the hosts that it may go to, in each region or for each user."""
OTHER_OWNERS = {"NEBIUS_API_KEY": "api.tokenfactory.nebius.com"}
"""Environment variable -> host, of providers that only tune."""

CUSTOM_ENDPOINT_KEY = "TUNEPOINT_API_KEY"
"""Environment variable with the key of a server on this machine that is named by its URL."""
NO_KEY = "none"
"""The client insists on a key; servers without authentication ignore it."""


@dataclass(frozen=True)
class Address:
    """The parts of a model's name."""

    name: str
    url: str
    model: str
    """What the server calls it."""
    key_name: str | None
    """Environment variable with the key; None where none is needed."""
    key_needed: bool = True
    """Whether the variable must be set."""
    query: tuple[tuple[str, str], ...] = ()
    """Parameters that every call's address ends in, as Azure's api-version."""

    def key(self) -> str:
        """Return the key from the environment, or `NO_KEY`.

        Raises:
            ModelError: a key is needed and not set, or it would travel unencrypted to another machine.

        """
        key = os.environ.get(self.key_name) if self.key_name else None
        if not key and self.key_name and self.key_needed:
            raise ModelError(f"{self.name} needs a key: set {self.key_name} in the environment")
        if key and urlsplit(self.url.strip()).scheme != "https" and not is_loopback(self.url):
            host = urlsplit(self.url).hostname
            raise ModelError(
                f"{self.name}: plain http would send {self.key_name} to {host} unencrypted; use https, or a "
                "tunnel to 127.0.0.1"
            )
        return key or NO_KEY

    @property
    def key_hint(self) -> str:
        """What to check where a server refuses the key."""
        if self.key_name is None:
            return "no key was sent: name the variable that holds it with key_env"
        return f"check {self.key_name}"


def is_loopback(url: str) -> bool:
    """Whether the server of an address is on this machine."""
    host = urlsplit(url.strip()).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_model_name(name: str, key_env: str | None = None) -> Address:
    """Split a model's name: `provider/MODEL`, or `http://host:port/v1#MODEL`.

    A server that is named by its URL gets the key that is named for it. On this machine that is
    TUNEPOINT_API_KEY, if set, by default; elsewhere it gets none.

    Args:
        name: of the model.
        key_env: environment variable with its key.

    Raises:
        ModelError: the name has neither form, the provider is unknown, or the key is another provider's.

    """
    address = _parsed(name)
    if key_env is None:
        return address
    owners = {known.key: urlsplit(known.url).hostname for known in PROVIDERS.values()} | OTHER_OWNERS
    owner, host = owners.get(key_env), urlsplit(address.url).hostname or ""
    its_own = address.key_name == key_env  # of the provider that the name begins with
    in_cloud = key_env in CLOUD_HOSTS and CLOUD_HOSTS[key_env].fullmatch(host) is not None
    if not (owner in (None, host) or its_own or in_cloud):
        raise ModelError(
            f"{name}: {key_env} is the key of {owner}, and {host} would get it; put that server's own key "
            "into another variable"
        )
    return replace(address, key_name=key_env, key_needed=True)


def _azure_url(name: str) -> str:
    """Return the address of the user's own resource, in the version that takes no api-version."""
    resource = os.environ.get(AZURE_RESOURCE, "").strip().rstrip("/")
    parts = urlsplit(resource)
    if not parts.hostname or parts.path not in ("", "/openai", "/openai/v1", "/v1") or parts.query:
        raise ModelError(
            f"{name} needs the address of your resource: set {AZURE_RESOURCE}, as to "
            f"https://RESOURCE.openai.azure.com{f' (it is {resource!r})' if resource else ''}"
        )
    return resource if resource.endswith("/v1") else f"{resource.removesuffix('/openai')}/openai/v1"


def _parsed(name: str) -> Address:
    if name.startswith(("http://", "https://")):
        url, mark, model = name.partition("#")
        if not mark or not model:
            raise ModelError(f"{name}: names no model; write it as {url}#MODEL")
        parts = urlsplit(url)
        # People copy the address of a call; the calls of Tunepoint add its end themselves.
        path = re.sub(r"(/chat)?/completions/?$|/$", "", parts.path)
        base = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
        key = CUSTOM_ENDPOINT_KEY if is_loopback(base) else None
        return Address(name, base, model, key, key_needed=False, query=tuple(parse_qsl(parts.query)))
    if name.startswith(VLLM_PREFIX):
        url = os.environ.get(VLLM_ADDRESS, "http://127.0.0.1:8000/v1").strip().rstrip("/")
        return Address(name, url, name.removeprefix(VLLM_PREFIX), CUSTOM_ENDPOINT_KEY, key_needed=False)
    provider, slash, model = name.partition("/")
    if provider in PROVIDERS and slash and model:
        known = PROVIDERS[provider]
        url = _azure_url(name) if provider == "azure" else known.url
        return Address(name, url, model, known.key, known.key_needed)
    raise ModelError(
        f"{name!r} names no model: write provider/MODEL ({nearest(provider, PROVIDERS)}) or "
        "http://host:port/v1#MODEL"
    )
