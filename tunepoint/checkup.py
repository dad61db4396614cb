"""What is installed and reachable, for `tunepoint doctor`."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tunepoint.errors import ModelError

FREE_GB = 1.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for."""

    name: str
    ok: bool
    detail: str
    needed: bool = True
    """False for what only some tasks need."""


def checkup() -> list[Finding]:
    """Everything that a study may need, in the order in which it needs it."""
    found = [
        Finding(
            "python", sys.version_info >= (3, 11), f"{platform.python_version()}, 3.11 or later is needed"
        )
    ]
    found += [_package(name) for name in ("numpy", "scipy", "scikit-learn", "pydantic")]
    found += [_package(name, "pip install 'tunepoint[tune]'") for name in ("torch", "transformers")]
    found.append(_package("pyarrow", "only for Parquet: pip install 'tunepoint[parquet]'", needed=False))
    found += [_weights(), _disk()]
    return found


def _package(name: str, remedy: str = "reinstall tunepoint", *, needed: bool = True) -> Finding:
    try:
        return Finding(name, True, version(name), needed)
    except PackageNotFoundError:
        return Finding(name, False, remedy, needed)


def _weights() -> Finding:
    """The embedded encoder's weights, verified by their hash."""
    if importlib.util.find_spec("torch") is None:
        return Finding("embedded:minilm", False, "needs torch first")
    from tunepoint.models.encoder import check_weights, find_weights

    return _weights_at(find_weights, check_weights)


def _weights_at(find: Callable[[], Path], check: Callable[[Path], None]) -> Finding:
    try:
        folder = find()
        check(folder)
    except ModelError as error:
        return Finding("embedded:minilm", False, str(error))
    return Finding("embedded:minilm", True, f"weights verified in {folder}")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    return Finding("disk", free > FREE_GB, f"{free:.1f} GB free here, {FREE_GB:g} GB are enough")
