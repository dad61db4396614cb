"""OpenAI's batch API: a file of requests goes up, a file of answers comes down."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any, Literal

import openai
from openai.types import Batch

from tunepoint.models.abilities import Abilities
from tunepoint.models.batch.jobs import BatchAnswer, BatchState, Intent, Row
from tunepoint.models.chat_completions import read_completion, request_body
from tunepoint.models.endpoints import Completion, Request
from tunepoint.models.providers import Address

ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
MARK = "tunepoint"
"""Key of a batch's metadata under which our mark stands."""
ENDED = ("completed", "expired", "cancelled", "failed")
MAX_LISTED = 200
"""Newest batches of the account among which a lost one is looked for."""
HTTP_OK = 200


class OpenAIBatches:
    """Batches of chat completions."""

    faults: type[Exception] = openai.OpenAIError

    def __init__(self, name: str, address: Address, timeout: float) -> None:
        self.name, self.address = name, address
        self._client = openai.OpenAI(api_key=address.key(), base_url=address.url, timeout=timeout)
        # another attempt could submit a second batch: the caller looks for the first one before
        self._once = self._client.with_options(max_retries=0)

    def row(self, key: str, request: Request, abilities: Abilities) -> Row:
        """Return a line of the file that goes up."""
        body = request_body(self.address.model, request, abilities)
        return {"custom_id": key, "method": "POST", "url": ENDPOINT, "body": body}

    def submit(self, rows: Sequence[Row], intent: Intent) -> str:
        """Upload the requests and start the batch; see `BatchJobs`."""
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        file = self._client.files.create(file=(f"tunepoint-{intent.mark}.jsonl", content), purpose="batch")
        batch = self._once.batches.create(
            input_file_id=file.id,
            endpoint=ENDPOINT,
            completion_window="24h",
            metadata={MARK: intent.mark},
        )
        return batch.id

    def find(self, intent: Intent, known: Collection[str]) -> str | None:
        """Return the batch with our mark; see `BatchJobs`."""
        for batch in islice(self._client.batches.list(limit=100), MAX_LISTED):
            if (batch.metadata or {}).get(MARK) == intent.mark and batch.id not in known:
                return batch.id
        return None

    def state(self, batch: str) -> BatchState:
        """Return how far a batch is; see `BatchJobs`."""
        now = self._client.batches.retrieve(batch)
        counts = now.request_counts
        done = 0 if counts is None else counts.completed + counts.failed
        return BatchState(now.status in ENDED, done, _fault(now) if now.status == "failed" else None)

    def answers(self, batch: str) -> Iterator[BatchAnswer]:
        """Yield the answers in the files of a batch; see `BatchJobs`."""
        ended = self._client.batches.retrieve(batch)
        for file in (ended.output_file_id, ended.error_file_id):
            if file is None:
                continue
            # by line ends alone: a reply may hold other characters at which Python splits lines
            for line in self._client.files.content(file).text.split("\n"):
                answer = _parsed(line)
                response = answer.get("response")
                if response:  # what expired has an error alone
                    answered = response.get("status_code") == HTTP_OK
                    yield BatchAnswer(answer["custom_id"], response.get("body") if answered else None)

    def read(self, body: Any, request: Request | None) -> Completion:
        """Return the completion in a reply; see `BatchJobs`."""
        return read_completion(self.name, body, None, request)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _parsed(line: str) -> dict[str, Any]:
    """A line of a file of answers; nothing for one that is broken, whose request is then asked again."""
    try:
        answer = json.loads(line)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) and "custom_id" in answer else {}


def _fault(batch: Batch) -> str:
    """The provider's words about a batch that it refused."""
    errors = (batch.errors.data if batch.errors else None) or []
    return "; ".join(f"{error.code}: {error.message}" for error in errors[:3]) or "no reason given"
