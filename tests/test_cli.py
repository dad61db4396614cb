from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import EXAMPLE, ROOT
from typer.testing import CliRunner

import tunepoint
from tunepoint import Result, Task
from tunepoint.cli import study as commands
from tunepoint.cli.app import app
from tunepoint.cli.doctor import Check, diagnose, diagnose_task, summary
from tunepoint.data.task_draft import DEFAULT_METRICS, draft_task
from tunepoint.errors import DataError

RUNNER = CliRunner()


def call(*arguments: object, code: int = 0) -> str:
    result = RUNNER.invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output


def test_help_names_every_command() -> None:
    text = call("--help")
    for name in ("demo", "init", "check", "run", "decide", "report", "doctor"):
        assert name in text
        call(name, "--help")


def test_importing_the_package_brings_no_heavy_module() -> None:
    heavy = "'torch', 'transformers', 'numpy', 'sklearn', 'scipy', 'pydantic', 'rich.progress'"
    code = f"import sys, tunepoint, tunepoint.cli; print([m for m in ({heavy}) if m in sys.modules])"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"
    code = (
        "import sys, tunepoint.study.run; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


def test_public_names_are_there_and_documented() -> None:
    documented = (ROOT / "README.md").read_text() + "".join(
        path.read_text() for path in (ROOT / "docs").glob("*.md")
    )
    for name in tunepoint.__all__:
        assert getattr(tunepoint, name).__doc__
        assert f"`{name}`" in documented, name
    assert 12 <= len(tunepoint.__all__) <= 20
    assert set(tunepoint.__all__) <= set(dir(tunepoint))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tunepoint.nothing


def test_init_guesses_and_what_it_writes_can_be_checked(tmp_path: Path) -> None:
    shutil.copy(EXAMPLE / "messages.csv", tmp_path)
    output = call("init", tmp_path / "messages.csv")
    assert (
        "input is 'text'" in output and "target is 'queue'" in output and "group is 'customer_id'" in output
    )
    task = Task.load(tmp_path)
    assert task.data is not None and task.data.group == "customer_id"
    text = call("check", tmp_path)
    assert "975 rows read, 963 kept" in text and "e-mail address" in text and "phone number" in text
    audit = json.loads(call("check", tmp_path / "task.toml", "--json"))
    assert len(audit["contradictions"]) == 3
    assert "already exists; --force replaces it" in call("init", tmp_path / "messages.csv", code=2)
    call("init", tmp_path / "messages.csv", "--force")


@pytest.mark.parametrize(
    ("text", "kind", "target"),
    [
        ("question,answer\n" + "".join(f"what is {i}?,{i * 7}\n" for i in range(60)), "number", "answer"),
        ("a,b\n" + "".join(f"words and words {i},free text {i}\n" for i in range(60)), "text", "b"),
        ("text,out\n" + "".join(f'hello {i},"{{""k"": {i}}}"\n' for i in range(30)), "json", "out"),
        (
            "text,is it spam\n" + "".join(f"hello {i},{'yes' if i % 2 else 'no'}\n" for i in range(30)),
            "label",
            "is it spam",
        ),
    ],
)
def test_init_guesses_the_kind_of_answer(tmp_path: Path, text: str, kind: str, target: str) -> None:
    path = tmp_path / "My data (1).csv"
    path.write_text(text)
    guessed = draft_task(path)
    assert (guessed.kind, guessed.target, guessed.group) == (kind, target, None)
    (tmp_path / "task.toml").write_text(guessed.toml())
    loaded = Task.load(tmp_path)
    assert loaded.name == "my-data--1" and loaded.score.metric == DEFAULT_METRICS[loaded.answer.kind]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text,label\n", "no rows"),
        ("text\nhello\n", "one column only"),
        ("customer_id,text\n" + "a,b\na,c\nd,e\n", "no column is left"),
    ],
)
def test_init_says_what_is_missing(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        draft_task(path)


def test_mistakes_are_one_paragraph_with_exit_code_2(tmp_path: Path) -> None:
    assert "no such file" in call("run", tmp_path / "task.toml", code=2)
    assert "no such file" in call("init", tmp_path / "a.csv", code=2)
    assert "no decision.json, so the study is not finished" in call("report", tmp_path, code=2)
    trials = tmp_path / "t.jsonl"
    trials.write_text('{"arm": "a", "item": 1, "score": 2}\n')
    (tmp_path / "task.toml").write_text('name = "x"\n')
    text = call("decide", "--trials", trials, "--task", tmp_path, code=2)
    assert "t.jsonl:1: score" in text and text.startswith("tunepoint: ")
    trials.write_text('{"arm": "a", "item": 1, "score": 1}\n{"arm": "a", "item": 2, "score": 1}\n')
    assert "at least 2 arms" in call("decide", "--trials", trials, "--task", tmp_path, code=2)


def test_a_bug_of_ours_is_a_paragraph_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("tunepoint.report.html.read_decision", broken)
    assert "a bug in Tunepoint: RuntimeError: boom" in call("report", tmp_path, code=2)
    monkeypatch.setenv("TUNEPOINT_DEBUG", "1")
    assert isinstance(RUNNER.invoke(app, ["report", str(tmp_path)]).exception, RuntimeError)

    def stopped(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tunepoint.report.html.read_decision", stopped)
    assert "what was measured is kept" in call("report", tmp_path, code=130)


@pytest.mark.no_cover  # what it runs, others cover
def test_run_resumes_and_prints_the_verdict(finished: Result, small_task: Path) -> None:
    text = call("run", small_task, "--out", finished.folder, "--seed", 3)
    finalists = {finalist["arm"]: finalist for finalist in finished.document["finalists"]}
    assert finalists[finished.document["winner"]]["label"] in " ".join(text.split())
    assert "Report:" in text and "Next:" in text
    document = json.loads(call("run", small_task, "--out", finished.folder, "--seed", 3, "--json"))
    assert document["winner"] == finished.document["winner"]


def test_decide_prints_json_and_writes_a_report(tmp_path: Path) -> None:
    folder = ROOT / "examples" / "bring-your-own-trials"
    arguments = (
        "decide",
        "--trials",
        folder / "trials.jsonl",
        "--task",
        folder,
        "--arms",
        folder / "arms.toml",
    )
    assert json.loads(call(*arguments, "--json"))["verdict"] == "fine-tune"
    text = call(*arguments, "--out", tmp_path / "study")
    assert text.startswith("Fine-tune a model. It should save about $") and "small model, fine-tuned" in text
    assert len(text.splitlines()) <= 15 and "Signals" not in text
    assert "Signals" in call(*arguments, "--verbose")
    assert "report.html" in text
    (tmp_path / "study" / "report.html").unlink()
    assert "Report:" in call("report", tmp_path / "study")
    assert (tmp_path / "study" / "report.html").exists()
    (tmp_path / "study" / "decision.json").write_text("{")
    assert "not JSON" in call("report", tmp_path / "study", code=2)


def test_an_undecided_study_has_an_exit_code_of_its_own_for_those_who_ask(tmp_path: Path) -> None:
    rows = []
    for i in range(40):  # nobody can tell these two apart, and one is cheaper
        for arm, right in (("prompted", i % 5 != 0), ("tuned", i % 6 != 0)):
            rows.append(json.dumps({"arm": arm, "item": str(i), "score": float(right), "cost_usd": 0.001}))
    (tmp_path / "trials.jsonl").write_text("\n".join(rows) + "\n")
    (tmp_path / "task.toml").write_text('name = "t"\n')
    words = ["decide", "--trials", str(tmp_path / "trials.jsonl"), "--task", str(tmp_path / "task.toml")]
    plain = CliRunner().invoke(app, [*words, "--json"])
    assert plain.exit_code == 0 and json.loads(plain.stdout)["verdict"] == "undecided"
    assert CliRunner().invoke(app, [*words, "--fail-undecided"]).exit_code == 3


def test_the_task_of_this_folder_is_taken_where_none_is_named(
    small_task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small_task.parent)
    assert call("check") == call("check", small_task)
    monkeypatch.chdir(tmp_path)
    assert "task.toml: no such file; `tunepoint init DATA.csv`" in call("check", code=2)


def test_the_version_is_said() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"tunepoint {tunepoint.__version__}\n"


def test_doctor_says_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "weights verified" in call("doctor")
    assert all(finding["ok"] for finding in json.loads(call("doctor", "--json")) if finding["needed"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    assert [f.detail for f in diagnose() if f.name == "embedded:minilm"] == ["needs torch first"]


def test_doctor_sums_up_and_looks_for_the_models_of_a_task(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("{}\n")
    task = tmp_path / "task.toml"
    models = ["embedded:minilm", "recorded:log.jsonl", "recorded:gone.jsonl", "openai/gpt-6-luna"]
    models.append("gguf:no.gguf")
    task.write_text('name = "t"\n' + "".join(f'[[models]]\nname = "{name}"\n' for name in models))
    checks = {check.name: check for check in diagnose_task(task)}
    assert [checks[f"task: {name}"].ok for name in models] == [True, True, False, False, False]
    assert "set OPENAI_API_KEY in the environment" in checks["task: openai/gpt-6-luna"].detail
    assert summary([Check("a", True, "x"), Check("b", False, "y", needed=False)]) == (
        "Everything that a study needs is installed. Optional and missing: 1."
    )
    text = call("doctor", task, code=2)
    assert "Fix first: task: recorded:gone.jsonl" in text and ", and 2 more" in text


def test_doctor_looks_for_the_key_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = tmp_path / "task.toml"
    models = ('name = "openai/gpt-6-luna"\nkey_env = "MY_KEY"', 'name = "opnai/gpt"')
    task.write_text('name = "t"\n' + "".join(f"[[models]]\n{model}\n" for model in models))
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    hosted, unknown = diagnose_task(task)
    assert not hosted.ok and "set MY_KEY" in hosted.detail
    assert not unknown.ok and "openai" in unknown.detail
    monkeypatch.setenv("MY_KEY", "y")
    assert diagnose_task(task)[0].detail == "api.openai.com is asked for gpt-6-luna when the study begins"


def test_doctor_fails_when_weights_are_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tunepoint.models.encoder_weights.find_weights", lambda: tmp_path)
    assert "missing  embedded:minilm" in call("doctor", code=2)


def test_demo_runs_on_the_example(
    monkeypatch: pytest.MonkeyPatch, small_task: Path, finished: Result
) -> None:
    assert commands.example_folder() == EXAMPLE
    refused = RUNNER.invoke(app, ["demo", "--seed", "3"])
    assert refused.exit_code == 2 and "recorded for seed 0 alone; add --live" in refused.output
    monkeypatch.setattr(commands, "example_folder", lambda: small_task)
    text = call("demo", "--out", finished.folder, "--seed", 3, "--quiet")
    assert "Report:" in text


def test_the_example_is_what_the_readme_says() -> None:
    task = Task.load(EXAMPLE)
    assert task.answer.labels is not None and len(task.answer.labels) == 12


JSON_COMMANDS = {
    "init": {"task", "guesses", "columns", "rows", "kind", "labels"},
    "plan": {"design", "power", "sizes"},
    "quote": {"task", "quote"},
    "prices": {"prices"},
    "doctor": {"name", "ok", "detail", "needed"},
    "models list": {"name", "here", "bytes", "parameters", "sha256", "maker", "licence"},
    "keys list": {"name", "roles", "usd_a_month", "requests_a_minute", "spent_usd"},
    "jobs": set(),
}
"""What the documentation says each prints, beside those that other tests look at."""


@pytest.mark.parametrize("command", JSON_COMMANDS)
def test_commands_print_the_json_that_is_documented(
    command: str, finished: Result, small_task: Path, tmp_path: Path
) -> None:
    store = tmp_path / "capture.sqlite"
    data = tmp_path / "messages.csv"
    data.write_bytes((small_task.parent / "messages.csv").read_bytes())
    given: dict[str, tuple[object, ...]] = {
        "init": (data,),
        "plan": (small_task,),
        "quote": (small_task,),
        "keys list": ("--store", store),
        "jobs": (finished.folder,),
    }
    if command == "keys list":
        call("keys", "add", "app", "--usd-a-month", 5, "--store", store)
    printed = json.loads(call(*command.split(), *given.get(command, ()), "--json"))
    shown = printed[0] if isinstance(printed, list) and printed else printed
    assert JSON_COMMANDS[command] <= set(shown)
    page = (ROOT / "docs" / "json.md").read_text()
    assert f"`{command}`" in page and all(f"`{key}`" in page for key in JSON_COMMANDS[command])
