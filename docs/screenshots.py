"""Take the pictures of the documentation from a finished study: `make screenshots`.

    python docs/screenshots.py [STUDY]

STUDY is the demo's directory (`make demo` writes it), studies/support-triage-demo unless given. The
pictures are written to docs/images/.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "support-triage" / "messages.csv"
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


def photograph_studio(target: Path, browser_path: str) -> None:
    """Drop the example's data into a studio, and write the task's page as a PNG."""
    import threading
    import time

    import uvicorn
    from playwright.sync_api import sync_playwright

    from tunepoint.studio.application import application

    with tempfile.TemporaryDirectory() as folder:
        app, _ = application(Path(folder), "token", 8_484)
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        with sync_playwright() as driver:
            browser = driver.chromium.launch(
                executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
            page.goto(f"http://127.0.0.1:{port}/?token=token")
            page.set_input_files("#file", str(EXAMPLE))
            page.wait_for_selector("text=Your data")
            page.screenshot(path=str(target))
            browser.close()
        server.should_exit = True
        thread.join(timeout=10)


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
    photograph_studio(IMAGES / "studio.png", browser_path)
    print(f"wrote {IMAGES / 'report.png'} and {IMAGES / 'studio.png'}")


if __name__ == "__main__":
    main()
