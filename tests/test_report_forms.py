"""The report in other forms: every test example, Markdown, PDF, what changed since; and for every reader."""

from __future__ import annotations

import base64
import copy
import gzip
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_report import CHROMIUM, parts
from typer.testing import CliRunner

from tunepoint import Example, Result, Task, Trial, decide_trials
from tunepoint.cli.app import app
from tunepoint.errors import StudyError
from tunepoint.report.comparison import changes
from tunepoint.report.items import packed_items
from tunepoint.report.markdown import markdown
from tunepoint.report.notebook import notebook_html
from tunepoint.report.pdf import print_pdf
from tunepoint.study.items import write_items

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")


def unpacked(packed: str | None) -> dict[str, Any]:
    assert packed is not None
    content: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(packed)))
    return content


def invoked(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["report", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.output


# -- every test example ------------------------------------------------------------------------


def test_a_study_lists_every_test_example_with_each_options_answer(finished: Result) -> None:
    assert finished.folder is not None
    content = unpacked(packed_items(finished.folder))
    assert len(content["items"]) == finished.document["items"] == len(content["inputs"])
    assert set(content["arms"]) == {f["arm"] for f in finished.document["finalists"]}
    for finalist in finished.document["finalists"]:
        scores = content["arms"][finalist["arm"]]["scores"]
        assert sum(scores) / len(scores) == pytest.approx(finalist["score"]["estimate"], abs=1e-3)


def examples_of(count: int) -> list[Example]:
    return [Example(str(i), f"input {i}", '{"a": 1, "b": 2}') for i in range(count)]


def write_json_study(folder: Path, count: int = 80) -> Path:
    """A study of JSON answers with prompts, one judged."""
    examples = examples_of(count)
    trials = []
    for i, example in enumerate(examples):
        answer = example.target if i % 2 else '{"a": 1, "b": 3}'
        trials.append(Trial(arm="prompt", item=example.id, score=float(i % 2), answer=answer, why="b is off"))
        tuned = {"score": 1, "answer": example.target, "input_tokens": 7, "cost_usd": 1e-4}
        trials.append(Trial(arm="tuned", item=example.id, **tuned))
    path = folder / "trials.jsonl"
    path.write_text("".join(trial.line() for trial in trials))
    result = decide_trials(path, Task.parse({"name": "t"}), out=folder / "study")
    assert result.folder is not None
    sent = [f"[user]\nDo it.\nshown {i % 3}\n{example.input}" for i, example in enumerate(examples)]
    write_items(result.folder, trials, ["prompt", "tuned"], examples, {"prompt": sent})
    return result.folder


def test_prompts_share_their_lines_and_stay_out_where_they_are_too_much(tmp_path: Path) -> None:
    folder = write_json_study(tmp_path)
    content = unpacked(packed_items(folder))
    assert len(content["lines"]) == 2 + 3 + 80  # the start, three examples, and the inputs
    fifth = content["arms"]["prompt"]["prompts"][4]
    assert "\n".join(content["lines"][at] for at in fifth) == "[user]\nDo it.\nshown 1\ninput 4"
    small = unpacked(packed_items(folder, most=500))
    assert small["lines"] == [] and "prompts" not in small["arms"]["prompt"]
    assert small["inputs"] == content["inputs"]


def test_trials_of_another_tool_are_listed_without_inputs(tmp_path: Path) -> None:
    trials = [Trial(arm=arm, item=str(i), score=float(i % 2)) for i in range(6) for arm in "ab"]
    write_items(tmp_path, trials, ["a", "b"])
    content = unpacked(packed_items(tmp_path))
    assert content["inputs"] == [None] * 6 and content["arms"]["a"]["scores"] == [0, 1] * 3
    assert packed_items(tmp_path / "none") is None


def test_several_runs_are_shown_by_the_first_answer_and_the_mean_score(tmp_path: Path) -> None:
    trials = [Trial(arm="a", item="1", score=run, seed=str(run), answer=f"answer {run}") for run in (0, 1)]
    write_items(tmp_path, trials, ["a"])
    columns = unpacked(packed_items(tmp_path))["arms"]["a"]
    assert (columns["answers"], columns["scores"], columns["runs"]) == (["answer 0"], [0.5], [2])


def test_a_report_can_leave_the_examples_out(finished: Result, tmp_path: Path) -> None:
    assert finished.folder is not None
    study = tmp_path / "study"
    shutil.copytree(finished.folder, study)
    assert 'id="items-data"' in (invoked(study) and (study / "report.html").read_text())
    inputs = json.loads((study / "items.json").read_text())["inputs"]
    assert len(inputs) > 10 and all(isinstance(text, str) for text in inputs)
    invoked(study, "--no-items")
    for _ in range(2):  # a report that is built again leaves them out too
        text = (study / "report.html").read_text()
        assert 'id="items-data"' not in text and not any(len(i) > 20 and i in text for i in inputs)
        invoked(study)


@needs_browser
def test_examples_are_filtered_searched_and_opened_in_a_browser(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    folder = write_json_study(tmp_path)
    invoked(folder)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto((folder / "report.html").resolve().as_uri())
        page.evaluate("document.getElementById('items').scrollIntoView()")
        page.wait_for_selector("#items-list .item")
        assert page.inner_text("#items-count").startswith("40 of 80 test examples.")
        assert page.locator("#items-list .item").count() == 40
        page.select_option("#items-show", "all")
        assert page.locator("#items-list .item").count() == 50 and page.is_visible("#items-more")
        page.click("#items-more")
        assert page.locator("#items-list .item").count() == 80 and not page.is_visible("#items-more")
        page.fill("#items-search", "INPUT 12")
        assert page.inner_text("#items-count").startswith("1 of 80")
        page.click("#items-list .item summary")
        page.wait_for_selector("#items-list .answer")
        opened = page.inner_text("#items-list .item")
        assert "Right answer" in opened and "The judge: b is off" in opened and "7 tokens in" in opened
        assert page.inner_text("#items-list tr.unlike") == "b\t3\t2"  # the field that is off
        page.click("text=The prompt as sent")
        page.wait_for_selector("#items-list .answer details pre")
        assert "shown 0\ninput 12" in page.inner_text("#items-list")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        browser.close()
    assert faults == []


# -- for every reader ----------------------------------------------------------------------------


@needs_browser
@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (390, "dark")])
def test_axe_finds_nothing_serious(finished: Result, width: int, scheme: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    spec = importlib.util.find_spec("axe_core_python")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("axe-core-python is not installed")
    axe = Path(spec.submodule_search_locations[0]) / "axe.min.js"
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context(
            bypass_csp=True, viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        page = context.new_page()
        page.goto(Path(str(finished.report)).resolve().as_uri())
        page.evaluate("document.getElementById('items').scrollIntoView()")
        page.wait_for_selector("#items-list .item")
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        page.evaluate(axe.read_text(encoding="utf-8"))
        violations = page.evaluate("axe.run().then((found) => found.violations)")
        browser.close()
    serious = [(v["id"], v["nodes"][0]["html"]) for v in violations if v["impact"] in ("serious", "critical")]
    assert serious == []


@needs_browser
def test_the_first_screen_fits_on_the_first_page_of_a_pdf(finished: Result, tmp_path: Path) -> None:
    study = tmp_path / "study"
    shutil.copytree(str(finished.folder), study)
    assert "report.pdf" in invoked(study, "--pdf")
    printed = (study / "report.pdf").read_bytes()
    assert printed.startswith(b"%PDF") and len(printed) > 20_000


def test_without_a_browser_printing_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunepoint.report.pdf.find_browser", lambda: None)
    with pytest.raises(StudyError, match="takes Chrome, Chromium or Edge, and none is installed"):
        print_pdf(tmp_path / "report.html", tmp_path / "report.pdf")
    monkeypatch.setattr("tunepoint.report.pdf.find_browser", lambda: str(tmp_path / "nothing"))
    with pytest.raises(StudyError, match="did not print"):
        print_pdf(tmp_path / "report.html", tmp_path / "report.pdf")
    monkeypatch.setattr("tunepoint.report.pdf.find_browser", lambda: shutil.which("true"))
    with pytest.raises(StudyError, match="it said nothing"):
        print_pdf(tmp_path / "report.html", tmp_path / "report.pdf")


# -- Markdown and what changed ---------------------------------------------------------------------


def test_the_verdict_as_markdown_keeps_text_of_the_data_as_text(finished: Result) -> None:
    decision, measurements = parts(finished)
    decision["caveats"] = ["a *strange* <b>name</b> | and a\nline"]
    text = markdown(decision, measurements["not_run"], "studies/small")
    assert r"a \*strange\* \<b\>name\</b\> \| and a line" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(decision["finalists"])
    assert len({row.count("|") - row.count("\\|") for row in rows}) == 1
    assert "`tunepoint " in text and text.startswith("## ")


def test_what_has_changed_since_an_earlier_study_is_said(finished: Result) -> None:
    old, _ = parts(finished)
    assert changes(old, old) == ["Nothing: verdict, options, costs and assumptions are the same."]
    new = copy.deepcopy(old)
    first, second, *_ = new["finalists"]
    new["finalists"] = new["finalists"][1:]
    second["score"]["estimate"] += 0.05
    second["expected_usd"]["total"] *= 2
    new["items"] += 10
    new["provenance"]["assumptions"]["value"]["error_usd"] = "9"
    new["strength"], new["winner"] = None, second["arm"]
    differences = "\n".join(changes(old, new))
    assert differences.startswith("The verdict is another one: Not sure yet.")
    assert f"{old['items'] + 10} test examples, before {old['items']}." in differences
    assert "Gone: " in differences and "(+5.0 points)" in differences and " in all, before " in differences
    assert "value.error_usd is 9, before" in differences
    assert "New: " in "\n".join(changes(new, old)) and first["arm"]


def test_the_command_prints_markdown_and_changes(finished: Result, tmp_path: Path) -> None:
    study = finished.folder
    assert invoked(study, "--markdown").startswith("## ")
    assert f"Since {study}:\n  Nothing" in invoked(study, "--compare", study)
    missing = CliRunner().invoke(app, ["report", str(study), "--compare", str(tmp_path)])
    assert missing.exit_code == 2 and "no decision.json" in missing.output


def test_a_result_shows_itself_in_a_notebook(finished: Result) -> None:
    shown = finished._repr_html_()
    assert shown.count("<tr>") == 1 + len(finished.document["finalists"]) and "<b>" in shown
    evil = {**finished.document, "task": "x"}
    evil["finalists"] = [{**f, "label": "<script>alert(1)</script>"} for f in evil["finalists"]]
    assert "<script>" not in notebook_html(evil, "study")
