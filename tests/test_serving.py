"""A study behind the gateway: what is served is what was measured; the process and its signals."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from gateways import behind, until
from test_routing import chat_request
from typer.testing import CliRunner

from tunepoint import Result, Task
from tunepoint.capture.opening import open_store
from tunepoint.capture.spending import spending
from tunepoint.cli.app import app
from tunepoint.data.prepare import prepare
from tunepoint.errors import StudyError, TaskError
from tunepoint.serve.auth import make_key
from tunepoint.serve.backends import ServedArm
from tunepoint.serve.process import open_socket
from tunepoint.serve.study_arms import study_arms
from tunepoint.trials.trial import read_trials

TUNEPOINT = str(Path(sys.executable).with_name("tunepoint"))


@pytest.mark.no_cover  # what it runs, others cover
def test_what_is_served_is_what_was_measured(finished: Result, small_task: Path) -> None:
    assert finished.folder is not None
    measured = {
        (trial.arm, trial.item): trial.answer
        for trial in reversed(read_trials(finished.folder / "trials.jsonl"))
        if trial.seed in (None, "0")
    }
    items = {item for _, item in measured}
    seed = int(json.loads((finished.folder / "manifest.json").read_text())["seed"])
    test = [e for e in prepare(Task.load(small_task), seed).split.test if e.id in items]
    assert len(test) == len(items)

    async def answers(arm: ServedArm) -> list[str]:
        responses = await asyncio.gather(
            *(arm.answer(chat_request(input_of=example.input)) for example in test)
        )
        return [response.text for response in responses]

    with study_arms(finished.folder) as study:
        assert study.winner == finished.document["winner"] and set(study.arms) == {
            response["arm"] for response in finished.document["finalists"]
        }
        for name, arm in study.arms.items():
            assert asyncio.run(answers(arm)) == [measured[name, example.id] for example in test], name
            arm.close()


def test_a_study_that_cannot_be_served_says_why(finished: Result, tmp_path: Path) -> None:
    assert finished.folder is not None
    study = tmp_path / "study"
    shutil.copytree(finished.folder, study)
    with (
        pytest.raises(TaskError, match="no finalist 'nobody' that could serve"),
        study_arms(study, ("nobody",)),
    ):
        pass
    (study / "task.json").unlink()
    with pytest.raises(StudyError, match="run `tunepoint run` on it once"), study_arms(study):
        pass
    (study / "decision.json").unlink()
    shutil.copy(finished.folder / "task.json", study)
    with pytest.raises(StudyError, match="has not decided yet"), study_arms(study):
        pass
    with pytest.raises(StudyError, match="no study here"), study_arms(tmp_path):
        pass


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings_file(folder: Path, url: str, port: int, arms: tuple[str, ...] = ("main",)) -> Path:
    lines = [f'[server]\nport = {port}\nstore = "c.sqlite"\nworkers = 1\n[[tasks]]\nname = "triage"']
    lines += [f'[[tasks.arms]]\nname = "{arm}"\nmodel = "{url}#{arm}"\n' for arm in arms]
    (folder / "serve.toml").write_text("\n".join(lines))
    return folder / "serve.toml"


def ask(port: int, number: int, key: str = "none") -> str:
    body = {"model": "triage", "messages": [{"role": "user", "content": f"secret words {number}"}]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json", "authorization": f"Bearer {key}"},
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        return str(json.load(reply)["choices"][0]["message"]["content"])


def routes(port: int) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/routes/triage", timeout=30) as reply:
        content: dict[str, Any] = json.load(reply)
        return content


def test_the_process_writes_everything_on_sigterm_and_reads_its_settings_on_sighup(tmp_path: Path) -> None:
    port = free_port()
    with behind() as server:
        path = settings_file(tmp_path, server.url, port)
        log = (tmp_path / "log").open("w+")
        process = subprocess.Popen([TUNEPOINT, "serve", str(path)], stdout=log, stderr=log)
        try:
            until(lambda: "is ready" in (tmp_path / "log").read_text() or process.poll() is not None, 60)
            assert ask(port, 0) == "main says billing, perhaps"
            settings_file(tmp_path, server.url, port, ("main", "third"))
            process.send_signal(signal.SIGHUP)
            until(lambda: "third" in routes(port)["arms"])
            (tmp_path / "serve.toml").write_text("nonsense = ")
            process.send_signal(signal.SIGHUP)
            until(lambda: "settings not reloaded" in (tmp_path / "log").read_text())
            for number in range(1, 300):
                ask(port, number)
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        finally:
            process.kill()
            process.wait()
            log.close()
    printed = (tmp_path / "log").read_text()
    assert process.returncode == 0, printed
    assert "secret" not in printed and "Traceback" not in printed
    with open_store(tmp_path / "c.sqlite") as store:
        assert len(list(store.requests())) == 300  # nothing is lost


def test_sigterm_waits_for_a_store_that_is_locked(tmp_path: Path) -> None:
    port = free_port()
    with open_store(tmp_path / "c.sqlite") as store:
        token = make_key(store, "app", ("call",), usd_a_month=5)
    with behind() as server:
        path = settings_file(tmp_path, server.url, port)
        path.write_text(path.read_text().rstrip() + "\nprice = { input = 1, output = 2 }\n")
        process = subprocess.Popen([TUNEPOINT, "serve", str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        until(lambda: "is ready" in str(process.stdout.readline()), 60)  # type: ignore[union-attr]
        lock = sqlite3.connect(tmp_path / "c.sqlite", isolation_level=None)
        lock.execute("begin immediate")
        for number in range(30):
            ask(port, number, token)
        process.send_signal(signal.SIGTERM)
        time.sleep(1.0)
        lock.execute("rollback")
        lock.close()
        assert process.wait(60) == 0
        process.stdout.close()
    with open_store(tmp_path / "c.sqlite") as store:
        assert len(list(store.requests())) == 30
        assert spending(store) == {"app": 30 * (40 * 1_000 + 6 * 2_000)}


def test_answers_are_sent_at_once() -> None:
    with open_socket("127.0.0.1", 0) as taken:  # by this the event loop knows to switch Nagle's delay off
        assert taken.proto == socket.IPPROTO_TCP


def test_a_port_that_is_taken_and_one_that_is_none(tmp_path: Path) -> None:
    with behind() as server, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        path = settings_file(tmp_path, server.url, port)
        result = subprocess.run([TUNEPOINT, "serve", str(path)], capture_output=True, text=True, timeout=60)
        assert result.returncode == 2 and "cannot listen on" in result.stderr + result.stdout
        assert "is ready" not in result.stdout
        none = CliRunner().invoke(app, ["serve", str(path), "--port", "99999"])
        assert none.exit_code == 2 and "server.port" in none.output


def test_a_killed_process_loses_moments_and_no_acknowledged_feedback(tmp_path: Path) -> None:
    port = free_port()
    with behind() as server:
        path = settings_file(tmp_path, server.url, port)
        process = subprocess.Popen([TUNEPOINT, "serve", str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        until(lambda: "is ready" in str(process.stdout.readline()), 60)  # type: ignore[union-attr]
        for number in range(200):
            ask(port, number)
        with open_store(tmp_path / "c.sqlite") as store:
            answered = until(lambda: [kept.id for kept in store.requests()])[0]
        feedback = {"request_id": answered, "comment": "kept"}
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/feedback",
            json.dumps(feedback).encode(),
            {"content-type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=30).close()
        time.sleep(0.2)
        process.kill()
        process.wait()
        process.stdout.close()
    with open_store(tmp_path / "c.sqlite") as store:
        assert len(list(store.requests())) == 200
        assert [entry.comment for entry in store.feedback([answered])[answered]] == ["kept"]


def test_the_commands_of_keys(tmp_path: Path) -> None:
    store = str(tmp_path / "c.sqlite")
    call = CliRunner().invoke
    made = call(app, ["keys", "add", "app", "--store", store, "--usd-a-month", "50"])
    assert made.exit_code == 0 and made.output.startswith("tp-")
    both = ["--role", "read", "--role", "operate"]
    assert call(app, ["keys", "add", "ops", *both, "--store", store]).exit_code == 0
    listed = call(app, ["keys", "list", "--store", store]).output
    assert listed.splitlines() == ["app: call, $50.00 a month", "ops: read and operate"]
    assert made.output.strip() not in listed
    assert call(app, ["keys", "revoke", "app", "--store", store]).exit_code == 0
    twice = call(app, ["keys", "revoke", "app", "--store", store])
    assert twice.exit_code == 2 and "there is no key named 'app'; the keys are: ops" in twice.output
    wrong = call(app, ["keys", "add", "x", "--role", "dance", "--store", store])
    assert wrong.exit_code == 2 and "--role 'dance'" in wrong.output


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[server]\nport = 99999\n[[tasks]]\nname = 'a'", "server.port"),
        ("[[tasks]]\nname = 'a'", "give study, or at least one"),
        ("[[tasks]]\nname = 'a'\nstudie = 'x'", "unknown key 'tasks.0.studie'; did you mean 'study'"),
        ("tasks = []", "tasks"),
        ("[[tasks]]\nname = 'a'\n[[tasks.arms]]\nname = 'x'\nmodel = 'nonsense'", "names no model"),
        (
            "[[tasks]]\nname = 'a'\n[[tasks.arms]]\nname = 'x'\nmodel = 'http://far.example/v1#m'",
            "the price of",
        ),
        ("[[tasks]]\nname = 'a'\n[[tasks.arms]]\nname = 'x'\nmodel = 'openai/gpt-5-mini'", "OPENAI_API_KEY"),
        ("[[tasks]]\nname = 'a'\nstudy = 'none'", "none"),
    ],
)
def test_settings_that_cannot_be_used_are_named(
    tmp_path: Path, text: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "serve.toml").write_text(text)
    # Some go as far as to open a port: the default one may be taken.
    port = str(free_port())
    result = CliRunner().invoke(
        app, ["serve", str(tmp_path / "serve.toml"), "--port", port, "--workers", "1"]
    )
    assert result.exit_code == 2 and words in " ".join(result.output.split()), result.output
