"""Tools for agents, by the Model Context Protocol: they read everything and change only what you allow.

Reading needs no permission. The person who starts the server decides whether agents may write tasks and
labels, spend money within a budget, or serve a winner.
"""

from __future__ import annotations

import functools
import json
import math
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tunepoint.data.prepare import prepare
from tunepoint.data.task_draft import draft_task
from tunepoint.decision.verdict import Decision
from tunepoint.errors import BudgetReached, MissingExtra, StudyError, TunepointError
from tunepoint.models.providers import GGUF_PREFIX, LOCAL_PREFIX
from tunepoint.report.comparison import changes
from tunepoint.report.html import read_decision, read_measurements
from tunepoint.report.markdown import markdown
from tunepoint.studio.commands import run_words, serve_words
from tunepoint.studio.jobs import Jobs, Standings
from tunepoint.studio.label_queue import fill_in, queue
from tunepoint.studio.tasks import TaskForm, draft, save_task, task_form
from tunepoint.studio.workspace import STUDIES, Workspace
from tunepoint.study.estimate import estimate
from tunepoint.study.whatif import Scenario, what_if
from tunepoint.task.sections import RECORDED_PREFIX
from tunepoint.task.task import Task

INSTRUCTIONS = """\
Tunepoint measures whether to keep prompting a language model or to fine-tune one, on the user's own examples.
Begin with list_work. For a new data file: audit_data, then draft_task, then show the user the guesses and the
quote before anything runs. run_study spends money and time: ask the user first, and name the dollars. Say a
verdict with its strength ("likely: 17% chance that another choice is better") and its caveats, never more
surely than it is. Labels come from people: do not label inputs yourself.
"""


@dataclass
class AgentTools:
    """The tools, over a folder of tasks and studies."""

    workspace: Workspace
    max_usd: float | None
    """Budget of all studies that agents start, in dollars; without one they start none."""
    gateway_port: int
    granted_usd: float = field(default=0.0, init=False)
    """Sum of the budgets of the studies that were started."""

    def __post_init__(self) -> None:
        self.jobs = Jobs(self.workspace.folder)
        self._lock = threading.Lock()

    # -- reading ---------------------------------------------------------------------------------

    def list_work(self) -> dict[str, Any]:
        """List the tasks, and the studies with their verdicts, the latest first."""
        work = self.workspace
        return {"folder": str(work.folder), "tasks": work.tasks(), "studies": work.studies()}

    def audit_data(self, file: str) -> dict[str, Any]:
        """Look at a data file (CSV, JSON, JSONL, Parquet): which columns hold input and right answer."""
        draft = draft_task(self._inside(file))
        columns = list(draft.columns)
        return {"guesses": draft.guesses, "columns": columns, "rows": draft.rows, "kind": draft.kind}

    def quote(self, task: str) -> dict[str, Any]:
        """Estimate what a study of a task costs, and what its data audit finds. Spends nothing."""
        loaded = Task.load(self.workspace.task(task))
        prepared = prepare(loaded, 0)
        audit, split = prepared.audit, prepared.split
        return {
            "cost": estimate(loaded, 0),
            "examples": {"train": len(split.train), "validation": len(split.dev), "test": len(split.test)},
            "left_out": len(audit.dropped),
            "contradictions": len(audit.contradictions),
            "personal_data": len(audit.personal),
        }

    def explain_verdict(self, study: str) -> str:
        """Explain a study's verdict as Markdown: what to do, what it saves, how sure, caveats, what next."""
        folder = self.workspace.study(study)
        return markdown(read_decision(folder), read_measurements(folder).get("not_run", []), str(folder))

    def what_if(
        self, study: str, queries_per_month: float | None = None, months: float | None = None
    ) -> dict[str, Any]:
        """Decide a study again at another volume or horizon. Runs no model."""
        settings = {"traffic.queries_per_month": queries_per_month, "traffic.horizon_months": months}
        scenario = Scenario({key: value for key, value in settings.items() if value is not None})
        result = what_if(self.workspace.study(study), scenario)
        before, after = _summary(result.before), _summary(result.after)
        return {"as_decided": before, "then": after, "notes": list(result.notes)}

    def compare_studies(self, old: str, new: str) -> list[str]:
        """Say what has changed from one study to a later one."""
        before, after = (read_decision(self.workspace.study(name)) for name in (old, new))
        return changes(before, after)

    def study_progress(self, study: str) -> dict[str, Any]:
        """Say how far a study is: progress, scores so far, and whether it has decided."""
        job = self.jobs.find(study)
        folder = self.workspace.folder / STUDIES / study
        if job is None:
            self.workspace.study(study)
        return {
            "command": None if job is None else job.document(),
            "so_far": Standings(folder).rows(),
            "decided": (folder / "decision.json").exists(),
        }

    def label_queue(self, study: str) -> dict[str, Any]:
        """Return the inputs on which the options disagree, with their answers, for a person to label."""
        return queue(self.workspace.study(study)) or {"rows": []}

    # -- writing ---------------------------------------------------------------------------------

    def draft_task(self, file: str) -> dict[str, Any]:
        """Write a task.toml beside a data file, and return what was guessed. The user should correct it."""
        path = self._inside(file)
        if (path.parent / "task.toml").exists():
            raise StudyError(f"{path.parent / 'task.toml'} already exists; change it with edit_task")
        return {"guesses": draft(path), "task": path.parent.relative_to(self.workspace.folder).as_posix()}

    def edit_task(self, task: str, changes: dict[str, Any]) -> dict[str, Any]:
        """Change a task.

        Keys: instruction, inputs, target, group, kind, queries_per_month, horizon_months, error_usd, models
        (as in task.toml, such as openai/gpt-6-luna) and prompt (words with {input}).
        """
        folder = self.workspace.task(task)
        try:
            form = TaskForm.model_validate({**task_form(folder)["form"], **changes})
        except ValueError as error:
            raise StudyError(str(error)) from None
        for name in form.models:
            self._refuse_elsewhere(name)
        save_task(folder, form)
        return dict(task_form(folder)["form"])

    def give_label(self, study: str, item: str, right: str, by: str) -> str:
        """Write down what a person said is right for one input: '#1', '#2', ..., an answer, or 'none'."""
        fill_in(self.workspace.study(study), item, right, by)
        return "written into to_label.csv; `tunepoint label STUDY` reads it"

    # -- money -----------------------------------------------------------------------------------

    def run_study(self, task: str, max_usd: float) -> dict[str, Any]:
        """Start or resume the study of a task, spending at most max_usd. Ask the user before."""
        if max_usd < 0:
            raise BudgetReached(f"max_usd is {max_usd}; give dollars from 0 on")
        left = self._reserve(max_usd)  # first: calls of several agents come at once
        try:
            study, words = run_words(self.workspace, task, max_usd)
            self.jobs.start(study, words)
        except BaseException:
            self._reserve(-max_usd)
            raise
        return {"study": study, "left_usd": left}

    def _reserve(self, usd: float) -> float:
        """Set dollars aside, or give them back; return what is left.

        Raises:
            BudgetReached: the budget has fewer left, or `usd` is no number.

        """
        most = self.max_usd or 0.0
        with self._lock:
            left = most - self.granted_usd
            if not math.isfinite(usd) or usd > left:
                raise BudgetReached(f"${usd:,.2f} is over the ${left:,.2f} left of this server's --max-usd")
            self.granted_usd += usd
            return most - self.granted_usd

    def stop_study(self, study: str) -> str:
        """Stop a running study. What it has measured is kept."""
        self.jobs.stop(study)
        return "stopping; run_study resumes it"

    def serve_winner(self, study: str) -> dict[str, Any]:
        """Serve a study's winner on this machine, at an address that OpenAI's clients understand."""
        self.jobs.start("gateway", serve_words(self.workspace, study, self.gateway_port))
        address = f"http://127.0.0.1:{self.gateway_port}/"
        return {"base_url": f"{address}v1", "dashboard": address}

    def _refuse_elsewhere(self, model: str) -> None:
        """Refuse a model that is a file outside of the folder.

        Raises:
            StudyError: it is.

        """
        for prefix in (RECORDED_PREFIX, GGUF_PREFIX, LOCAL_PREFIX):
            path = Path(model.removeprefix(prefix))
            if model.startswith(prefix) and (path.is_absolute() or ".." in path.parts):
                raise StudyError(f"{model}: is outside the task's folder; put the file there")

    def _inside(self, file: str) -> Path:
        """A file of the folder; nothing outside of it is read.

        Raises:
            StudyError: it is elsewhere or missing.

        """
        path = (self.workspace.folder / file).resolve()
        if not path.is_relative_to(self.workspace.folder) or not path.is_file():
            raise StudyError(f"{file}: no such file in {self.workspace.folder}")
        return path


def _summary(decision: Decision) -> dict[str, Any]:
    risks = asdict(decision.risks)
    return {
        "verdict": decision.verdict,
        "strength": decision.strength,
        "winner": decision.titles[decision.winner],
        "chance_wrong": risks["wrong"],
        "expected_usd": {f.title: round(f.horizon_usd.likely, 2) for f in decision.finalists},
    }


def agent_server(
    folder: Path, *, write: bool = False, max_usd: float | None = None, serve: bool = False, gateway_port: int
) -> tuple[Any, AgentTools]:
    """Return an MCP server of a folder, and its tools.

    Args:
        folder: of tasks and studies.
        write: whether tasks and labels may be written.
        max_usd: dollars that studies may spend; None lets none be started.
        serve: whether the gateway may be started; it calls models with the keys of this environment.
        gateway_port: of the gateway that it may start.

    Raises:
        MissingExtra: the `mcp` package is not installed.

    """
    try:
        from mcp.server.mcpserver import MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
        from mcp.types import ToolAnnotations
    except ImportError:
        raise MissingExtra("the server for agents needs the mcp package", "mcp") from None
    tools = AgentTools(Workspace(folder.resolve()), max_usd, gateway_port)
    server = MCPServer("tunepoint", title="Tunepoint", instructions=INSTRUCTIONS, log_level="WARNING")

    def offer(tool: Callable[..., Any], *, read_only: bool) -> None:
        register = server.tool(annotations=ToolAnnotations(read_only_hint=read_only))
        register(_with_clear_errors(tool, ToolError))

    for reading in (
        tools.list_work,
        tools.audit_data,
        tools.quote,
        tools.explain_verdict,
        tools.what_if,
        tools.compare_studies,
        tools.study_progress,
        tools.label_queue,
    ):
        offer(reading, read_only=True)
    if write:
        for writing in (tools.draft_task, tools.edit_task, tools.give_label):
            offer(writing, read_only=False)
    if max_usd is not None:
        for spending in (tools.run_study, tools.stop_study):
            offer(spending, read_only=False)
    if serve:
        offer(tools.serve_winner, read_only=False)
    return server, tools


def _with_clear_errors(tool: Callable[..., Any], fault: type[Exception]) -> Callable[..., Any]:
    """Wrap a tool so that the agent reads its errors, which name the next step."""

    @functools.wraps(tool)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        try:
            return json.loads(json.dumps(tool(*arguments, **named), default=str))
        except TunepointError as error:
            raise fault(str(error)) from None

    return wrapped
