"""What is asked of a provider's batch API, whichever it is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tunepoint.models.abilities import Abilities
from tunepoint.models.endpoints import Completion, Request

Row = Mapping[str, Any]
"""One request as the provider takes it in a batch, under the key by which its answer is found."""


@dataclass(frozen=True)
class BatchState:
    """How far a batch is."""

    ended: bool
    done: int = 0
    """Requests that have an answer, errors included."""
    fault: str | None = None
    """Why the whole batch was refused, in the provider's words; None where it was not."""
    gone: bool = False
    """Whether the provider knows nothing of it any more."""


@dataclass(frozen=True)
class BatchAnswer:
    """What became of one request of a batch."""

    key: str
    body: Any
    """The reply as it comes for a single call; None where the provider refused the request."""


@dataclass(frozen=True)
class Intent:
    """A batch that was about to be submitted, by which it is found at the provider if the answer was lost."""

    mark: str
    """Names the batch where the provider keeps a note of ours."""
    rows: int
    at: float
    """Seconds since 1970."""


class BatchJobs(Protocol):
    """The batch API of one model's provider. Its faults are errors of the provider's client."""

    faults: type[Exception]
    """The class of all errors of the client."""

    def row(self, key: str, request: Request, abilities: Abilities) -> Row:
        """Return a request as it stands in a batch."""
        ...

    def submit(self, rows: Sequence[Row], intent: Intent) -> str:
        """Submit a batch and return its id; one that was submitted already is not found here."""
        ...

    def find(self, intent: Intent, known: Collection[str]) -> str | None:
        """Return the id of a batch that was submitted although the answer was lost; None if it was not.

        Args:
            intent: what was submitted.
            known: ids of batches that are others.

        """
        ...

    def state(self, batch: str) -> BatchState:
        """Return how far a batch is."""
        ...

    def answers(self, batch: str) -> Iterator[BatchAnswer]:
        """Return the answers of a batch that has ended, in any order; what expired is left out."""
        ...

    def read(self, body: Any, request: Request | None) -> Completion:
        """Return the completion in a reply; without its request, the usage alone is right.

        Raises:
            ValueError: the reply is no completion, or says that something broke.

        """
        ...

    def close(self) -> None:
        """Close the connections."""
        ...
