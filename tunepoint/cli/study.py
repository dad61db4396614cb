"""The commands of the main job: demo, init, check, run, decide, plan, report."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunepoint.cli.terminal import (
    JsonOption,
    SeedOption,
    TaskArgument,
    YesOption,
    clear_errors,
    console_of,
    go_on,
    progress_bar,
)

if TYPE_CHECKING:  # loaded by the command that needs it, so that --help is quick
    from tunepoint.arms.hosted.quote import HostedQuote
    from tunepoint.study.conclusion import Result
    from tunepoint.study.quote import Quote

FEW = 200
"""Test items under which `check` warns of wide intervals."""

OutOption = Annotated[Path | None, typer.Option(help="Study directory.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="No progress.")]
CapOption = Annotated[float | None, typer.Option(help="Stop before spending more than this.", min=0)]


def add_to(app: typer.Typer) -> None:
    """Give an application these commands."""
    for command in (demo, init, check, run, decide, plan, report):
        app.command()(command)


def demo(
    out: OutOption = None,
    seed: SeedOption = 0,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run the whole main job on the example that comes along."""
    with clear_errors():
        folder = example_folder()
        _run(folder, out or Path("studies/support-triage-demo"), seed, None, quiet, as_json)
        if not as_json:
            typer.echo("Next: `tunepoint init YOUR.csv` looks at your data and writes its task.toml.")


def init(
    data: Annotated[Path, typer.Argument(help="CSV, JSONL or Parquet with your examples.")],
    force: Annotated[bool, typer.Option(help="Replace a task.toml that is there.")] = False,
) -> None:
    """Write a commented task.toml by looking at your data."""
    with clear_errors():
        from tunepoint.data.task_draft import draft_task
        from tunepoint.errors import TaskError
        from tunepoint.files.text import write_text

        guessed = draft_task(data)
        path = data.parent / "task.toml"
        if path.exists() and not force:
            raise TaskError(f"{path} is there already; --force replaces it")
        write_text(path, guessed.toml())
        for line in guessed.guesses:
            typer.echo(f"• {line}")
        typer.echo(f"\nWrote {path}. Say what the task is and how much traffic it has, then:")
        typer.echo(f"  tunepoint check {path}\n  tunepoint run {path}")


def check(task: TaskArgument, seed: SeedOption = 0, as_json: JsonOption = False) -> None:
    """Audit the data without fitting anything."""
    with clear_errors():
        from dataclasses import asdict

        from tunepoint.arms.catalog import check_supported
        from tunepoint.data.prepare import prepare
        from tunepoint.task.sections import JUDGE
        from tunepoint.task.task import Task
        from tunepoint.trials.scorers import task_scorer

        loaded = Task.load(task)
        check_supported(loaded)
        if loaded.score.metric != JUDGE:
            task_scorer(loaded)
        prepared = prepare(loaded, seed)
        audit, split = prepared.audit, prepared.split
        if as_json:
            typer.echo(json.dumps(asdict(audit), indent=2, ensure_ascii=False))
            return
        sizes = f"train {len(split.train)}, dev {len(split.dev)}, sealed test {len(split.test)}"
        typer.echo(f"{audit.read} rows read, {audit.kept} kept; {sizes}; {audit.groups} groups")
        _section("left out", [f"{drop.id}: {drop.reason}" for drop in audit.dropped])
        pairs = [f"{one} ~ {other}" for one, other in audit.near_duplicates]
        _section("near duplicates, kept on one side", pairs)
        _section("thin labels", [f"{label}: {n}" for label, n in audit.thin.items()])
        _section("personal data", [f"{found.id}: {found.kind}" for found in audit.personal])
        closed = [f"{why}: {n}" for why, n in audit.untrainable.items()]
        _section("not to be trained on", closed)
        certificate = audit.certificate
        shared = [f"{certificate.shared_groups} groups"] if certificate.shared_groups else []
        shared += [f"{item} ~ {twin}" for item, twin in certificate.twins.items()]
        _section("in the test and outside it", shared)
        if len(split.test) < FEW:
            typer.echo(
                f"The sealed test has {len(split.test)} items: expect wide intervals, {FEW} are a start."
            )
        typer.echo("Doubtful labels are found by `tunepoint run`, which has an encoder.")


def _section(title: str, lines: list[str], most: int = 8) -> None:
    typer.echo(f"{title}: {len(lines) or 'none'}")
    for line in lines[:most]:
        typer.echo(f"  • {line}")
    if len(lines) > most:
        typer.echo(f"  … and {len(lines) - most} more (--json lists all)")


def run(
    task: TaskArgument,
    out: OutOption = None,
    seed: SeedOption = 0,
    max_usd: CapOption = None,
    yes: YesOption = False,
    replay: Annotated[
        bool, typer.Option("--replay", help="Take every completion from the study's recording; call nobody.")
    ] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure every arm, decide, and write the report."""
    with clear_errors():
        _run(task, out, seed, max_usd, quiet, as_json, yes=yes, replay=replay)
        if not as_json:
            again = ["tunepoint", "run", str(task), *(["--out", str(out)] if out else [])]
            again += ["--seed", str(seed)] if seed else []
            typer.echo(
                "Next: change limits, traffic or costs in the task and repeat the command; nothing is "
                f"measured twice:\n  {shlex.join(again)}"
            )


def _run(
    task: Path,
    out: Path | None,
    seed: int,
    max_usd: float | None,
    quiet: bool,
    as_json: bool,
    *,
    yes: bool = True,
    replay: bool = False,
) -> Result:
    from tunepoint.study.run import run as run_study
    from tunepoint.task.task import Task

    loaded = Task.load(task)
    with progress_bar(quiet or as_json) as (progress, paused):

        def confirm(quote: Quote | HostedQuote) -> None:
            with paused():
                _ask(quote, yes)

        result = run_study(
            loaded,
            out=out,
            seed=seed,
            max_usd=max_usd,
            progress=progress,
            confirm=confirm,
            replay=replay,
        )
    for note in result.notes:
        typer.echo(note, err=True)
    _show(result, as_json)
    if not as_json:
        typer.echo(f"\nReport: {result.report} (open it in a browser)")
    return result


def _ask(quote: Quote | HostedQuote, yes: bool) -> None:
    """Print what a study will ask of others; on a terminal, ask whether to go on."""
    from tunepoint.study.quote import Quote

    if isinstance(quote, Quote):
        said = f"Chat models will be asked: {quote.line()}."
        step = "the first call; nothing was spent"
    else:
        said = "\n".join((f"A provider will tune {quote}.", *quote.notices))
        step = "the upload; what was measured is kept"
    go_on(said, yes, step)


def decide(
    trials: Annotated[Path, typer.Option(help="trials.jsonl: arm, item and score on each line.")],
    task: Annotated[Path, typer.Option(help="task.toml with limits, traffic and costs.")],
    arms: Annotated[Path | None, typer.Option(help="arms.toml: kind and cost of each arm.")] = None,
    out: OutOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Decide on trials that any tool measured."""
    with clear_errors():
        from tunepoint.study.external import decide_trials
        from tunepoint.task.task import Task

        result = decide_trials(trials, Task.load(task), arms=arms, out=out, seed=seed)
        _show(result, as_json)
        if result.report and not as_json:
            typer.echo(f"\nReport: {result.report}")


def plan(
    task: Annotated[Path | None, typer.Argument(help="task.toml, for margin, groups and prices.")] = None,
    difference: Annotated[
        list[float] | None, typer.Option(help="True difference in mean score to be seen; may be repeated.")
    ] = None,
    power: Annotated[float, typer.Option(help="Probability of seeing it.", min=0.05, max=0.99)] = 0.8,
    study: Annotated[Path | None, typer.Option(help="Take the variances from this study's trials.")] = None,
    seeds: Annotated[int, typer.Option(help="Training seeds of the tuned arm.", min=2)] = 3,
) -> None:
    """Say how many test items a study needs, before anything is run."""
    with clear_errors():
        from tunepoint.decision.sample_size import plan_study_size
        from tunepoint.report.terminal import print_sizes

        design, sizes = plan_study_size(
            task, tuple(difference or (0.01, 0.02, 0.03, 0.05, 0.1)), power, study, seeds
        )
        print_sizes(design, sizes, power, console_of())


def report(study: Annotated[Path, typer.Argument(help="Study directory.")]) -> None:
    """Build the report of a study anew."""
    with clear_errors():
        from tunepoint.report.html import rebuild_report

        typer.echo(f"Report: {rebuild_report(study)}")


def example_folder() -> Path:
    """The example that comes with the package, or with the clone."""
    from tunepoint.errors import StudyError

    here = Path(__file__).parent.parent
    for folder in (here / "examples", here.parent / "examples"):
        if (folder / "support-triage" / "task.toml").exists():
            return folder / "support-triage"
    raise StudyError("the example is not installed; reinstall tunepoint, or run from a clone")


def _show(result: Result, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result.document, indent=2, ensure_ascii=False))
        return
    from tunepoint.report.terminal import audit_line, print_decision

    if result.audit is not None:
        typer.echo(f"Data: {audit_line(result.audit)}.")
    print_decision(dict(result.document), console_of())
