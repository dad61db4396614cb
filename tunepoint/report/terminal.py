"""The decision on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tunepoint.data.prepare import Audit
from tunepoint.decision.sample_size import Design, Size
from tunepoint.report.words import crossing_words, headline, seconds, significant_digits, usd, worth_words

WIDE = 100
"""Columns of a terminal from which on the table shows every cost."""


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
    for crossing in significant_digits(decision["break_even"]):
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
