"""What has changed between two studies of a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunepoint.decision.numbers import about_usd, at_start, percent, points
from tunepoint.report.first_screen import headline, strength_sentence
from tunepoint.report.names import Names

SECTIONS = ("traffic", "limits", "value", "costs")


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return in words what differs between two decisions: verdict, options, assumptions, examples.

    Args:
        old: the content of the earlier decision.json.
        new: the content of the later one.

    """
    lines = [*_verdict(old, new), *_examples(old, new), *_options(old, new), *_assumptions(old, new)]
    return lines or ["Nothing: verdict, options, costs and assumptions are the same."]


def _verdict(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    choices = [(d["verdict"], d["winner"], d["strength"]) for d in (old, new)]
    before, now = (f"{headline(d)} {strength_sentence(d)}" for d in (old, new))
    if choices[0] == choices[1]:
        return [] if before == now else [f"The verdict is the same: {now} Before: {before}"]
    return [f"The verdict is another one: {now} Before: {before}"]


def _examples(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    if old["items"] == new["items"]:
        return []
    return [f"{new['items']} test examples, before {old['items']}."]


def _options(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Options that came and went, and those whose score or cost is another one."""
    before, after = ({f["arm"]: f for f in d["finalists"]} for d in (old, new))
    names = Names({**Names.of(old).titles, **Names.of(new).titles}, {})
    lines = [f"New: {names.title(arm)}, {_right(after[arm])}." for arm in after if arm not in before]
    lines += [f"Gone: {names.title(arm)}, {_right(before[arm])}." for arm in before if arm not in after]
    for arm in after:
        if arm not in before:
            continue
        was, now = before[arm], after[arm]
        parts = []
        if was["score"] != now["score"]:
            lead = points(now["score"]["estimate"] - was["score"]["estimate"])
            parts.append(f"{_right(now)}, before {percent(was['score']['estimate'])} ({lead})")
        known = [(f.get("expected_usd") or {}).get("total") for f in (was, now)]
        totals = [about_usd(total) for total in known if total is not None]
        if len(set(totals)) == 2:
            parts.append(f"{totals[1]} in all, before {totals[0]}")
        if parts:
            lines.append(f"{at_start(names.title(arm))}: {'; '.join(parts)}.")
    return lines


def _right(finalist: Mapping[str, Any]) -> str:
    return f"{percent(finalist['score']['estimate'])} right answers"


def _assumptions(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    before, after = (d["provenance"].get("assumptions", {}) for d in (old, new))
    lines = []
    for section in SECTIONS:
        was, now = before.get(section) or {}, after.get(section) or {}
        for key in sorted({*was, *now}):
            if was.get(key) != now.get(key):
                lines.append(f"{section}.{key} is {_value(now.get(key))}, before {_value(was.get(key))}.")
    return lines


def _value(value: Any) -> str:
    if isinstance(value, Mapping) and {"low", "likely", "high"} <= value.keys():
        ends = (value["low"], value["likely"], value["high"])
        return str(ends[1]) if ends[0] == ends[2] else f"{ends[0]} to {ends[2]}"
    return "not set" if value is None else str(value)
