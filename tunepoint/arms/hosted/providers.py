"""Facts about each provider of fine-tuning: where it listens, what it takes, until when.

Each has the day it was checked and its source. What nobody could look up is None, never a guess.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from types import MappingProxyType
from typing import Literal

from tunepoint.errors import ModelError
from tunepoint.models.providers import CUSTOM_ENDPOINT_KEY, Address, parse_model_name
from tunepoint.models.retirements import Retirement, announced_retirement, in_its_tense

Hosting = Literal["per token", "shared adapters", "dedicated"]
"""How a tuned model is served: as a model of its own, billed by the token; as an adapter that is
deployed on a shared base model, billed by the token; on reserved machines, billed by time."""
STALE_AFTER_DAYS = 90
"""Age from which a notice says that the facts are old: these programs change by the quarter."""


@dataclass(frozen=True)
class Announcement:
    """What a provider does from a day on, as a notice says it."""

    on: date
    what: str


@dataclass(frozen=True)
class TuningProvider:
    """One provider of fine-tuning, as of the day it was checked."""

    name: str
    checked: date
    source: str
    form: Literal["openai", "fireworks", "vertex", "bedrock"] = "openai"
    """Of its API: OpenAI's, or its own, which a client that the provider keeps speaks."""
    url: str | None = None
    """Base of all paths; None where the user has to set it, or the provider's client knows it."""
    key: str | None = None
    """Environment variable that holds its key."""
    per_resource: bool = False
    """Whether it listens at an address of the user's own, as Azure does."""
    reads_files_first: bool = False
    """Whether a job is refused until its files were read, which takes a while after the upload."""
    files: str = "/files"
    """Where files are listed."""
    upload: str = "/files"
    """Where a file is posted; a path other than `files` wants name and type as form fields too."""
    jobs: str = "/fine_tuning/jobs"
    paged: bool = True
    """Whether lists come in pages, with `limit`, `after` and `has_more`."""
    settings: Literal["method", "hyperparameters", "flat"] = "hyperparameters"
    """Where the number of epochs stands in a new job: inside `method`, inside `hyperparameters`,
    or beside the name of the model."""
    fixed: Mapping[str, bool] = field(default_factory=lambda: MappingProxyType({}))
    """Hyperparameters that every job gets."""
    takes: frozenset[str] = frozenset()
    """Of `seed`, `metadata` and `learning_rate_multiplier`, those that it takes."""
    min_examples: int | None = None
    max_file_bytes: int | None = None
    max_example_tokens: int | None = None
    hosting: Hosting | None = None
    closes: date | None = None
    """From this day on it accepts no new jobs."""
    closes_source: str | None = None
    announced: tuple[Announcement, ...] = ()
    """What else was announced, in the same source as `closes`."""

    def retirement(self, base: str) -> Retirement | None:
        """Return when a base model is shut down, together with every model tuned from it."""
        return announced_retirement(f"{self.name}/{base}")

    @property
    def setting(self) -> str:
        """Environment variable that gives another base URL."""
        return f"TUNEPOINT_{self.name.upper()}_URL"

    def base_url(self, url: str | None = None) -> str:
        """Return where it listens: `url`, else the setting, else its own address.

        Raises:
            ModelError: none of them is given.

        """
        address = url or os.environ.get(self.setting) or self._own_url
        if not address:
            raise ModelError(f"{self.name} has no address: set {self.setting}, as in http://host:port/v1")
        return address.strip().rstrip("/")

    @property
    def _own_url(self) -> str | None:
        """Its own address; None where the user has to set one."""
        return parse_model_name(f"{self.name}/any").url if self.per_resource else self.url

    def credential(self, url: str) -> tuple[str, str]:
        """Return the key for an address, and the environment variable that holds it.

        Only the provider's own address gets the provider's key: any other server, such as a proxy, gets
        TUNEPOINT_API_KEY, so that a changed address never receives a secret that is not meant for it.

        Raises:
            ModelError: the provider needs a key and it is not set, or it would travel unencrypted.

        """
        if self.key is not None and url == self._own_url:
            return Address(self.name, url, "", self.key).key(), self.key
        return Address(self.name, url, "", CUSTOM_ENDPOINT_KEY, key_needed=False).key(), CUSTOM_ENDPOINT_KEY

    def model_key(self) -> str | None:
        """Return the variable with the key of tuned models, if the environment gives another address."""
        moved = bool(os.environ.get(self.setting)) and self.base_url() != self._own_url
        return CUSTOM_ENDPOINT_KEY if moved and os.environ.get(CUSTOM_ENDPOINT_KEY) else None


PROVIDERS: dict[str, TuningProvider] = {
    "openai": TuningProvider(
        name="openai",
        checked=date(2026, 11, 25),
        source=(
            "paths and fields: openai-python 3.54.0; 10 examples: the supervised fine-tuning guide "
            "(developers.openai.com/docs/guides/distillation); 512 MB: API reference, POST /files; hosting: "
            "LiteLLM's price table has prices of tuned models by the token"
        ),
        url="https://api.openai.com/v1",
        key="OPENAI_API_KEY",
        settings="method",
        takes=frozenset({"seed", "metadata", "learning_rate_multiplier"}),
        min_examples=10,
        max_file_bytes=512_000_000,
        hosting="per token",
        closes=date(2027, 1, 6),
        closes_source="developers.openai.com/api/docs/deprecations",
        announced=(
            Announcement(
                date(2026, 5, 7), "an organization that never ran a fine-tuning job cannot start one"
            ),
            Announcement(
                date(2026, 7, 2),
                "an organization that used no fine-tuned model in the past 60 days cannot start a job",
            ),
        ),
    ),
    "together": TuningProvider(
        name="together",
        checked=date(2026, 11, 25),
        source=(
            "paths and fields: docs.together.ai/reference (upload-file, get-fine-tunes-id-events) and the "
            "together-py client; 1 example: its lib/constants.py; 100 GB: "
            "docs.together.ai/docs/fine-tuning/data-preparation; hosting: .../fine-tuning/deployment"
        ),
        url="https://api.together.xyz/v1",
        key="TOGETHER_API_KEY",
        upload="/files/upload",
        jobs="/fine-tunes",
        paged=False,
        settings="flat",
        min_examples=1,
        max_file_bytes=100_000_000_000,
        hosting="dedicated",
    ),
    "nebius": TuningProvider(
        name="nebius",
        checked=date(2026, 11, 25),
        source=(
            "paths and fields: github.com/nebius/token-factory-cookbook (post-training/fine-tuning-1); "
            "address: docs.tokenfactory.nebius.com/api-reference/introduction; hosting: "
            "skills.sh/arindam200/nebius-skills/nebius-deploy-lora, which is not Nebius's own"
        ),
        url="https://api.tokenfactory.nebius.com/v1",
        key="NEBIUS_API_KEY",
        fixed=MappingProxyType({"lora": True}),
        hosting="shared adapters",
    ),
    "azure": TuningProvider(
        name="azure",
        checked=date(2026, 11, 27),
        source=(
            "paths and fields: openai-python 3.54.0, which speaks to Azure's /openai/v1 as to OpenAI; files "
            "are read before a job may start, and a tuned model answers once it is deployed: "
            "learn.microsoft.com/azure/ai-foundry/openai/how-to/fine-tuning"
        ),
        key="AZURE_OPENAI_API_KEY",
        per_resource=True,
        reads_files_first=True,
        takes=frozenset({"seed", "learning_rate_multiplier"}),
        min_examples=10,
        max_file_bytes=512_000_000,
        hosting="dedicated",
    ),
    "fireworks": TuningProvider(
        name="fireworks",
        form="fireworks",
        checked=date(2026, 11, 27),
        source=(
            "datasets and jobs: fireworks-ai 1.2.30, Fireworks' own client; hosting: a tuned model answers "
            "from a deployment of yours (its deployments resource)"
        ),
        url="https://api.fireworks.ai",
        key="FIREWORKS_API_KEY",
        hosting="dedicated",
    ),
    "vertex": TuningProvider(
        name="vertex",
        form="vertex",
        checked=date(2026, 11, 27),
        source=(
            "jobs: google-genai 3.6.1, Google's own client, which calls its tuning experimental; rows in a "
            "bucket: google-cloud-storage 3.17.1; hosting: a job names the endpoint that serves its model"
        ),
        key="VERTEX_ACCESS_TOKEN",
        takes=frozenset({"metadata", "learning_rate_multiplier"}),
        hosting="per token",
    ),
    "bedrock": TuningProvider(
        name="bedrock",
        form="bedrock",
        checked=date(2026, 11, 27),
        source=(
            "jobs: boto3 1.44.8, Amazon's own client; hosting: a tuned model answers once a deployment of it "
            "exists (CreateCustomModelDeployment: on demand, by the token)"
        ),
        key="AWS_BEARER_TOKEN_BEDROCK",
        hosting="dedicated",
    ),
    "own": TuningProvider(
        name="own",
        checked=date(2026, 11, 25),
        source="any server that speaks the OpenAI-style files and jobs API; its limits are its own",
        takes=frozenset({"seed", "learning_rate_multiplier"}),
    ),
}
"""By the first part of a base model's name, as in `openai/gpt-4.1-mini-2025-04-14`."""


def notices(provider: TuningProvider, today: date, *, base: str | None = None) -> list[str]:
    """Return what to know about a provider before tuning there: dates, each with its source.

    Args:
        provider: whose dates.
        today: decides between past and future tense, and how old the facts are.
        base: the model that is to be tuned; adds the day on which it and its offspring are shut down.

    """
    name, checked = provider.name, f"checked {provider.checked}"
    lines = []
    retirement = provider.retirement(base) if base else None
    if retirement is not None:
        lines.append(
            f"{name}: {base} {retirement.when(today)}, and with it every model tuned from it "
            f"({retirement.source}, checked {retirement.checked})"
        )
    if provider.closes is not None:
        what = "to new fine-tuning jobs"
        closes = in_its_tense(provider.closes, today, f"closed {what}", f"closes {what}")
        lines.append(f"{name}: {closes} ({provider.closes_source}, {checked})")
    for announcement in provider.announced:
        start = "since" if announcement.on <= today else "from"
        lines.append(
            f"{name}: {start} {announcement.on} {announcement.what} ({provider.closes_source}, {checked})"
        )
    age = (today - provider.checked).days
    if age > STALE_AFTER_DAYS:
        lines.append(f"{name}: these facts are {age} days old; check whether they still hold")
    return lines
