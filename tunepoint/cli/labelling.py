"""The command that has people label where the options disagree."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunepoint.cli.options import CapOption, JsonOption, QuietOption, StudyArgument, YesOption
from tunepoint.cli.terminal import clear_errors, confirm_cost, print_json, progress_bar

if TYPE_CHECKING:
    from tunepoint.study.labelling.answering import PoolQuote
    from tunepoint.study.labelling.label import Labelling
    from tunepoint.study.labelling.sampling import Brought


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
    by: Annotated[
        str,
        typer.Option(help="Who fills in the next sheet. Asks for second opinions on what others labeled."),
    ] = "",
    second: Annotated[
        float, typer.Option(help="Second opinions, as a share of the sheet.", min=0, max=1)
    ] = 0.1,
    max_usd: CapOption = None,
    yes: YesOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Settle a verdict with few labels, where the options disagree."""
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
            by=by,
            second=second,
            max_usd=max_usd,
            confirm=confirm,
            progress=progress,
        )
        if as_json:
            print_json(_content(state))
            return
        for line in _lines(state, study):
            typer.echo(line)


def _traffic(store: str, study: Path) -> Brought:
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
        "labeled": len(pool.labelled),
        "new_labels": state.new_labels,
        "settled": state.settled,
        "verdict": decision.verdict,
        "strength": decision.strength,
        "winner": decision.winner,
        "wrong": state.wrong,
        "kappa": state.agreement.kappa if state.agreement else None,
        "sheet": str(state.sheet) if state.sheet else None,
    }


def _lines(state: Labelling, study: Path) -> list[str]:
    """What to say: what the pool shows, how the verdict stands, what to do next."""
    pool = state.pool
    lines = [*_added(state), *_agreed(state)]
    lines.append(
        f"The options disagree on {len(pool.disputed):,} of {len(pool.inputs):,} inputs. On the "
        f"others, a label would change nothing. {len(pool.labelled):,} are labeled."
    )
    lines += state.doubts
    if state.settled:
        return [*lines, *_settled(state, study)]
    decision = state.decision
    title = decision.titles[decision.winner]
    if state.kind_settled:
        lines.append(
            f"The kind is settled ({decision.verdict}), the variant is not: {title} is the best bet. You may "
            "stop here; more labels tell the variants apart."
        )
    else:
        lines.append(
            f"Not settled: {title} is the best bet ({1 - decision.risks.wrong:.0%}). You check after every "
            f"sheet, so count on a {state.wrong:.0%} chance that it is wrong; at 5% you can stop."
        )
    if decision.evidence_needed is not None:
        lines.append(decision.evidence_needed.why)
    if state.sheet is None:
        command = f"tunepoint label {study} --pool MORE.csv"
        return [*lines, f"Every disputed input is labeled. Give more inputs: {command}"]
    cells = "#1, #2, ..., or the right answer itself"
    if pool.judged is not None:
        cells = "grades on the judge's scale such as #1=4 #2=5, #2 alone for the best, or none"
    lines.append(
        f"Next: fill in the column `right` of {state.sheet} ({cells}), and "
        f"your name in `by`. Rows that you leave empty come again. Then run:\n  tunepoint label {study}"
    )
    return lines


def _added(state: Labelling) -> list[str]:
    """What happened to the inputs that somebody brought."""
    added = state.added
    if added is None:
        return []
    left_out = [
        (added.known, "that the study knows, or that come twice"),
        (added.known_groups, "of groups that are in its examples"),
        (added.empty, "that are empty"),
    ]
    words = [f"{count:,} {why}" for count, why in left_out if count]
    without = f"; left out: {', '.join(words)}" if words else ""
    drawn = "" if added.drawn_from is None else f" A sample of {added.drawn_from:,} inputs was looked at."
    return [f"{added.new:,} inputs were added to the pool{without}.{drawn}"]


def _agreed(state: Labelling) -> list[str]:
    agreed = state.agreement
    if agreed is None:
        return []
    kappa = "" if agreed.kappa is None else f", kappa {agreed.kappa:.2f}"
    return [f"Two people agree on {agreed.share:.0%} of {agreed.inputs} inputs{kappa}."]


def _settled(state: Labelling, study: Path) -> list[str]:
    """That no more labels are needed, and why the verdict may be less than confident all the same."""
    decision, labels = state.decision, len(state.pool.labelled)
    title, report = decision.titles[decision.winner], f"Report: {study / 'report.html'}"
    if decision.strength == "confident":
        return [f"Settled after {labels:,} labels: {decision.verdict}, {title} (confident).", report]
    return [
        f"{labels:,} labels are enough: {title} is best. The verdict is not confident for a reason that more "
        "labels do not change; it is among the caveats of the report.",
        report,
    ]
