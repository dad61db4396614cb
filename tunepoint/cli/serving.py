"""The commands about serving: the gateway and its keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunepoint.cli.terminal import SplitSeedOption, SplitStudyOption, clear_errors
from tunepoint.stats.streams import Stream, stream

if TYPE_CHECKING:
    from tunepoint.capture.harvest import Judge
    from tunepoint.data.examples import Example
    from tunepoint.serve.settings import ServeSettings
    from tunepoint.task.task import Task

StoreOption = Annotated[str, typer.Option(help="Capture store: a file, or postgresql://...")]


def add_to(app: typer.Typer) -> None:
    """Give an application these commands."""
    app.command()(serve)
    app.command()(harvest)
    app.command("import")(import_)
    keys = typer.Typer(help="Make, list and revoke the gateway's API keys.", no_args_is_help=True)
    for command in (add, listed, revoke):
        keys.command("list" if command is listed else command.__name__)(command)
    app.add_typer(keys, name="keys")


def serve(
    what: Annotated[Path, typer.Argument(help="Study directory, or serve.toml.")],
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; this machine only if missing.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port; 8484 if missing.")] = None,
    store: Annotated[str | None, typer.Option(help="Capture store: a file, or postgresql://...")] = None,
    champion: Annotated[
        str | None, typer.Option(help="Arm that serves; the verdict's winner if missing.")
    ] = None,
) -> None:
    """Serve a study's winner behind an OpenAI-compatible endpoint; the model's name is the task's."""
    with clear_errors():
        from tunepoint.serve.process import run_gateway

        def load() -> ServeSettings:
            return _settings(what, {"host": host, "port": port, "store": store}, champion)

        run_gateway(load, typer.echo)


def _settings(what: Path, given: dict[str, Any], champion: str | None) -> ServeSettings:
    """Settings of serve.toml, or of a study alone; options of the command line rule."""
    from tunepoint.errors import TaskError
    from tunepoint.serve.settings import ServeSettings
    from tunepoint.study.directory import read_manifest

    server = {key: value for key, value in given.items() if value is not None}
    if what.is_dir():
        task = {"name": str(read_manifest(what)["task"]), "study": str(what.resolve())}
        task |= {} if champion is None else {"champion": champion}
        return ServeSettings.parse({"server": server, "tasks": [task]}, where=str(what))
    if champion is not None:
        raise TaskError("--champion is for a study alone; serve.toml names it for each task")
    found = ServeSettings.load(what)
    both = {**found.server.model_dump(), **server}
    content = {**found.model_dump(exclude={"server"}), "server": both}
    return ServeSettings.parse(content, where=str(what), folder=found.folder)


def import_(
    log: Annotated[Path, typer.Argument(help="The log.")],
    kind: Annotated[
        str, typer.Option("--from", help="openai, litellm, langfuse, otel, promptfoo or inspect.")
    ],
    task: Annotated[str, typer.Option(help="Name of the task to which the requests belong.")] = "",
    store: StoreOption = "capture.sqlite",
    out: Annotated[Path, typer.Option(help="File for trials.")] = Path("trials.jsonl"),
    keep_personal: Annotated[bool, typer.Option("--keep-personal", help="Leave personal data in.")] = False,
) -> None:
    """Take over the log of another tool: requests into the store, evaluations as trials."""
    with clear_errors():
        from tunepoint.capture.log_import import import_log
        from tunepoint.capture.opening import open_store
        from tunepoint.capture.redaction import PatternRedactor
        from tunepoint.capture.writer import Writer
        from tunepoint.errors import DataError
        from tunepoint.files.text import write_text

        found = import_log(log, kind, task)
        if found.trials:
            if out.exists():
                raise DataError(f"{out}: is there already; name another --out")
            write_text(out, "".join(trial.line() for trial in found.trials))
            typer.echo(f"{out}: {found}; `tunepoint decide --trials {out}` decides on them")
            return
        if not task:
            raise DataError("--task is missing: the name of the task to which these requests belong")
        with open_store(store) as opened:
            writer = Writer(
                opened, None if keep_personal else PatternRedactor(), capacity=len(found.requests) + 1
            )
            for one in found.requests:
                writer.put(one)
            waiting = writer.close(600)
            if waiting or writer.counts.refused:
                raise DataError(f"{store}: {waiting + writer.counts.refused} requests could not be written")
        typer.echo(f"{store}: {found}")


def harvest(
    task: Annotated[Path, typer.Argument(help="task.toml, or its folder.")],
    to: Annotated[Path, typer.Option(help="JSONL file for the examples.")],
    store: StoreOption = "capture.sqlite",
    accept: Annotated[
        float | None, typer.Option(help="Score from which an answer is good.", min=0, max=1)
    ] = None,
    most_per_label: Annotated[int | None, typer.Option(help="Examples of one label at most.", min=1)] = None,
    licence: Annotated[str | None, typer.Option(help="Written on every example.")] = None,
    judge: Annotated[
        bool, typer.Option("--judge", help="Let the task's judge grade what nobody has judged; it costs.")
    ] = False,
    seed: SplitSeedOption = None,
    study: SplitStudyOption = None,
) -> None:
    """Make examples of captured traffic: what people accepted or corrected, never the sealed test."""
    with clear_errors():
        from tunepoint.capture.harvest import Rules, write_examples
        from tunepoint.capture.harvest import harvest as gather
        from tunepoint.capture.opening import open_store
        from tunepoint.data.prepare import prepare
        from tunepoint.models.embedded import installed_encoder
        from tunepoint.study.seal import seed_of_seal
        from tunepoint.task.task import Task

        loaded = Task.load(task)
        known: tuple[Example, ...] = ()
        sealed: tuple[Example, ...] = ()
        sealed_by = seed or 0
        if loaded.data is not None:
            sealed_by = seed_of_seal(loaded, seed=seed, study=study)
            split = prepare(loaded, sealed_by).split
            known, sealed = (*split.train, *split.dev), split.test
        encoder = installed_encoder()
        with open_store(store, create=False) as opened, _judge_of(loaded, judge) as judging:
            rules = Rules(
                loaded.score.accept if accept is None else accept,
                most_per_label,
                judging,
                embed=None if encoder is None else encoder.embed,
                licence=licence,
            )
            found = gather(opened, loaded, known, sealed, stream(sealed_by, Stream.HARVEST), rules)
        write_examples(found, loaded, to)
        typer.echo(str(found))
        typer.echo(f"{to}: {len(found.taken)} examples")


@contextmanager
def _judge_of(task: Task, wanted: bool) -> Iterator[Judge | None]:
    """The task's judge, its calls recorded beside task.toml; None where it is not asked."""
    from tunepoint.errors import TaskError
    from tunepoint.models.budget import Budget
    from tunepoint.study.chat_models import open_chat_models
    from tunepoint.trials.judge import Judge as Grader

    if not wanted:
        yield None
        return
    if task.score.judge is None:
        raise TaskError('--judge: the task has none; score.metric = "judge" names one')
    with open_chat_models(task, task.folder / "harvest.sqlite", Budget(None, 0.0)) as models:
        assert models.judge is not None, "a task with a judge opens it"
        grader = Grader(models.judge, task)
        yield lambda answers, examples: [one.score for one in grader(answers, examples)]


def add(
    name: Annotated[str, typer.Argument(help="What the key is called, in metrics and logs.")],
    role: Annotated[list[str] | None, typer.Option(help="call, read or operate; may be repeated.")] = None,
    usd_a_month: Annotated[float | None, typer.Option(help="Dollars of a month.", min=0)] = None,
    requests_a_minute: Annotated[int | None, typer.Option(help="Requests of a minute.", min=1)] = None,
    store: StoreOption = "capture.sqlite",
) -> None:
    """Make a key; it is shown once and kept as a hash."""
    with clear_errors():
        from tunepoint.capture.opening import open_store
        from tunepoint.errors import TaskError, nearest
        from tunepoint.serve.auth import ROLES, make_key

        wanted = tuple(one for one in ROLES if one in (role or ["call"]))
        for one in role or ():
            if one not in ROLES:
                raise TaskError(f"--role {one!r}: {nearest(one, ROLES)}")
        with open_store(store) as opened:
            limits = {"usd_a_month": usd_a_month, "requests_a_minute": requests_a_minute}
            token = make_key(opened, name, wanted, **limits)  # type: ignore[arg-type]
        typer.echo(token)


def listed(store: StoreOption = "capture.sqlite") -> None:
    """List keys: name, roles and limits."""
    with clear_errors():
        from tunepoint.capture.opening import open_store
        from tunepoint.serve.auth import KEYS

        with open_store(store, create=False) as opened:
            known = opened.state(KEYS) or {}
        for facts in sorted(known.values(), key=lambda facts: str(facts["name"])):
            money = "" if facts["usd_a_month"] is None else f", ${facts['usd_a_month']:,.2f} a month"
            rate = "" if facts["requests_a_minute"] is None else f", {facts['requests_a_minute']} a minute"
            typer.echo(f"{facts['name']}: {' and '.join(facts['roles'])}{money}{rate}")


def revoke(
    name: Annotated[str, typer.Argument(help="Name of the key.")], store: StoreOption = "capture.sqlite"
) -> None:
    """Take a key back; a running gateway refuses it within seconds."""
    with clear_errors():
        from tunepoint.capture.opening import open_store
        from tunepoint.serve.auth import revoke_key

        with open_store(store, create=False) as opened:
            revoke_key(opened, name)
        typer.echo(f"revoked {name}")
