"""`tunepoint mcp`: an agent reads everything, and changes or spends only what it was allowed."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, write_small
from test_report import parts

from tunepoint import Result, Task
from tunepoint.cli.app import app
from tunepoint.studio import jobs as studio_jobs
from tunepoint.studio.agents import agent_server
from tunepoint.study.labelling.sheet import SHEET, write_sheet

mcp = pytest.importorskip("mcp")
READING = {
    *("list_work", "audit_data", "quote", "explain_verdict"),
    *("what_if", "compare_studies", "study_progress", "label_queue"),
}
Conversation = Callable[[Any], Awaitable[Any]]


def talk(
    folder: Path, conversation: Conversation, *, write: bool = False, max_usd: float | None = None
) -> Any:
    """What a client of the official SDK gets from a server in this process."""
    server, tools = agent_server(folder, write=write, max_usd=max_usd, gateway_port=18_485)

    async def connected() -> Any:
        async with mcp.Client(server) as client:
            return await conversation(client)

    try:
        return asyncio.run(connected())
    finally:
        tools.jobs.stop_all()


async def said(client: Any, tool: str, **arguments: Any) -> Any:
    """What a tool returns; its error's words if it fails."""
    result = await client.call_tool(tool, arguments)
    text = "\n".join(part.text for part in result.content)
    if result.is_error:
        return f"error: {text}"
    try:
        return json.loads(text)
    except ValueError:
        return text


@pytest.fixture
def work(finished: Result, tmp_path: Path) -> Path:
    """A folder with a task and a finished study."""
    shutil.copytree(str(finished.folder), tmp_path / "studies" / "done")
    (tmp_path / "small").mkdir()
    write_small(tmp_path / "small")
    return tmp_path


@pytest.mark.parametrize(("write", "max_usd"), [(False, None), (True, None), (True, 2.0)])
def test_what_is_not_allowed_is_not_offered(work: Path, write: bool, max_usd: float | None) -> None:
    async def listed(client: Any) -> Any:
        return (await client.list_tools()).tools

    tools = {tool.name: tool for tool in talk(work, listed, write=write, max_usd=max_usd)}
    expected = READING | ({"draft_task", "edit_task", "give_label"} if write else set())
    assert set(tools) == expected | ({"run_study", "stop_study"} if max_usd else set())
    assert all(tools[name].annotations.read_only_hint == (name in READING) for name in tools)
    assert all(tool.description for tool in tools.values())


def test_an_agent_reads_a_verdict_and_asks_what_if(work: Path, finished: Result) -> None:
    async def conversation(client: Any) -> Any:
        listed = await said(client, "list_work")
        verdict = await client.call_tool("explain_verdict", {"study": "done"})
        other = await said(client, "what_if", study="done", queries_per_month=3_000_000, months=24)
        return listed, verdict.content[0].text, other, await said(client, "explain_verdict", study="none")

    listed, verdict, other, missing = talk(work, conversation)
    decision, _ = parts(finished)
    assert listed["tasks"] == ["small"] and listed["studies"][0]["name"] == "done"
    assert verdict.startswith("## ") and "Caveats" in verdict
    assert other["as_decided"]["verdict"] == decision["verdict"] and other["then"]["expected_usd"]
    assert missing.startswith("error: ") and "no study 'none'" in missing


def test_an_agent_drafts_corrects_and_quotes_a_task(work: Path) -> None:
    (work / "mine").mkdir()
    shutil.copy(work / "small" / "messages.csv", work / "mine" / "data.csv")

    async def conversation(client: Any) -> Any:
        audited = await said(client, "audit_data", file="mine/data.csv")
        drafted = await said(client, "draft_task", file="mine/data.csv")
        again = await said(client, "draft_task", file="mine/data.csv")
        change = {"instruction": "Route.", "error_usd": 0.5}
        edited = await said(client, "edit_task", task="mine", changes=change)
        wrong = await said(client, "edit_task", task="mine", changes={"target": "text"})
        quoted = await said(client, "quote", task="mine")
        outside = await said(client, "audit_data", file="../secret.csv")
        elsewhere = {"models": ["recorded:/etc/passwd"]}
        wrong += await said(client, "edit_task", task="mine", changes=elsewhere)
        return audited, drafted, again, edited, wrong, quoted, outside

    audited, drafted, again, edited, wrong, quoted, outside = talk(work, conversation, write=True)
    assert audited["kind"] == "label" and drafted["task"] == "mine"
    assert "already exists" in again and edited["instruction"] == "Route."
    assert "column of the right answer" in wrong and "is outside the task's folder" in wrong
    assert "no such file" in outside
    assert quoted["examples"]["test"] > 10 and quoted["cost"]
    assert float(Task.load(work / "mine").value.error_usd or 0) == 0.5


def test_money_is_spent_within_the_cap_of_the_server(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studio_jobs, "COMMAND", (sys.executable, "-c", "import time; time.sleep(60)"))

    async def conversation(client: Any) -> Any:
        too_much = await said(client, "run_study", task="small", max_usd=5.0)
        started = await said(client, "run_study", task="small", max_usd=1.5)
        rest = await said(client, "run_study", task="small", max_usd=1.0)
        progress = await said(client, "study_progress", study=started["study"])
        stopped = await said(client, "stop_study", study=started["study"])
        amounts = ("NaN", -1.0, "Infinity")
        odd = [await said(client, "run_study", task="small", max_usd=usd) for usd in amounts]
        return too_much, started, rest, progress, stopped, odd

    too_much, started, rest, progress, stopped, odd = talk(work, conversation, max_usd=2.0)
    assert all(answer.startswith("error: ") for answer in odd), odd
    assert "$5.00 is over the $2.00 left" in too_much and started["left_usd"] == 0.5
    assert "$1.00 is over the $0.50 left" in rest
    assert progress["command"]["running"] and "--max-usd 1.5" in progress["command"]["command"]
    assert "run_study resumes it" in stopped


def test_labels_are_written_as_a_person_said_them(work: Path) -> None:
    write_sheet(work / "studies" / "done" / SHEET, [("1", "hub", ["billing", "device_setup"])])

    async def conversation(client: Any) -> Any:
        before = await said(client, "label_queue", study="done")
        await said(client, "give_label", study="done", item="1", right="#2", by="Ann")
        return before, await said(client, "label_queue", study="done")

    before, after = talk(work, conversation, write=True)
    assert before["rows"][0]["right"] == "" and after["rows"][0]["right"] == "#2"


def test_the_command_talks_by_stdio(work: Path, with_small_encoder: list[str]) -> None:
    from mcp.client.stdio import StdioServerParameters

    command, *arguments = with_small_encoder

    async def connected() -> Any:
        server = StdioServerParameters(command=command, args=[*arguments, "mcp", str(work)])
        async with mcp.Client(server) as client:
            return await said(client, "list_work")

    assert asyncio.run(connected())["tasks"] == ["small"]


def test_the_skill_says_when_it_is_used_and_its_script_writes_nothing(tmp_path: Path) -> None:
    text = (ROOT / "skills" / "tunepoint" / "SKILL.md").read_text(encoding="utf-8")
    head = yaml.safe_load(text.split("---")[1])
    assert head["name"] == "tunepoint" and "should we fine-tune?" in head["description"]
    assert len(head["description"]) <= 1_024  # what agents read of a skill before they choose it
    commands = {word.split()[1] for word in re.findall(r"`(tunepoint [a-z]+[^`]*)`", text)}
    known = {command.name or command.callback.__name__ for command in app.registered_commands}  # type: ignore[union-attr]
    assert commands <= known
    write_small(tmp_path)
    (tmp_path / "task.toml").unlink()
    script = ROOT / "skills" / "tunepoint" / "scripts" / "first_look.py"
    words = [sys.executable, str(script), str(tmp_path / "messages.csv")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    looked = json.loads(done.stdout)
    assert looked["rows"] == 78 and looked["quote"][0].startswith("the study:")
    assert [path.name for path in tmp_path.iterdir()] == ["messages.csv"]
    missing = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "no.csv")], capture_output=True, check=False
    )
    assert missing.returncode != 0
