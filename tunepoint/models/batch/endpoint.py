"""Endpoints whose calls go by batch, but for a few."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from tunepoint.errors import ModelError
from tunepoint.models.backoff import backoff
from tunepoint.models.batch.gathering import FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS, Batches
from tunepoint.models.batch.jobs import BatchAnswer, BatchJobs, BatchState, Intent, Row
from tunepoint.models.batch.log import LoggedBatch
from tunepoint.models.batch.terms import BatchTerms
from tunepoint.models.endpoints import Allow, Completion, Done, Endpoint, Request
from tunepoint.models.prices import CallPrice

if TYPE_CHECKING:
    from tunepoint.models.hosted_endpoint import HostedEndpoint

AT_ONCE = 16
"""Requests that are asked at once, at the ordinary price: so few are not worth a batch's wait."""
MAX_BATCHES = 2
"""Batches that a request goes into, where the first expires; then it is asked at once."""
MAX_ATTEMPTS = 8
"""Of one call to the batch API."""
GONE = (404, 410)
"""Statuses of a batch, or of its answers, that the provider keeps no longer."""
REFUSED = (400, 401, 402, 403, 404, 413, 422)
"""Statuses that another attempt would get too."""
_LIMIT_WORDS = ("token_limit", "enqueued token", "limit reached")
"""In the words about a batch that is too large for what waits in the account's queue already."""
MAX_QUOTED_CHARACTERS = 300
"""Of the provider's own words in an error."""
T = TypeVar("T")


class _Refused(ModelError):
    """The provider refused a call to its batch API, and would refuse another attempt too."""

    def __init__(self, words: str, status: int | None) -> None:
        super().__init__(words)
        self.status = status


class BatchedEndpoint:
    """An endpoint whose calls go by batch, but for a few; an answer is handed out once, for a recording."""

    def __init__(
        self,
        batches: Batches,
        direct: Endpoint,
        hosted: HostedEndpoint,
        jobs: BatchJobs,
        terms: BatchTerms,
        price: CallPrice | None,
        *,
        submits: bool = True,
    ) -> None:
        """Wrap an endpoint.

        Args:
            batches: of the study.
            direct: asks at once, paid for.
            hosted: the endpoint behind it, which learns what the server refuses.
            jobs: the batch API.
            terms: how much fits into a batch.
            price: of a call at once; None if calls are free.
            submits: whether requests go into new batches; else only the answers of earlier ones are taken.

        """
        self.name = direct.name
        self.batches, self.direct, self.hosted, self.jobs, self.price = batches, direct, hosted, jobs, price
        self._submits = submits
        self._max_requests, self._max_bytes = terms.max_requests, terms.max_bytes
        self._crowded = False
        """Whether the account's queue was full: then one batch goes after the other."""
        self._requests: Counter[str] = Counter()
        """Key of a request -> batches that it was in."""
        self._bodies: dict[str, Any] = {}
        """Key of a request -> the reply, which nobody asked for yet."""
        self._seen: set[int] = set()
        """Numbers of the batches that this run submitted or took."""
        self._forgotten: set[str] = set()
        """Keys of requests whose earlier answers are not taken."""

    # -- the contract ----------------------------------------------------------------------

    def complete(self, requests: Sequence[Request], done: Done, allow: Allow) -> None:
        """Complete all requests; see `Endpoint`."""
        positions = {request.key(self.name): i for i, request in enumerate(requests)}
        self._take_earlier(positions)
        while positions:
            for key, position in list(positions.items()):
                completion = self._completion(key, requests[position])
                if completion is not None:
                    done(position, completion)
                    del positions[key]
            at_once = self._asked_at_once(positions)
            self._ask_at_once([positions.pop(key) for key in at_once], requests, done, allow)
            if positions:
                self.batches.add(self, {key: requests[position] for key, position in positions.items()})

    def _asked_at_once(self, keys: Mapping[str, int]) -> list[str]:
        """The keys of what no batch is worth, or no batch answered."""
        if self.batches.at_once or not self._submits:
            return list(keys)
        spent = [key for key in keys if self._requests[key] >= MAX_BATCHES]
        if len(keys) - len(spent) <= AT_ONCE:
            return list(keys)
        # the first answer shows which parameters the server takes
        return spent or ([next(iter(keys))] if self.hosted.abilities is None else [])

    def forget(self, keys: Collection[str]) -> None:
        """Take no answer of an earlier batch for these requests: they are asked once more."""
        self._forgotten.update(keys)
        for key in keys:
            self._bodies.pop(key, None)

    def _ask_at_once(
        self, positions: Sequence[int], requests: Sequence[Request], done: Done, allow: Allow
    ) -> None:
        if positions:
            asked = [requests[position] for position in positions]
            self.direct.complete(asked, lambda i, completion: done(positions[i], completion), allow)

    # -- batches ---------------------------------------------------------------------------

    def submit(self, requests: Mapping[str, Request]) -> list[LoggedBatch]:
        """Submit requests in as many batches as they need, or as many as may be submitted now."""
        left, batches = dict(requests), []
        while left:
            calls, rows = self._next_rows(left)
            if not calls:
                break
            batches.append(self._submit(calls, rows))
            left = {key: request for key, request in left.items() if key not in calls}
            if self._crowded:
                break
        return batches

    def _next_rows(self, requests: Mapping[str, Request]) -> tuple[dict[str, int], list[Row]]:
        """The next batch: payment of each request in it, and its rows."""
        assert self.hosted.abilities is not None, "the first request was asked at once"
        calls: dict[str, int] = {}
        rows: list[Row] = []
        size = 0
        for key, request in requests.items():
            row = self.jobs.row(key, request, self.hosted.abilities)
            size += len(json.dumps(row))
            if rows and (len(rows) == self._max_requests or size > self._max_bytes):
                break
            payment = self._reserve(request)
            if payment is None:
                return self._worth_a_batch(calls, rows)
            calls[key] = payment
            rows.append(row)
        return calls, rows

    def _worth_a_batch(self, calls: dict[str, int], rows: list[Row]) -> tuple[dict[str, int], list[Row]]:
        """What the spending cap left of a batch, unless it is so little that it is asked at once instead."""
        if len(calls) > AT_ONCE:
            return calls, rows
        for key, payment in calls.items():
            self._settle(payment, 0.0)
            self._requests[key] = MAX_BATCHES
        return {}, []

    def _reserve(self, request: Request) -> int | None:
        """Set money aside for a call; None if it must wait for others, 0 if it is free."""
        if self.price is None:
            return 0
        return self.batches.budget.reserve(self.price.in_batch(self.price.max_dollars(request)))

    def _settle(self, payment: int, dollars: float | None) -> None:
        if payment:
            self.batches.budget.settle(payment, dollars)

    def _submit(self, calls: Mapping[str, int], rows: Sequence[Row]) -> LoggedBatch:
        """Submit one batch, once: an attempt whose answer was lost is looked for before the next."""
        log, at = self.batches.log, self.batches.clock()
        mark = hashlib.sha256(f"{at} {len(log.batches)} {sorted(calls)}".encode()).hexdigest()[:32]
        batch = log.intend(self.name, calls, Intent(mark, len(rows), at))
        self._seen.add(batch.written)
        self._requests.update(calls.keys())
        self._forgotten -= calls.keys()

        def submitted(attempt: int) -> str:
            lost = self.jobs.find(batch.intent, self._known()) if attempt else None
            return lost or self.jobs.submit(rows, batch.intent)

        try:
            log.note_id(batch, self._try(submitted, "the batch"))
        except _Refused as refusal:
            self._give_up(batch)
            raise ModelError(
                f"{refusal}. All answers so far are kept: run again, or without batch to ask at once"
            ) from None
        return batch

    def state(self, batch: LoggedBatch) -> BatchState:
        """Return how far a batch is."""
        assert batch.id is not None, "only batches with an id are waited for"
        identity = batch.id
        try:
            return self._try(lambda attempt: self.jobs.state(identity), f"batch {identity}")
        except _Refused as refusal:
            if refusal.status in GONE:
                return BatchState(ended=True, gone=True)
            raise self._goes_on(identity, refusal) from None

    def take(self, batch: LoggedBatch, state: BatchState) -> None:
        """Take the answers of a batch that has ended.

        Raises:
            ModelError: the provider refused the batch as a whole.

        """
        assert batch.id is not None, "only batches with an id have ended"
        if state.fault is not None:
            self._after_refusal(batch, state.fault)
            return
        answers = [] if state.gone else self._answers(batch.id)
        if state.gone or answers is None:  # what was paid for it stays paid
            self.batches.log.note_over(batch)
            return
        bodies = {answer.key: answer.body for answer in answers}
        for key, payment in batch.calls.items():
            if bodies.get(key) is not None:
                self._settle(payment, self._paid(bodies[key]))
                if key not in self._forgotten:
                    self._bodies[key] = bodies[key]
                continue
            self._settle(payment, 0.0)
            if key in bodies:  # asked at once, its refusal says what it is about
                self._requests[key] = MAX_BATCHES

    def _answers(self, identity: str) -> list[BatchAnswer] | None:
        """The answers of a batch; None if the provider keeps them no longer."""
        try:
            return self._try(lambda attempt: list(self.jobs.answers(identity)), f"batch {identity}")
        except _Refused as refusal:
            if refusal.status in GONE:
                return None
            raise self._goes_on(identity, refusal) from None

    def _paid(self, body: Any) -> float | None:
        """Dollars that an answer cost; None where it does not say."""
        if self.price is None:
            return 0.0
        try:
            usage = self.jobs.read(body, None).usage
        except ValueError:
            return None
        return self.price.paid(replace(usage, batched=True))

    def _goes_on(self, identity: str, refusal: _Refused) -> ModelError:
        return ModelError(
            f"{refusal}. Batch {identity} goes on at the provider and is paid for: mend the cause, run again"
        )

    def _after_refusal(self, batch: LoggedBatch, words: str) -> None:
        """Go on with smaller batches where the account's queue was full."""
        self._give_up(batch)
        if len(batch.calls) == 1 or not any(word in words.casefold() for word in _LIMIT_WORDS):
            raise ModelError(
                f"{self.name}: the provider refused batch {batch.id} ({words}). All answers so far are kept: "
                "run again without batch to ask at once"
            )
        self._crowded = True
        self._max_requests = len(batch.calls) // 2
        for key in batch.calls:
            self._requests[key] -= 1

    def _give_up(self, batch: LoggedBatch) -> None:
        for payment in batch.calls.values():
            self._settle(payment, 0.0)
        self.batches.log.note_over(batch)

    # -- answers ---------------------------------------------------------------------------

    def _take_earlier(self, keys: Mapping[str, int]) -> None:
        """Take the answers of batches that an earlier run submitted and did not wait for."""
        under_way = []
        for batch in self.batches.log.batches:
            wanted = batch.calls.keys() & (keys.keys() - self._forgotten)
            if batch.model != self.name or batch.over or batch.written in self._seen or not wanted:
                continue
            self._seen.add(batch.written)
            if batch.id is None and not self._is_submitted(batch):
                self._give_up(batch)
                continue
            self._requests.update(batch.calls.keys())
            under_way.append((self, batch))
        self.batches.wait(under_way)

    def _is_submitted(self, batch: LoggedBatch) -> bool:
        """Whether a batch is at the provider although its id was lost."""
        identity = self._try(
            lambda attempt: self.jobs.find(batch.intent, self._known()), "the list of batches"
        )
        if identity is not None:
            self.batches.log.note_id(batch, identity)
        return identity is not None

    def _completion(self, key: str, request: Request) -> Completion | None:
        """The completion of a request that a batch answered; None if none did."""
        if key not in self._bodies:
            return None
        try:
            completion = self.jobs.read(self._bodies.pop(key), request)
        except ValueError:
            self._requests[key] = MAX_BATCHES
            return None
        return replace(completion, usage=replace(completion.usage, batched=True))

    def _known(self) -> list[str]:
        return [batch.id for batch in self.batches.log.batches if batch.id is not None]

    def _try(self, call: Callable[[int], T], what: str) -> T:
        """Call the batch API until it answers; the call gets the number of the attempt."""
        for attempt in range(MAX_ATTEMPTS):
            try:
                return call(attempt)
            except self.jobs.faults as error:
                words, status = str(error)[:MAX_QUOTED_CHARACTERS], getattr(error, "status_code", None)
                if status in (*REFUSED, *GONE):
                    raise _Refused(f"{self.name}: {what} was refused: {words}", status) from None
                self.batches.sleep(min(backoff(attempt, FIRST_PAUSE_SECONDS), MAX_PAUSE_SECONDS))
        raise ModelError(
            f"{self.name}: {what}: no answer after {MAX_ATTEMPTS} attempts ({words}). All answers so far are "
            "kept, and batches that were submitted go on: run again"
        )
