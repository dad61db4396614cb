"""Feedback on answers: who may give it, on which requests, and with which corrections."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from tunepoint.capture.records import CapturedRequest, Feedback, Role
from tunepoint.capture.store import Store
from tunepoint.capture.targets import expected_targets, read_target
from tunepoint.models.chat import Prompt
from tunepoint.serve.auth import Key
from tunepoint.serve.protocol import RequestError

MAX_REMEMBERED = 10_000
"""Requests that are remembered for feedback; older ones are looked up in the store."""
PAUSES = (0.1, 0.4)
"""Seconds before a request that is not known is looked up again."""
MAX_ENTRIES = 20
"""Feedback entries on one request."""
MAX_QUOTED = 80
"""Characters of a correction in an error."""
ALL_REQUESTS = "operate"
"""The role that may give feedback on everybody's requests."""
Find = Callable[[str], CapturedRequest | None]
Count = Callable[[str], int]


@dataclass(slots=True)
class Answered:
    """What feedback needs to know of a request."""

    task: str
    role: Role
    """Why the arm was called."""
    user: str | None
    key: str | None
    """Name of the key that asked."""
    entries: int = 0
    """Feedback that it has already."""


class AnsweredRequests:
    """Requests that feedback may be about; the latest are remembered.

    Args:
        find: looks a request up in the store.
        count: counts the stored feedback on a request.

    """

    def __init__(self, find: Find, count: Count) -> None:
        self._find, self._count = find, count
        self._recent: OrderedDict[str, Answered] = OrderedDict()

    def remember(self, captured: CapturedRequest) -> None:
        """Remember an answer that is not written yet."""
        self._keep(captured.id, _answered(captured, 0))

    def _keep(self, request_id: str, answered: Answered) -> Answered:
        kept = self._recent.setdefault(request_id, answered)
        if len(self._recent) > MAX_REMEMBERED:
            self._recent.popitem(last=False)
        return kept

    async def find(self, request_id: str) -> Answered:
        """Return the request of an id.

        Raises:
            RequestError: there is none.
            StoreError: the store is away, and the request is not remembered.

        """
        answered = self._recent.get(request_id)
        for pause in (0.0, *PAUSES) if answered is None else ():
            # Another process may have answered, and not have written it yet.
            await asyncio.sleep(pause)
            answered = await asyncio.to_thread(self._look_up, request_id)
            if answered is not None:
                break
        if answered is None:
            raise RequestError(
                404,
                f"no request {request_id!r} is known; send the header x-request-id of its answer",
                code="request_not_found",
                param="request_id",
            )
        return self._keep(request_id, answered)

    def _look_up(self, request_id: str) -> Answered | None:
        stored = self._find(request_id)
        return None if stored is None else _answered(stored, self._count(request_id))


def count_in(store: Store) -> Count:
    """Return what counts the feedback on a request in a store."""
    return lambda request_id: len(store.feedback([request_id]).get(request_id, ()))


def _answered(captured: CapturedRequest, entries: int) -> Answered:
    return Answered(captured.task, captured.role, captured.user, captured.key, entries)


def check_right(answered: Answered, key: Key | None) -> None:
    """Check that a key may give feedback on a request: its own, or any with the right roles.

    Whoever corrects on the dashboard has `read` and `call`, and sees everybody's requests there.

    Raises:
        RequestError: another key has asked.

    """
    if key is None or not key.name or key.name == answered.key:
        return
    if ALL_REQUESTS in key.roles or {"read", "call"} <= set(key.roles):
        return
    raise RequestError(
        403,
        f"the key {key.name!r} has not asked this request; feedback on others' requests needs the role "
        "'operate', or 'read' and 'call'",
        kind="permission_error",
        param="request_id",
    )


def check_room(answered: Answered) -> None:
    """Check that a request has not too much feedback yet.

    Raises:
        RequestError: it has.

    """
    if answered.entries >= MAX_ENTRIES:
        raise RequestError(
            429,
            f"the request has {answered.entries} feedback entries already, which is the most it may have",
            kind="rate_limit_error",
            code="feedback_full",
            param="request_id",
        )


def with_target(feedback: Feedback, template: Prompt | None) -> Feedback:
    """Return feedback whose correction is written as the task writes its answers.

    Args:
        feedback: as it was given.
        template: of the task's answers; None where nobody knows their kind, and all is taken.

    Raises:
        RequestError: the correction cannot be an answer of the task.

    """
    if feedback.correction is None or template is None:
        return feedback
    target = read_target(template, feedback.correction)
    if target is None:
        raise RequestError(
            422,
            f"correction: {feedback.correction[:MAX_QUOTED]!r} is no answer of this task; "
            f"expected {expected_targets(template)}",
            code="not_an_answer",
            param="correction",
        )
    return replace(feedback, correction=target)
