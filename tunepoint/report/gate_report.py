"""The result of a gate for people and for CI: lines, Markdown, JUnit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from tunepoint.report.markdown import as_text

SIGNS = {"passed": "✅", "failed": "❌", "unclear": "❔"}
TITLES = {
    "passed": "No worse than the baseline",
    "failed": "Worse than the baseline",
    "unclear": "Not clear whether it is worse than the baseline",
}
MAX_ANSWER = 80
"""Characters of an answer."""


def gate_lines(gate: Mapping[str, Any]) -> list[str]:
    """Return the result for a terminal.

    Args:
        gate: `status`, `candidate`, `baseline`, `items`, `checks`, `worse` and `better`.

    """
    lines = [f"{TITLES[gate['status']]}: {gate['candidate']} on {gate['items']} examples."]
    lines += [f"  {check['status']:<8}{check['name']}: {check['words']}" for check in gate["checks"]]
    lines.append(f"  {len(gate['worse'])} examples got worse, {gate['better']} better.")
    return lines


def gate_markdown(gate: Mapping[str, Any], shown: int) -> str:
    """Return the result for a pull request, with the first examples that got worse."""
    lines = [
        f"## {SIGNS[gate['status']]} {TITLES[gate['status']]}",
        "",
        f"{as_text(gate['candidate'])} on {gate['items']} examples; baseline: {as_text(gate['baseline'])}.",
        "",
        "| | check | result |",
        "|---|---|---|",
        *map(_check_row, gate["checks"]),
        "",
        f"{len(gate['worse'])} examples got worse, {gate['better']} better.",
    ]
    if gate["worse"]:
        lines += ["", "| got worse | before | now |", "|---|---|---|", *map(_row, gate["worse"][:shown])]
        left = len(gate["worse"]) - shown
        lines += [f"| … and {left} more | | |"] if left > 0 else []
    return "\n".join([*lines, ""])


def _check_row(check: Mapping[str, Any]) -> str:
    return f"| {SIGNS[check['status']]} | {check['name']} | {as_text(check['words'])} |"


def _row(regression: Mapping[str, Any]) -> str:
    return f"| {' | '.join(as_text(_short(regression[key])) for key in ('item', 'before', 'now'))} |"


def _short(text: str) -> str:
    return text if len(text) <= MAX_ANSWER else f"{text[:MAX_ANSWER]} …"


def gate_junit(gate: Mapping[str, Any]) -> str:
    """Return the result as JUnit's XML, one test case for each check; an unclear one is an error."""
    checks: Sequence[Mapping[str, Any]] = gate["checks"]
    counts = {status: sum(check["status"] == status for check in checks) for status in SIGNS}
    suite = ElementTree.Element(
        "testsuite",
        name="tunepoint gate",
        tests=str(len(checks)),
        failures=str(counts["failed"]),
        errors=str(counts["unclear"]),
    )
    for check in checks:
        case = ElementTree.SubElement(suite, "testcase", classname=gate["candidate"], name=check["name"])
        if check["status"] != "passed":
            tag = "failure" if check["status"] == "failed" else "error"
            ElementTree.SubElement(case, tag, message=check["words"])
        ElementTree.SubElement(case, "system-out").text = check["words"]
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
