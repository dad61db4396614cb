"""The batches of a study: gathered, submitted, waited for.

A study asks arm after arm, and a batch takes minutes or hours; so the requests of many arms are gathered and
go out together. An arm whose requests are gathered stops with `AwaitsBatch`, and is asked once more when the
answers are there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tunepoint.models.batch.log import BatchLog, LoggedBatch
from tunepoint.models.budget import Budget
from tunepoint.models.endpoints import Request

if TYPE_CHECKING:
    from tunepoint.models.batch.endpoint import BatchedEndpoint

FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 5.0, 60.0
"""Between two looks at the batches that are under way."""


class AwaitsBatch(Exception):
    """The requests were gathered: ask once more when `Batches.send` has returned."""


class Batches:
    """The batches of a study."""

    def __init__(
        self,
        log: BatchLog,
        budget: Budget,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Start with the batches of earlier runs.

        Args:
            log: where batches are written down.
            budget: pays for the calls.
            sleep: waits.
            clock: seconds since 1970.

        """
        self.log, self.budget = log, budget
        self.sleep, self.clock = sleep, clock
        self.announce: Callable[[str], None] = lambda what: None
        """Called with what is waited for."""
        self.at_once = False
        """Whether every request is asked at once, at the ordinary price."""
        self._gathering = False
        self._gathered: dict[BatchedEndpoint, dict[str, Request]] = {}

    @contextmanager
    def asking_at_once(self) -> Iterator[None]:
        """Ask at once for a while: where each call depends on the last one, or is timed."""
        before, self.at_once = self.at_once, True
        try:
            yield
        finally:
            self.at_once = before

    def gather(self, steps: Sequence[Callable[[], None]]) -> None:
        """Run steps so that their requests go out together; each is run until nothing of it is missing.

        Raises:
            AwaitsBatch: within the steps of another call, whose requests go out with these.

        """
        if self._gathering:
            waiting = [step for step in steps if not self._finishes(step)]
            if waiting:
                raise AwaitsBatch
            return
        waiting = list(steps)
        while waiting:
            self._gathering = True
            try:
                waiting = [step for step in waiting if not self._finishes(step)]
            finally:
                self._gathering = False
                gathered, self._gathered = self._gathered, {}
            if gathered:
                self.send(gathered)

    def _finishes(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except AwaitsBatch:
            return False
        return True

    def add(self, endpoint: BatchedEndpoint, requests: Mapping[str, Request]) -> None:
        """Send requests and wait for their answers, or gather them.

        Raises:
            AwaitsBatch: they were gathered.

        """
        if not self._gathering:
            self.send({endpoint: requests})
            return
        self._gathered.setdefault(endpoint, {}).update(requests)
        raise AwaitsBatch

    def send(self, requests: Mapping[BatchedEndpoint, Mapping[str, Request]]) -> None:
        """Submit the requests of each endpoint, and wait for the answers.

        What a limit of the account or the spending cap kept back is not answered then.
        """
        under_way = [
            (endpoint, batch) for endpoint, own in requests.items() for batch in endpoint.submit(own)
        ]
        self.wait(under_way)

    def wait(self, under_way: Sequence[tuple[BatchedEndpoint, LoggedBatch]]) -> None:
        """Wait until batches have ended, and take their answers."""
        waiting, pause = list(under_way), FIRST_PAUSE_SECONDS
        calls, over = sum(len(batch.calls) for _, batch in waiting), 0
        while waiting:
            done = over
            for endpoint, batch in list(waiting):
                state = endpoint.state(batch)
                done += state.done
                if state.ended:
                    endpoint.take(batch, state)
                    over += len(batch.calls)
                    waiting.remove((endpoint, batch))
            self.announce(
                f"waiting for {len(under_way)} batch{'es' if len(under_way) > 1 else ''}: {done:,} of "
                f"{calls:,} calls answered (if you interrupt, the same command takes the answers)"
            )
            if waiting:
                self.sleep(pause)
                pause = min(1.5 * pause, MAX_PAUSE_SECONDS)
