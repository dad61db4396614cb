"""A chat model as a task names it, and the endpoint that its name stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tunepoint.errors import MissingExtra
from tunepoint.files.amounts import TokenPrice
from tunepoint.models.embedded import CPU_TORCH
from tunepoint.models.endpoints import AS_USUAL, CallSettings, Completion, Endpoint
from tunepoint.models.gguf.opening import open_gguf
from tunepoint.models.prompt_caches import PromptCache
from tunepoint.models.providers import ANTHROPIC_PREFIX, BEDROCK_PREFIX, VERTEX_PREFIX, is_gguf

if TYPE_CHECKING:
    from tunepoint.models.abilities import Abilities
    from tunepoint.models.hosted_endpoint import HostedEndpoint


class OwnModel(Endpoint, Protocol):
    """An endpoint whose weights are ours: in this process, or in others of a cluster."""

    @property
    def parameters(self) -> int:
        """Numbers in the model."""
        ...

    def close(self) -> None:
        """Free the memory."""
        ...


class OtherMachines(Protocol):
    """Machines of a cluster that ask and run models for this process."""

    def own_model(self, model: NamedModel) -> OwnModel:
        """Return a model whose weights are ours, run by them."""
        ...

    def calls(self, model: NamedModel, hosted: HostedEndpoint) -> Endpoint:
        """Return a provider's model that they call, once `hosted` has found out what its server can do."""
        ...


@dataclass(frozen=True)
class NamedModel:
    """A chat model as the task names it."""

    name: str
    price: TokenPrice | None = None
    """The task's own price, which overrides the known one."""
    concurrency: int = 64
    folder: Path = Path()
    """Where relative directories of local models start."""
    key_env: str | None = None
    """Environment variable with the key of its server."""
    replies: Path | None = None
    """File of its replies, which are taken instead of asking it."""
    cache: PromptCache | None = None
    """How its provider caches prompts; None if only what is generally known counts."""
    settings: CallSettings = AS_USUAL
    """How it is asked."""
    batch: bool = False
    """Whether its calls go by batch, where a study has many at a time."""
    useless: Callable[[Completion], bool] | None = None
    """For a judge: says which of its recorded replies it gives once more; none if None."""


def open_hosted(model: NamedModel, abilities: Abilities | None = None) -> HostedEndpoint:
    """Open a model by the API of its provider: Anthropic's own, or an OpenAI-compatible one.

    Args:
        model: as the task names it.
        abilities: of its server; found out if None.

    Raises:
        ModelError: the name is not a model's, or its key is not set.
        MissingExtra: the client of the provider is not installed.

    """
    settings: dict[str, Any] = {
        "concurrency": model.concurrency,
        "abilities": abilities,
        "key_env": model.key_env,
    }
    return endpoint_kind(model.name)(model.name, **settings)


def endpoint_kind(name: str) -> type[HostedEndpoint]:
    """Return the class for the API that serves a model.

    Raises:
        MissingExtra: the client of the provider is not installed.

    """
    provider, _, model = name.partition("/")
    prefix = f"{provider}/"
    try:
        if prefix == ANTHROPIC_PREFIX:
            from tunepoint.models.anthropic import AnthropicEndpoint

            return AnthropicEndpoint
        if prefix in (BEDROCK_PREFIX, VERTEX_PREFIX) and "claude" in model:
            from tunepoint.models.clouds.claude import BedrockEndpoint, VertexEndpoint

            return BedrockEndpoint if prefix == BEDROCK_PREFIX else VertexEndpoint
        if prefix == BEDROCK_PREFIX:
            from tunepoint.models.clouds.converse import ConverseEndpoint

            return ConverseEndpoint
        if prefix == VERTEX_PREFIX:
            from tunepoint.models.clouds.gemini import GeminiEndpoint

            return GeminiEndpoint
    except ImportError as error:
        extra = "anthropic" if "claude" in model else provider
        raise MissingExtra(f"{name} needs {error.name}", extra) from None
    from tunepoint.models.openai import OpenAIEndpoint

    return OpenAIEndpoint


def open_here(model: NamedModel, processors: int | None = None) -> OwnModel:
    """Open a model that runs in this process.

    Args:
        model: as the task names it.
        processors: cores that llama.cpp uses; all that this process may use if None.

    Raises:
        ModelError: its file is missing, or no model that chats.
        MissingExtra: what runs it is not installed.

    """
    if is_gguf(model.name):
        return open_gguf(model.name, model.folder, processors)
    try:
        from tunepoint.models.local import LocalEndpoint
    except ImportError as error:
        raise MissingExtra(f"{model.name} needs {error.name}", "tune", CPU_TORCH) from None
    return LocalEndpoint.load(model.name, model.folder)
