"""The commands about weights: tune, what is served against what was measured, and exports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunepoint.cli.terminal import (
    SplitSeedOption,
    SplitStudyOption,
    TaskArgument,
    YesOption,
    clear_errors,
    go_on,
    progress_bar,
)

if TYPE_CHECKING:
    from tunepoint.arms.causal.base import TrainingQuote
    from tunepoint.arms.causal.launchers import ProcessLauncher
    from tunepoint.arms.causal.tune import TunedModel
    from tunepoint.task.task import Task


def add_to(app: typer.Typer) -> None:
    """Give an application these commands."""
    for command in (tune, parity, jobs, export):
        app.command()(command)


def tune(
    task: TaskArgument,
    base: Annotated[
        str | None, typer.Option(help="A directory or a hub's name; the task's [[tune]] if missing.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the tuned model.")] = Path("tuned"),
    method: Annotated[str | None, typer.Option(help="lora, qlora or full.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training examples.", min=1)] = None,
    seed: SplitSeedOption = None,
    study: SplitStudyOption = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Write the merged model too, if it answers the same.")
    ] = False,
    launch: Annotated[
        str | None, typer.Option(help="accelerate or ray: train in several processes. One if missing.")
    ] = None,
    processes: Annotated[int, typer.Option(help="How many, with --launch.", min=1)] = 2,
    yes: YesOption = False,
) -> None:
    """Fine-tune one language model on the train part, and measure it on dev."""
    with clear_errors():
        from tunepoint.arms.causal.tune import base_to_tune, tune_model
        from tunepoint.study.seal import seed_of_seal
        from tunepoint.task.task import Task

        loaded = Task.load(task)
        chosen = base_to_tune(loaded, base, method, epochs)
        with progress_bar(False) as (progress, paused):

            def confirm(quote: TrainingQuote) -> None:
                with paused():
                    go_on(f"Training {chosen.base}: {quote}.", yes, "training; nothing was spent")

            def watch(step: int, steps: int, loss: float) -> None:
                progress(f"training, loss {loss:.3f}", step, steps)

            tuned = tune_model(
                loaded,
                chosen,
                out,
                seed=seed_of_seal(loaded, seed=seed, study=study),
                merge=merge,
                confirm=confirm,
                watch=watch,
                launch=_launched(launch, processes),
            )
        _show(tuned)


def _show(tuned: TunedModel) -> None:
    for diet, score in tuned.scores.items():
        typer.echo(f"dev score, {diet} prompt: {score.estimate:.3f} ({score.low:.3f} to {score.high:.3f})")
    for warning in tuned.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"Model: {tuned.folder}")
    if tuned.merged is not None:
        typer.echo(f"Merged: {tuned.merged} ({tuned.parity})")


def _launched(launcher: str | None, processes: int) -> ProcessLauncher | None:
    from tunepoint.arms.causal.launchers import LAUNCHERS, ProcessLauncher
    from tunepoint.errors import ModelError, nearest

    if launcher is None:
        return None
    known = [one for one in LAUNCHERS if one == launcher]
    if not known:
        raise ModelError(f"--launch {launcher}: {nearest(launcher, LAUNCHERS)}")
    return ProcessLauncher(known[0], processes)


def parity(
    model: Annotated[Path, typer.Argument(help="Folder that `tunepoint tune` wrote.")],
    task: Annotated[Path, typer.Option(help="task.toml of which it was tuned.")],
    at: Annotated[str, typer.Option(help="Where it is served: http://HOST/v1#NAME.")],
    prompt: Annotated[
        list[str] | None, typer.Option(help="full, short or none; may be repeated. All if missing.")
    ] = None,
) -> None:
    """Replay dev through a server, and say whether it answers as the measured model did."""
    with clear_errors():
        from tunepoint.arms.causal.server_parity import PARITY_FILE, check_served
        from tunepoint.arms.templates import PROMPT_LENGTHS
        from tunepoint.errors import ModelError
        from tunepoint.task.task import Task

        chosen = [diet for diet in PROMPT_LENGTHS if diet in (prompt or PROMPT_LENGTHS)]
        if len(chosen) < len(set(prompt or PROMPT_LENGTHS)):
            raise ModelError(
                f"--prompt {' '.join(prompt or ())}: the prompts are {', '.join(PROMPT_LENGTHS)}"
            )
        found = check_served(model, Task.load(task), at, prompts=chosen)
        typer.echo(str(found))
        if not found.holds:
            raise ModelError(
                f"{at} does not answer as {model} was measured, so it must not be promoted; the answers that "
                f"differ are in {model / PARITY_FILE}"
            )


def jobs(
    study: Annotated[Path, typer.Argument(help="Study directory.")],
    cancel: Annotated[str | None, typer.Option(help="Stop the job of this id at its provider.")] = None,
) -> None:
    """List a study's fine-tuning jobs at providers, or stop one."""
    with clear_errors():
        from tunepoint.arms.hosted.hosted import cancel_job, jobs_in
        from tunepoint.study.directory import read_manifest

        read_manifest(study)  # a path that was mistyped is no study without jobs
        folder = study / "arms" / "jobs"
        stopped = [cancel_job(folder, cancel)] if cancel is not None else []
        found = stopped or list(jobs_in(folder).values())
        if not found:
            typer.echo(f"{study}: no job was started at a provider.")
        for job in found:
            paid = "" if job.training_usd is None else f", ${job.training_usd:.2f}"
            named = f", {job.tuned_model}" if job.tuned_model else ""
            typer.echo(f"{job.provider} {job.id or 'not started'}: {job.status}, {job.base}{named}{paid}")


def export(
    task: TaskArgument,
    form: Annotated[
        str,
        typer.Option(
            "--for",
            help="openai, together, fireworks, huggingface, axolotl, llama-factory, unsloth; or onnx.",
        ),
    ],
    to: Annotated[Path, typer.Option(help="Folder to write.")] = Path("export"),
    study: Annotated[
        Path | None,
        typer.Option(help="The study whose split is exported; with --for onnx, whose encoder is written."),
    ] = None,
    arm: Annotated[str | None, typer.Option(help="With --for onnx: its name; the best if missing.")] = None,
    seed: SplitSeedOption = None,
) -> None:
    """Write train and dev, never the test, for another tool to train with; or a tuned encoder as ONNX."""
    with clear_errors():
        from tunepoint.arms.causal.export import export_examples
        from tunepoint.data.prepare import prepare
        from tunepoint.study.seal import seed_of_seal
        from tunepoint.task.task import Task

        loaded = Task.load(task)
        if form == "onnx":
            _export_encoder(loaded, study, to, arm)
            return
        sealed = seed_of_seal(loaded, seed=seed, study=study)
        written = export_examples(loaded, prepare(loaded, sealed), to, form)
        names = ", ".join(path.name for path in written.files)
        typer.echo(
            f"{to}: {names} ({written.train} examples to train, {written.dev} for dev; the test stays sealed)"
        )
        typer.echo(f"Next: {written.next}")


def _export_encoder(task: Task, study: Path | None, to: Path, arm: str | None) -> None:
    from tunepoint.errors import StudyError
    from tunepoint.study.encoder_export import GRAPH, export_encoder

    if study is None:
        raise StudyError("--for onnx writes a tuned encoder: name its study with --study")
    written = export_encoder(task, study, to, arm)
    typer.echo(f"{written.folder / GRAPH}: {written.arm}; {written.parity}")
