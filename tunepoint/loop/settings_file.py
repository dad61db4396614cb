"""Writes the serve.toml of the loop's gateway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tomlkit
from tomlkit.items import Table

from tunepoint.files.text import write_text
from tunepoint.loop.state import Challenger


@dataclass(frozen=True)
class LoopSettings:
    """What the loop's gateway serves: one arm of the first study, and the challengers so far."""

    port: int
    store: str
    task: str
    study: Path
    champion: str
    challengers: Sequence[Challenger] = ()


def write_settings(path: Path, settings: LoopSettings) -> None:
    """Write serve.toml."""
    task = _table(
        {
            "name": settings.task,
            "study": str(settings.study.resolve()),
            "only": [settings.champion],
            "champion": settings.champion,
        }
    )
    if settings.challengers:
        challengers = tomlkit.aot()
        for challenger in settings.challengers:
            challengers.append(_table(vars(challenger)))
        task["more"] = challengers
    tasks = tomlkit.aot()
    tasks.append(task)
    document = tomlkit.document()
    document.add(tomlkit.comment("The loop rewrites this file with every challenger."))
    document.add(tomlkit.comment("Which arm serves at present is kept in the gateway's store."))
    document["server"] = _table({"port": settings.port, "store": _absolute(settings.store)})
    document["tasks"] = tasks
    write_text(path, tomlkit.dumps(document))


def _table(values: Mapping[str, object]) -> Table:
    table = tomlkit.table()
    table.update(values)
    return table


def _absolute(store: str) -> str:
    """The store's address; a path is made absolute, since the gateway resolves it by serve.toml's folder."""
    return store if "://" in store else str(Path(store).resolve())
