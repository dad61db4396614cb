"""The command that puts a tuned model on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunepoint.cli.options import YesOption
from tunepoint.cli.terminal import clear_errors, confirm_cost


def add_to(app: typer.Typer) -> None:
    """Add this command to an application."""
    app.command()(push)


def push(
    model: Annotated[Path, typer.Argument(help="Folder that `tune` or `export` wrote.")],
    repository: Annotated[str, typer.Argument(help="OWNER/NAME on the hub.")],
    public: Annotated[bool, typer.Option("--public", help="Let everybody see it.")] = False,
    yes: YesOption = False,
) -> None:
    """Push a tuned model with its card to the Hugging Face hub. The key comes from HF_TOKEN."""
    with clear_errors():
        from tunepoint.study.publishing import publish

        who = "everybody can see" if public else "only you see"
        question = f"{model} goes to {repository} on the hub, which {who}. It has learned from your examples."
        confirm_cost(question, yes, "the upload", paid=True)
        typer.echo(publish(model, repository, private=not public))
