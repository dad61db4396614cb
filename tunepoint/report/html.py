"""The decision for a person, as one HTML file that opens offline."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tunepoint.decision.numbers import percent, points, points_range, seconds, tiny_usd, usd
from tunepoint.errors import StudyError
from tunepoint.files.foreign_json import read_json
from tunepoint.files.text import write_text
from tunepoint.report import advice, words
from tunepoint.report.first_screen import first_screen
from tunepoint.report.glossary import TERMS, anchor
from tunepoint.report.items import packed_items
from tunepoint.report.names import Names

MISSING = "–"
WITHOUT_ITEMS = '<meta name="tunepoint-items" content="left out">'
"""Marks a report whose readers must not see the data: it stays so when it is written again."""


def build_report(
    decision: Mapping[str, Any],
    measurements: Mapping[str, Any],
    study: str = "STUDY",
    items: str | None = None,
) -> str:
    """Return the HTML page; everything it needs is inside.

    Args:
        decision: the content of decision.json.
        measurements: the content of measurements.json; only `economics` must be in it.
        study: folder of the study, as the commands on the page name it.
        items: the test items, as `packed_items` packs them; without them the page does not list them.

    """
    names = Names.of(decision)
    ranked = words.ranked_finalists(decision)
    return (
        _environment(names)
        .get_template("report.html.jinja")
        .render(
            decision=decision,
            scope=words.scope_words(decision),
            models=words.models_words(decision),
            screen=first_screen(decision, measurements.get("not_run", []), study),
            ranked=ranked,
            tied=sum(f["arm"] in (decision["winner"], *decision.get("equals", ())) for f in ranked),
            settling=words.settling_words(decision),
            months=words.months_words(decision),
            crossings=[
                words.crossing_words(crossing, names)
                for crossing in words.distinct_crossings(decision["break_even"])
            ],
            terms={term: (anchor(term), definition) for term, definition in TERMS.items()},
            audit=measurements.get("audit"),
            candidates=measurements.get("ladder", []),
            curve=measurements.get("curve", []),
            learning=measurements.get("learning"),
            not_run=measurements.get("not_run", []),
            realised=measurements.get("realised"),
            migration=words.migration_words(decision),
            disagreements=measurements.get("disagreements", []),
            priced=measurements["economics"]["error_usd"] is not None,
            data=_script_json(_page_data(decision, measurements, names)),
            items=items,
            **_programs(),
        )
    )


def _programs() -> dict[str, Markup]:
    """The page's style and programs."""
    return {
        "plotly": Markup(_asset("plotly-basic.min.js").replace("</script", "<\\/script")),
        "program": Markup(_asset("report.js")),
        "viewer": Markup(_asset("items.js")),
        "style": Markup(_asset("report.css")),
    }


def _page_data(decision: Mapping[str, Any], measurements: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """What the page's program reads."""
    return {
        "decision": decision,
        "economics": measurements["economics"],
        "curve": measurements.get("curve", []),
        "ahead": (measurements.get("learning") or {}).get("ahead", []),
        "words": {
            "advice": {f["arm"]: advice.advice_words(decision, f["arm"]) for f in decision["finalists"]},
            "short": {f["arm"]: names.short(f["arm"]) for f in decision["finalists"]},
            "kind": names.kinds,
            "kept": advice.KEPT_KINDS,
            "sides": advice.OTHER_SIDE,
        },
    }


def _environment(names: Names) -> Environment:
    environment = Environment(
        loader=PackageLoader("tunepoint.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., str]] = {
        "anchor": anchor,
        "conclusion": words.CONCLUSION_WORDS.__getitem__,
        "count": lambda value: MISSING if value is None else f"{value:,.0f}",
        "kind": lambda value: str(words.KIND_WORDS.get(value, value)),
        "percent": lambda value: MISSING if value is None else percent(value),
        "points": points,
        "points_range": lambda interval: points_range(interval["low"], interval["high"]),
        "quantity": lambda value: str(words.QUANTITY_WORDS.get(value, value)),
        "seconds": seconds,
        "sentence": words.sentence,
        "short": names.short,
        "signal": words.signal_words,
        "tiny_usd": tiny_usd,
        "title": names.title,
        "usd": usd,
        "worth": words.worth_words,
    }
    environment.filters.update(filters)
    return environment


def _asset(name: str) -> str:
    return resources.files("tunepoint.report").joinpath("assets", name).read_text(encoding="utf-8")


def _script_json(value: Any) -> Markup:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    for character, code in (("&", "\\u0026"), ("<", "\\u003c"), (">", "\\u003e")):
        text = text.replace(character, code)
    return Markup(text)  # escaped above; autoescape would break the JSON


def write_report(
    folder: Path,
    decision: Mapping[str, Any],
    measurements: Mapping[str, Any],
    *,
    with_items: bool | None = None,
) -> Path:
    """Write report.html beside the decision; with None it lists items unless the last one left them out."""
    path = folder / "report.html"
    if with_items is None:
        with_items = not (path.exists() and WITHOUT_ITEMS in path.read_text(encoding="utf-8"))
    items = packed_items(folder) if with_items else None
    if not with_items:  # whoever must not see the data sees none of it
        measurements = {**measurements, "disagreements": [], "audit": None}
    page = build_report(decision, measurements, str(folder), items)
    write_text(path, page if with_items else page.replace("<head>", f"<head>\n{WITHOUT_ITEMS}", 1))
    return path


# -- from files ------------------------------------------------------------------------------


REALIZED_FILE = "realised.json"
"""In a study's folder: what was served, beside what was forecast."""
REALIZED_KEYS = {"words", "arms", "arm"}
REQUIRED_KEYS = {
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


def rebuild_report(folder: Path, *, with_items: bool | None = None) -> Path:
    """Write the report anew from decision.json, measurements.json and items.json.

    Args:
        folder: of the study.
        with_items: whether the report holds the test items, with their inputs; None as it did before.

    Raises:
        StudyError: the folder holds no finished study.

    """
    decision, measurements = read_decision(folder), read_measurements(folder)
    realized = _read_realized(folder / REALIZED_FILE)
    if realized is not None:
        measurements = {**measurements, "realised": realized}
    return write_report(folder, decision, measurements, with_items=with_items)


def read_decision(folder: Path) -> dict[str, Any]:
    """Return the content of a study's decision.json.

    Raises:
        StudyError: the study is not finished, or the file is damaged.

    """
    return _read_part(folder, "decision")


def read_measurements(folder: Path) -> dict[str, Any]:
    """Return the content of a study's measurements.json.

    Raises:
        StudyError: the study is not finished, or the file is damaged.

    """
    return _read_part(folder, "measurements")


def _read_part(folder: Path, name: str) -> dict[str, Any]:
    path = folder / f"{name}.json"
    if not path.exists():
        raise StudyError(f"{folder}: no {path.name}, so the study is not finished; run it again to resume it")
    content = read_json(path, StudyError, advice="run the study again")
    missing = REQUIRED_KEYS[name] - set(content if isinstance(content, dict) else ())
    if missing:
        raise StudyError(f"{path}: {', '.join(sorted(missing))} missing; run the study again")
    return dict(content)


def _read_realized(path: Path) -> dict[str, Any] | None:
    """What was served so far; None where nothing readable is there."""
    if not path.exists():
        return None
    # A broken file is no error: `tunepoint savings` writes it anew from the store.
    with contextlib.suppress(StudyError):
        content = read_json(path, StudyError)
        if isinstance(content, dict) and content.keys() >= REALIZED_KEYS:
            return content
    return None
