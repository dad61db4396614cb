"""The command that decides again at other numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunepoint.cli.options import JsonOption, StudyArgument
from tunepoint.cli.terminal import clear_errors, console_of, print_json

if TYPE_CHECKING:
    from tunepoint.decision.verdict import Decision
    from tunepoint.study.whatif import WhatIf

MAX_RATE = 1e12
"""Dollars per million tokens; more is a mistake in typing."""


def add_to(app: typer.Typer) -> None:
    """Add this command to an application."""
    app.command()(whatif)


def whatif(
    study: StudyArgument,
    volume: Annotated[float | None, typer.Option(help="Queries a month.")] = None,
    horizon: Annotated[float | None, typer.Option(help="Months.")] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(
            help="MODEL.input=0.1, .cached_input or .output: dollars per million tokens; may be repeated."
        ),
    ] = None,
    cache_hit: Annotated[
        float | None,
        typer.Option(help="Share of calls whose static prompt is in the provider's cache.", min=0, max=1),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE of the task, as in costs.hourly_usd=80; may be repeated."),
    ] = None,
    to_csv: Annotated[
        Path | None, typer.Option("--csv", help="File for the costs of each option by volume.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Decide again at another volume, horizon or price. Runs no model."""
    with clear_errors():
        from tunepoint.files.text import write_text
        from tunepoint.study.cost_table import costs_csv
        from tunepoint.study.whatif import Scenario, what_if

        changes = dict(map(_setting, settings or ()))
        if volume is not None:
            changes["traffic.queries_per_month"] = volume
        if horizon is not None:
            changes["traffic.horizon_months"] = horizon
        result = what_if(study, Scenario(changes, _prices(price or ()), cache_hit))
        if to_csv is not None:
            write_text(to_csv, costs_csv(result))
        if as_json:
            print_json(_document(result))
        else:
            _show(result)


def _setting(text: str) -> tuple[str, Any]:
    """Parse KEY=VALUE; the value is JSON, or else a text."""
    from tunepoint.errors import TaskError

    key, equals, value = text.partition("=")
    if not equals:
        raise TaskError(f"--set {text!r}: expected KEY=VALUE, as in costs.hourly_usd=80")
    try:
        return key.strip(), json.loads(value)
    except ValueError:
        return key.strip(), value.strip()


def _prices(texts: Sequence[str]) -> dict[str, dict[str, float]]:
    """Parse MODEL.RATE=DOLLARS into model -> rate -> dollars per million tokens."""
    from tunepoint.errors import TaskError

    prices: dict[str, dict[str, float]] = {}
    for text in texts:
        # From the right: names of models hold dots and equals signs, as in URLs.
        name, _, value = text.rpartition("=")
        model, _, rate = name.rpartition(".")
        try:
            dollars = float(value)
        except ValueError:
            dollars = -1.0
        if not model or not 0 <= dollars < MAX_RATE:
            raise TaskError(
                f"--price {text!r}: expected MODEL.input=DOLLARS with dollars that are not negative, as in "
                "openai/gpt-6-luna.input=0.05"
            )
        prices.setdefault(model, {})[rate] = dollars
    return prices


def _document(result: WhatIf) -> dict[str, Any]:
    """Return what --json prints."""
    return {"as_decided": _facts(result.before), "what_if": _facts(result.after), "notes": result.notes}


def _facts(decision: Decision) -> dict[str, Any]:
    return {
        "verdict": decision.verdict,
        "strength": decision.strength,
        "winner": decision.winner,
        "arms": {
            finalist.arm: {
                "monthly_usd": finalist.monthly_usd.likely,
                "horizon_usd": finalist.horizon_usd.likely,
            }
            for finalist in decision.finalists
        },
        "break_even": [
            {
                "from": crossing.cheaper_to_build,
                "to": crossing.cheaper_to_run,
                "queries_per_month": volume.likely if volume else None,
            }
            for crossing in decision.break_even
            for volume in (crossing.queries_per_month,)
        ],
        "reversal": list(decision.reversal),
    }


def _show(result: WhatIf) -> None:
    from rich.table import Table

    from tunepoint.decision.numbers import usd

    table = Table(box=None, pad_edge=False)
    for name in ("option", "a month, as decided", "what if", "the horizon, as decided", "what if"):
        table.add_column(name, justify="left" if name == "option" else "right", overflow="fold")
    for finalist in result.before.finalists:
        changed = result.after.finalist(finalist.arm)
        bands = (finalist.monthly_usd, changed.monthly_usd, finalist.horizon_usd, changed.horizon_usd)
        table.add_row(finalist.title, *(usd(band.likely) for band in bands))
    console = console_of()
    console.print(table)
    for name, decision in (("As decided", result.before), ("What if", result.after)):
        console.print(f"{name}: {_verdict(decision)}", highlight=False, markup=False)
    for note in (*result.notes, *result.after.reversal):
        console.print(f"  • {note}", highlight=False, markup=False)


def _verdict(decision: Decision) -> str:
    """Return the winner, and how sure the decision is."""
    strength = {"leaning": "likely", None: "not enough evidence"}
    return f"{decision.titles[decision.winner]} ({strength.get(decision.strength, decision.strength)})"
