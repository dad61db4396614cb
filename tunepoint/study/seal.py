"""The seal outside a study: which split a command may train on, export or harvest by.

The seed of a study decides which examples are in its test set. A command that splits the same examples
by another seed would train on some of them, so each study leaves its address beside task.toml, and
commands without a study of their own get their seed here.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from tunepoint.data.prepare import prepare
from tunepoint.errors import StudyError
from tunepoint.files.text import write_json
from tunepoint.study.manifest import MANIFEST, read_manifest
from tunepoint.task.task import Task

REGISTER = ".tunepoint-studies.json"
"""Beside task.toml: the directories of the task's studies."""


def register_study(task: Task, folder: Path) -> None:
    """Write the study's address beside task.toml, if that folder can be written."""
    address = str(folder.resolve())
    addresses = _registered(task)
    if address not in addresses:
        with suppress(StudyError):  # an installed example, say: its studies are found in ./studies
            write_json(task.folder / REGISTER, [*addresses, address])


def seed_of_seal(task: Task, *, seed: int | None = None, study: Path | None = None) -> int:
    """Return the seed by which a command splits the task's examples, so that it sees no sealed item.

    Args:
        task: any; without `[data]` nothing is sealed.
        seed: the user's; if None that of the studies of these examples, or 0 where there are none.
        study: the study whose split it is; those beside the task and in `./studies` if None.

    Raises:
        StudyError: the study is of other examples, the seed is not the study's, or studies of several
            seeds are known.

    """
    if task.data is None:
        return seed or 0
    if study is not None:
        return _seed_of(study, task, seed)
    seeds = _seeds_of_studies(task)
    if seed is not None:
        for sealed, folder in seeds.items():
            if sealed != seed:
                raise StudyError(
                    f"--seed {seed}: {folder} sealed its test set by seed {sealed}, and another seed would "
                    "put some of it into the training set; leave --seed out, or name the study with "
                    f"--study {folder}"
                )
        return seed
    if len(seeds) > 1:
        studies = ", ".join(f"{folder} (seed {sealed})" for sealed, folder in seeds.items())
        raise StudyError(f"these studies sealed different test sets: {studies}; name one with --study")
    return next(iter(seeds), 0)


def _seed_of(study: Path, task: Task, seed: int | None) -> int:
    """The seed of one study, which the user's must equal."""
    manifest = read_manifest(study)
    sealed = manifest.seed
    if seed is not None and seed != sealed:
        raise StudyError(f"--seed {seed}: {study} sealed its test set by seed {sealed}; leave --seed out")
    if manifest.data_sha256 != prepare(task, sealed).fingerprint:
        raise StudyError(f"{study}: measured other examples than those of {task.name} now; run a new study")
    return sealed


def _seeds_of_studies(task: Task) -> dict[int, Path]:
    """Seed -> a study of the task's examples."""
    folders = {
        *map(Path, _registered(task)),
        *(path.parent.resolve() for path in Path("studies").glob(f"*/{MANIFEST}")),
    }
    if not folders:
        return {}
    fingerprint = prepare(task, 0).fingerprint  # the same for every seed
    seeds: dict[int, Path] = {}
    for folder in sorted(folders):
        with suppress(StudyError):  # removed since, or of another version
            manifest = read_manifest(folder)
            if manifest.data_sha256 == fingerprint:
                seeds.setdefault(manifest.seed, folder)
    return seeds


def _registered(task: Task) -> list[str]:
    """Addresses beside task.toml; none where the register is missing or damaged."""
    try:
        addresses = json.loads((task.folder / REGISTER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    if not isinstance(addresses, list):
        return []
    return [address for address in addresses if isinstance(address, str)]
