"""The decision for a person: one HTML file that opens offline, and lines for a terminal."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tunepoint.errors import StudyError, text_of
from tunepoint.measure.prepare import Audit
from tunepoint.measure.trials import write_text
from tunepoint.sizes import Design, Size

VERDICT_WORDS = {
    "prompt": "Keep prompting",
    "fine-tune": "Fine-tune",
    "hybrid": "Use the hybrid",
    "keep": "Keep what you have",
    "undecided": "Not enough evidence yet",
}
WIDE = 100
"""Columns of a terminal from which on the table shows every cost."""
RULES = {
    True: "holds",
    False: "does not hold",
    None: "not measured",
}


def headline(decision: Mapping[str, Any]) -> str:
    """The verdict in one sentence."""
    words = VERDICT_WORDS[decision["verdict"]]
    if decision["strength"] is None:
        return f"{words}: the best bet is {decision['winner']}."
    return f"{words}: {decision['winner']} ({decision['strength']})."


def build_report(decision: Mapping[str, Any], measurements: Mapping[str, Any]) -> str:
    """The HTML page; everything it needs is inside.

    Args:
        decision: the content of decision.json.
        measurements: the content of measurements.json; only `economics` must be in it.

    """
    environment = Environment(
        loader=PackageLoader("tunepoint", "assets"),
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
        crossings=[crossing_words(crossing) for crossing in telling(decision["break_even"])],
        program=Markup(_asset("report.js")),
        style=Markup(_asset("report.css")),
    )


def _asset(name: str) -> str:
    return resources.files("tunepoint.assets").joinpath(name).read_text(encoding="utf-8")


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


def usd(value: float | None) -> str:
    """Dollars as a person writes them."""
    if value is None:
        return "–"
    sign, size = ("-" if value < 0 else ""), abs(value)
    return f"{sign}${size:,.0f}" if size >= 100 else f"{sign}${size:,.2f}"


def tiny_usd(value: float | None) -> str:
    """Dollars of one answer, which may be millionths."""
    if value is None:
        return "–"
    return f"${value:.2g}" if 0 < value < 0.01 else f"${value:.4f}"


def seconds(value: float | None) -> str:
    """Seconds, in milliseconds below one."""
    if value is None:
        return "–"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def audit_line(audit: Audit) -> str:
    """What the audit found, in one line."""
    found = {
        "contradictions": len(audit.contradictions),
        "pairs of near duplicates": len(audit.near_duplicates),
        "thin labels": len(audit.thin),
        "inputs with personal data": len({finding.id for finding in audit.personal}),
        "doubtful labels": len(audit.doubts or ()),
        "test items seen in another guise": len(audit.certificate.twins),
    }
    if audit.untrainable:
        found["examples that may not be trained on"] = sum(audit.untrainable.values())
    kept = f"{audit.read} rows read, {audit.kept} kept; "
    return kept + ", ".join(f"{count or 'no'} {what}" for what, count in found.items())


def print_decision(decision: Mapping[str, Any], console: Console) -> None:
    """The verdict with its evidence, for a terminal."""
    console.print(f"\n[bold]{escape(headline(decision))}[/bold]", highlight=False)
    console.print(escape(decision["because"]), highlight=False)
    console.print(_arms_table(decision, wide=console.width >= WIDE))
    for crossing in telling(decision["break_even"]):
        console.print("  • " + escape(crossing_words(crossing)), highlight=False)
    console.print(f"  • Rule of thumb: {decision['rule_of_thumb']}.", highlight=False)
    for one in decision.get("worth", ()):
        console.print("  • " + worth_words(one), highlight=False)
    console.print("\n[bold]Signals[/bold]")
    for signal in decision["signals"]:
        console.print(_signal_line(signal), highlight=False)
    for title, key in (("What would reverse it", "reversal"), ("Caveats", "caveats")):
        if decision[key]:
            console.print(f"\n[bold]{title}[/bold]")
            for line in decision[key]:
                console.print(f"  • {escape(line)}", highlight=False)


def _arms_table(decision: Mapping[str, Any], *, wide: bool) -> Table:
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("arm", ratio=1)
    money = ("upfront", "a month", "horizon") if wide else ("horizon",)
    for name in ("score (95%)", *money, "p95"):
        table.add_column(name, justify="right", no_wrap=True)
    for arm in sorted(decision["finalists"], key=lambda arm: -arm["score"]["estimate"]):
        score = arm["score"]
        chosen = "→ " if arm["arm"] == decision["winner"] else "  "
        dollars = {
            "upfront": arm["upfront_usd"]["likely"],
            "a month": arm["monthly_usd"]["likely"],
            "horizon": arm["horizon_usd"]["likely"],
        }
        table.add_row(
            escape(chosen + arm["arm"]),
            f"{score['estimate']:.3f} ({score['low']:.3f}–{score['high']:.3f})",
            *(usd(dollars[name]) for name in money),
            seconds(arm["p95_seconds"]),
        )
    return table


def telling(crossings: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Break-evens of arms that differ in cost; all of them where none does."""
    different = [
        c for c in crossings if c["queries_per_month"] is None or c["queries_per_month"]["high"] >= 1
    ]
    return different or list(crossings)


def crossing_words(crossing: Mapping[str, Any]) -> str:
    """A break-even in a sentence."""
    band = crossing["queries_per_month"]
    one, other = crossing["from"], crossing["to"]
    if band is None:
        return f"{other} never becomes cheaper than {one}"
    if band["high"] < 1:
        return f"{other} and {one} cost the same to build; {other} is not dearer to run"
    counted = ", what errors cost included," if crossing.get("counts_errors") else ""
    return (
        f"{other} is cheaper than {one}{counted} from {band['likely']:,.0f} queries a month "
        f"({band['low']:,.0f} to {band['high']:,.0f}; never: {crossing['probability_never']:.0%})"
    )


def worth_words(one: Mapping[str, Any]) -> str:
    """What one more piece of evidence is worth, in a sentence."""
    kind = one["kind"].replace("_", " ")
    kind = kind.removesuffix("s") if one["more"] == 1 else kind
    if one["value_usd"] < 0.005:
        return f"{one['more']} more {kind}: worth nothing."
    pays = "" if one["value_usd"] > one["price_usd"] else ", not worth its price"
    return f"{one['more']} more {kind}: worth {usd(one['value_usd'])} for {usd(one['price_usd'])}{pays}."


def _signal_line(signal: Mapping[str, Any]) -> str:
    mark = {True: "[bold]yes[/bold]", False: "no ", None: " – "}[signal["holds"]]
    return (
        f"  {signal['id']} {mark} {signal['criterion']} → {signal['points_to']}: "
        f"[dim]{escape(signal['detail'])}[/dim]"
    )


def print_sizes(design: Design, sizes: Sequence[Size], power: float, console: Console) -> None:
    """Test items by purpose, and what they rest on."""
    known = "from the study's trials" if design.measured else "typical values; --study measures them"
    console.print(
        f"Arms differ on {design.disagreement:.0%} of items; groups of {design.cluster_size:.1f} items; "
        f"{design.seeds} training seeds, their standard deviation {design.seed_sd:.3f} ({known})."
    )
    priced = any(size.examples is not None for size in sizes)
    table = Table("to", f"test items ({power:.0%} power)", *(["rows of data", "labels"] if priced else []))
    for size in sizes:
        items = "over a million: try more --seeds" if size.items is None else f"{size.items:,}"
        more = ["–" if size.examples is None else f"{size.examples:,}", usd(size.usd)] if priced else []
        table.add_row(size.purpose, items, *more)
    console.print(table)
