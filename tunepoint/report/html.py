"""The decision for a person: one HTML file that opens offline, and lines for a terminal."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tunepoint.errors import StudyError
from tunepoint.files.text import text_of, write_text
from tunepoint.report.words import (
    crossing_words,
    headline,
    seconds,
    significant_digits,
    tiny_usd,
    usd,
    worth_words,
)

RULES = {
    True: "holds",
    False: "does not hold",
    None: "not measured",
}


def build_report(decision: Mapping[str, Any], measurements: Mapping[str, Any]) -> str:
    """The HTML page; everything it needs is inside.

    Args:
        decision: the content of decision.json.
        measurements: the content of measurements.json; only `economics` must be in it.

    """
    environment = Environment(
        loader=PackageLoader("tunepoint.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["usd"] = usd
    environment.filters["tiny_usd"] = tiny_usd
    environment.filters["score"] = lambda value: "–" if value is None else f"{value:.3f}"
    environment.filters["seconds"] = seconds
    environment.filters["worth"] = worth_words
    environment.filters["count"] = lambda value: "–" if value is None else f"{value:,.0f}"
    page = {
        "decision": decision,
        "economics": measurements["economics"],
        "curve": measurements.get("curve", []),
        "ahead": (measurements.get("learning") or {}).get("ahead", []),
    }
    return environment.get_template("report.html.jinja").render(
        decision=decision,
        headline=headline(decision),
        audit=measurements.get("audit"),
        ladder=measurements.get("ladder", []),
        curve=measurements.get("curve", []),
        learning=measurements.get("learning"),
        not_run=measurements.get("not_run", []),
        realised=measurements.get("realised"),
        disagreements=measurements.get("disagreements", []),
        rules=RULES,
        priced=measurements["economics"]["error_usd"] is not None,
        data=_script_json(page),
        plotly=Markup(_asset("plotly-basic.min.js").replace("</script", "<\\/script")),
        crossings=[crossing_words(crossing) for crossing in significant_digits(decision["break_even"])],
        program=Markup(_asset("report.js")),
        style=Markup(_asset("report.css")),
    )


def _asset(name: str) -> str:
    return resources.files("tunepoint.report").joinpath("assets", name).read_text(encoding="utf-8")


def _script_json(value: Any) -> Markup:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    for character, code in (("&", "\\u0026"), ("<", "\\u003c"), (">", "\\u003e")):
        text = text.replace(character, code)
    return Markup(text)


def write_report(folder: Path, decision: Mapping[str, Any], measurements: Mapping[str, Any]) -> Path:
    """Write report.html beside the decision."""
    path = folder / "report.html"
    write_text(path, build_report(decision, measurements))
    return path


REALISED = "realised.json"
"""In a study's folder: what was served, beside what was forecast."""


NEEDED = {
    "decision": {
        "task",
        "verdict",
        "strength",
        "winner",
        "because",
        "risks",
        "items",
        "groups",
        "finalists",
        "differences",
        "break_even",
        "rule_of_thumb",
        "signals",
        "reversal",
        "caveats",
        "contamination",
        "evidence_needed",
        "selection_optimism",
        "provenance",
    },
    "measurements": {"economics"},
}
"""Keys without which there is no report."""


def rebuild_report(folder: Path) -> Path:
    """Write the report anew from decision.json and measurements.json.

    Raises:
        StudyError: the folder holds no finished study.

    """
    found = {}
    for name in ("decision", "measurements"):
        path = folder / f"{name}.json"
        if not path.exists():
            raise StudyError(f"{folder}: no {path.name}; the study is not finished: run it again to go on")
        try:
            found[name] = json.loads(text_of(path, StudyError))
        except json.JSONDecodeError as error:
            raise StudyError(f"{path}: not JSON at line {error.lineno}; run the study again") from None
        missing = NEEDED[name] - set(found[name] if isinstance(found[name], dict) else ())
        if missing:
            raise StudyError(f"{path}: {', '.join(sorted(missing))} missing; run the study again")
    measurements = found["measurements"]
    if (folder / REALISED).exists():
        with contextlib.suppress(json.JSONDecodeError):  # it is written anew by the next look at the store
            realised = json.loads(text_of(folder / REALISED, StudyError))
            if isinstance(realised, dict) and {"words", "arms", "arm"} <= realised.keys():
                measurements = {**measurements, "realised": realised}
    return write_report(folder, found["decision"], measurements)
