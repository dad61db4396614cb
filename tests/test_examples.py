"""Every example is whole: its task loads, its files are there, and what it would ask is recorded."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT

from tunepoint import Task
from tunepoint.data.prepare import prepare
from tunepoint.models.replies import read_replies

EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/task.toml"))


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_an_example_is_whole(folder: Path) -> None:
    assert f"({folder.name}/README.md)" in (ROOT / "examples" / "README.md").read_text()
    assert "invented" in (folder / "README.md").read_text().lower()
    task = Task.load(folder)
    prompted = [model for model in task.models if not model.name.startswith(("recorded:", "embedded:minilm"))]
    assert all(model.replies is not None for model in prompted), "needs a key or a download"
    for path in task.replies().values():
        assert len(read_replies(path)[1]) > 100
    if task.data is not None:  # where a judge grades, each answer takes three calls, on two cores
        assert len(prepare(task, 0).split.test) >= (60 if task.score.judge is None else 28)
