"""What each provider of fine-tuning is like: where it listens, what it takes, until when.

A run is what is to be trained; it knows the form in which each provider takes it.

Facts with the day they were checked and where. What nobody could look up is None, never a guess.
Fireworks is not here: its fine-tuning has datasets and jobs of its own form, not the OpenAI-style
ones (docs.fireworks.ai/fine-tuning/fine-tuning-via-api).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

from tunepoint.errors import DataError, ModelError
from tunepoint.models.providers import OWN_KEY, Address

Row = Mapping[str, Any]
"""`{"messages": [{"role": ..., "content": ...}, ...]}`, the assistant's turn last."""
Hosting = Literal["per token", "shared adapters", "dedicated"]
"""How a tuned model is served: as a model of its own, billed by the token; as an adapter that is
deployed on a shared base model, billed by the token; on machines of one's own, billed by time."""
BYTES_A_TOKEN = 4
"""Of an estimate: OpenAI's rule of thumb for English text (help.openai.com/en/articles/4936856)."""
OLD_DAYS = 90
"""Facts that were checked longer ago are said to be old."""


@dataclass(frozen=True)
class Announcement:
    """What a provider does from a day on."""

    on: date
    what: str


@dataclass(frozen=True)
class TuningProvider:
    """One provider of fine-tuning, as of the day it was looked at."""

    name: str
    checked: date
    source: str
    url: str | None = None
    """Base of all paths; None where the user's setting gives it."""
    key: str | None = None
    """Environment variable that holds its key."""
    files: str = "/files"
    """Where files are listed."""
    upload: str = "/files"
    """Where a file is posted; one apart from `files` wants the name and the type as fields too."""
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
    fewest_examples: int | None = None
    most_file_bytes: int | None = None
    most_tokens_an_example: int | None = None
    hosting: Hosting | None = None
    closes: date | None = None
    """From this day on it accepts no new jobs."""
    closes_source: str | None = None
    announced: tuple[Announcement, ...] = ()
    """What else was announced, by the same source as `closes`."""
    retires: Mapping[str, date] = field(default_factory=lambda: MappingProxyType({}))
    """Base model -> the day it is shut down, and with it all that was tuned from it."""
    retires_source: str | None = None

    @property
    def setting(self) -> str:
        """Environment variable that gives another base URL."""
        return f"TUNEPOINT_{self.name.upper()}_URL"

    def base_url(self, url: str | None = None) -> str:
        """Where it listens: `url`, else the setting, else its own address.

        Raises:
            ModelError: none of them is given.

        """
        found = url or os.environ.get(self.setting) or self.url
        if not found:
            raise ModelError(f"{self.name}: no address; set {self.setting} to one like http://host:port/v1")
        return found.rstrip("/")

    def credential(self, url: str) -> tuple[str, str]:
        """The key for an address, and the environment variable that it came from.

        The provider's key is for the provider's own address; any other gets TUNEPOINT_API_KEY.

        Raises:
            ModelError: the provider needs a key and it is not set.

        """
        own = self.key if url == self.url else None
        return Address(self.name, url, "", own).key(), own or OWN_KEY


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
        fewest_examples=10,
        most_file_bytes=512_000_000,
        hosting="per token",
        closes=date(2027, 1, 6),
        closes_source="developers.openai.com/api/docs/deprecations",
        announced=(
            Announcement(
                date(2026, 5, 7), "an organisation that never ran a fine-tuning job cannot start one"
            ),
            Announcement(
                date(2026, 7, 2),
                "an organisation that asked no fine-tuned model within the past 60 days cannot start a job",
            ),
        ),
        retires=MappingProxyType(
            {
                "gpt-3.5-turbo-0125": date(2026, 10, 23),
                "gpt-4.1-nano-2025-04-14": date(2026, 10, 23),
                "o4-mini-2025-04-16": date(2026, 10, 23),
                "gpt-4o-2024-08-06": date(2027, 1, 14),
                "gpt-4o-mini-2024-07-18": date(2027, 1, 14),
                "gpt-4.1-2025-04-14": date(2027, 1, 14),
                "gpt-4.1-mini-2025-04-14": date(2027, 1, 14),
            }
        ),
        retires_source="developers.openai.com/api/docs/deprecations (notices of 2026-04-22 and 2026-10-14)",
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
        fewest_examples=1,
        most_file_bytes=100_000_000_000,
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
    "own": TuningProvider(
        name="own",
        checked=date(2026, 11, 25),
        source="any server that speaks the OpenAI-style files and jobs API; its limits are its own",
        takes=frozenset({"seed", "learning_rate_multiplier"}),
    ),
}
"""By the first part of a base model's name, as in `openai/gpt-4.1-mini-2025-04-14`."""


@dataclass(frozen=True)
class Run:
    """What is to be trained; it determines the job."""

    base: str
    rows: Sequence[Row]
    validation: Sequence[Row] = ()
    epochs: int = 3
    learning_rate_multiplier: float | None = None
    seed: int = 0

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the rows, the base model, the hyperparameters and the seed."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def suffix(self) -> str:
        """What the tuned model's name ends in."""
        return f"tp-{self.fingerprint[:12]}"

    def file_name(self, part: str) -> str:
        """Name of the file with the `train` or the `validation` rows."""
        return f"tunepoint-{self.fingerprint[:32]}-{part}.jsonl"

    def hyperparameters(self, provider: TuningProvider) -> dict[str, Any]:
        """What the provider is told about training.

        Raises:
            ModelError: a learning-rate multiplier where the provider takes none.

        """
        chosen: dict[str, Any] = {"n_epochs": self.epochs, **provider.fixed}
        if self.learning_rate_multiplier is not None:
            if "learning_rate_multiplier" not in provider.takes:
                raise ModelError(f"{provider.name} takes no learning-rate multiplier: leave it out")
            chosen["learning_rate_multiplier"] = self.learning_rate_multiplier
        return chosen

    def request(
        self, provider: TuningProvider, chosen: Mapping[str, Any], *, file: str, validation: str | None
    ) -> dict[str, Any]:
        """The new job in the form that the provider takes; `chosen` are its hyperparameters."""
        body: dict[str, Any] = {"model": self.base, "training_file": file, "suffix": self.suffix}
        if validation is not None:
            body["validation_file"] = validation
        if "seed" in provider.takes:
            body["seed"] = self.seed
        if "metadata" in provider.takes:
            body["metadata"] = {"tunepoint": self.fingerprint}
        if provider.settings == "method":
            return {**body, "method": {"type": "supervised", "supervised": {"hyperparameters": chosen}}}
        if provider.settings == "hyperparameters":
            return {**body, "hyperparameters": chosen}
        return {**body, **chosen}


def jsonl(rows: Sequence[Row]) -> bytes:
    """Rows as the file that is uploaded."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def tokens_of(row: Row) -> int:
    """Estimated tokens of a row: UTF-8 bytes of its contents / 4, rounded up."""
    return -(-bytes_of(row) // BYTES_A_TOKEN)


def bytes_of(row: Row) -> int:
    """UTF-8 bytes of the contents of a row's messages."""
    return sum(len(turn["content"].encode()) for turn in row["messages"])


def validate(rows: Sequence[Row], provider: TuningProvider, *, ids: Sequence[str] = ()) -> None:
    """See that rows can be trained on, by the provider's limits and by common sense.

    Args:
        rows: what is to be uploaded.
        provider: whose limits hold; a limit that nobody knows is not checked.
        ids: of the examples that the rows came from, for the message.

    Raises:
        DataError: too few examples, an empty target, a row or the file too large, all rows or all
            targets the same.

    """
    fewest = max(1, provider.fewest_examples or 1)
    if len(rows) < fewest:
        raise DataError(
            f"{provider.name}: {len(rows)} examples, and it trains on {fewest} at least: "
            f"add {fewest - len(rows)}"
        )
    for number, row in enumerate(rows):
        _validate_row(row, provider, f"row {number + 1}" + (f" ({ids[number]})" if ids else ""))
    size, most = len(jsonl(rows)), provider.most_file_bytes
    if most is not None and size > most:
        raise DataError(
            f"{provider.name}: the file of {len(rows)} rows has {size:,} bytes, {most:,} are allowed: "
            "leave examples out, or shorten the longest"
        )
    answers = {row["messages"][-1]["content"] for row in rows}
    if len(rows) > 1 and len(answers) == 1:
        inputs = {str(row["messages"][:-1]) for row in rows}
        what = "the same" if len(inputs) == 1 else f"answered with {next(iter(answers))[:60]!r}"
        raise DataError(
            f"all {len(rows)} rows are {what}: a model learns nothing from it; add examples that differ"
        )


def _validate_row(row: Row, provider: TuningProvider, where: str) -> None:
    if not row["messages"][-1]["content"].strip():
        raise DataError(f"{where}: the target is empty; fill it in, or leave the example out")
    tokens, most = tokens_of(row), provider.most_tokens_an_example
    if most is not None and tokens > most:
        raise DataError(
            f"{where}: about {tokens:,} tokens (an estimate: {bytes_of(row):,} bytes / {BYTES_A_TOKEN}), and "
            f"{provider.name} takes {most:,}: shorten the example, or leave it out"
        )


def notices(provider: TuningProvider, today: date, *, base: str | None = None) -> list[str]:
    """What to know about a provider before tuning there: dates, each with its source.

    Args:
        provider: whom to ask.
        today: the day on which it is read.
        base: the model that is to be tuned; with it, when it and its offspring are shut down.

    """
    name, checked = provider.name, f"checked {provider.checked}"
    said = []
    retired = provider.retires.get(base or "")
    if retired is not None:
        said.append(
            f"{name}: {base} {_when(retired, today, 'was shut down', 'shuts down')}, and with it every model "
            f"tuned from it ({provider.retires_source}, {checked})"
        )
    if provider.closes is not None:
        verb = _when(
            provider.closes, today, "closed to new fine-tuning jobs", "closes to new fine-tuning jobs"
        )
        said.append(f"{name}: {verb} ({provider.closes_source}, {checked})")
    for other in provider.announced:
        start = "since" if other.on <= today else "from"
        said.append(f"{name}: {start} {other.on} {other.what} ({provider.closes_source}, {checked})")
    age = (today - provider.checked).days
    if age > OLD_DAYS:
        said.append(f"{name}: what is known of it is {age} days old; see whether it still holds")
    return said


def _when(day: date, today: date, past: str, future: str) -> str:
    if day <= today:
        return f"{past} on {day}"
    return f"{future} on {day}, in {(day - today).days} days"
