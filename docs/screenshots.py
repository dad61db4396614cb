"""Take the pictures of the documentation from a finished study: `make screenshots`.

    python docs/screenshots.py [STUDY]

STUDY is the demo's directory (`make demo` writes it), studies/support-triage-demo unless given. The
pictures are written to docs/images/.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

IMAGES = Path(__file__).resolve().parent / "images"
WIDTH, HEIGHT = 1120, 1200
"""Pixels of a picture: wide enough for the tables, and as high as the verdict with its first chart."""


def photograph(report: Path, target: Path, browser_path: str) -> None:
    """Open a report in a headless browser and write its top as a PNG."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=browser_path,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(report.resolve().as_uri())
        page.wait_for_selector(".main-svg")
        page.wait_for_timeout(500)  # Plotly sets the sizes of its charts a moment after it drew them
        page.screenshot(path=str(target))
        browser.close()


def main() -> None:
    """Take every picture; exit with 2 where the study or the browser is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, nargs="?", default=Path("studies/support-triage-demo"))
    report = parser.parse_args().study / "report.html"
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if not report.exists():
        print(f"{report}: no such file; run `make demo` first, or name a finished study", file=sys.stderr)
        raise SystemExit(2)
    if browser_path is None:
        print("no chromium found on the PATH; install it to take screenshots", file=sys.stderr)
        raise SystemExit(2)
    IMAGES.mkdir(exist_ok=True)
    photograph(report, IMAGES / "report.png", browser_path)
    print(f"wrote {IMAGES / 'report.png'}")


if __name__ == "__main__":
    main()
