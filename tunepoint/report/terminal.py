"""The decision on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tunepoint.data.prepare import Audit
from tunepoint.decision.numbers import usd
from tunepoint.decision.sample_size import Design, Size
from tunepoint.report.first_screen import first_screen
from tunepoint.report.names import Names
from tunepoint.report.options_table import options_table
from tunepoint.report.words import (
    crossing_words,
    distinct_crossings,
    migration_words,
    models_words,
    scope_words,
    sentence,
    settling_words,
    signal_words,
    worth_words,
)

MAX_LINES = 14
"""Of the verdict; the command adds one with the report's name."""
MAX_ROWS, MIN_ROWS = 6, 2
"""Options in the table: few enough for the lines above, and never fewer than two."""
MIN_NAME = 20
"""Columns for the name of an option, at least."""
WIDE_COLUMNS = 100
"""Columns of a terminal from which on the table shows every cost."""


def audit_line(audit: Audit) -> str:
    """Return what the audit found, in one line."""
    counts = {
        "contradictions": len(audit.contradictions),
        "pairs of near duplicates": len(audit.near_duplicates),
        "labels with few examples": len(audit.thin),
        "inputs with personal data": len({finding.id for finding in audit.personal}),
        "doubtful labels": len(audit.doubts or ()),
        "test items with a near duplicate outside the test set": len(audit.certificate.twins),
    }
    if audit.unreadable:
        counts["right answers that cannot be read"] = len(audit.unreadable)
    if audit.untrainable:
        counts["examples that may not be trained on"] = sum(audit.untrainable.values())
    rows = f"{audit.read} rows read, {audit.kept} kept; "
    return rows + ", ".join(f"{count or 'no'} {what}" for what, count in counts.items())


def print_verdict(decision: Mapping[str, Any], console: Console, study: str) -> None:
    """Print the verdict in few lines: what to do, what it saves, how sure, the options, what next.

    Long sentences on a narrow terminal leave fewer options in the table; all are in the report.

    Args:
        decision: the content of decision.json.
        console: to print on; lines are as wide as it is.
        study: folder of the study, as commands name it.

    """
    screen, scope = first_screen(decision, (), study), scope_words(decision)
    step = screen.steps[0]
    above = [screen.title, screen.strength] if scope is None else [scope, screen.title, screen.strength]
    below = [sentence(step.what)] if decision["strength"] is None else []
    texts = [Text(words) for words in (*above, *below)]
    taken = sum(len(text.wrap(console, console.width)) for text in texts)
    other_lines = 3  # the heads of the columns, "and N more", and the next step, which is not wrapped
    rows = max(MIN_ROWS, min(MAX_ROWS, MAX_LINES - taken - other_lines))
    for words in above:
        shown = f"[bold]{escape(words)}[/bold]" if words == screen.title else escape(words)
        console.print(shown, highlight=False)
    console.print(_options_table(decision, console.width, rows))
    for words in below:
        console.print(escape(words), highlight=False)
    console.print(escape(f"Next: {step.command}"), highlight=False, soft_wrap=True)


def print_details(decision: Mapping[str, Any], console: Console) -> None:
    """Print what the verdict rests on: models, break-even, signals, what would turn it, caveats, names."""
    names = Names.of(decision)
    console.print(f"\n{escape(decision['because'])}", highlight=False)
    models = models_words(decision)
    if models is not None:
        console.print(escape(models), highlight=False)
    for line in migration_words(decision):
        console.print(f"  • {escape(line)}", highlight=False)
    lines = [crossing_words(crossing, names) for crossing in distinct_crossings(decision["break_even"])]
    lines.append(f"Rule of thumb: {sentence(decision['rule_of_thumb'])}")
    lines += [worth_words(worth) for worth in decision.get("worth", ())]
    settling = settling_words(decision)
    if settling is not None and settling not in sentence(decision["because"]):
        lines.append(settling)
    _print_list(lines, console)
    console.print("\n[bold]Signals[/bold]")
    for signal in decision["signals"]:
        console.print(_signal_line(signal), highlight=False)
    for title, key in (("What would change the verdict", "reversal"), ("Caveats", "caveats")):
        if decision[key]:
            console.print(f"\n[bold]{title}[/bold]")
            _print_list([sentence(line) for line in decision[key]], console)
    console.print("\n[bold]Names in the files[/bold], for --arm and serve.toml")
    _print_names(decision["finalists"], names, console)


def _print_names(finalists: Sequence[Mapping[str, Any]], names: Names, console: Console) -> None:
    """Print each option's name in the files, its score and its title; a line is never broken."""
    width = max(len(finalist["arm"]) for finalist in finalists)
    for finalist in finalists:
        arm, score = finalist["arm"], finalist["score"]["estimate"]
        line = f"  {arm:<{width}}  {score:.3f}  {names.title(arm)}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _print_list(lines: Sequence[str], console: Console) -> None:
    for line in lines:
        console.print(f"  • {escape(line)}", highlight=False)


def _options_table(decision: Mapping[str, Any], width: int, rows: int) -> Table:
    """The best options, with their expected dollars; parts of the total only where there is room."""
    heads, options = options_table(decision, whole=width >= WIDE_COLUMNS)
    columns = zip(heads[1:], *(option.cells for option in options[:rows]), strict=True)
    numbers = sum(max(map(len, column)) + 1 for column in columns)
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    # numbers keep their place; a long name gives way
    table.add_column("option", no_wrap=True, max_width=max(MIN_NAME, width - numbers - 1))
    for head in heads[1:]:
        table.add_column(head, justify="right", no_wrap=True)
    for option in options[:rows]:
        table.add_row(escape(f"{'→ ' if option.wins else '  '}{option.name}"), *option.cells)
    if len(options) > rows:
        table.add_row(f"  and {len(options) - rows} more in the report")
    return table


def _signal_line(signal: Mapping[str, Any]) -> str:
    mark = {True: "[bold]yes[/bold]", False: "no ", None: " – "}[signal["holds"]]
    favors = "" if signal["holds"] is None else f" → {signal_words(signal)}"
    return (
        f"  {signal['id']} {mark} {escape(signal['criterion'])}: "
        f"[dim]{escape(signal['detail'])}[/dim]{favors}"
    )


def print_sizes(design: Design, sizes: Sequence[Size], power: float, console: Console) -> None:
    """Print the test items by purpose, and what they rest on."""
    source = "from the study's trials" if design.measured else "typical values; --study measures them"
    console.print(
        f"Options differ on {design.disagreement:.0%} of items; groups of {design.cluster_size:.1f} items; "
        f"{design.seeds} training seeds, with a standard deviation of {design.seed_sd:.3f} ({source})."
    )
    priced = any(size.examples is not None for size in sizes)
    table = Table("to", f"test items ({power:.0%} power)", *(["rows of data", "labels"] if priced else []))
    for size in sizes:
        items = "over a million: try more --seeds" if size.items is None else f"{size.items:,}"
        examples = "–" if size.examples is None else f"{size.examples:,}"
        table.add_row(size.purpose, items, *([examples, usd(size.usd)] if priced else []))
    console.print(table)
