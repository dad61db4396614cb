"""Look at a data file before anything is written or spent: guesses, audit and quote as JSON.

python first_look.py DATA.csv
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def tunepoint(*words: str) -> str:
    """Run a command and return what it prints; its error ends the script."""
    done = subprocess.run(
        [sys.executable, "-c", "from tunepoint.cli.app import app; app()", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr.strip() or done.stdout.strip())
    return done.stdout


def main() -> None:
    """Work on a copy, so that nothing appears beside the user's file."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    data = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / data.name
        shutil.copy(data, copy)
        guesses = [line[2:] for line in tunepoint("init", str(copy)).splitlines() if line.startswith("• ")]
        task = str(copy.parent)
        audit = json.loads(tunepoint("check", task, "--json"))
        quote = tunepoint("quote", task).splitlines()
    findings = ("dropped", "contradictions", "near_duplicates", "thin", "personal")
    counts = {name: len(audit[name]) for name in findings}
    print(json.dumps({"guesses": guesses, "rows": audit["read"], "found": counts, "quote": quote}, indent=2))


if __name__ == "__main__":
    main()
