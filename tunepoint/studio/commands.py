"""The commands that the studio and agents start, as people would type them."""

from __future__ import annotations

from tunepoint.data.prepare import prepare
from tunepoint.studio.workspace import Workspace
from tunepoint.study.directory import default_folder
from tunepoint.task.task import Task


def run_words(workspace: Workspace, task: str, max_usd: float) -> tuple[str, list[str]]:
    """Return the name of a task's study, and the command that measures it within a budget.

    Raises:
        TunepointError: there is no such task, or its data cannot be read.

    """
    folder = workspace.task(task)
    loaded = Task.load(folder)
    out = default_folder(loaded, prepare(loaded, 0), 0)
    words = ["run", str(folder), "--out", str(workspace.folder / out), "--progress", "json"]
    return out.name, [*words, "--max-usd", repr(float(max_usd)), "--yes", "--json"]


def serve_words(workspace: Workspace, study: str, port: int) -> list[str]:
    """Return the command that serves a study's winner.

    Raises:
        StudyError: there is no such study.

    """
    store = str(workspace.folder / "capture.sqlite")
    return ["serve", str(workspace.study(study)), "--port", str(port), "--store", store]
