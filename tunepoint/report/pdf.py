"""The report on paper: printed by a browser that is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tunepoint.errors import StudyError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
"""Programs on the PATH, in this order."""
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
)
TIMEOUT_SECONDS = 120
CHARTS_MILLISECONDS = 5_000
"""Of the page's own clock, in which its charts are drawn."""


def find_browser() -> str | None:
    """Return the program of a browser that prints; None if there is none."""
    paths = (shutil.which(name) for name in BROWSERS)
    return next(filter(None, (*paths, *(place for place in PLACES if Path(place).exists()))), None)


def print_pdf(page: Path, target: Path) -> None:
    """Print a page of this machine as a PDF.

    Raises:
        StudyError: no browser is installed, or it printed nothing.

    """
    browser = find_browser()
    if browser is None:
        raise StudyError(
            "--pdf takes Chrome, Chromium or Edge, and none is installed; open report.html in another "
            "browser and print it there"
        )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [browser, "--headless", "--disable-gpu", f"--user-data-dir={profile}", "--no-first-run"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.append("--no-sandbox")  # Chromium refuses to run as root with it
        command += [f"--virtual-time-budget={CHARTS_MILLISECONDS}", "--no-pdf-header-footer"]
        command += [f"--print-to-pdf={target.resolve()}", page.resolve().as_uri()]
        target.unlink(missing_ok=True)
        try:
            done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StudyError(f"{browser} did not print: {error}") from None
    if not target.exists():
        messages = done.stderr.decode(errors="replace").strip().splitlines()
        reason = messages[-1] if messages else "it said nothing"
        raise StudyError(f"{browser} did not print {target}: {reason}")
