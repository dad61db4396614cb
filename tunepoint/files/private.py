"""Files that hold people's texts: created so that only their owner may read them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

PRIVATE_MODE = 0o600
"""Read and written by the owner, and by nobody else."""


def create_private(path: Path) -> None:
    """Create an empty private file; leave a file that is there as it is.

    The mode is set when the file is created, so that nobody can open it in between. SQLite gives the
    files beside a database (`-wal`, `-shm`, `-journal`) the mode of the database.

    Raises:
        OSError: the file cannot be created.

    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE_MODE))
