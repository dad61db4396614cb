"""The commands about money: prices, what a study would cost, and what a deployment saves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunepoint.cli.options import (
    DEFAULT_STORE,
    HERE,
    BatchOption,
    JsonOption,
    SplitSeedOption,
    SplitStudyOption,
    StoreOption,
    StudyArgument,
    TaskArgument,
)
from tunepoint.cli.terminal import clear_errors, print_json


def add_to(app: typer.Typer) -> None:
    """Add these commands to an application."""
    for command in (prices, quote, savings):
        app.command()(command)


def prices(
    model: Annotated[
        str | None, typer.Argument(help="Name as in [[models]]; all known prices by default.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Folder that may hold a prices.toml of your own.")] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Show known prices, with their source and age."""
    with clear_errors():
        from tunepoint.costs.price_list import known_prices, price_of

        lines = known_prices(folder) if model is None else [price_of(model, folder)]
        if as_json:
            print_json({"prices": lines})
            return
        for line in lines:
            typer.echo(line)


def quote(
    task: TaskArgument = HERE,
    seed: SplitSeedOption = None,
    study: SplitStudyOption = None,
    batch: BatchOption = False,
    as_json: JsonOption = False,
) -> None:
    """Estimate what a study and a month of serving cost. Includes fine-tuning. Spends nothing."""
    with clear_errors():
        from tunepoint.study.estimate import estimate
        from tunepoint.study.seal import seed_of_seal
        from tunepoint.task.task import Task

        loaded = Task.load(task)
        loaded = loaded.asking_by_batch() if batch else loaded
        lines = estimate(loaded, seed_of_seal(loaded, seed=seed, study=study))
        if as_json:
            print_json({"task": loaded.name, "quote": lines})
            return
        for line in lines:
            typer.echo(line)


def savings(
    study: StudyArgument,
    store: StoreOption = DEFAULT_STORE,
    against: Annotated[str | None, typer.Option(help="Option that would have served otherwise.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the forecast with what was served since. Adds it to the report."""
    with clear_errors():
        from tunepoint.capture.opening import open_store
        from tunepoint.loop.savings import realized_savings
        from tunepoint.loop.savings_report import save_savings_words, savings_document, write_savings

        with open_store(store, create=False) as opened:
            realized = realized_savings(study, opened, against=against)
            save_savings_words(opened, realized.task, realized)
        report = write_savings(study, realized)
        document = savings_document(realized)
        if as_json:
            print_json(document)
            return
        for line in document["words"]:
            typer.echo(line)
        for arm in document["arms"]:
            typer.echo(
                f"  {arm['arm']}: {arm['requests']:,} requests, {arm['failed']:,} failed; {arm['words']}"
            )
        typer.echo(f"Report: {report}")
