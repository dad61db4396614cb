"""A server that ends with the process that started it.

A parent that is killed can end nobody. This process, `python -m tunepoint.models.kept_server PARENT COMMAND`,
starts the command, looks who its own parent is, and ends the command when that is gone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import FrameType

LOOK_SECONDS = 0.5
STOP_SECONDS = 20.0


def main() -> int:
    """Run the command until it ends, its parent is gone, or this process is asked to stop."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    process = subprocess.Popen(command)

    def stop(number: int, frame: FrameType | None) -> None:
        process.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    while process.poll() is None:
        if os.getppid() != parent:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        time.sleep(LOOK_SECONDS)
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
