"""Anthropic's batch API: requests go up in one call, answers come down as lines of JSON."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any

import anthropic

from tunepoint.models.abilities import Abilities
from tunepoint.models.batch.jobs import BatchAnswer, BatchState, Intent, Row
from tunepoint.models.endpoints import Completion, Request
from tunepoint.models.messages_api import message_body, read_message
from tunepoint.models.providers import Address

PATH = "/v1/messages/batches"
MAX_LISTED = 200
"""Newest batches of the account among which a lost one is looked for."""
SUBMITTED_WITHIN_SECONDS = 900.0
"""After which a batch of the same size is another's."""
CLOCKS_APART_SECONDS = 120.0
"""How far the provider's clock may be from ours."""


class AnthropicBatches:
    """Batches of messages."""

    faults: type[Exception] = anthropic.AnthropicError

    def __init__(self, name: str, address: Address, timeout: float) -> None:
        self.name, self.address = name, address
        self._client = anthropic.Anthropic(api_key=address.key(), base_url=address.url, timeout=timeout)
        # another attempt could submit a second batch: the caller looks for the first one before
        self._once = self._client.with_options(max_retries=0)

    def row(self, key: str, request: Request, abilities: Abilities) -> Row:
        """Return a request of the batch, which asks for no cache: what is written may be gone by then."""
        return {"custom_id": key, "params": message_body(self.address.model, request, abilities, 0)}

    def submit(self, rows: Sequence[Row], intent: Intent) -> str:
        """Start the batch; see `BatchJobs`."""
        # The client's own way to any path: `create` would walk the types of every request.
        reply: Any = self._once.post(PATH, body={"requests": list(rows)}, cast_to=object)
        return str(reply["id"])

    def find(self, intent: Intent, known: Collection[str]) -> str | None:
        """Return the batch of our size that began at our time, as there are no marks; see `BatchJobs`."""
        listed = list(islice(self._client.messages.batches.list(limit=100), MAX_LISTED))
        for batch in reversed(listed):  # the oldest first: it began when ours was submitted
            counts = batch.request_counts
            rows = counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired
            began = batch.created_at.timestamp()
            apart = began - intent.at
            is_then = -CLOCKS_APART_SECONDS <= apart <= SUBMITTED_WITHIN_SECONDS
            if batch.id not in known and rows == intent.rows and is_then:
                return batch.id
        return None

    def state(self, batch: str) -> BatchState:
        """Return how far a batch is; see `BatchJobs`."""
        now = self._client.messages.batches.retrieve(batch)
        counts = now.request_counts
        done = counts.succeeded + counts.errored + counts.canceled + counts.expired
        return BatchState(now.processing_status == "ended", done)

    def answers(self, batch: str) -> Iterator[BatchAnswer]:
        """Yield the answers of a batch; see `BatchJobs`."""
        for answer in self._client.messages.batches.results(batch):
            result = answer.result
            if result.type == "succeeded":
                yield BatchAnswer(answer.custom_id, result.message.model_dump(mode="json"))
            elif result.type == "errored":
                yield BatchAnswer(answer.custom_id, None)

    def read(self, body: Any, request: Request | None) -> Completion:
        """Return the completion in a reply; see `BatchJobs`."""
        return read_message(self.name, body, None)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
