"""The commands of the improvement loop: run its next steps, approve one, show where it is."""

from __future__ import annotations

import getpass
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunepoint.cli.options import DEFAULT_STORE, HERE, JsonOption, SplitSeedOption, StoreOption, TaskArgument
from tunepoint.cli.terminal import clear_errors, print_json

if TYPE_CHECKING:
    from tunepoint.loop.deployment import LocalDeployment
    from tunepoint.loop.state import Goals, LoopState
    from tunepoint.task.task import Task

CanaryRequestsOption = Annotated[
    int, typer.Option(help="Answers of the challenger before it gets a larger share of traffic.", min=1)
]
CanaryMarginOption = Annotated[
    float, typer.Option(help="How much worse the challenger may be on any measure.", min=0, max=0.99)
]
CollectFirstOption = Annotated[
    bool, typer.Option("--collect-first", help="Serve a prompt even if the first study beats it.")
]
MAX_LOG_LINES = 20
"""Of the audit log, the newest at the terminal; --json has all of them."""


def add_to(app: typer.Typer) -> None:
    """Add these commands to an application."""
    app.command()(loop)
    app.command()(status)


def loop(
    task: TaskArgument = HERE,
    out: Annotated[Path, typer.Option(help="Folder for studies, examples and serve.toml.")] = Path("loop"),
    store: StoreOption = DEFAULT_STORE,
    gateway: Annotated[str, typer.Option(help="Address of the gateway.")] = "http://127.0.0.1:8484",
    key: Annotated[
        str | None, typer.Option(envvar="TUNEPOINT_GATEWAY_KEY", help="Key with the roles read and operate.")
    ] = None,
    good: Annotated[int, typer.Option(help="Good examples needed for the first tuning.", min=1)] = 500,
    again: Annotated[int, typer.Option(help="New examples needed for each further one.", min=1)] = 100,
    per_label: Annotated[int, typer.Option(help="Fewest examples of each label.", min=0)] = 10,
    ask: Annotated[
        list[str] | None,
        typer.Option(help="Step that waits for approval: tune, canary, promote or collect; may be repeated."),
    ] = None,
    yes: Annotated[str | None, typer.Option(help="Approve one of these steps, and continue.")] = None,
    watch: Annotated[
        float | None, typer.Option(help="Seconds between steps; by default it takes one step.", min=1)
    ] = None,
    canary_requests: CanaryRequestsOption = 200,
    canary_margin: CanaryMarginOption = 0.02,
    collect_first: CollectFirstOption = False,
    seed: SplitSeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the improvement loop.

    It serves the best prompt, collects examples, tunes, decides, canaries, promotes and watches.
    """
    with clear_errors():
        from tunepoint.capture.opening import open_store
        from tunepoint.loop.deployment import LocalDeployment
        from tunepoint.loop.state import Goals
        from tunepoint.task.task import Task

        goals = Goals(good, again, per_label, frozenset(_approvable(ask or [])))
        with open_store(store) as opened:
            loaded = Task.load(task).asking_models()  # a recording holds no replies to new messages
            seed = _split_seed(loaded, out, seed)
            address = gateway.rstrip("/")
            deployment = LocalDeployment(loaded, out, opened, store, address, goals, key, seed)
            deployment.canary_settings = {"requests": canary_requests, "margin": canary_margin}
            deployment.collect_first = collect_first
            if yes is not None:
                deployment.approve(yes, getpass.getuser())
            _rounds(deployment, goals, watch, as_json=as_json)


def _approvable(steps: list[str]) -> list[str]:
    """Return steps that can wait for approval; any other is an error."""
    from tunepoint.errors import TaskError, nearest
    from tunepoint.loop.state import APPROVABLE

    for step in steps:
        if step not in APPROVABLE:
            raise TaskError(f"--ask {step!r}: {nearest(step, APPROVABLE)}")
    return steps


def _split_seed(task: Task, out: Path, seed: int | None) -> int:
    """Return the seed of the loop's first study, which sealed the test set; before it the given one, or 0."""
    from tunepoint.study.seal import seed_of_seal

    first = out / "study-1"
    if not (first / "manifest.json").exists():
        return seed or 0
    return seed_of_seal(task, seed=seed, study=first)


def _rounds(deployment: LocalDeployment, goals: Goals, watch: float | None, *, as_json: bool) -> None:
    """Advance once, or every `watch` seconds; a gateway that is down is then tried again."""
    from tunepoint.loop.state import LoopError
    from tunepoint.loop.turn import advance

    while True:
        try:
            state = advance(deployment, goals)
            if as_json:
                print_json(_content(state))
            else:
                typer.echo(_summary(state))
        except LoopError as error:
            if watch is None:
                raise
            typer.echo(str(error), err=True)
        if watch is None:
            return
        time.sleep(watch)


def status(
    task: TaskArgument = HERE,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Show where the loop is and what it waits for. Lists what happened so far."""
    with clear_errors():
        from tunepoint.capture.opening import open_store
        from tunepoint.loop.state import load_state
        from tunepoint.task.task import Task

        name = Task.load(task).name
        with open_store(store, create=False) as opened:
            state, log = load_state(opened, name), opened.audit_log(name)
        if as_json:
            print_json({**_content(state), "log": log})
            return
        typer.echo(_summary(state))
        for line in log[-MAX_LOG_LINES:]:
            at = datetime.fromtimestamp(line["at"], UTC).isoformat(sep=" ", timespec="seconds")
            typer.echo(f"  {at}  {line['who']}: {line['what']}")


def _content(state: LoopState) -> dict[str, object]:
    facts = state.facts.document()
    return {"step": state.step, "round": state.round, "waits": state.waits, "facts": facts}


def _summary(state: LoopState) -> str:
    """Return where the loop is, in a line."""
    waits = f"waits for {state.waits}" if state.waits else "continues when it is run"
    return f"round {state.round}, {state.step}: {waits}"
