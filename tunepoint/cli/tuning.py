"""The commands about weights: tune a model, check how it is served, export."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunepoint.cli.options import (
    HERE,
    JsonOption,
    SplitSeedOption,
    SplitStudyOption,
    StudyArgument,
    TaskArgument,
    YesOption,
)
from tunepoint.cli.terminal import clear_errors, confirm_cost, print_json, progress_bar

if TYPE_CHECKING:
    from tunepoint.arms.causal.base import TrainingQuote
    from tunepoint.arms.causal.gguf_export import WrittenGguf
    from tunepoint.arms.causal.launchers import ProcessLauncher
    from tunepoint.arms.causal.tune import TunedModel
    from tunepoint.task.task import Task


PROMPTS = {"full": "with the full prompt", "short": "with the instruction alone", "none": "without a prompt"}
"""Length of a prompt -> what people read."""

MODEL_FORMS = {
    "onnx": "tuned encoder",
    "gguf": "tuned language model",
    "ollama": "tuned language model",
}
"""Form of `export` -> what it exports; the others export examples."""

MergeOption = Annotated[
    bool, typer.Option("--merge", help="Also write the merged model, if it answers the same.")
]
GgufOption = Annotated[
    bool, typer.Option("--gguf", help="Also write it for llama.cpp and Ollama, if it answers the same.")
]


def add_to(app: typer.Typer) -> None:
    """Add these commands to an application."""
    for command in (tune, parity, jobs, export):
        app.command()(command)


def tune(
    task: TaskArgument = HERE,
    base: Annotated[
        str | None, typer.Option(help="Directory, or name at the hub; the task's [[tune]] by default.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the tuned model.")] = Path("tuned"),
    method: Annotated[str | None, typer.Option(help="lora, qlora or full.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training examples.", min=1)] = None,
    seed: SplitSeedOption = None,
    study: SplitStudyOption = None,
    merge: MergeOption = False,
    gguf: GgufOption = False,
    launch: Annotated[
        str | None, typer.Option(help="accelerate or ray: train in several processes; by default in one.")
    ] = None,
    processes: Annotated[int, typer.Option(help="Number of processes, with --launch.", min=1)] = 2,
    yes: YesOption = False,
) -> None:
    """Fine-tune a language model and score it on the validation set."""
    with clear_errors():
        from tunepoint.arms.causal.tune import base_to_tune, tune_model
        from tunepoint.study.progress import Progress
        from tunepoint.study.seal import seed_of_seal
        from tunepoint.task.task import Task

        loaded = Task.load(task)
        chosen = base_to_tune(loaded, base, method, epochs)
        with progress_bar(False) as (progress, paused):

            def confirm(quote: TrainingQuote) -> None:
                with paused():
                    confirm_cost(f"Training {chosen.base}: {quote}.", yes, "training; nothing was spent")

            def watch(step: int, steps: int, loss: float) -> None:
                progress(Progress(f"training, loss {loss:.3f}", step, steps))

            tuned = tune_model(
                loaded,
                chosen,
                out,
                seed=seed_of_seal(loaded, seed=seed, study=study),
                merge=merge,
                gguf=gguf,
                confirm=confirm,
                watch=watch,
                launch=_launched(launch, processes),
            )
        _show(tuned)


def _show(tuned: TunedModel) -> None:
    for length, score in tuned.scores.items():
        prompt = PROMPTS[length]
        typer.echo(f"validation score {prompt}: {score.estimate:.3f} ({score.low:.3f} to {score.high:.3f})")
    for warning in tuned.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"Model: {tuned.folder}")
    if tuned.merged is not None:
        typer.echo(f"Merged: {tuned.merged} ({tuned.parity})")
    if tuned.written is not None:
        typer.echo(f"For llama.cpp and Ollama: {tuned.gguf} ({tuned.written.parity})")
        _warn_of(tuned.written)


def _warn_of(written: WrittenGguf) -> None:
    if written.left_out is not None:
        typer.echo(f"warning: {written.left_out}", err=True)


def _launched(launcher: str | None, processes: int) -> ProcessLauncher | None:
    from tunepoint.arms.causal.launchers import LAUNCHERS, ProcessLauncher
    from tunepoint.errors import ModelError, nearest

    if launcher is None:
        return None
    for known in LAUNCHERS:  # gives the option its literal type
        if known == launcher:
            return ProcessLauncher(known, processes)
    raise ModelError(f"--launch {launcher}: {nearest(launcher, LAUNCHERS)}")


def parity(
    model: Annotated[Path, typer.Argument(help="Folder that `tunepoint tune` wrote.")],
    task: Annotated[Path, typer.Option(help="task.toml that it was tuned for.")],
    at: Annotated[str, typer.Option(help="The server: http://HOST/v1#NAME.")],
    key_env: Annotated[str | None, typer.Option(help="Environment variable with its key.")] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="full, short or none; may be repeated; by default all of them.")
    ] = None,
) -> None:
    """Check that a server answers as the measured model did. Replays the validation set through it."""
    with clear_errors():
        from tunepoint.arms.causal.server_parity import PARITY_FILE, check_served
        from tunepoint.arms.templates import PROMPT_LENGTHS
        from tunepoint.errors import ModelError
        from tunepoint.task.task import Task

        chosen = [length for length in PROMPT_LENGTHS if length in (prompt or PROMPT_LENGTHS)]
        if len(chosen) < len(set(prompt or PROMPT_LENGTHS)):
            raise ModelError(
                f"--prompt {' '.join(prompt or ())}: the prompts are {', '.join(PROMPT_LENGTHS)}"
            )
        served = check_served(model, Task.load(task), at, prompts=chosen, key_env=key_env)
        typer.echo(str(served))
        if not served.holds:
            raise ModelError(
                f"{at} does not answer as {model} was measured, so it must not be promoted. The answers that "
                f"differ are in {model / PARITY_FILE}"
            )


def jobs(
    study: StudyArgument,
    cancel: Annotated[str | None, typer.Option(help="Id of a job to cancel at its provider.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List a study's fine-tuning jobs at providers, or cancel one."""
    with clear_errors():
        from tunepoint.arms.hosted.jobs import cancel_job, jobs_in
        from tunepoint.study.manifest import read_manifest

        read_manifest(study)  # fails for a mistyped path, which would look like a study without jobs
        folder = study / "arms" / "jobs"
        listed = list(jobs_in(folder).values()) if cancel is None else [cancel_job(folder, cancel)]
        if as_json:
            print_json([asdict(job) for job in listed])
            return
        if not listed:
            typer.echo(f"{study}: no fine-tuning job was started at a provider.")
        for job in listed:
            cost = "" if job.training_usd is None else f", ${job.training_usd:.2f}"
            model = f", {job.tuned_model}" if job.tuned_model else ""
            typer.echo(f"{job.provider} {job.id or 'not started'}: {job.status}, {job.base}{model}{cost}")


def export(
    task: TaskArgument,
    form: Annotated[
        str,
        typer.Option(
            "--for",
            help="openai, together, fireworks, huggingface, axolotl, llama-factory, unsloth; or onnx, gguf, "
            "ollama.",
        ),
    ],
    to: Annotated[Path, typer.Option(help="Folder to write.")] = Path("export"),
    study: Annotated[
        Path | None,
        typer.Option(help="Study whose split is exported, or with --for onnx, gguf or ollama its model."),
    ] = None,
    arm: Annotated[
        str | None, typer.Option(help="With --for onnx, gguf or ollama: its name; the best by default.")
    ] = None,
    seed: SplitSeedOption = None,
) -> None:
    """Export examples for another tool, or a tuned model: an encoder as ONNX, a language model as GGUF.

    Never exports the test set.
    """
    with clear_errors():
        from tunepoint.arms.causal.export import export_examples
        from tunepoint.data.prepare import prepare
        from tunepoint.study.seal import seed_of_seal
        from tunepoint.task.task import Task

        loaded = Task.load(task)
        if form in MODEL_FORMS:
            _export_model(loaded, form, study, to, arm)
            return
        sealed = seed_of_seal(loaded, seed=seed, study=study)
        written = export_examples(loaded, prepare(loaded, sealed), to, form)
        names = ", ".join(path.name for path in written.files)
        typer.echo(
            f"{to}: {names} ({written.train} training examples, {written.dev} validation examples; the test "
            "set stays sealed)"
        )
        typer.echo(f"Next: {written.next}")


def _export_model(task: Task, form: str, study: Path | None, to: Path, arm: str | None) -> None:
    from tunepoint.errors import StudyError

    if study is None:
        raise StudyError(f"--for {form} exports a {MODEL_FORMS[form]}: name its study with --study")
    if form == "onnx":
        from tunepoint.study.encoder_export import GRAPH, export_encoder

        encoder = export_encoder(task, study, to, arm)
        typer.echo(f"{encoder.folder / GRAPH}: {encoder.arm}; {encoder.parity}")
        return
    from tunepoint.arms.causal.gguf_export import GGUF_FILE
    from tunepoint.study.gguf_export import export_language_model

    model = export_language_model(task, study, to, arm)
    typer.echo(f"{model.folder / GGUF_FILE}: {model.arm}; {model.written.parity}")
    _warn_of(model.written)
    if form == "ollama":
        typer.echo(f"Next: ollama create {task.name} -f {model.folder / 'Modelfile'}")
    else:
        typer.echo(f"Next: llama-server --model {model.folder / GGUF_FILE}")
