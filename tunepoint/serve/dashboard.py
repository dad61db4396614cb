"""What the dashboard shows: traffic, score and cost by arm, the loop, the canary, disagreements."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np

from tunepoint.capture.records import CapturedRequest, Feedback
from tunepoint.capture.store import Store
from tunepoint.serve.canary_monitor import feedback_score
from tunepoint.serve.dispatch import ServedTask
from tunepoint.stats.intervals import Interval
from tunepoint.stats.moments import mean_of
from tunepoint.stats.sequential import betting_interval

MOST = 20_000
"""Requests that one look reads at most, the latest."""
SHOWN = 25
"""Disagreements that are shown, the latest."""
DAYS = 7.0


def dashboard_data(store: Store, name: str, served: ServedTask, *, days: float = DAYS) -> dict[str, Any]:
    """Everything about one task, as the page shows it; reads the store."""
    since = time.time() - days * 86_400
    rows = store.latest(name, MOST, since=since)
    said = store.feedback([one.id for one in rows])
    loop = store.state(f"loop/{name}")
    return {
        "task": name,
        "days": days,
        "requests": sum(one.copy_of is None for one in rows),
        "most": MOST if len(rows) == MOST else None,
        "by_hour": _by_hour(rows),
        "arms": _arms(rows, said),
        "policy": served.router.policy.document(),
        "canary": None if served.watch.judged is None else served.watch.judged.why,
        "loop": None if loop is None else {key: loop[key] for key in ("step", "round", "waits")},
        "savings": (store.state(f"savings/{name}") or {}).get("words", []),
        "drift": (store.state(f"drift/{name}") or {}).get("words", []),
        "log": [{key: line[key] for key in ("at", "who", "what")} for line in store.log(name)[-15:]],
        "disagreements": _disagreements(rows, said),
    }


def _by_hour(rows: Iterable[CapturedRequest]) -> list[tuple[int, int]]:
    """Start of the hour, in seconds since 1970, and its requests."""
    counts: dict[int, int] = defaultdict(int)
    for one in rows:
        if one.copy_of is None:
            counts[int(one.at // 3_600) * 3_600] += 1
    return sorted(counts.items())


def _arms(rows: Iterable[CapturedRequest], said: dict[str, list[Feedback]]) -> list[dict[str, Any]]:
    """Each arm in each role: counts, and means with their 95% intervals."""
    groups: dict[tuple[str, str], list[CapturedRequest]] = defaultdict(list)
    for one in rows:
        groups[one.arm, one.role].append(one)
    found = []
    for (arm, role), mine in sorted(groups.items(), key=lambda pair: -len(pair[1])):
        scores = [
            value for one in mine for f in said.get(one.id, ()) if (value := feedback_score(f)) is not None
        ]
        read = [float(one.format_ok) for one in mine if one.format_ok is not None and one.status < 400]
        paid = np.array([float(one.cost_usd) for one in mine if one.cost_usd is not None])
        took = np.array([one.seconds for one in mine if one.seconds is not None and one.status < 400])
        cost = mean_of(paid)
        found.append(
            {
                "arm": arm,
                "role": role,
                "requests": len(mine),
                "failed": sum(one.status >= 400 for one in mine),
                "feedback": len(scores),
                "score": _share(scores),
                "readable": _share(read),
                "usd": None
                if not len(paid)
                else asdict(
                    Interval(
                        cost.value, max(0.0, cost.value - 1.96 * cost.error), cost.value + 1.96 * cost.error
                    )
                ),
                "spent_usd": float(paid.sum()),
                "p50_seconds": float(np.quantile(took, 0.5)) if len(took) else None,
                "p95_seconds": float(np.quantile(took, 0.95)) if len(took) else None,
            }
        )
    return found


def _share(values: list[float]) -> dict[str, float] | None:
    """A mean in 0..1 with an interval that holds however often one looks; None without values."""
    return asdict(betting_interval(np.array(values), low=0.0, high=1.0)) if values else None


def _disagreements(rows: Iterable[CapturedRequest], said: dict[str, list[Feedback]]) -> list[dict[str, Any]]:
    """Questions that two arms answered differently and nobody has judged, the latest first."""
    answered = {one.id: one for one in rows if one.copy_of is None and one.status < 400}
    found: list[dict[str, Any]] = []
    for copy in rows:
        one = answered.get(copy.copy_of or "")
        if one is None or not one.input or copy.status >= 400 or said.get(one.id):
            continue
        theirs, ours = (copy.answer or copy.output), (one.answer or one.output)
        if theirs != ours:
            answers = [{"arm": one.arm, "answer": ours}, {"arm": copy.arm, "answer": theirs}]
            found.append({"request_id": one.id, "at": one.at, "input": one.input, "answers": answers})
    return sorted(found, key=lambda row: -float(row["at"]))[:SHOWN]
