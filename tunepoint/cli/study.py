"""The commands of the main job: demo, init, check, run, decide, plan, report."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunepoint.cli.data import check, init, migrate
from tunepoint.cli.options import (
    HERE,
    BatchOption,
    CapOption,
    FailUndecidedOption,
    FreshOption,
    JsonOption,
    OnOption,
    OutOption,
    PlaceOption,
    ProgressOption,
    QuietOption,
    SeedOption,
    TaskArgument,
    VerboseOption,
    YesOption,
)
from tunepoint.cli.terminal import (
    UNDECIDED,
    ProgressForm,
    clear_errors,
    confirm_cost,
    console_of,
    print_json,
    progress_bar,
)

if TYPE_CHECKING:
    from tunepoint.arms.hosted.quote import HostedQuote
    from tunepoint.study.conclusion import Result
    from tunepoint.study.quote import Quote
    from tunepoint.task.task import Task

PLANNED_DIFFERENCES = (0.01, 0.02, 0.03, 0.05, 0.1)
"""Differences in mean score that `plan` shows if none is asked for."""


def add_to(app: typer.Typer) -> None:
    """Add these commands to an application."""
    for command in (demo, init, migrate, check, run, decide, plan):
        app.command()(command)


def demo(
    out: OutOption = None,
    seed: SeedOption = 0,
    live: Annotated[
        bool,
        typer.Option("--live", help="Ask the language model itself, an hour or more, and compare."),
    ] = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a study on the example that comes with Tunepoint."""
    from tunepoint.errors import TaskError
    from tunepoint.task.task import Task

    with clear_errors():
        task = Task.load(example_folder())
        if seed and task.replies() and not live:
            raise TaskError(
                f"--seed {seed}: the language model's replies are recorded for seed 0 alone; add --live to "
                "ask the model itself"
            )
        out = out or Path("studies/support-triage-live" if live else "studies/support-triage-demo")
        task = task.asking_models() if live else task
        result = _run(task, out, seed, None, quiet, as_json, verbose=verbose)
        if live and seed == 0:
            _compare_with_recording(task, result, as_json)
        if not as_json:
            typer.echo("Next: `tunepoint init YOUR.csv` writes a task.toml for your own data.")


def run(
    task: TaskArgument = HERE,
    out: PlaceOption = None,
    seed: SeedOption = 0,
    max_usd: CapOption = None,
    yes: YesOption = False,
    replay: Annotated[
        bool, typer.Option("--replay", help="Answer from the study's recording only; makes no calls.")
    ] = False,
    batch: BatchOption = False,
    on: OnOption = None,
    fresh: FreshOption = None,
    quiet: QuietOption = False,
    progress: ProgressOption = "bar",
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
    fail_undecided: FailUndecidedOption = False,
) -> None:
    """Measure every option, decide, and write the report."""
    from tunepoint.study.journal import is_address
    from tunepoint.task.task import Task

    with clear_errors():
        loaded = Task.load(task)
        loaded = loaded.asking_by_batch() if batch else loaded
        if fresh:
            _confirm_fresh(loaded, fresh, yes or max_usd is not None)
        result = _run(
            loaded,
            out,
            seed,
            max_usd,
            quiet,
            as_json,
            yes=yes,
            replay=replay,
            form=progress,
            fresh=fresh,
            verbose=verbose,
            on=on,
        )
        if out is not None and is_address(out) and not as_json:
            typer.echo(f"The study is at {out}.")
        if verbose and not as_json:
            typer.echo("Change limits or costs in task.toml and run again: nothing is measured twice.")
        _fail_undecided(result, fail_undecided)


def _fail_undecided(result: Result, asked: bool) -> None:
    """End with a code of its own if there is no verdict, and somebody asked for that."""
    if asked and result.decision.strength is None:
        raise typer.Exit(UNDECIDED)


def _run(
    task: Task,
    out: Path | str | None,
    seed: int,
    max_usd: float | None,
    quiet: bool,
    as_json: bool,
    *,
    yes: bool = True,
    replay: bool = False,
    form: ProgressForm = "bar",
    fresh: str | None = None,
    verbose: bool = False,
    on: str | None = None,
) -> Result:
    from tunepoint.study.run import run as run_study

    with progress_bar(quiet or (as_json and form == "bar"), form) as (progress, paused):

        def confirm(quote: Quote | HostedQuote) -> None:
            with paused():
                _ask(quote, yes, max_usd)

        result = run_study(
            task,
            out=out,
            seed=seed,
            max_usd=max_usd,
            progress=progress,
            confirm=confirm,
            replay=replay,
            fresh=fresh,
            on=on,
        )
    for note in result.notes:
        typer.echo(note, err=True)
    _show(result, as_json, verbose)
    return result


def _confirm_fresh(task: Task, fresh: str, yes: bool) -> None:
    from tunepoint.errors import TaskError
    from tunepoint.study.fresh import JUDGE_ALONE

    if fresh != JUDGE_ALONE:
        again = f"{fresh} is asked again for every answer that could not be read; the calls are paid for."
        confirm_cost(again, yes, "the first call", paid=True)
        return
    if task.score.judge is None:
        raise TaskError("--fresh judge: the task has no judge; [score] judge names one")
    name = task.score.judge.name
    again = f"{name} is asked again about every answer that it gave no grade, 2 to 6 calls each."
    confirm_cost(again, yes, "grading", paid=True)


def _ask(quote: Quote | HostedQuote, yes: bool, max_usd: float | None) -> None:
    """Print what calls or fine-tuning will cost; on a terminal, ask whether to continue.

    A cap is a yes to spending as much, so a script that gives one is not asked.
    """
    from tunepoint.study.quote import Quote

    capped = max_usd is not None and not sys.stdin.isatty()
    if isinstance(quote, Quote):
        text = f"This study calls chat models: {quote.line()}."
        if max_usd is not None and (words := quote.cap_words(max_usd)):
            text += f"\n{words}"
        confirm_cost(
            text, yes or capped, "the first call; nothing was spent", paid=quote.planned_usd.high > 0
        )
    else:
        text = "\n".join((f"A provider will fine-tune {quote}.", *quote.notices))
        confirm_cost(text, yes or capped, "the upload; what was measured is kept", paid=True)


def _compare_with_recording(task: Task, result: Result, as_json: bool) -> None:
    """Say how many replies of this study are those that come with the task."""
    from tunepoint.models.replies import agreement
    from tunepoint.study.directory import CALLS

    assert result.report is not None, "a study of its own has a report"
    for name, path in task.replies().items():
        compared = agreement(path, result.report.parent / CALLS)
        typer.echo(
            f"{name}: {compared.same:,} of {compared.asked:,} replies are those of the recording "
            f"({compared.same / max(1, compared.asked):.1%})",
            err=as_json,
        )


def decide(
    trials: Annotated[Path, typer.Option(help="trials.jsonl: arm, item and score on each line.")],
    task: Annotated[Path, typer.Option(help="task.toml with limits, traffic and costs.")],
    arms: Annotated[Path | None, typer.Option(help="arms.toml: kind and cost of each arm.")] = None,
    out: OutOption = None,
    seed: SeedOption = 0,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
    fail_undecided: FailUndecidedOption = False,
) -> None:
    """Decide on trials that another tool measured."""
    with clear_errors():
        from tunepoint.study.external import decide_trials
        from tunepoint.task.task import Task

        result = decide_trials(trials, Task.load(task), arms=arms, out=out, seed=seed)
        _show(result, as_json, verbose)
        _fail_undecided(result, fail_undecided)


def plan(
    task: Annotated[Path | None, typer.Argument(help="task.toml, for its margin, groups and prices.")] = None,
    difference: Annotated[
        list[float] | None, typer.Option(help="True difference in mean score to detect; may be repeated.")
    ] = None,
    power: Annotated[float, typer.Option(help="Probability of detecting it.", min=0.05, max=0.99)] = 0.8,
    study: Annotated[Path | None, typer.Option(help="Estimate variances from this study's trials.")] = None,
    seeds: Annotated[int, typer.Option(help="Training seeds of the tuned option.", min=2)] = 3,
    as_json: JsonOption = False,
) -> None:
    """Estimate how many test items a study needs, before you run it."""
    with clear_errors():
        from tunepoint.decision.sample_size import plan_study_size
        from tunepoint.report.terminal import print_sizes

        design, sizes = plan_study_size(task, tuple(difference or PLANNED_DIFFERENCES), power, study, seeds)
        if as_json:
            print_json({"design": asdict(design), "power": power, "sizes": [asdict(size) for size in sizes]})
            return
        print_sizes(design, sizes, power, console_of())


def example_folder() -> Path:
    """Return the folder of the example, in the installed package or in a clone."""
    from tunepoint.errors import StudyError

    here = Path(__file__).parent.parent
    for folder in (here / "examples", here.parent / "examples"):
        if (folder / "support-triage" / "task.toml").exists():
            return folder / "support-triage"
    raise StudyError("the example is not installed: reinstall tunepoint, or run from a clone")


def _show(result: Result, as_json: bool, verbose: bool) -> None:
    if as_json:
        print_json(result.document)
        return
    from tunepoint.report.terminal import audit_line, print_details, print_verdict

    console, study = console_of(), "STUDY" if result.folder is None else str(result.folder)
    print_verdict(result.document, console, study)
    if verbose:
        if result.audit is not None:
            typer.echo(f"\nData: {audit_line(result.audit)}.")
        print_details(result.document, console)
    if result.report is not None:
        caveats = len(result.document["caveats"])
        hidden = f" and {caveats} caveat{'s' * (caveats != 1)}" if caveats else ""
        hint = "" if verbose else f" (signals{hidden}: --verbose)"
        typer.echo(f"Report: {result.report}{hint}")
