"""A folder of tasks and studies. All that the studio shows and does is a file in it."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from tunepoint.errors import StudyError, TaskError
from tunepoint.report.first_screen import headline, strength_sentence
from tunepoint.report.html import read_decision
from tunepoint.study.manifest import MANIFEST, read_manifest

TASK_FILE, STUDIES = "task.toml", "studies"
MAX_UPLOAD_BYTES = 2 * 2**30
DATA_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
LOG_SUFFIXES = (".jsonl", ".ndjson")
MAX_NAME = 60


@dataclass(frozen=True)
class Workspace:
    """Tasks in folders of their own, and the studies of all of them in `studies`."""

    folder: Path

    def tasks(self) -> list[str]:
        """Return the folders with a task.toml, as paths from the workspace; '.' is itself."""
        folders = [path.parent for path in (self.folder / TASK_FILE, *self.folder.glob(f"*/{TASK_FILE}"))]
        there = (path for path in folders if (path / TASK_FILE).is_file())
        return sorted(path.relative_to(self.folder).as_posix() for path in there)

    def task(self, name: str) -> Path:
        """Return the folder of a task.

        Raises:
            TaskError: there is none of this name.

        """
        if name not in self.tasks():
            raise TaskError(f"{self.folder}: no task {name!r}; there are {', '.join(self.tasks()) or 'none'}")
        return self.folder / name

    def study(self, name: str) -> Path:
        """Return the folder of a study.

        Raises:
            StudyError: there is none of this name.

        """
        path = self.folder / STUDIES / name
        if "/" in name or "\\" in name or name.startswith(".") or not (path / MANIFEST).is_file():
            raise StudyError(f"{self.folder / STUDIES}: no study {name!r}")
        return path

    def studies(self) -> list[dict[str, Any]]:
        """Return every study with its verdict, the latest first."""
        studies = [_described(path.parent) for path in (self.folder / STUDIES).glob(f"*/{MANIFEST}")]
        return sorted(filter(None, studies), key=lambda study: str(study["created"]), reverse=True)

    async def save_data(self, name: str, chunks: AsyncIterator[bytes]) -> Path:
        """Write an uploaded data file into a folder of its own, and return its path.

        Raises:
            TaskError: it is no data file by its name, or is too large.

        """
        name = Path(name.replace("\\", "/")).name
        if Path(name).suffix.lower() not in DATA_SUFFIXES:
            raise TaskError(f"{name!r}: give a file that ends in {', '.join(DATA_SUFFIXES)}")
        folder = self._new_folder(Path(name).stem)
        folder.mkdir(parents=True)
        try:
            return await _receive(folder / name, chunks)
        except BaseException:
            shutil.rmtree(folder)
            raise

    async def save_log(self, task: str, name: str, chunks: AsyncIterator[bytes]) -> Path:
        """Write an uploaded log beside a task under a name that is free, and return its path.

        Raises:
            TaskError: there is no such task, it is no log by its name, or it is too large.

        """
        folder, given = self.task(task), Path(name.replace("\\", "/")).name
        if Path(given).suffix.lower() not in LOG_SUFFIXES:
            suffixes = " or ".join(LOG_SUFFIXES)
            raise TaskError(f"{given!r}: give a log that ends in {suffixes}, one answer a line")
        slug = re.sub(r"[^\w.-]+", "-", Path(given).stem).strip("-.")[:MAX_NAME] or "log"
        names = chain([slug], (f"{slug}-{number}" for number in count(2)))
        path = next(path for stem in names if not (path := folder / f"{stem}.jsonl").exists())
        try:
            return await _receive(path, chunks)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def _new_folder(self, stem: str) -> Path:
        slug = re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).strip("-")[:MAX_NAME] or "task"
        if slug == STUDIES:
            slug = "data"
        number, folder = 1, self.folder / slug
        while folder.exists():
            number += 1
            folder = self.folder / f"{slug}-{number}"
        return folder


async def _receive(path: Path, chunks: AsyncIterator[bytes]) -> Path:
    """Write an upload.

    Raises:
        TaskError: it is too large.

    """
    size = 0
    with path.open("wb") as file:
        async for chunk in chunks:
            size += len(chunk)
            if size > MAX_UPLOAD_BYTES:
                most = f"{MAX_UPLOAD_BYTES:,} bytes"
                raise TaskError(f"{path.name}: over {most}; put it into {path.parent} by hand")
            file.write(chunk)
    return path


def _described(folder: Path) -> dict[str, Any] | None:
    """What the list of studies says of one; None where its manifest cannot be read."""
    try:
        manifest = read_manifest(folder)
    except StudyError:
        return None
    title = strength = None
    if (folder / "decision.json").exists():
        try:
            decision = read_decision(folder)
            title, strength = headline(decision), strength_sentence(decision)
        except (StudyError, KeyError, TypeError, ValueError, AttributeError):
            # one odd study must not hide the others
            title, strength = "Its decision.json cannot be read.", ""
    created = manifest.content().get("created")
    verdict = {"decided": title is not None, "title": title, "strength": strength}
    return {"name": folder.name, "task": manifest.task, "created": created, **verdict}
