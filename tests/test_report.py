from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from tunepoint import Result
from tunepoint.report.html import build_report, rebuild_report
from tunepoint.report.terminal import print_decision
from tunepoint.report.words import crossing_words, headline, seconds, tiny_usd, usd

CHROMIUM = shutil.which("chromium")


def parts(finished: Result) -> tuple[dict, dict]:
    assert finished.folder is not None
    return tuple(
        json.loads((finished.folder / f"{n}.json").read_text()) for n in ("decision", "measurements")
    )


def test_the_report_is_one_small_file_that_names_no_other(finished: Result) -> None:
    assert finished.report is not None
    page = finished.report.read_text()
    assert len(page.encode()) < 5_000_000
    assert '<link rel="stylesheet"' not in page and 'src="http' not in page
    for heading in (
        "Frontier",
        "Cost by volume",
        "Learning curve",
        "Signals",
        "Where the finalists disagree",
        "Data audit",
        "Caveats",
        "What would reverse the verdict",
        "How to reproduce it",
        "Not run, because",
    ):
        assert heading in page


def test_text_from_the_data_cannot_become_code(finished: Result) -> None:
    decision, measurements = parts(finished)
    evil = "</script><script>alert(1)</script>"
    decision["caveats"] = [evil]
    measurements["disagreements"][0]["input"] = evil
    page = build_report(decision, measurements)
    assert evil not in page
    assert page.count("alert(1)") >= 2


def test_a_rebuilt_report_is_the_same(finished: Result) -> None:
    assert finished.folder is not None and finished.report is not None
    before = finished.report.read_text()
    assert rebuild_report(finished.folder).read_text() == before


def test_headlines() -> None:
    base = {"verdict": "fine-tune", "strength": "confident", "winner": "x"}
    assert headline(base) == "Fine-tune: x (confident)."
    undecided = {"verdict": "undecided", "strength": None, "winner": "x"}
    assert headline(undecided) == "Not enough evidence yet: the best bet is x."


def test_numbers_as_people_write_them() -> None:
    assert [usd(None), usd(12.345), usd(1234.5), usd(-0.5)] == ["–", "$12.35", "$1,234", "-$0.50"]
    assert [tiny_usd(None), tiny_usd(0.00000123), tiny_usd(0.5)] == ["–", "$1.2e-06", "$0.5000"]
    assert [seconds(None), seconds(0.0123), seconds(2.0)] == ["–", "12 ms", "2.0 s"]
    never = {"from": "a", "to": "b", "queries_per_month": None, "probability_never": 1}
    assert crossing_words(never) == "b never becomes cheaper than a"


def test_the_terminal_shows_markup_as_text(finished: Result) -> None:
    decision, _ = parts(finished)
    decision["caveats"] = ["a [red]strange[/red] name"]
    console = Console(record=True, width=100)
    print_decision(decision, console)
    assert "a [red]strange[/red] name" in console.export_text()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (390, "dark")])
def test_in_a_real_browser(finished: Result, width: int, scheme: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    assert finished.report is not None
    errors: list[str] = []
    requests: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(Path(finished.report).resolve().as_uri())
        page.wait_for_selector("#volume-chart .main-svg")
        before = page.inner_text("#live"), page.inner_text("#live-rows")
        assert f"20,000 to 90,000 queries a month over 12 months: {finished.document['winner']}" in before[0]
        assert (finished.document["strength"] or "undecided") in before[0]
        page.fill("#volume", "6.5")
        assert "3,200,000 queries" in page.inner_text("#live")
        after = page.inner_text("#live"), page.inner_text("#live-rows")
        assert after[0] != before[0] and after[1] != before[1]
        page.fill("#months", "36")
        assert page.inner_text("#live-rows") != after[1]
        page.click("summary:has-text('More assumptions')")
        page.fill("#growth", "5")
        page.locator("#prices input").first.fill("300")
        page.click("#declared")
        assert page.input_value("#growth") == "0"
        assert page.locator("#prices input").first.input_value() == "100"
        assert (page.inner_text("#live"), page.inner_text("#live-rows")) == before
        assert page.locator(".main-svg").count() >= 4
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.emulate_media(color_scheme="dark" if scheme == "light" else "light")
        page.wait_for_timeout(200)
        browser.close()
    assert errors == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []


def plain_rule(decision: Result, volume: float) -> str:
    """The best bet of the Python rule on all its draws at another volume."""
    evidence = decision.decision.evidence
    return evidence.costs.arms[evidence.best(volume)]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
def test_the_slider_applies_the_same_rule_as_python(finished: Result) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(Path(str(finished.report)).resolve().as_uri())
        shown = {}
        for power in ("2", "7"):
            page.fill("#volume", power)
            shown[power] = page.inner_text("#live")
        browser.close()
    for power, text in shown.items():
        assert plain_rule(finished, 10.0 ** int(power)) in text
