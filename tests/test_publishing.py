"""`tunepoint push`: the hub gets weights and card, and nothing of the training's own files."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from typer.testing import CliRunner

from tunepoint.cli.app import app
from tunepoint.errors import StudyError
from tunepoint.study.publishing import publish


class Hub:
    """A hub that takes commits as the real one does: repository, preupload, commit."""

    def __init__(self) -> None:
        self.repositories: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.refuses = False
        self.private = True
        self.url = ""

    async def create(self, request: web.Request) -> web.Response:
        if self.refuses or request.headers.get("authorization") != "Bearer hf_test":
            return web.json_response({"error": "Invalid credentials"}, status=401)
        self.repositories.append(await request.json())
        return web.json_response({"url": f"{self.url}/acme/router", "name": "acme/router"})

    async def info(self, request: web.Request) -> web.Response:
        if self.refuses:
            return web.json_response({"error": "Invalid credentials"}, status=401)
        return web.json_response({"id": "acme/router", "private": self.private, "siblings": [], "tags": []})

    async def preupload(self, request: web.Request) -> web.Response:
        body = await request.json()
        modes = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in body["files"]]
        return web.json_response({"files": modes})

    async def card(self, request: web.Request) -> web.Response:
        return web.json_response({"errors": [], "warnings": []})

    async def commit(self, request: web.Request) -> web.Response:
        for line in (await request.text()).splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                self.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        return web.json_response({"commitUrl": f"{self.url}/acme/router/commit/abc", "commitOid": "abc"})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub, started = Hub(), threading.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        server = web.Application()
        server.router.add_post("/api/repos/create", hub.create)
        server.router.add_post("/api/models/acme/router/preupload/main", hub.preupload)
        server.router.add_post("/api/models/acme/router/commit/main", hub.commit)
        server.router.add_post("/api/validate-yaml", hub.card)
        server.router.add_get("/api/models/acme/router", hub.info)
        runner = web.AppRunner(server)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        hub.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[attr-defined]
        started.set()
        try:
            while True:
                await asyncio.sleep(3_600)
        finally:
            await runner.cleanup()

    task = loop.create_task(serve())
    thread = threading.Thread(target=lambda: loop.run_until_complete(asyncio.wait([task])), daemon=True)
    thread.start()
    assert started.wait(10)
    for module in ("huggingface_hub.constants", "huggingface_hub.hf_api"):
        monkeypatch.setattr(f"{module}.ENDPOINT", hub.url, raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    yield hub
    loop.call_soon_threadsafe(task.cancel)
    thread.join(10)
    loop.close()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "runs").mkdir(parents=True)
    (folder / "README.md").write_text("# A router\n")
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "runs" / "state.json").write_text("{}")
    (folder / "dev.jsonl").write_text('{"answer": "private"}\n')
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    for private in (".env", "train.jsonl", "calls.sqlite", "checkpoint-5/model.safetensors", "sub/dev.jsonl"):
        (folder / private).parent.mkdir(exist_ok=True)
        (folder / private).write_text("secret")
    return folder


def test_weights_and_card_are_published_and_nothing_else(hub: Hub, model: Path) -> None:
    done = CliRunner().invoke(app, ["push", str(model), "acme/router", "--yes"])
    assert done.exit_code == 0, done.output
    assert done.output.strip().endswith("/acme/router")
    assert set(hub.files) == {"README.md", "adapter_model.safetensors", "adapter/adapter_config.json"}
    assert hub.files["adapter_model.safetensors"] == b"weights"
    (made,) = hub.repositories
    assert made["name"] == "router" and made["organization"] == "acme"
    assert made.get("private") is True or made.get("visibility") == "private"


def test_what_the_hub_refuses_is_said(hub: Hub, model: Path) -> None:
    hub.refuses = True
    done = CliRunner().invoke(app, ["push", str(model), "acme/router", "--yes", "--public"])
    assert done.exit_code == 2 and "the hub refused the upload" in done.output and "HF_TOKEN" in done.output
    assert not hub.files


def test_a_repository_that_everybody_sees_is_not_called_private(hub: Hub, model: Path) -> None:
    hub.private = False
    done = CliRunner().invoke(app, ["push", str(model), "acme/router", "--yes"])
    assert done.exit_code == 2 and "exists and is public" in done.output and not hub.files
    assert CliRunner().invoke(app, ["push", str(model), "acme/router", "--yes", "--public"]).exit_code == 0


def test_a_folder_without_weights_or_card_is_refused(tmp_path: Path, model: Path) -> None:
    with pytest.raises(StudyError, match="no weights"):
        publish(tmp_path / "model" / "runs", "acme/router")
    (model / "README.md").unlink()
    with pytest.raises(StudyError, match="the model card"):
        publish(model, "acme/router")
