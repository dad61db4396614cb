"""The studio: a file, a task, a study, labels, in a browser; and nobody else gets in."""

from __future__ import annotations

import csv
import json
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from conftest import EXAMPLE, QUEUES, write_small
from test_report import CHROMIUM
from typer.testing import CliRunner

from tunepoint import Result, Task
from tunepoint.cli.app import app as command_line
from tunepoint.errors import StudyError, TaskError
from tunepoint.studio import jobs as studio_jobs
from tunepoint.studio.application import COOKIE, Studio, address, application
from tunepoint.studio.jobs import Jobs, Standings
from tunepoint.studio.label_queue import fill_in, queue
from tunepoint.studio.process import run_studio
from tunepoint.studio.tasks import TaskForm, save_task, task_form
from tunepoint.study.labelling.sheet import SHEET, write_sheet

TOKEN = "a-token-of-this-test"


@contextmanager
def studio_in(folder: Path) -> Iterator[tuple[str, Studio]]:
    """A studio that answers; its address and what it holds."""
    app, studio = application(folder, TOKEN, gateway_port=18_484)
    config = uvicorn.Config(app, port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", studio
    finally:
        server.should_exit = True
        studio.jobs.stop_all()
        thread.join(timeout=10)


def signed_in(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, cookies={f"{COOKIE}{url.rpartition(':')[2]}": TOKEN}, timeout=60)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    with (
        studio_in(tmp_path) as (url, _),
        signed_in(url) as client,
    ):
        yield client


def csv_of(folder: Path) -> Path:
    """A file like those that people have: no task beside it."""
    write_small(folder)
    (folder / "task.toml").unlink()
    return folder / "messages.csv"


def upload(client: httpx.Client, path: Path) -> str:
    answer = client.post("/api/data", params={"name": path.name}, content=path.read_bytes())
    assert answer.status_code == 200, answer.text
    task: str = answer.json()["task"]
    return task


# -- who may ask -------------------------------------------------------------------------------


def test_only_the_page_with_the_token_gets_in(tmp_path: Path) -> None:
    with studio_in(tmp_path) as (url, _), httpx.Client(base_url=url) as client:
        assert client.get("/api/home").status_code == 403
        assert client.get("/").status_code == 403
        assert client.get("/?token=wrong").status_code == 403
        assert client.get("/assets/studio.js").status_code == 403
        opened = client.get(f"/?token={TOKEN}")
        assert opened.status_code == 303 and "samesite=strict" in opened.headers["set-cookie"].lower()
        assert "httponly" in opened.headers["set-cookie"].lower()
        assert client.get("/").status_code == 200 and client.get("/api/home").status_code == 200
        for headers in ({"origin": "https://evil.example"}, {"host": "evil.example"}):
            assert client.get("/api/home", headers=headers).status_code == 403
            assert client.post("/api/stop", params={"name": "x"}, headers=headers).status_code == 403
        assert client.get("/api/home", headers={"origin": url}).status_code == 200
        assert client.get("/assets/other").status_code == 404


def test_the_address_is_printed_and_a_taken_port_is_named(tmp_path: Path) -> None:
    assert address(8_485, "a+b") == "http://127.0.0.1:8485/?token=a%2Bb"
    with studio_in(tmp_path) as (url, _), pytest.raises(TaskError, match="cannot be used"):
        run_studio(tmp_path, int(url.rpartition(":")[2]), 8_484, browse=False, echo=print)


def test_nothing_outside_of_the_folder_is_read(client: httpx.Client, tmp_path: Path) -> None:
    (tmp_path.parent / "task.toml").write_text('name = "outside"')
    for path, name in (("task", ".."), ("task", "../" + tmp_path.name), ("report", "../x"), ("labels", ".")):
        refused = client.get(f"/api/{path}", params={"name": name})
        assert refused.status_code == 400 and "no " in refused.json()["error"]


# -- a task --------------------------------------------------------------------------------------


def test_a_file_becomes_a_task_whose_guesses_are_shown_and_corrected(
    client: httpx.Client, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    name = upload(client, csv_of(tmp_path / "mine"))
    assert name == "messages" and (tmp_path / "messages" / "messages.csv").exists()
    shown = client.get("/api/task", params={"name": name}).json()
    assert shown["form"]["inputs"] == ["text"] and shown["form"]["target"] == "queue"
    assert len(shown["preview"]) == 3 and shown["columns"] == ["date", "customer_id", "queue", "text"]
    form = {**shown["form"], "instruction": "Route it.", "error_usd": 0.4, "queries_per_month": 50_000}
    form |= {"prompt": "Route this: {input}", "models": ["openai/gpt-6-luna"]}
    saved = client.post("/api/task", params={"name": name}, json=form)
    assert saved.status_code == 200, saved.text
    task = Task.load(tmp_path / "messages")
    assert (task.instruction, float(task.value.error_usd or 0)) == ("Route it.", 0.4)
    assert task.traffic.queries_per_month.likely == 50_000
    assert [model.name for model in task.models] == ["openai/gpt-6-luna"]
    assert task.prompts[0].name == "today"
    assert "# A Tunepoint task" in saved.json()["toml"]  # comments stay
    assert upload(client, tmp_path / "mine" / "messages.csv") == "messages-2"  # nothing is overwritten


def log_lines(data: Path, count: int) -> str:
    with data.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:count]
    return "".join(
        json.dumps({"input": row["text"], "output": row["queue"], "input_tokens": 90}) + "\n" for row in rows
    )


def test_a_log_of_what_runs_today_becomes_an_option(client: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    data = csv_of(tmp_path / "mine")
    name, folder = upload(client, data), tmp_path / "messages"
    before = (folder / "task.toml").read_text()

    def send(file: str, content: str, **prices: str) -> httpx.Response:
        asked = {"name": name, "file": file, **prices}
        return client.post("/api/log", params=asked, content=content.encode())

    for file, content, fault in [
        ("log.csv", "a,b", "give a log that ends in .jsonl"),
        ("log.jsonl", '{"input": "x"}\n', "log.jsonl:1: output: field required"),
        ("log.jsonl", '{"item": "other.csv:1", "output": "a"}\n', "its first line answers 'other.csv:1'"),
    ]:
        refused = send(file, content)
        assert refused.status_code == 400 and fault in refused.json()["error"], refused.text
        assert (folder / "task.toml").read_text() == before and not list(folder.glob("*.jsonl"))
    half = send("log.jsonl", log_lines(data, 50), input="0.75")
    assert half.status_code == 400 and "or neither" in half.json()["error"]
    assert (folder / "task.toml").read_text() == before
    added = send("my log.jsonl", log_lines(data, 50), input="0.75", output="4.5")
    assert added.status_code == 200, added.text
    assert added.json()["coverage"].startswith("my-log.jsonl answers ")
    (model,) = Task.load(folder).models
    assert model.name == "recorded:my-log.jsonl" and model.price is not None
    assert (float(model.price.input), float(model.price.output)) == (0.75, 4.5)
    shown = client.get("/api/task", params={"name": name}).json()
    assert shown["form"]["models"] == ["recorded:my-log.jsonl"] and shown["example"] == "messages.csv:2"
    saved = client.post("/api/task", params={"name": name}, json=shown["form"])
    assert saved.status_code == 200 and "0.75" in saved.json()["toml"]  # the price stays
    again = send("my log.jsonl", log_lines(data, 50))  # nothing is overwritten
    assert again.status_code == 200 and (folder / "my-log-2.jsonl").exists()


def test_mistakes_are_named_and_leave_the_task_as_it_was(client: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    name = upload(client, csv_of(tmp_path / "mine"))
    form = client.get("/api/task", params={"name": name}).json()["form"]
    before = (tmp_path / name / "task.toml").read_text()
    for change, named in (
        ({"inputs": []}, "inputs"),
        ({"kind": "poem"}, "kind"),
        ({"inputs": ["queue"], "target": "queue"}, "queue"),
        ({"surprise": 1}, "surprise"),
        ({"queries_per_month": -1}, "queries_per_month"),
    ):
        refused = client.post("/api/task", params={"name": name}, json={**form, **change})
        assert refused.status_code == 400 and named in refused.json()["error"], refused.text
    assert (tmp_path / name / "task.toml").read_text() == before
    bad = client.post("/api/data", params={"name": "notes.docx"}, content=b"x")
    assert bad.status_code == 400 and "give a file that ends in" in bad.json()["error"]
    empty = client.post("/api/data", params={"name": "empty.csv"}, content=b"")
    assert empty.status_code == 400
    assert client.post("/api/run", params={"name": name}, content=b"no json").status_code == 400


def test_models_that_stay_keep_their_keys_and_other_answers_lose_their_labels(tmp_path: Path) -> None:
    write_small(tmp_path)
    text = (tmp_path / "task.toml").read_text()
    (tmp_path / "task.toml").write_text(
        f'{text}\n[[models]]\nname = "ollama/a"\nconcurrency = 3\n[[models]]\nname = "ollama/b"\n'
    )
    form = TaskForm(**task_form(tmp_path)["form"])
    save_task(tmp_path, form.model_copy(update={"models": ["ollama/a", "ollama/c"]}))
    task = Task.load(tmp_path)
    assert (task.models[0].name, task.models[0].concurrency) == ("ollama/a", 3)
    assert [model.name for model in task.models] == ["ollama/a", "ollama/c"] and task.answer.labels
    save_task(tmp_path, form.model_copy(update={"target": "date", "kind": "text", "group": None}))
    task = Task.load(tmp_path)
    assert not task.answer.labels and task.score.metric == "similarity"
    assert task.data is not None and task.data.group is None


def test_the_prompts_of_a_task_stay_and_its_own_one_can_be_taken_back(tmp_path: Path) -> None:
    write_small(tmp_path)
    text = (tmp_path / "task.toml").read_text()
    (tmp_path / "task.toml").write_text(
        f'{text}\n[[models]]\nname = "ollama/a"\n[[prompts]]\nname = "chat"\nmessages = "chat.json"\n'
    )
    (tmp_path / "chat.json").write_text('[{"role": "user", "content": "Route {text}"}]')
    form = TaskForm(**task_form(tmp_path)["form"])
    assert form.prompt == ""
    save_task(tmp_path, form.model_copy(update={"prompt": "Please route: {text}"}))
    assert Task.load(tmp_path).prompts[0].name == "chat"
    assert task_form(tmp_path)["form"]["prompt"] == "Please route: {text}"
    added = [prompt for prompt in Task.load(tmp_path).prompts if prompt.name != "chat"]
    assert len(added) == 1 and (tmp_path / str(added[0].messages)).exists()
    twice = 'name = "chat"\nmessages = "chat.json"\n'
    before = (tmp_path / "task.toml").read_text()
    (tmp_path / "task.toml").write_text(f"{before}\n[[prompts]]\n{twice}")
    with pytest.raises(TaskError, match="two named 'chat'"):
        save_task(tmp_path, form.model_copy(update={"prompt": "Another one: {text}"}))
    (tmp_path / "task.toml").write_text(before)
    assert task_form(tmp_path)["form"]["prompt"] == "Please route: {text}"  # as it was
    save_task(tmp_path, form)
    assert [prompt.name for prompt in Task.load(tmp_path).prompts] == ["chat"]
    assert not (tmp_path / str(added[0].messages)).exists() and (tmp_path / "chat.json").exists()


def test_the_quote_tells_what_the_data_holds_and_costs(client: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    name = upload(client, csv_of(tmp_path / "mine"))
    quoted = client.get("/api/quote", params={"name": name}).json()
    assert sum(quoted["sizes"].values()) > 60 and quoted["lines"][0].startswith("the study:")


# -- commands ----------------------------------------------------------------------------------------


def test_a_command_is_watched_stopped_and_not_started_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import json, sys, time\n"
        "print(json.dumps({'what': 'fitting', 'share': 0.5}), file=sys.stderr, flush=True)\n"
        "print('a note', file=sys.stderr, flush=True)\n"
        "print('said', flush=True)\n"
        "time.sleep(60)"
    )
    monkeypatch.setattr(studio_jobs, "COMMAND", (sys.executable, "-c", program))
    jobs = Jobs(tmp_path)
    job = jobs.start("study a", ["run", "x"])
    with pytest.raises(StudyError, match="`run x` is running"):
        jobs.start("study a", ["run", "x"])
    deadline = time.monotonic() + 20
    while not (job.progress and job.output and job.lines) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert job.document()["progress"]["what"] == "fitting" and job.document()["running"]
    assert "".join(job.output) == "said\n" and list(job.lines) == ["a note"]
    jobs.stop_all()
    assert not job.running and job.document()["code"] != 0
    assert jobs.find("study b") is None


def test_standings_grow_with_the_log_and_wait_for_whole_lines(tmp_path: Path) -> None:
    line = json.dumps({"arm": "a", "item": "1", "score": 1.0})
    (tmp_path / "dev.jsonl").write_text(f"{line}\n{line[:10]}")
    standings = Standings(tmp_path)
    assert standings.rows() == [{"arm": "a", "set": "validation", "answers": 1, "score": 1.0}]
    (tmp_path / "dev.jsonl").write_text(f"{line}\n{line.replace('1.0', '0.0')}\n")
    (tmp_path / "trials.jsonl").write_text(f"{line}\n")
    assert [(row["set"], row["answers"], row["score"]) for row in standings.rows()] == [
        ("test", 1, 1.0),
        ("validation", 2, 0.5),
    ]


# -- labels --------------------------------------------------------------------------------------------


def test_labels_are_written_into_the_sheet_and_taken_back(tmp_path: Path) -> None:
    assert queue(tmp_path) is None
    rows = [("1", "=danger", ["-5", "yes"]), ("2", "second", ["no", "yes"])]
    write_sheet(tmp_path / SHEET, rows)
    fill_in(tmp_path, "1", "#2", "Ann")
    fill_in(tmp_path, "2", "=another", "")
    shown = queue(tmp_path)
    assert shown is not None
    assert shown["rows"][0] == {
        "item": "1",
        "input": "=danger",
        "choices": {"#1": "-5", "#2": "yes"},
        "right": "#2",
        "by": "Ann",
    }
    with (tmp_path / SHEET).open(newline="", encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    # no formula for a spreadsheet
    assert cells[1]["right"] == "'=another" and cells[0]["input"] == "'=danger"
    fill_in(tmp_path, "1", "", "")
    again = queue(tmp_path)
    assert again is not None and again["rows"][0]["right"] == ""
    with pytest.raises(StudyError, match="no input '9'"):
        fill_in(tmp_path, "9", "#1", "")
    (tmp_path / SHEET).write_text("a,b\n1,2\n")
    with pytest.raises(StudyError, match="lacks a column"):
        queue(tmp_path)


def test_studies_are_listed_compared_and_reported(finished: Result, tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(str(finished.folder), tmp_path / "studies" / name)
    (tmp_path / "studies" / "broken").mkdir()
    (tmp_path / "studies" / "broken" / "manifest.json").write_text("{")
    for name, content in (("odd", "[]"), ("older", '{"verdict": 3}'), ("cut", '{"verdict": "prom')):
        shutil.copytree(str(finished.folder), tmp_path / "studies" / name)
        (tmp_path / "studies" / name / "decision.json").write_text(content)
    with (
        studio_in(tmp_path) as (url, _),
        signed_in(url) as client,
    ):
        studies = client.get("/api/home").json()["studies"]
        odd = {study["name"] for study in studies if study["title"] == "Its decision.json cannot be read."}
        assert odd == {"odd", "older", "cut"}, studies
        assert {study["name"] for study in studies if study["decided"]} - odd == {"one", "two"}
        changed = client.get("/api/compare", params={"old": "one", "new": "two"}).json()["changes"]
        assert changed == ["Nothing: verdict, options, costs and assumptions are the same."]
        assert "<title>small:" in client.get("/api/report", params={"name": "one"}).text
        state = client.get("/api/study", params={"name": "one"}).json()
        assert state["study"]["decided"] and state["job"] is None and state["standings"]
        assert client.get("/api/study", params={"name": "none"}).status_code == 400


def test_the_command_is_listed() -> None:
    assert "Open the studio in a browser" in CliRunner().invoke(command_line, ["studio", "--help"]).output


# -- in a browser -----------------------------------------------------------------------------------------


def pool_file(folder: Path) -> Path:
    with (EXAMPLE / "messages.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["queue"] in QUEUES and row["text"]]
    with (folder / "inputs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "customer_id"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return folder / "inputs.csv"


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
def test_from_a_file_to_a_verdict_and_labels_in_a_browser(
    tmp_path: Path, with_small_encoder: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    monkeypatch.setattr(studio_jobs, "COMMAND", tuple(with_small_encoder))
    data = csv_of(tmp_path)
    faults: list[str] = []
    with studio_in(tmp_path / "work") as (url, _), playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        page.goto(f"{url}/?token={TOKEN}")
        assert TOKEN not in page.url
        page.set_input_files("#file", str(data))
        page.wait_for_selector("text=Your data")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.fill("label:has-text('What to do with an input') textarea", "Route the message.")
        (tmp_path / "log.jsonl").write_text(log_lines(data, 10_000))
        page.set_input_files("input[aria-label='log of what runs today']", str(tmp_path / "log.jsonl"))
        page.click("text=Add the log")
        page.wait_for_selector("text=log.jsonl answers ")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.click("text=What would it cost?")
        page.wait_for_selector("text=the study:", timeout=60_000)
        page.click("text=Run the study")
        page.wait_for_selector("h2:has-text('Running')", timeout=60_000)
        page.wait_for_selector("iframe", timeout=240_000)
        page.frame_locator("iframe").locator("#headline").wait_for(timeout=60_000)
        page.click("text=Label where the options disagree")
        page.set_input_files("input[aria-label='file of inputs without labels']", str(pool_file(tmp_path)))
        page.click("text=Begin")
        page.wait_for_selector("text=Which answer is right?", timeout=120_000)
        first = page.inner_text("blockquote")
        page.keyboard.press("1")
        page.wait_for_function("text => document.querySelector('blockquote').innerText !== text", arg=first)
        page.keyboard.press("u")
        page.wait_for_function("text => document.querySelector('blockquote').innerText === text", arg=first)
        page.keyboard.press("0")
        page.wait_for_selector("text=1 of ")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        browser.close()
    assert faults == []
    (sheet,) = (tmp_path / "work" / "studies").glob(f"*/{SHEET}")
    with sheet.open(newline="", encoding="utf-8") as file:
        assert next(csv.DictReader(file))["right"] == "none"
