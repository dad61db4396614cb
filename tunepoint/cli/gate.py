"""The command for CI: is a changed prompt or model no worse than the baseline?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunepoint.cli.options import HERE, CapOption, JsonOption, SeedOption, TaskArgument
from tunepoint.cli.terminal import UNDECIDED, clear_errors, print_json

if TYPE_CHECKING:
    from tunepoint.study.gate import Gate
    from tunepoint.trials.trial import Trial

AgainstOption = Annotated[Path, typer.Option(help="Baseline: trials that --update wrote.")]
TrialsOption = Annotated[
    Path | None, typer.Option(help="Trials that another tool measured, in place of asking a model.")
]
AllowOption = Annotated[bool, typer.Option("--allow-unclear", help="Exit with code 0 if it is unclear.")]
MarginOption = Annotated[
    float | None,
    typer.Option(help="How much worse it may be, 0 to 1; limits.margin by default.", min=0, max=1),
]
CostOption = Annotated[
    float | None, typer.Option(help="How much more an answer may cost: 0.1 is 10%.", min=0)
]
CallsOption = Annotated[Path, typer.Option(help="Recording of calls; no call is paid for twice.")]
WORSE = 1
"""Exit code where the candidate is worse by more than the margin."""


def add_to(app: typer.Typer) -> None:
    """Add this command to an application."""
    app.command()(gate)


def gate(
    task: TaskArgument = HERE,
    against: AgainstOption = Path("gate.jsonl"),
    update: Annotated[bool, typer.Option("--update", help="Make what is measured now the baseline.")] = False,
    trials: TrialsOption = None,
    option: Annotated[str | None, typer.Option(help="Prompt to gate, if the task has several.")] = None,
    items: Annotated[int, typer.Option(help="Examples to ask about.", min=2)] = 200,
    margin: MarginOption = None,
    max_cost_increase: CostOption = None,
    allow_unclear: AllowOption = False,
    calls: CallsOption = Path(".tunepoint/gate.sqlite"),
    max_usd: CapOption = None,
    markdown: Annotated[
        Path | None, typer.Option(help="File to which a Markdown summary is appended.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="File for the result as JUnit's XML.")] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Gate a changed prompt or model in CI.

    Exit code 0: no worse than the baseline; 1: worse; 3: not clear; 2: an error.
    """
    with clear_errors():
        from tunepoint.study.gate import (
            compare_with_baseline,
            limits_of,
            measure_candidate,
            read_baseline,
            write_baseline,
        )
        from tunepoint.task.task import Task
        from tunepoint.trials.trial import read_trials

        loaded = Task.load(task)
        measured = (
            measure_candidate(loaded, option, items, calls, max_usd, seed)
            if trials is None
            else read_trials(trials)
        )
        if update:
            write_baseline(against, measured)
            _tell_baseline(against, measured, as_json)
            return
        limits = limits_of(loaded, margin, max_cost_increase)
        result = compare_with_baseline(measured, read_baseline(against), limits)
        _write(result, markdown, junit, as_json)
        if result.status == "failed" or (result.status == "unclear" and not allow_unclear):
            raise typer.Exit(WORSE if result.status == "failed" else UNDECIDED)


def _tell_baseline(against: Path, measured: list[Trial], as_json: bool) -> None:
    """Say what the new baseline is of."""
    candidate, items = measured[0].arm, len(measured)
    if as_json:
        print_json({"baseline": str(against), "candidate": candidate, "items": items})
    else:
        typer.echo(f"Wrote {against}: {candidate}, {items} examples. Commit it.")


def _write(found: Gate, markdown: Path | None, junit: Path | None, as_json: bool) -> None:
    """Print the result, and write the files that were asked for."""
    from tunepoint.files.text import write_text
    from tunepoint.report.gate_report import gate_junit, gate_lines, gate_markdown
    from tunepoint.study.gate import MAX_WORSE_SHOWN

    content = {**asdict(found), "status": found.status}
    if markdown is not None:
        with markdown.open("a", encoding="utf-8") as file:
            file.write(gate_markdown(content, MAX_WORSE_SHOWN))
    if junit is not None:
        write_text(junit, gate_junit(content))
    if as_json:
        print_json(content)
    else:
        typer.echo("\n".join(gate_lines(content)))
