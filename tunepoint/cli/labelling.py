"""The command that has people label where the options disagree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunepoint.cli.options import CapOption, JsonOption, QuietOption, StudyArgument, YesOption
from tunepoint.cli.terminal import clear_errors, confirm_cost, progress_bar

if TYPE_CHECKING:
    from tunepoint.study.labelling.inputs import PoolInput
    from tunepoint.study.labelling.label import Labelling, PoolQuote


def add_to(app: typer.Typer) -> None:
    """Add this command to an application."""
    app.command()(label)


def label(
    study: StudyArgument,
    pool: Annotated[
        Path | None, typer.Option(help="File of inputs without a label, which the finalists answer first.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(help="Capture store, a file or postgresql://..., whose traffic joins these inputs."),
    ] = None,
    batch: Annotated[int, typer.Option(help="Inputs on the next sheet.", min=1)] = 25,
    second: Annotated[
        float, typer.Option(help="Share of a sheet that another person has labeled already.", min=0, max=1)
    ] = 0.1,
    max_usd: CapOption = None,
    yes: YesOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Settle a verdict with few labels: only of inputs on which the options disagree."""
    with clear_errors(), progress_bar(quiet or as_json, "bar") as (progress, paused):
        from tunepoint.study.labelling.label import label as take_labels

        def confirm(quote: PoolQuote) -> None:
            with paused():
                confirm_cost(str(quote), yes or max_usd is not None, "any call", paid=quote.usd > 0)

        state = take_labels(
            study,
            pool=pool,
            traffic=None if store is None else _traffic(store, study),
            batch=batch,
            second=second,
            max_usd=max_usd,
            confirm=confirm,
            progress=progress,
        )
        if as_json:
            typer.echo(json.dumps(_content(state), indent=2, ensure_ascii=False))
            return
        for line in _lines(state, study):
            typer.echo(line)


def _traffic(store: str, study: Path) -> list[PoolInput]:
    """Return the inputs of a study's task in a capture store."""
    from tunepoint.capture.opening import open_store
    from tunepoint.loop.traffic import pool_inputs
    from tunepoint.study.manifest import read_manifest

    with open_store(store, create=False) as opened:
        return pool_inputs(opened, read_manifest(study).task)


def _content(state: Labelling) -> dict[str, Any]:
    pool, decision = state.pool, state.decision
    return {
        "inputs": len(pool.inputs),
        "disputed": len(pool.disputed),
        "labelled": len(pool.labelled),
        "new_labels": state.new_labels,
        "settled": state.settled,
        "verdict": decision.verdict,
        "strength": decision.strength,
        "winner": decision.winner,
        "wrong": decision.risks.wrong,
        "kappa": state.agreement.kappa if state.agreement else None,
        "sheet": str(state.sheet) if state.sheet else None,
    }


def _lines(state: Labelling, study: Path) -> list[str]:
    """What to say: what the pool shows, how the verdict stands, what to do next."""
    pool, decision, lines = state.pool, state.decision, []
    if state.added is not None:
        added = state.added
        lines.append(
            f"{added.new:,} inputs were added to the pool"
            + (f"; {added.known:,} that the study knows were left out" if added.known else "")
            + (f"; {added.empty:,} were empty" if added.empty else "")
        )
    disputed, labelled = len(pool.disputed), len(pool.labelled)
    lines.append(
        f"The options disagree on {disputed:,} of {len(pool.inputs):,} inputs; on the others a label could "
        f"not change their difference. {labelled:,} are labeled."
    )
    if state.agreement is not None:
        kappa = "" if state.agreement.kappa is None else f", kappa {state.agreement.kappa:.2f}"
        lines.append(
            f"Two people agree on {state.agreement.share:.0%} of {state.agreement.inputs} inputs{kappa}."
        )
    title = decision.titles[decision.winner]
    if state.settled:
        lines.append(f"Settled after {labelled:,} labels: {decision.verdict}, {title} (confident).")
        lines.append(f"Report: {study / 'report.html'}")
        return lines
    lines.append(
        f"Not settled: {title} is the best bet, and wrong with a probability of {decision.risks.wrong:.0%}."
    )
    if state.sheet is None:
        lines.append(
            f"Every disputed input is labeled. Give more inputs: tunepoint label {study} --pool MORE.csv"
        )
        return lines
    lines.append(
        f"Next: fill in the column `right` of {state.sheet} (#1, #2, ..., the right answer itself, or none), "
        f"and your name in `by`. Then run:\n  tunepoint label {study}"
    )
    return lines
