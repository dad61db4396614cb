"""A PostgreSQL server of our own, on a socket in a folder; tests may stop it and start it again."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BINARIES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
INSTALLED = BINARIES is not None and shutil.which("runuser") is not None


@dataclass(frozen=True)
class Postgres:
    """A server that runs, and its address."""

    folder: Path

    @property
    def url(self) -> str:
        return f"postgresql://tunepoint@/postgres?host={self.folder}"

    def start(self) -> None:
        settings = f"-c listen_addresses= -c unix_socket_directories={self.folder} -c fsync=off"
        settings += " -c max_connections=200"
        self.call("pg_ctl", "-D", self.data, "-w", "-o", settings, "-l", f"{self.folder}/log", "start")

    def stop(self) -> None:
        """End it as a crash does."""
        self.call("pg_ctl", "-D", self.data, "-m", "immediate", "stop")

    @property
    def data(self) -> str:
        return str(self.folder / "data")

    def call(self, program: str, *words: str) -> None:
        as_user = [] if os.getuid() else ["runuser", "-u", "postgres", "--"]
        command = [*as_user, f"{BINARIES}/{program}", *words]
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder)


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """Make a server; its data goes at the end."""
    folder = Path(tempfile.mkdtemp(prefix="tp-pg-", dir="/tmp"))  # a socket's path has to be short
    folder.chmod(0o755)
    if not os.getuid():
        shutil.chown(folder, "postgres")
    server = Postgres(folder)
    try:
        server.call("initdb", "-D", server.data, "-A", "trust", "-U", "tunepoint", "--no-sync")
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
