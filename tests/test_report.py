from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tunepoint import Result
from tunepoint.decision.numbers import about_usd, at_start, is_realistic, seconds, tiny_usd, usd
from tunepoint.report.advice import saving_sentence
from tunepoint.report.first_screen import choice_words, first_screen, headline, strength_sentence
from tunepoint.report.html import build_report, rebuild_report
from tunepoint.report.names import Names
from tunepoint.report.terminal import print_details, print_verdict
from tunepoint.report.words import crossing_words, settling_words, signal_words
from tunepoint.stats.ranges import Quantiles, Range

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
        "What to do next",
        "When this would be wrong",
        "What was tried",
        "The options",
        "Cost by volume",
        "Learning curve",
        "Signals",
        "Where the options disagree",
        "Data audit",
        "Caveats",
        "What would change the verdict",
        "How to reproduce it",
        "Not tried, because",
        "Terms",
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


def test_the_report_names_targets_that_cannot_be_read(finished: Result) -> None:
    decision, measurements = parts(finished)
    measurements["audit"]["notes"] = ["a.csv:1: read as the names of the columns"]
    measurements["audit"]["unreadable"] = [{"id": "a.csv:7", "target": "about <5>", "reason": "no number"}]
    page = build_report(decision, measurements)
    assert "<li>a.csv:1: read as the names of the columns</li>" in page
    assert "<li>a.csv:7: about &lt;5&gt; is no number</li>" in page
    for added in ("notes", "unreadable"):  # studies of before have neither
        del measurements["audit"][added]
    assert "cannot be read" not in build_report(decision, measurements)


def test_a_rebuilt_report_is_the_same(finished: Result) -> None:
    assert finished.folder is not None and finished.report is not None
    before, after = finished.report.read_text(), rebuild_report(finished.folder).read_text()
    place = re.compile(r"\S+/(?:small-study/study|studies\d*/small)")  # the commands name the folder
    assert place.sub("STUDY", after) == place.sub("STUDY", before)


def decided(kind: str, against: str = "prompt", usd: float = 15_432.0, **more: Any) -> dict[str, Any]:
    """A decision for x, of this kind, in place of y."""
    return {
        "verdict": "fine-tune",
        "strength": "leaning",
        "winner": "x",
        "risks": {"wrong": 0.166},
        "finalists": [finalist("x", kind, 0.9), finalist("y", against, 0.87)],
        "differences": [{"against": "y", "estimate": 0.032, "low": 0.01, "high": 0.05}],
        "saving": {"against": "y", "today": False, "usd": usd, "low": 9_000.0, "high": 21_000.0},
        "provenance": {"assumptions": {"traffic": {"horizon_months": 12}, "value": {}}},
        **more,
    }


def test_a_headline_says_what_to_do_and_what_that_saves() -> None:
    saved = "It should save about $15,400 a year against prompting."
    assert headline(decided("tuned")) == f"Fine-tune a model. {saved}"
    small = [{"name": "m", "role": "tuned", "parameters": 22_000_000}]
    assert headline(decided("tuned", models=small)).startswith("Fine-tune a small model. It should save")
    priced = {"assumptions": {"traffic": {"horizon_months": 24}, "value": {"error_usd": "0.4"}}}
    assert headline(decided("tuned", provenance=priced)) == (
        "Fine-tune a model. It should save about $15,400 over 24 months against prompting, errors included."
    )
    undecided = decided("tuned", strength=None, verdict="undecided")
    assert headline(undecided) == "Not sure yet. Best so far: x."
    old = decided("prompt")
    del old["saving"]
    assert headline(old) == "Keep prompting."


MORE = "It should cost about $50 more a year than prompting"
LESS = "Fine-tuning should save about $800 a year"


@pytest.mark.parametrize(
    ("kind", "other", "usd", "lead", "words"),
    [
        ("tuned", "prompt", 1_234.0, 0.02, "It should save about $1,230 a year against prompting."),
        ("tuned", "prompt", -50.0, 0.02, f"{MORE}, for 2.0 points more right answers."),
        ("tuned", "prompt", -50.0, 0.0, f"{MORE}."),
        ("tuned", "prompt", 0.4, 0.02, "It should cost about as much as prompting."),
        (
            "tuned",
            "prompt",
            1_234.0,
            -0.028,
            "It should save about $1,230 a year against prompting, with 2.8 points fewer right answers.",
        ),
        (
            "prompt",
            "tuned",
            800.0,
            -0.01,
            "Fine-tuning should cost about $800 more a year, for 1.0 points more right answers.",
        ),
        ("prompt", "tuned", 800.0, 0.02, "Fine-tuning should cost about $800 more a year."),
        ("prompt", "hybrid", -800.0, 0.02, f"{LESS}, with 2.0 points fewer right answers."),
        ("prompt", "tuned", -800.0, -0.02, f"{LESS}."),
        ("incumbent", "cascade", 0.0, 0.0, "A cascade of two models would cost about the same."),
        ("prompt", "incumbent", 70.0, 0.0, "It should save about $70 a year against what runs today."),
    ],
)
def test_what_is_saved_in_a_sentence(kind: str, other: str, usd: float, lead: float, words: str) -> None:
    assert saving_sentence(kind, other, usd, lead, "a year") == words


def test_how_sure_a_verdict_is() -> None:
    assert strength_sentence(decided("tuned")) == "Likely: 17% chance that another choice is better."
    sure = decided("tuned", strength="confident", risks={"wrong": 0.004})
    assert strength_sentence(sure) == "Confident: under 1% chance that another choice is better."
    assert strength_sentence({"strength": None, "risks": {}}) == "Not sure yet."
    risks = {"wrong": 0.99, "unacceptable": 0.99, "passed_over": 0.0}
    short = decided("tuned", strength=None, risks=risks, migration={})
    assert strength_sentence(short) == "99% sure that it is not as good as today."
    assert headline(short) == "Nothing measured here can replace what runs today. Nearest: x."
    less = decided("tuned", strength=None, risks={**risks, "wrong": 0.6, "unacceptable": 0.6}, migration={})
    assert strength_sentence(less) == "Not sure yet: 60% chance that it is not as good as today."
    assert headline(less) == "Not sure yet. Best so far: x."


def finalist(arm: str, kind: str, score: float, label: str | None = None) -> dict[str, object]:
    return {"arm": arm, "kind": kind, "score": {"estimate": score}, **({"label": label} if label else {})}


def test_what_makes_no_difference_is_said() -> None:
    finalists = [finalist("x", "hybrid", 0.9, "MiniLM + 8 examples"), finalist("y", "tuned", 0.89)]
    lead = {"against": "y", "estimate": 0.01, "low": -0.01, "high": 0.03}
    decision = decided("hybrid", finalists=finalists, differences=[lead])
    assert headline(decision).startswith("Fine-tune a model. ")
    assert choice_words(decision) == (
        "MiniLM + 8 examples instead of y. Its prompt makes no measurable difference. "
        "90% of the simulations put the saving between $9,000 and $21,000."
    )
    better = {**decision, "differences": [{**lead, "low": 0.01}]}
    assert headline(better).startswith("Fine-tune a model and give it a light prompt. ")


def test_short_names_leave_out_what_no_other_option_makes_necessary() -> None:
    labels = (
        "tuned MiniLM (22M)",
        "tuned MiniLM (22M) first, qwen2.5-coder-0.5b, 24 examples when unsure",
        "TF-IDF + logistic regression (no language model)",
        "tuned big (4B)",
        "tuned big (8B)",
    )
    finalists = [finalist(label, "tuned", 0.5, label) for label in labels]
    names = Names.of({"finalists": finalists})
    assert [names.short(label) for label in labels] == [
        "tuned MiniLM",
        "tuned MiniLM, then qwen2.5-coder-0.5b",
        "TF-IDF + logistic regression",
        "tuned big (4B)",
        "tuned big (8B)",
    ]


def test_the_next_step_is_a_command(finished: Result) -> None:
    decision, _ = parts(finished)
    steps = [step.command for step in first_screen(decision, (), "my studies/a").steps]
    if decision["strength"] is None:
        assert steps[0].startswith(("tunepoint label 'my studies/a'", "tunepoint run"))
    else:
        assert steps[0] == "tunepoint serve 'my studies/a'"
    needed = {"why": "Label 40 inputs.", "labels": 40, "recommended": True}
    undecided = {**decision, "strength": None, "evidence_needed": needed, "worth": []}
    (first, _) = first_screen(undecided, (), "a").steps
    assert (first.what, first.command) == ("Label 40 inputs.", "tunepoint label a --pool INPUTS.csv")
    elsewhere = {**decision, "strength": "confident", "provenance": {}}
    (only,) = first_screen(elsewhere, (), "a").steps
    assert only.command.startswith("tunepoint decide --trials ")


def test_the_parts_of_the_cost_add_up_to_the_total(finished: Result) -> None:
    decision, _ = parts(finished)
    for each in decision["finalists"]:
        expected = each["expected_usd"]
        added = expected["build"] + expected["run"] + (expected["errors"] or 0)
        assert expected["total"] == pytest.approx(added, abs=0.02)
    saved = decision["saving"]
    assert saved["low"] <= saved["usd"] <= saved["high"]
    totals = {each["arm"]: each["expected_usd"]["total"] for each in decision["finalists"]}
    assert saved["usd"] == pytest.approx(totals[saved["against"]] - totals[decision["winner"]], abs=0.02)


def test_break_evens_and_signals_in_words() -> None:
    crossing = {
        "from": "p",
        "to": "t",
        "queries_per_month": {"low": 979.2, "likely": 1_995.1, "high": 5_239.0},
        "probability_never": 0.0,
    }
    names = Names({"t": "tuned MiniLM"}, {"p": "prompt", "t": "tuned"})
    assert crossing_words(crossing, names) == (
        "Fine-tuning pays off above about 2,000 queries a month (90% interval 980 to 5,200): "
        "tuned MiniLM instead of p."
    )
    other = crossing_words({**crossing, "probability_never": 0.25}, Names({}, {}))
    assert other.startswith("t instead of p pays off above about 2,000 queries a month")
    assert other.endswith("In 25% of the simulations it never does.")
    signal = {"points_to": "fine-tune", "holds": False}
    assert signal_words(signal) == "does not favor fine-tuning"


def test_a_break_even_that_nobody_reaches_is_called_none() -> None:
    band = {"low": 4e7, "likely": 5e7, "high": 6e7}
    far = {"from": "p", "to": "t", "queries_per_month": band, "probability_never": 0, "realistic": False}
    words = crossing_words(far, Names({"p": "the prompt", "t": "the tuned one"}, {}))
    assert words.startswith("The tuned one has no realistic break-even with the prompt")
    assert "50,000,000 queries a month" in words
    likely = Quantiles(**band)
    assert not is_realistic(likely, Range(1e4, 1e4, 1e4)) and not is_realistic(likely, Range(1e6, 2e6, 3e6))
    assert is_realistic(likely, Range(1e7, 4e7, 6e7))  # who has as many already
    assert is_realistic(Quantiles(1, 9e5, 2e6), Range(1e4, 1e4, 1e4))
    assert not is_realistic(Quantiles(1, 2e6, 3e6), Range(1e4, 1e4, 1e4))


def test_evidence_that_is_not_worth_its_price_is_not_asked_for() -> None:
    needed = {"why": "About 28,400 more test items would settle it", "test_items": 28_350}
    needed |= {"training_seeds": None, "training_examples": None}
    worth = [{"value_usd": 3.0, "price_usd": 50.0}]
    winner = {"arm": "x", "expected_regret_usd": 668.0}
    decision = {"evidence_needed": needed, "worth": worth, "winner": "x", "finalists": [winner]}
    assert "Too close to matter" in str(settling_words(decision)) and "$668" in str(settling_words(decision))
    without_price = {**decision, "worth": []}
    assert settling_words(without_price) == "About 28,400 more test items would settle it."
    assert settling_words({**decision, "evidence_needed": None}) is None


def test_a_sentence_begins_with_a_capital_unless_a_model_does_not() -> None:
    assert at_start("tuned MiniLM (22M)") == "Tuned MiniLM (22M)"
    for title in ("qwen2.5-coder-0.5b, 24 examples", "gpt-6-luna, no examples", "a", ""):
        assert at_start(title) == title


def test_numbers_as_people_write_them() -> None:
    assert [usd(None), usd(12.345), usd(1234.5), usd(-0.5)] == ["–", "$12.35", "$1,234", "-$0.50"]
    assert [tiny_usd(None), tiny_usd(0.00000123), tiny_usd(0.5)] == ["–", "$1.23 per million", "$0.5000"]
    assert [seconds(None), seconds(0.0123), seconds(2.0)] == ["–", "12 ms", "2.0 s"]
    never = {"from": "a", "to": "b", "queries_per_month": None, "probability_never": 1}
    assert crossing_words(never, Names({}, {})) == "b never becomes cheaper than a."
    assert [about_usd(1_147.3), about_usd(28.14), about_usd(3.5)] == ["$1,150", "$28", "$3.50"]


def test_the_terminal_shows_markup_as_text(finished: Result) -> None:
    decision, _ = parts(finished)
    decision["caveats"] = ["a [red]strange[/red] name"]
    console = Console(record=True, width=100)
    print_details(decision, console)
    assert "a [red]strange[/red] name" in console.export_text()


@pytest.mark.parametrize("width", [80, 120])
def test_the_verdict_comes_in_fifteen_lines(finished: Result, width: int) -> None:
    decision, _ = parts(finished)
    console = Console(record=True, width=width)
    print_verdict(decision, console, "studies/small")
    text = console.export_text()
    assert len(text.splitlines()) < 15 and headline(decision)[:40] in text
    assert "…" not in text.partition("right answers")[2].partition("→")[0]  # heads are whole
    # an undecided one with long sentences leaves out options, not the next step
    longer = {**decision, "strength": None, "finalists": decision["finalists"] * 3}
    console = Console(record=True, width=width)
    print_verdict(longer, console, "studies/small")
    short = console.export_text()
    assert len(short.splitlines()) < 15 and "more in the report" in short and "Next: " in short
    assert strength_sentence(decision) in text
    assert ("build" in text) == (width == 120)


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
        winner = Names.of(finished.document).short(finished.document["winner"])
        assert f"20,000 to 90,000 queries a month over 12 months: {winner}" in before[0]
        top = page.inner_text("header")
        assert headline(finished.document) in top and strength_sentence(finished.document) in top
        # the page comes to the words of Python by itself
        verdict = page.evaluate("(([v, m]) => tunepoint.verdict(tunepoint.decide(v, m), v, m))([null, 12])")
        assert verdict["title"] == headline(finished.document)
        page.fill("#volume", "6.5")
        assert "3,200,000 queries" in page.inner_text("#live")
        assert "3,200,000 queries a month over 12 months" in page.inner_text("#scenario")
        assert page.get_attribute("#volume", "aria-valuetext") == "3,200,000 queries a month"
        assert page.inner_text("header") != top
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
        assert page.inner_text("header") == top
        assert page.locator(".main-svg").count() >= 2
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.emulate_media(color_scheme="dark" if scheme == "light" else "light")
        page.wait_for_timeout(200)
        browser.close()
    assert errors == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []


def plain_rule(decision: Result, volume: float) -> str:
    """The best bet of the Python rule on all its draws at another volume, as people read it."""
    evidence = decision.decision.evidence
    return Names.of(decision.document).short(evidence.costs.arms[evidence.best_bet(volume)])


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
