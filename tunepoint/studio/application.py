"""The studio's server: pages and JSON for a browser on this machine, behind a token."""

from __future__ import annotations

import asyncio
import csv
import hmac
import json
import math
import re
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tunepoint.data.prepare import prepare
from tunepoint.errors import StudyError, TunepointError
from tunepoint.report.comparison import changes
from tunepoint.report.html import read_decision
from tunepoint.studio.commands import run_words, serve_words
from tunepoint.studio.jobs import Jobs, Standings
from tunepoint.studio.label_queue import fill_in, queue
from tunepoint.studio.tasks import TaskForm, add_log, draft, save_task, task_form
from tunepoint.studio.workspace import Workspace
from tunepoint.study.estimate import estimate
from tunepoint.study.finalists import study_task
from tunepoint.study.labelling.inputs import POOL_TRIALS
from tunepoint.study.labelling.reading import RIGHT_OR_WRONG
from tunepoint.task.sections import JUDGE
from tunepoint.task.task import Task

COOKIE = "tunepoint-studio-"
"""With the port behind it: browsers send a cookie to every port of a machine."""
HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?", re.IGNORECASE)
MAX_BODY_BYTES = 2**20
MAX_USD = 1e6
PAGE_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
ASSETS = {"studio.js": "text/javascript", "studio.css": "text/css"}
Body = TypeVar("Body", bound=BaseModel)
Handler = Callable[[Request], Awaitable[Response]]


class RunRequest(BaseModel):
    """How a study is started."""

    model_config = ConfigDict(extra="forbid")

    max_usd: float = Field(ge=0, le=MAX_USD, allow_inf_nan=False)


class LabelRequest(BaseModel):
    """What somebody says of one input."""

    model_config = ConfigDict(extra="forbid")

    item: str
    right: str = Field(max_length=100_000)
    by: str = Field(default="", max_length=100)


@dataclass
class Studio:
    """The workspace with the commands that were started in it."""

    workspace: Workspace
    token: str
    port: int
    """Of the gateway that `serve` starts."""

    def __post_init__(self) -> None:
        self.jobs = Jobs(self.workspace.folder)
        self.standings: dict[str, Standings] = {}

    # -- what is there ---------------------------------------------------------------------------

    async def home(self, request: Request) -> Response:
        """Tasks and studies."""
        studies = await asyncio.to_thread(self.workspace.studies)
        for study in studies:
            job = self.jobs.find(f"study {study['name']}")
            study["running"] = job is not None and job.running
        return JSONResponse({"tasks": self.workspace.tasks(), "studies": studies})

    async def add_data(self, request: Request) -> Response:
        """A data file: kept, and a task drafted for it."""
        path = await self.workspace.save_data(request.query_params.get("name", ""), request.stream())
        try:
            guesses = await asyncio.to_thread(draft, path)
        except BaseException:
            shutil.rmtree(path.parent)  # what cannot be read leaves nothing behind
            raise
        folder = path.parent.relative_to(self.workspace.folder).as_posix()
        return JSONResponse({"task": folder, "guesses": guesses})

    async def task(self, request: Request) -> Response:
        """The form of a task; saved first, where one is sent."""
        folder = self.workspace.task(request.query_params.get("name", ""))
        if request.method == "POST":
            await asyncio.to_thread(save_task, folder, await _body(request, TaskForm))
        return JSONResponse(await asyncio.to_thread(task_form, folder))

    async def log(self, request: Request) -> Response:
        """A log of what runs today: kept beside the task, and named among its models."""
        asked = request.query_params
        name, file = asked.get("name", ""), asked.get("file", "")
        prices = {key: _dollars(asked[key]) for key in ("input", "output") if asked.get(key)}
        path = await self.workspace.save_log(name, file, request.stream())
        try:
            coverage = await asyncio.to_thread(add_log, self.workspace.task(name), path, prices)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return JSONResponse({"coverage": coverage})

    async def quote(self, request: Request) -> Response:
        """What a study would cost, and what the audit of the data found."""
        task = Task.load(self.workspace.task(request.query_params.get("name", "")))

        def look() -> dict[str, Any]:
            prepared = prepare(task, 0)
            sizes = {name: len(getattr(prepared.split, name)) for name in ("train", "dev", "test")}
            audit = asdict(prepared.audit)
            findings = ("dropped", "contradictions", "near_duplicates", "personal")
            counts = {name: len(audit[name]) for name in findings}
            return {"lines": estimate(task, 0), "sizes": sizes, "found": counts}

        return JSONResponse(await asyncio.to_thread(look))

    # -- studies -----------------------------------------------------------------------------------

    async def run(self, request: Request) -> Response:
        """Start or resume the study of a task."""
        limits = await _body(request, RunRequest)
        name = request.query_params.get("name", "")
        study, words = await asyncio.to_thread(run_words, self.workspace, name, limits.max_usd)
        self.jobs.start(f"study {study}", words)
        return JSONResponse({"study": study})

    async def study(self, request: Request) -> Response:
        """Where a study stands: the command on its way, scores so far, and the verdict."""
        name = request.query_params.get("name", "")
        job = self.jobs.find(f"study {name}")
        serving = self.jobs.find("gateway")
        if job is None:
            self.workspace.study(name)
        folder = self.workspace.folder / "studies" / name
        standings = self.standings.setdefault(name, Standings(folder))
        described = next((s for s in self.workspace.studies() if s["name"] == name), None)
        return JSONResponse(
            {
                "study": described,
                "job": None if job is None else job.document(),
                "standings": await asyncio.to_thread(standings.rows),
                "labels": (folder / POOL_TRIALS).exists(),
                "gateway": None if serving is None else serving.document(),
                "gateway_url": f"http://127.0.0.1:{self.port}/",
            }
        )

    async def stop(self, request: Request) -> Response:
        """Stop a study, or the gateway; what was measured is kept."""
        self.jobs.stop(request.query_params.get("name", ""))
        return JSONResponse({})

    async def serve(self, request: Request) -> Response:
        """Start the gateway with a study's winner."""
        study = request.query_params.get("name", "")
        self.jobs.start("gateway", serve_words(self.workspace, study, self.port))
        return JSONResponse({"url": f"http://127.0.0.1:{self.port}/"})

    async def report(self, request: Request) -> Response:
        """The report, which brings its own policy along."""
        path = self.workspace.study(request.query_params.get("name", "")) / "report.html"
        if not path.exists():
            raise StudyError(f"{path.parent}: no report yet; resume the study")
        # in a tab of its own it must not have the studio's rights
        headers = {
            "content-security-policy": "sandbox allow-scripts allow-popups",
            "x-content-type-options": "nosniff",
        }
        return FileResponse(path, media_type="text/html", headers=headers)

    async def compare(self, request: Request) -> Response:
        """What has changed from one study to another."""
        old, new = (self.workspace.study(request.query_params.get(key, "")) for key in ("old", "new"))
        return JSONResponse({"changes": changes(read_decision(old), read_decision(new))})

    # -- labels ------------------------------------------------------------------------------------

    async def labels(self, request: Request) -> Response:
        """The sheet of a study; a label is written first, where one is sent."""
        name = request.query_params.get("name", "")
        folder = self.workspace.study(name)
        if request.method == "POST":
            label = await _body(request, LabelRequest)
            await asyncio.to_thread(fill_in, folder, label.item, label.right, label.by)
            return JSONResponse({})
        job = self.jobs.find(f"labels {name}")
        output = None
        if job is not None and not job.running:
            output = "".join(job.output).strip() or "\n".join(job.lines)
        task = study_task(folder)
        return JSONResponse(
            {
                "sheet": await asyncio.to_thread(queue, folder),
                "none": task.answer.kind in RIGHT_OR_WRONG or task.score.metric == JUDGE,
                "job": None if job is None else job.document(),
                "output": output,
            }
        )

    async def next_labels(self, request: Request) -> Response:
        """Have the study read its sheet, decide again and write the next; a file may join its pool."""
        name = request.query_params.get("name", "")
        folder = self.workspace.study(name)
        words = ["label", str(folder), "--quiet"]
        if file := request.query_params.get("file"):
            words += ["--pool", str(await self.workspace.save_data(file, request.stream()))]
        if limit := request.query_params.get("max_usd"):
            words += ["--max-usd", repr(_dollars(limit))]
        if by := request.query_params.get("by"):
            words += ["--by", by]
        self.jobs.start(f"labels {name}", words)
        return JSONResponse({})

    # -- who may ask -------------------------------------------------------------------------------

    def admits(self, request: Request) -> bool:
        """Whether a request comes from the page of this studio, on this machine, with its token.

        A page that rebinds its DNS name sends another host; one of another site sends its origin, and the
        cookie is not sent along.
        """
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if HOST.fullmatch(host) is None:
            return False
        if origin is not None and origin.partition("://")[2].casefold() != host.casefold():
            return False
        given = request.cookies.get(_cookie(request), "")
        return hmac.compare_digest(given.encode(), self.token.encode())

    async def page(self, request: Request) -> Response:
        """The page; the token in its address becomes a cookie that scripts cannot read."""
        given = request.query_params.get("token")
        if given is not None and HOST.fullmatch(request.headers.get("host", "")):
            if not hmac.compare_digest(given.encode(), self.token.encode()):
                return Response("This address is of an earlier start; take the one in the terminal.", 403)
            redirect = RedirectResponse("/", 303)
            redirect.set_cookie(_cookie(request), self.token, httponly=True, samesite="strict")
            return redirect
        if not self.admits(request):
            return Response("Open the address that `tunepoint studio` printed: it holds a token.", 403)
        return Response(_asset("studio.html"), headers=PAGE_HEADERS, media_type="text/html")


def _dollars(text: str) -> float:
    """Read an amount of money.

    Raises:
        StudyError: it is none.

    """
    try:
        dollars = float(text)
    except ValueError:
        dollars = math.nan
    if not 0 <= dollars <= MAX_USD:
        raise StudyError(f"{text!r} is not an amount of dollars from 0 to {MAX_USD:,.0f}")
    return dollars


def _cookie(request: Request) -> str:
    return f"{COOKIE}{request.url.port or 80}"


def _asset(name: str) -> str:
    return resources.files("tunepoint.studio").joinpath("assets", name).read_text(encoding="utf-8")


async def _body(request: Request, model: type[Body]) -> Body:
    """Read a JSON body.

    Raises:
        StudyError: it is too long, or not what is asked for.

    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise StudyError(f"the form is over {MAX_BODY_BYTES:,} bytes; shorten the prompt")
    try:
        return model.model_validate(json.loads(body))
    except (ValueError, ValidationError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        raise StudyError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def application(folder: Path, token: str, gateway_port: int) -> tuple[Starlette, Studio]:
    """Return the studio of a folder, as a server and as what it holds."""
    studio = Studio(Workspace(folder.resolve()), token, gateway_port)

    def guarded(handler: Handler) -> Handler:
        async def respond(request: Request) -> Response:
            if not studio.admits(request):
                return JSONResponse({"error": "open the address that `tunepoint studio` printed"}, 403)
            try:
                return await handler(request)
            except TunepointError as error:
                return JSONResponse({"error": str(error)}, 400)
            except (OSError, ValueError, csv.Error) as error:
                return JSONResponse({"error": f"{type(error).__name__}: {error}"}, 400)

        return respond

    async def asset(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in ASSETS:
            return Response("not found", 404)
        return Response(_asset(name), headers=PAGE_HEADERS, media_type=ASSETS[name])

    handlers: dict[str, tuple[Handler, list[str]]] = {
        "home": (studio.home, ["GET"]),
        "data": (studio.add_data, ["POST"]),
        "task": (studio.task, ["GET", "POST"]),
        "log": (studio.log, ["POST"]),
        "quote": (studio.quote, ["GET"]),
        "run": (studio.run, ["POST"]),
        "study": (studio.study, ["GET"]),
        "stop": (studio.stop, ["POST"]),
        "serve": (studio.serve, ["POST"]),
        "report": (studio.report, ["GET"]),
        "compare": (studio.compare, ["GET"]),
        "labels": (studio.labels, ["GET", "POST"]),
        "labels/next": (studio.next_labels, ["POST"]),
    }
    routes = [Route("/", studio.page), Route("/assets/{name}", guarded(asset))]
    for path, (handler, methods) in handlers.items():
        routes.append(Route(f"/api/{path}", guarded(handler), methods=methods))
    return Starlette(routes=routes), studio


def address(port: int, token: str) -> str:
    """Return the address that opens the studio."""
    return f"http://127.0.0.1:{port}/?token={quote(token)}"
