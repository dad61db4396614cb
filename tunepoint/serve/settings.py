"""serve.toml: where to listen, what to keep, and which arms serve which tasks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from tunepoint.files.amounts import TokenPrice
from tunepoint.files.toml import Section, read_toml, validated
from tunepoint.serve.canary import Canary

DEFAULT_PORT = 8_484
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Server(Section):
    """Where the gateway listens, and what it keeps."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = DEFAULT_PORT
    store: str = "capture.sqlite"
    """A file, or `postgresql://USER@HOST/DATABASE`."""
    sample: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the requests whose content is kept; arm, tokens, seconds and dollars always are."""
    retention_days: Annotated[float, Field(gt=0)] | None = None
    """Days after which captured requests are deleted; None keeps them."""
    redact: bool = True
    """Whether personal data is removed before anything is written."""
    regions: tuple[str, ...] = ("US", "GB")
    """Countries whose phone numbers are found without a country code (ISO 3166)."""
    traces: bool = False
    """Whether each answer becomes an OpenTelemetry span (extra `otel`)."""
    max_body_mb: Annotated[float, Field(gt=0, le=256)] = 4.0
    """The largest body of a request, in MiB."""
    workers: Annotated[int, Field(ge=0, le=256)] | None = None
    """Processes that serve, sharing the port; 0 is one a core. None is that too, unless a study serves: its
    models would be loaded as often."""
    spool: Path = Path(".tunepoint-spool")
    """Folder for captured requests that wait for the store."""
    spool_mb: Annotated[float, Field(ge=0, le=1e6)] = 256.0
    """MiB of them, for each process; 0 keeps them in memory only."""
    drain_seconds: Annotated[float, Field(ge=0, le=300)] = 0.0
    """How long requests are still taken after the process was asked to stop, with `/readyz` at 503: as long
    as a load balancer needs to see that."""
    at_once: Annotated[int, Field(ge=1, le=100_000)] = 1_024
    """Requests that may be in flight; more get 503 and retry-after."""


class CanarySettings(Section):
    """A challenger, and the terms on which it is tried; the fields are those of `Canary`."""

    arm: str
    steps: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = (0.05, 0.2, 0.5)
    requests: Annotated[int, Field(ge=1)] = 200
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.02
    seconds: Annotated[float, Field(gt=0)] | None = None
    usd: Annotated[float, Field(gt=0)] | None = None
    ask: bool = False

    def canary(self) -> Canary:
        """The canary at its first step."""
        return Canary(**self.model_dump())


class ArmSettings(Section):
    """A server that gets the conversation as the application wrote it."""

    name: str
    model: str
    """`openai/gpt-6-luna`, or `http://HOST/v1#NAME`."""
    key_env: str | None = None
    """Environment variable with the key of its server."""
    price: TokenPrice | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=3_600)] = 60.0


class MoreSettings(Section):
    """One arm of another study of the same task."""

    study: Path
    arm: str
    name: str
    """Of the arm in the gateway; no other arm may have it."""


class TaskSettings(Section):
    """One task: its arms and their routes."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    """What applications give as the model."""
    study: Path | None = None
    """A study directory, whose finalists serve."""
    only: tuple[str, ...] = ()
    """Arms of the study that serve; all finalists that can if empty."""
    more: tuple[MoreSettings, ...] = ()
    """Single arms of other studies, such as a challenger that was tuned later."""
    arms: tuple[ArmSettings, ...] = ()
    """Other servers."""
    champion: str | None = None
    """The verdict's winner if missing; the first arm without a study."""
    fallback: tuple[str, ...] = ()
    slices: dict[str, str] = Field(default_factory=dict)
    """Slice (the header x-tunepoint-slice) -> arm."""
    shadow: str | None = None
    shadow_share: Annotated[float, Field(ge=0, le=1)] = 1.0
    canary: CanarySettings | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=3_600)] = 60.0
    """Of arms of studies."""

    @model_validator(mode="after")
    def _has_distinct_arms(self) -> TaskSettings:
        if self.study is None and not self.arms:
            raise ValueError("give study, or at least one [[tasks.arms]]")
        names = [*(arm.name for arm in self.arms), *(arm.name for arm in self.more)]
        if len(set(names)) < len(names):
            raise ValueError(f"two arms have the same name: {', '.join(names)}")
        return self


class ServeSettings(Section):
    """Everything that the gateway needs to know."""

    server: Server = Server()
    tasks: Annotated[tuple[TaskSettings, ...], Field(min_length=1)]
    folder: Path = Field(default=Path(), exclude=True)
    """Of serve.toml; relative paths start here."""
    currencies: dict[str, float] = Field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> ServeSettings:
        """Read serve.toml.

        Raises:
            TaskError: no such file, not TOML, an unknown key, or a value out of its range.

        """
        content = read_toml(path, "docs/serving.md shows what serve.toml holds")
        return cls.parse(content, where=str(path), folder=path.resolve().parent)

    @classmethod
    def parse(cls, content: Mapping[str, Any], *, where: str, folder: Path = Path()) -> ServeSettings:
        """Read settings from the mapping that serve.toml holds.

        Raises:
            TaskError: as `load`.

        """
        return validated(cls, content, where=where, folder=folder)

    def resolve(self, path: Path) -> Path:
        """Resolve a path relative to the folder of serve.toml."""
        return path if path.is_absolute() else self.folder / path

    def spool(self) -> Path:
        """The folder of what waits on disk for the store."""
        return self.resolve(self.server.spool)

    def store(self) -> str:
        """The address of the store: a URL, or a path resolved like all others."""
        address = self.server.store
        return address if "://" in address else str(self.resolve(Path(address)))
