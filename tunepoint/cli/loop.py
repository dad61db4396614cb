"""The commands of the loop: a turn of the circle, a person's yes, and where it stands."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunepoint.cli.terminal import JsonOption, SplitSeedOption, TaskArgument, clear_errors

if TYPE_CHECKING:
    from tunepoint.loop.deployment import LocalDeployment
    from tunepoint.loop.state import Goals, LoopState

StoreOption = Annotated[str, typer.Option(help="Capture store: a file, or postgresql://...")]


def add_to(app: typer.Typer) -> None:
    """Give an application these commands."""
    app.command()(loop)
    app.command()(status)


def loop(
    task: TaskArgument,
    out: Annotated[Path, typer.Option(help="Folder of its studies, examples and serve.toml.")] = Path("loop"),
    store: StoreOption = "capture.sqlite",
    gateway: Annotated[str, typer.Option(help="Address of the gateway.")] = "http://127.0.0.1:8484",
    key: Annotated[
        str | None, typer.Option(envvar="TUNEPOINT_GATEWAY_KEY", help="With the roles read and operate.")
    ] = None,
    good: Annotated[int, typer.Option(help="Good examples before a model is tuned.", min=1)] = 500,
    again: Annotated[int, typer.Option(help="New ones before the next round tunes.", min=1)] = 100,
    per_label: Annotated[int, typer.Option(help="Of each label, at least.", min=0)] = 10,
    ask: Annotated[
        list[str] | None,
        typer.Option(help="Wait for a person's yes: tune, canary, promote or collect; may be repeated."),
    ] = None,
    yes: Annotated[str | None, typer.Option(help="Say yes to one of them, and go on.")] = None,
    watch: Annotated[
        float | None, typer.Option(help="Go on every so many seconds; once if missing.", min=1)
    ] = None,
    canary_requests: Annotated[
        int, typer.Option(help="Answers of the challenger before its next share of the users.", min=1)
    ] = 200,
    canary_margin: Annotated[
        float, typer.Option(help="How much worse it may be on any measure.", min=0, max=0.99)
    ] = 0.02,
    seed: SplitSeedOption = None,
) -> None:
    """Go round: serve the best prompt, collect, tune, decide, canary, promote, watch, ask again."""
    with clear_errors():
        import getpass

        from tunepoint.capture.opening import open_store
        from tunepoint.errors import TaskError, nearest
        from tunepoint.loop.deployment import LocalDeployment
        from tunepoint.loop.state import ASKABLE, Goals
        from tunepoint.study.seal import seed_of_seal
        from tunepoint.task.task import Task

        for one in ask or ():
            if one not in ASKABLE:
                raise TaskError(f"--ask {one!r}: {nearest(one, ASKABLE)}")
        goals = Goals(good, again, per_label, frozenset(ask or ()))
        with open_store(store) as opened:
            loaded = Task.load(task)
            first = out / "study-1"
            if (first / "manifest.json").exists():
                seed = seed_of_seal(loaded, seed=seed, study=first)
            circle = LocalDeployment(loaded, out, opened, store, gateway.rstrip("/"), goals, key, seed or 0)
            circle.canary_settings = {"requests": canary_requests, "margin": canary_margin}
            if yes is not None:
                circle.say_yes(yes, getpass.getuser())
            _rounds(circle, goals, watch)


def _rounds(deployment: LocalDeployment, goals: Goals, watch: float | None) -> None:
    """One turn, or one every so many seconds; a gateway that is away is tried again then."""
    from tunepoint.loop.state import LoopError
    from tunepoint.loop.turn import advance

    while True:
        try:
            typer.echo(_words(advance(deployment, goals)))
        except LoopError as error:
            if watch is None:
                raise
            typer.echo(str(error), err=True)
        if watch is None:
            return
        time.sleep(watch)


def status(
    task: TaskArgument,
    store: StoreOption = "capture.sqlite",
    as_json: JsonOption = False,
) -> None:
    """Say where the loop is, what it waits for, and what happened so far."""
    with clear_errors():
        import json
        from datetime import UTC, datetime

        from tunepoint.capture.opening import open_store
        from tunepoint.loop.state import load_state
        from tunepoint.task.task import Task

        name = Task.load(task).name
        with open_store(store, create=False) as opened:
            standing, log = load_state(opened, name), opened.log(name)
        if as_json:
            facts = {"step": standing.step, "round": standing.round, "waits": standing.waits}
            typer.echo(json.dumps({**facts, "facts": dict(standing.facts), "log": log}, indent=2))
            return
        typer.echo(_words(standing))
        for line in log[-20:]:
            at = datetime.fromtimestamp(line["at"], UTC).isoformat(sep=" ", timespec="seconds")
            typer.echo(f"  {at}  {line['who']}: {line['what']}")


def _words(state: LoopState) -> str:
    """Where it is, in a line."""
    waits = f"waits for {state.waits}" if state.waits else "goes on when it is run"
    return f"round {state.round}, {state.step}: {waits}"
