"""The commands about money: what if, prices, and what a study would cost."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunepoint.cli.terminal import JsonOption, SplitSeedOption, TaskArgument, clear_errors, console_of

if TYPE_CHECKING:
    from tunepoint.costs.throughput import LoadStep, Throughput
    from tunepoint.decision.verdict import Decision
    from tunepoint.study.whatif import WhatIf


def add_to(app: typer.Typer) -> None:
    """Give an application these commands."""
    for command in (whatif, prices, quote, load, savings):
        app.command()(command)


def whatif(
    study: Annotated[Path, typer.Argument(help="Study directory.")],
    volume: Annotated[float | None, typer.Option(help="Queries a month.")] = None,
    horizon: Annotated[float | None, typer.Option(help="Months.")] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(
            help="MODEL.input=0.1, .cached_input or .output: dollars per million tokens; may be repeated."
        ),
    ] = None,
    cache_hit: Annotated[
        float | None, typer.Option(help="Share of calls whose static prompt is cached.", min=0, max=1)
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE of the task, as costs.hourly_usd=80; may be repeated."),
    ] = None,
    to_csv: Annotated[Path | None, typer.Option("--csv", help="Write costs by arm and volume.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Decide again at another volume, horizon or price; nothing is measured again."""
    with clear_errors():
        from tunepoint.files.text import write_text
        from tunepoint.study.whatif import Scenario, costs_csv, what_if

        given: dict[str, Any] = dict(_setting(one) for one in settings or ())
        if volume is not None:
            given["traffic.queries_per_month"] = volume
        if horizon is not None:
            given["traffic.horizon_months"] = horizon
        found = what_if(study, Scenario(given, _prices(price or ()), cache_hit))
        if to_csv is not None:
            write_text(to_csv, costs_csv(found))
        if as_json:
            both = {"as_decided": _facts(found.before), "what_if": _facts(found.after), "notes": found.notes}
            typer.echo(json.dumps(both, indent=2, ensure_ascii=False))
        else:
            _show(found)


def _setting(text: str) -> tuple[str, Any]:
    """KEY=VALUE; the value is JSON where it can be read so."""
    from tunepoint.errors import TaskError

    key, equals, value = text.partition("=")
    if not equals:
        raise TaskError(f"--set {text!r}: KEY=VALUE is expected, as in costs.hourly_usd=80")
    try:
        return key.strip(), json.loads(value)
    except ValueError:
        return key.strip(), value.strip()


def _prices(texts: list[str] | tuple[()]) -> dict[str, dict[str, float]]:
    from tunepoint.errors import TaskError

    found: dict[str, dict[str, float]] = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        model, _, rate = name.rpartition(".")
        try:
            dollars = float(value)
        except ValueError:
            dollars = -1.0
        if not model or not 0 <= dollars < 1e12:
            raise TaskError(
                f"--price {text!r}: MODEL.input=DOLLARS is expected, none of them negative, as in "
                "openai/gpt-5-mini.input=0.1"
            )
        found.setdefault(model, {})[rate] = dollars
    return found


def _facts(decision: Decision) -> dict[str, Any]:
    """A decision in short, for a machine."""
    return {
        "verdict": decision.verdict,
        "strength": decision.strength,
        "winner": decision.winner,
        "arms": {
            one.arm: {"monthly_usd": one.monthly_usd.likely, "horizon_usd": one.horizon_usd.likely}
            for one in decision.finalists
        },
        "break_even": [
            {
                "from": one.cheaper_to_build,
                "to": one.cheaper_to_run,
                "queries_per_month": at.likely if at else None,
            }
            for one in decision.break_even
            for at in (one.queries_per_month,)
        ],
        "reversal": list(decision.reversal),
    }


def _show(found: WhatIf) -> None:
    from rich.table import Table

    from tunepoint.report.words import usd

    table = Table(box=None, pad_edge=False)
    for name in ("arm", "a month, as decided", "what if", "the horizon, as decided", "what if"):
        table.add_column(name, justify="left" if name == "arm" else "right", overflow="fold")
    for one in found.before.finalists:
        other = found.after.finalist(one.arm)
        bands = (one.monthly_usd, other.monthly_usd, one.horizon_usd, other.horizon_usd)
        table.add_row(one.arm, *(usd(band.likely) for band in bands))
    console = console_of()
    console.print(table)
    for name, decision in (("As decided", found.before), ("What if", found.after)):
        strength = decision.strength or "not enough evidence"
        console.print(f"{name}: {decision.winner} ({strength})", highlight=False, markup=False)
    for note in (*found.notes, *(f"then {one}" for one in found.after.reversal)):
        console.print(f"  • {note}", highlight=False, markup=False)


def prices(
    model: Annotated[
        str | None, typer.Argument(help="As [[models]] names it; all rates of ours if missing.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where a prices.toml of your own may be.")] = Path(),
) -> None:
    """Say what is known of prices, with source and age."""
    with clear_errors():
        from tunepoint.costs.price_list import known_prices, price_of

        for line in known_prices(folder) if model is None else [price_of(model, folder)]:
            typer.echo(line)


def quote(task: TaskArgument, seed: SplitSeedOption = None) -> None:
    """Say what a study, its fine-tuning and a month of serving would cost; nothing is spent."""
    with clear_errors():
        from tunepoint.study.estimate import estimate
        from tunepoint.study.seal import seed_of_seal
        from tunepoint.task.task import Task

        loaded = Task.load(task)
        for line in estimate(loaded, seed_of_seal(loaded, seed=seed)):
            typer.echo(line)


def load(
    at: Annotated[str, typer.Argument(help="The server: http://HOST/v1#NAME.")],
    task: Annotated[Path | None, typer.Option(help="Take its inputs as what is asked.")] = None,
    seconds: Annotated[float, typer.Option(help="Of each step.", min=0.1)] = 5.0,
    p95: Annotated[
        float | None, typer.Option(help="Seconds that 95% may take; the task's if missing.")
    ] = None,
    most: Annotated[int, typer.Option(help="Requests at once, at most.", min=1)] = 128,
    output_tokens: Annotated[int, typer.Option(help="That an answer may have.", min=1)] = 64,
    out: Annotated[Path, typer.Option(help="File for the table.")] = Path("load.json"),
) -> None:
    """Measure what one server sustains, for hosting on reserved machines."""
    with clear_errors():
        from tunepoint.costs.throughput import SHORT, inputs_of, measure_throughput
        from tunepoint.models.openai import OpenAIEndpoint
        from tunepoint.study.seal import seed_of_seal
        from tunepoint.task.task import Task

        loaded = Task.load(task) if task is not None else None
        inputs = [SHORT] if loaded is None else inputs_of(loaded, seed_of_seal(loaded))
        limit = loaded.limits.p95_seconds if p95 is None and loaded is not None else p95
        typer.echo("at once  requests/s  tokens/s     p50      p95  errors")
        with ExitStack() as stack:

            def opening(concurrency: int) -> OpenAIEndpoint:
                endpoint = OpenAIEndpoint(at, concurrency=concurrency, attempts=1)
                stack.callback(endpoint.close)
                return endpoint

            found = measure_throughput(
                at,
                opening,
                inputs,
                seconds=seconds,
                p95_limit=limit,
                most=most,
                output_tokens=output_tokens,
                said=_said,
            )
        found.write(out)
        typer.echo(f"{out}: {_hosting(found)}")


def savings(
    study: Annotated[Path, typer.Argument(help="Study directory.")],
    store: Annotated[str, typer.Option(help="Capture store: a file, or postgresql://...")] = "capture.sqlite",
    against: Annotated[str | None, typer.Option(help="Arm that would serve otherwise.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare what was forecast with what was served since, and put it into the report."""
    with clear_errors():
        from tunepoint.capture.opening import open_store
        from tunepoint.loop.savings import (
            realized_savings,
            save_savings_words,
            savings_document,
            write_savings,
        )

        with open_store(store, create=False) as opened:
            found = realized_savings(study, opened, against=against)
            save_savings_words(opened, found.task, found)
        report = write_savings(study, found)
        content = savings_document(found)
        if as_json:
            typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
            return
        for line in content["words"]:
            typer.echo(line)
        for one in content["arms"]:
            typer.echo(
                f"  {one['arm']}: {one['requests']:,} requests, {one['failed']:,} failed; {one['words']}"
            )
        typer.echo(f"Report: {report}")


def _hosting(found: Throughput) -> str:
    """What to declare."""
    from tunepoint.task.hosting import usd_per_thousand

    best = found.sustained
    if best is None:
        return f"the table; no step held: errors, or 95% took more than {found.p95_limit} s"
    rate = best.requests_per_second
    busy = usd_per_thousand(1, rate)
    return (
        f'hosting = {{ mode = "dedicated", usd_per_hour = YOURS, requests_per_second = {rate:.3g} }}\n'
        f"At $1 an hour, and never idle, it would cost ${busy:.4f} for 1,000 calls."
    )


def _said(step: LoadStep) -> None:
    typer.echo(
        f"{step.concurrency:7}  {step.requests_per_second:10.2f}  {step.tokens_per_second:8.1f}  "
        f"{step.p50_seconds:6.2f}s  {step.p95_seconds:6.2f}s  {step.errors:6}"
    )
