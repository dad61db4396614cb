"""The dashboard's data: traffic, score and cost by arm, the loop, the canary, disagreements between arms."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunepoint.capture.records import CapturedRequest, Feedback
from tunepoint.capture.store import Store
from tunepoint.serve.canary_monitor import feedback_score
from tunepoint.serve.tasks import ServedTask
from tunepoint.stats.intervals import Interval
from tunepoint.stats.moments import mean_of
from tunepoint.stats.sequential import betting_interval

MAX_REQUESTS = 20_000
"""Read for one view, the latest."""
MAX_DISAGREEMENTS = 25
"""Shown, the latest."""
MAX_LOG_ENTRIES = 15
MAX_RECENT = 200
MAX_SHOWN = 2_000
"""Characters of an input or an answer."""
MAX_LABEL_BUTTONS = 30
CANARY_ENDS = ("promoted", "rolled back")
"""How the audit log words the end of a canary."""
DAYS = 7.0
NORMAL_95 = 1.96
"""Standard errors on either side of a mean, for a 95% interval."""
FeedbackById = Mapping[str, Sequence[Feedback]]


def dashboard_data(store: Store, name: str, task: ServedTask, *, days: float = DAYS) -> dict[str, Any]:
    """Read everything about one task that the page shows."""
    since = time.time() - days * 86_400
    requests = store.latest(name, MAX_REQUESTS, since=since)
    feedback = store.feedback_since(name, requests[0].at) if requests else {}
    loop = store.state(f"loop/{name}")
    decision = task.monitor.decision
    return {
        "task": name,
        "days": days,
        "requests": sum(request.copy_of is None for request in requests),
        "most": MAX_REQUESTS if len(requests) == MAX_REQUESTS else None,
        "all_today": len(requests) < MAX_REQUESTS or requests[0].at < _midnight(),
        "tiles": _tiles(requests),
        "alarm": _alarm(store.audit_log(name), task),
        "by_hour": _by_hour(requests),
        "by_key": _by_key(requests),
        "recent": [_recent(request) for request in requests[-MAX_RECENT:]][::-1],
        "labels": list(task.template.labels[:MAX_LABEL_BUTTONS]) if task.template else [],
        "arms": _arms(requests, feedback),
        "policy": task.router.policy.document(),
        "canary": None if decision is None else decision.why,
        "loop": None if loop is None else {key: loop[key] for key in ("step", "round", "waits")},
        "savings": (store.state(f"savings/{name}") or {}).get("words", []),
        "saved_usd": (store.state(f"savings/{name}") or {}).get("saved_usd"),
        "drift": (store.state(f"drift/{name}") or {}).get("words", []),
        "log": [
            {key: entry[key] for key in ("at", "who", "what")}
            for entry in store.audit_log(name)[-MAX_LOG_ENTRIES:]
        ],
        "disagreements": _disagreements(requests, feedback),
    }


def _tiles(requests: Sequence[CapturedRequest]) -> dict[str, float]:
    """Requests, failures among them, and what answers have cost since midnight (UTC), copies included."""
    midnight = _midnight()
    originals = [request for request in requests if request.copy_of is None]
    today = [request for request in requests if request.at >= midnight]
    return {
        "requests": len(originals),
        "failed": sum(request.status >= 400 for request in originals),
        "usd_today": float(sum(request.cost_usd or 0 for request in today)),
    }


def _midnight() -> float:
    """When the day began, UTC, in seconds of the epoch."""
    return time.time() // 86_400 * 86_400


def _alarm(log: Sequence[Mapping[str, Any]], task: ServedTask) -> str | None:
    """That a canary is failing, or was rolled back within a day; None where nothing is wrong."""
    decision = task.monitor.decision
    if task.router.policy.canary is not None and decision is not None:
        worse = [
            measure
            for measure, (champion, challenger) in decision.intervals.items()
            if challenger.high < champion.low
        ]
        if worse:
            return f"The canary {task.router.policy.canary.arm} does worse on: {', '.join(worse)}"
    recent = [entry for entry in log if entry["at"] > time.time() - 86_400]
    changes = [str(entry["what"]) for entry in recent if str(entry["what"]).startswith(CANARY_ENDS)]
    return f"A canary was {changes[-1]}" if changes and changes[-1].startswith("rolled back") else None


def _by_key(requests: Iterable[CapturedRequest]) -> list[dict[str, Any]]:
    """Requests and dollars of each API key, the dearest first."""
    counts: dict[str, int] = defaultdict(int)
    dollars: dict[str, float] = defaultdict(float)
    for request in requests:
        if request.key:
            counts[request.key] += request.copy_of is None
            dollars[request.key] += float(request.cost_usd or 0)
    keys = sorted(counts, key=lambda key: -dollars[key])
    return [{"key": key, "requests": counts[key], "usd": dollars[key]} for key in keys]


def _recent(request: CapturedRequest) -> dict[str, Any]:
    """One request for the list of the latest."""
    return {
        "id": request.id,
        "at": request.at,
        "arm": request.arm,
        "role": request.role,
        "status": request.status,
        "error": request.error,
        "seconds": request.seconds,
        "usd": None if request.cost_usd is None else float(request.cost_usd),
        "tokens": [request.input_tokens, request.output_tokens],
        "key": request.key,
        "input": request.input[:MAX_SHOWN],
        "output": request.output[:MAX_SHOWN],
    }


def _by_hour(requests: Iterable[CapturedRequest]) -> dict[str, Any]:
    """The arms that answered, and for each hour (seconds since 1970) how many requests each of them."""
    arms = list(dict.fromkeys(request.arm for request in requests if request.copy_of is None))
    counts: dict[int, list[int]] = defaultdict(lambda: [0] * len(arms))
    for request in requests:
        if request.copy_of is None:
            counts[int(request.at // 3_600) * 3_600][arms.index(request.arm)] += 1
    return {"arms": arms, "hours": sorted(counts.items())}


def _arms(requests: Iterable[CapturedRequest], feedback: FeedbackById) -> list[dict[str, Any]]:
    """Each arm in each role, the busiest first: counts, and means with their 95% intervals."""
    groups: dict[tuple[str, str], list[CapturedRequest]] = defaultdict(list)
    for request in requests:
        groups[request.arm, request.role].append(request)
    busiest = sorted(groups.items(), key=lambda group: -len(group[1]))
    return [{"arm": arm, "role": role, **_arm(answers, feedback)} for (arm, role), answers in busiest]


def _arm(answers: Sequence[CapturedRequest], feedback: FeedbackById) -> dict[str, Any]:
    succeeded = [answer for answer in answers if answer.status < 400]
    entries = (entry for answer in answers for entry in feedback.get(answer.id, ()))
    scores = [score for entry in entries if (score := feedback_score(entry)) is not None]
    readable = [float(answer.format_ok) for answer in succeeded if answer.format_ok is not None]
    usd = np.array([float(answer.cost_usd) for answer in answers if answer.cost_usd is not None])
    seconds = np.array([answer.seconds for answer in succeeded if answer.seconds is not None])
    return {
        "requests": len(answers),
        "failed": len(answers) - len(succeeded),
        "feedback": len(scores),
        "score": _share(scores),
        "readable": _share(readable),
        "usd": _mean_cost(usd),
        "spent_usd": float(usd.sum()),
        "p50_seconds": float(np.quantile(seconds, 0.5)) if len(seconds) else None,
        "p95_seconds": float(np.quantile(seconds, 0.95)) if len(seconds) else None,
    }


def _mean_cost(usd: NDArray[np.float64]) -> dict[str, float] | None:
    """Mean cost of an answer with its interval; None without prices."""
    if not len(usd):
        return None
    mean = mean_of(usd)
    half = NORMAL_95 * mean.error
    return asdict(Interval(mean.value, max(0.0, mean.value - half), mean.value + half))


def _share(values: list[float]) -> dict[str, float] | None:
    """Mean in 0..1 with an interval that stays valid however often one looks; None without values."""
    return asdict(betting_interval(np.array(values), low=0.0, high=1.0)) if values else None


def _disagreements(requests: Sequence[CapturedRequest], feedback: FeedbackById) -> list[dict[str, Any]]:
    """Questions that two arms answered differently and nobody has judged, the latest first."""
    originals = {
        request.id: request for request in requests if request.copy_of is None and request.status < 400
    }
    rows: list[dict[str, Any]] = []
    for copy in requests:
        original = originals.get(copy.copy_of or "")
        if original is None or not original.input or copy.status >= 400 or feedback.get(original.id):
            continue
        answer, copied = (original.answer or original.output), (copy.answer or copy.output)
        if copied != answer:
            answers = [{"arm": original.arm, "answer": answer}, {"arm": copy.arm, "answer": copied}]
            rows.append(
                {"request_id": original.id, "at": original.at, "input": original.input, "answers": answers}
            )
    return sorted(rows, key=lambda row: -float(row["at"]))[:MAX_DISAGREEMENTS]
