"""The seal outside a study: which split a command may train on, export or harvest by.

A study seals its test set by its seed. A command that splits the same examples by another seed
would put sealed items into train, so each study leaves its address beside task.toml, and
commands without a study of their own ask here for the seed.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from tunepoint.data.prepare import prepare
from tunepoint.errors import StudyError
from tunepoint.files.text import write_json
from tunepoint.study.directory import read_manifest
from tunepoint.task.task import Task

REGISTER = ".tunepoint-studies.json"
"""Beside task.toml: the directories of the task's studies."""


def register_study(task: Task, folder: Path) -> None:
    """Leave the study's address beside task.toml; a folder that cannot be written is passed over."""
    address = str(folder.resolve())
    addresses = _registered(task)
    if address not in addresses:
        with suppress(StudyError):  # an installed example, say: its studies stand in ./studies
            write_json(task.folder / REGISTER, [*addresses, address])


def seed_of_seal(task: Task, *, seed: int | None = None, study: Path | None = None) -> int:
    """The seed by which a command splits the task's examples, so that no sealed item leaves its seal.

    Args:
        task: any; without `[data]` nothing is sealed.
        seed: what the user asks for; that of the studies of these examples if None, else 0.
        study: the study whose split it is; those beside the task and in `./studies` if None.

    Raises:
        StudyError: the study is of other examples, the seed is not the study's, or studies of several
            seeds are known.

    """
    if task.data is None:
        return seed or 0
    if study is not None:
        return _seed_of(study, task, seed)
    seeds = _known_seeds(task)
    if seed is not None:
        for sealed, folder in seeds.items():
            if sealed != seed:
                raise StudyError(
                    f"--seed {seed}: {folder} sealed its test set by seed {sealed}, and another seed would "
                    f"put sealed items into train; leave --seed out, or name the study with --study {folder}"
                )
        return seed
    if len(seeds) > 1:
        studies = ", ".join(f"{folder} (seed {sealed})" for sealed, folder in seeds.items())
        raise StudyError(f"these studies sealed different test sets: {studies}; name one with --study")
    return next(iter(seeds), 0)


def _seed_of(study: Path, task: Task, seed: int | None) -> int:
    manifest = read_manifest(study)
    sealed = int(manifest["seed"])
    if seed is not None and seed != sealed:
        raise StudyError(f"--seed {seed}: {study} sealed its test set by seed {sealed}; leave --seed out")
    if manifest["data_sha256"] != prepare(task, sealed).fingerprint:
        raise StudyError(f"{study}: measured other examples than those of {task.name} now; run a new study")
    return sealed


def _known_seeds(task: Task) -> dict[int, Path]:
    """Seed -> a study of the task's examples."""
    folders = {*map(Path, _registered(task)), *(path.parent.resolve() for path in _beside_us())}
    if not folders:
        return {}
    fingerprint = prepare(task, 0).fingerprint  # the same for every seed
    seeds: dict[int, Path] = {}
    for folder in sorted(folders):
        with suppress(StudyError):  # removed since, or of another version
            manifest = read_manifest(folder)
            if manifest["data_sha256"] == fingerprint:
                seeds.setdefault(int(manifest["seed"]), folder)
    return seeds


def _beside_us() -> list[Path]:
    return list(Path("studies").glob("*/manifest.json"))


def _registered(task: Task) -> list[str]:
    try:
        addresses = json.loads((task.folder / REGISTER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return (
        [address for address in addresses if isinstance(address, str)] if isinstance(addresses, list) else []
    )
