"""The commands about language models on this machine."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunepoint.cli.options import JsonOption
from tunepoint.cli.terminal import clear_errors, print_json

if TYPE_CHECKING:
    from tunepoint.models.gguf.catalog import KnownModel

NameArgument = Annotated[str, typer.Argument(help="A model as `tunepoint models list` names it.")]
LINE_SECONDS = 2.0
"""Between two lines of progress."""


def add_to(app: typer.Typer) -> None:
    """Add these commands to an application, as a group."""
    models = typer.Typer(help="Language models of this machine, without a key.", no_args_is_help=True)
    models.command("list")(list_models)
    models.command()(pull)
    models.command()(verify)
    models.command()(remove)
    app.add_typer(models, name="models")


def list_models(as_json: JsonOption = False) -> None:
    """List the models, their sizes, and which are here."""
    with clear_errors():
        from tunepoint.models.gguf.catalog import KNOWN_MODELS
        from tunepoint.models.gguf.store import ModelStore

        store = ModelStore()
        if as_json:
            print_json([{**asdict(model), "here": store.has(model)} for model in KNOWN_MODELS.values()])
            return
        for model in KNOWN_MODELS.values():
            here = "here" if store.has(model) else "not here"
            typer.echo(
                f"embedded:{model.name:20} {here:9} {model.bytes / 1e6:6,.0f} MB  {model.title} by "
                f"{model.maker}, {model.licence}, {model.size}"
            )
        typer.echo(f"folder: {store.folder}")


def pull(
    name: NameArgument,
    source: Annotated[
        Path | None, typer.Option("--from", help="The GGUF file, or a folder with it; nothing is downloaded.")
    ] = None,
) -> None:
    """Download a model and check its hash; continues where an earlier download stopped."""
    with clear_errors():
        from tunepoint.models.gguf.catalog import known_model
        from tunepoint.models.gguf.pull import pull as bring
        from tunepoint.models.gguf.pull import sources
        from tunepoint.models.gguf.store import ModelStore

        model = known_model(name)
        path = bring(model, ModelStore(), sources(source), _Lines(model).show, typer.echo)
        typer.echo(f'{path}: checked. Name it in task.toml: [[models]] name = "embedded:{model.name}"')


def verify(name: NameArgument) -> None:
    """Compute the hash of a model's file again."""
    with clear_errors():
        from tunepoint.models.gguf.catalog import known_model
        from tunepoint.models.gguf.store import ModelStore

        model, store = known_model(name), ModelStore()
        store.verify(model)
        typer.echo(f"{store.path(model)}: is {model.title}, SHA-256 {model.sha256}")


def remove(name: NameArgument) -> None:
    """Delete a model's file."""
    with clear_errors():
        from tunepoint.models.gguf.catalog import known_model
        from tunepoint.models.gguf.store import ModelStore

        freed = ModelStore().remove(known_model(name))
        typer.echo(f"{freed / 1e6:,.0f} MB freed")


class _Lines:
    """Progress in lines, which read well on a terminal and in a log file."""

    def __init__(self, model: KnownModel) -> None:
        self.model = model
        self.shown = time.monotonic()

    def show(self, done: int, total: int) -> None:
        """Print the bytes, now and then."""
        if time.monotonic() - self.shown >= LINE_SECONDS:
            self.shown = time.monotonic()
            typer.echo(f"  {done / 1e6:,.0f} of {total / 1e6:,.0f} MB ({done / total:.0%})")
