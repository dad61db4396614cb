"""The command that load-tests a server."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunepoint.cli.options import SplitStudyOption
from tunepoint.cli.terminal import clear_errors

if TYPE_CHECKING:
    from tunepoint.costs.throughput import LoadStep, Throughput


def add_to(app: typer.Typer) -> None:
    """Add this command to an application."""
    app.command()(load)


def load(
    at: Annotated[str, typer.Argument(help="The server: http://HOST/v1#NAME.")],
    key_env: Annotated[str | None, typer.Option(help="Environment variable with its key.")] = None,
    task: Annotated[Path | None, typer.Option(help="Send the inputs of this task.")] = None,
    study: SplitStudyOption = None,
    seconds: Annotated[float, typer.Option(help="Seconds of each step.", min=0.1)] = 5.0,
    p95: Annotated[
        float | None,
        typer.Option(help="Latency limit: seconds for 95% of requests; the task's limit by default."),
    ] = None,
    most: Annotated[int, typer.Option(help="Highest number of requests at once.", min=1)] = 128,
    output_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.", min=1)] = 64,
    out: Annotated[Path, typer.Option(help="File for the table.")] = Path("load.json"),
) -> None:
    """Load-test a server: the highest request rate within your latency limit."""
    with clear_errors():
        from tunepoint.costs.throughput import SHORT_QUESTION, inputs_of, measure_throughput
        from tunepoint.models.openai import OpenAIEndpoint
        from tunepoint.study.seal import seed_of_seal
        from tunepoint.task.task import Task

        loaded = Task.load(task) if task is not None else None
        inputs = [SHORT_QUESTION] if loaded is None else inputs_of(loaded, seed_of_seal(loaded, study=study))
        limit = loaded.limits.p95_seconds if p95 is None and loaded is not None else p95
        typer.echo("at once  requests/s  tokens/s     p50      p95  errors")
        with ExitStack() as stack:

            def connect(concurrency: int) -> OpenAIEndpoint:
                endpoint = OpenAIEndpoint(at, concurrency=concurrency, attempts=1, key_env=key_env)
                stack.callback(endpoint.close)
                return endpoint

            throughput = measure_throughput(
                at,
                connect,
                inputs,
                seconds=seconds,
                p95_limit=limit,
                max_concurrency=most,
                output_tokens=output_tokens,
                on_step=_show,
            )
        throughput.write(out)
        typer.echo(f"{out}: {_hosting(throughput)}")


def _show(step: LoadStep) -> None:
    typer.echo(
        f"{step.concurrency:7}  {step.requests_per_second:10.2f}  {step.tokens_per_second:8.1f}  "
        f"{step.p50_seconds:6.2f}s  {step.p95_seconds:6.2f}s  {step.errors:6}"
    )


def _hosting(throughput: Throughput) -> str:
    """Return what to declare in task.toml, and what a thousand calls cost at best."""
    from tunepoint.task.hosting import usd_per_thousand

    best = throughput.sustained
    if best is None:
        return f"no step met the limit: requests failed, or 95% took more than {throughput.p95_limit} s"
    rate = best.requests_per_second
    busy = usd_per_thousand(1, rate)
    return (
        f'hosting = {{ mode = "dedicated", usd_per_hour = YOURS, requests_per_second = {rate:.3g} }}\n'
        f"At $1 an hour, and never idle, 1,000 calls would cost ${busy:.4f}."
    )
