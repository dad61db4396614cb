"""Reasons to retrain: drift, a verdict that measured prices and volume turn, base models that retire."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tunepoint.capture.records import CapturedRequest
from tunepoint.capture.store import Store
from tunepoint.errors import EvidenceError, StoreError, StudyError
from tunepoint.loop.drift import Drift, input_drift, mean_drift
from tunepoint.loop.savings import realized_savings
from tunepoint.loop.savings_report import save_savings_words
from tunepoint.models.embedded import installed_encoder
from tunepoint.serve.canary_monitor import feedback_score
from tunepoint.stats.streams import Stream, stream
from tunepoint.task.task import Task

MIN_VALUES = 20
"""Before and since: below, a mean is not compared."""
RETIREMENT_NOTICE_DAYS = 60
"""Before a base model retires, the loop starts another round."""


def measure_drift(
    store: Store,
    task: str,
    training_inputs: Sequence[str],
    *,
    since: float,
    window: float,
    margin: float,
    seed: int,
) -> list[Drift]:
    """Compare recent traffic with what was before: its inputs, its feedback and how readable answers are.

    Args:
        since: when the watch began, in seconds since 1970; traffic before it is what was before.
        window: seconds of recent traffic, at most.
        margin: how much feedback and readable answers may fall, 0 to 1.

    """
    recent = _traffic(store, task, since=max(since, time.time() - window))
    earlier = _traffic(store, task, until=since)
    drifts = []
    encoder = installed_encoder()
    if encoder is not None:
        known = [*training_inputs, *_inputs(earlier)]
        with contextlib.suppress(EvidenceError):  # too little traffic yet
            drifts.append(input_drift(encoder.embed, known, _inputs(recent), stream(seed, Stream.DRIFT)))
    for what, before, now in (
        ("feedback", _scores(store, earlier), _scores(store, recent)),
        ("share of readable answers", _readable(earlier), _readable(recent)),
    ):
        if len(before) >= MIN_VALUES and len(now) >= MIN_VALUES:
            drifts.append(mean_drift(what, before, now, margin))
    return drifts


def changed_verdict(study: Path, store: Store, task: str) -> list[str]:
    """Whether a study would be decided otherwise at measured prices and volume; keeps the savings so far."""
    if not study.exists():
        return []
    with contextlib.suppress(StoreError, StudyError):  # nothing of this study has served yet
        savings = realized_savings(study, store)
        save_savings_words(store, task, savings)
        decided = json.loads((study / "decision.json").read_text(encoding="utf-8"))
        if savings.volume is not None and savings.verdict != decided["verdict"]:
            # The loop compares reasons with those that it has answered, so the words are stable.
            return [f"with measured volume and prices the verdict is {savings.verdict}: {savings.winner}"]
    return []


def retiring_models(task: Task) -> list[str]:
    """Base models that retire soon."""
    today = datetime.now(UTC).date()
    models = [(model.name, model.last_day) for model in task.models]
    models += [(tune.base, tune.retires) for tune in task.tune]
    return [
        f"{name} retires on {day}"
        for name, day in models
        if day is not None and (day - today).days <= RETIREMENT_NOTICE_DAYS
    ]


def _traffic(
    store: Store, task: str, *, since: float = 0.0, until: float = float("inf")
) -> list[CapturedRequest]:
    """Requests that arms of ours have answered, without the copies for shadows."""
    return [
        request
        for request in store.requests(task, since=since, until=until)
        if request.copy_of is None and request.role != "imported" and request.status < 400
    ]


def _inputs(requests: Sequence[CapturedRequest]) -> list[str]:
    """Texts that were kept."""
    return [request.input for request in requests if request.input]


def _scores(store: Store, requests: Sequence[CapturedRequest]) -> list[float]:
    by_request = store.feedback([request.id for request in requests])
    scores = (feedback_score(entry) for entries in by_request.values() for entry in entries)
    return [score for score in scores if score is not None]


def _readable(requests: Sequence[CapturedRequest]) -> list[float]:
    return [float(request.format_ok) for request in requests if request.format_ok is not None]
