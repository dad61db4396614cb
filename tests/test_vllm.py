"""Models that vLLM runs: a server that is there, one that is started, and adapters beside their base."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import vllm_server

from tunepoint import Task, run
from tunepoint.arms.causal.base import CausalBase
from tunepoint.arms.causal.causal import FittedCausal
from tunepoint.arms.causal.vllm_runs import VllmRuns, check_engine
from tunepoint.arms.contract import Built
from tunepoint.errors import ModelError, TaskError
from tunepoint.models import vllm
from tunepoint.models.chat import Message, Prompt
from tunepoint.models.endpoints import Completion, Request, allow_all
from tunepoint.models.prices import call_price
from tunepoint.models.vllm import VllmServers
from tunepoint.models.vllm_endpoint import VllmEndpoint
from tunepoint.task.sections import Tune

ASK = [Request((Message("user", f"question {number}"),), 8) for number in range(5)]


@contextmanager
def serving(base: str, *, adapters: bool = True) -> Iterator[str]:
    """A server that is there already; its address."""
    server = vllm_server.server(base, 0, adapters=adapters)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program `vllm` in the path, and nothing on its own port."""
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{vllm_server.__file__}" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.delenv("TUNEPOINT_VLLM_URL", raising=False)
    monkeypatch.setattr(vllm, "LOOK_SECONDS", 0.05)


def texts(endpoint: Any, requests: list[Request] = ASK) -> list[str]:
    done: dict[int, Completion] = {}
    endpoint.complete(requests, done.__setitem__, allow_all)
    return [done[position].text for position in range(len(requests))]


def state(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url.removesuffix("/v1") + "/state") as response:
        content: dict[str, Any] = json.load(response)
    return content


def adapter(folder: Path, name: str) -> CausalBase:
    """A base with one run in the files of PEFT."""
    (folder / name).mkdir(parents=True)
    (folder / name / "adapter_config.json").write_text("{}")
    return CausalBase("base", folder)


def test_a_server_that_is_there_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving("org/base") as url:
        monkeypatch.setenv("TUNEPOINT_VLLM_URL", url)
        servers = VllmServers()
        endpoint = VllmEndpoint(servers, "org/base")
        assert texts(endpoint) == ["org/base"] * 5 and endpoint.name == "vllm:org/base"
        server = servers.of("org/base")
        assert server.process is None and servers.of("org/base") is server
        endpoint.close()
        servers.close()
        assert texts_again(url) == 5  # it still runs


def texts_again(url: str) -> int:
    return len(state(url)["calls"])


def test_a_named_server_without_the_model_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving("another") as url:
        monkeypatch.setenv("TUNEPOINT_VLLM_URL", url)
        with pytest.raises(ModelError, match=r"it offers another at .* start `vllm serve base`"):
            VllmServers().of("base")
    with pytest.raises(ModelError, match="no server replies"):
        VllmServers().of("base")


def test_without_vllm_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNEPOINT_VLLM_URL", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ModelError, match="vllm is not installed; start `vllm serve base`"):
        VllmServers().of("base")


@pytest.mark.usefixtures("installed")
def test_a_server_is_started_and_stopped(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    servers = VllmServers(tuned=["mine"])
    endpoint = VllmEndpoint(servers, "mine", tmp_path)
    assert texts(endpoint) == ["mine"] * 5
    server = servers.of("mine", tmp_path)
    arguments = state(server.address.url)["arguments"]
    assert arguments[:2] == ["serve", str(tmp_path / "mine")] and "--enable-lora" in arguments
    assert arguments[arguments.index("--generation-config") + 1] == "vllm"
    servers.release()
    assert server.process is not None and server.process.poll() is not None
    assert texts(endpoint) == ["mine"] * 5  # a training has ended: it is asked again, and started
    endpoint.close()
    again = servers.of("mine", tmp_path)
    assert again is not server
    servers.close()
    assert again.process is not None and again.process.poll() is not None


@pytest.mark.usefixtures("installed")
def test_a_server_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    script = """
import os, signal
from tunepoint.models.vllm import VllmServers
print(VllmServers().of("mine").address.url, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    url = killed.stdout.strip()
    assert killed.returncode == -9 and url.startswith("http")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            state(url)
        except OSError:
            return
        time.sleep(0.1)
    pytest.fail("the server still runs")


@pytest.mark.usefixtures("installed")
def test_a_server_that_does_not_start_says_why() -> None:
    with pytest.raises(ModelError, match=r"vLLM did not start; its log .* ends: ValueError: No supported"):
        VllmServers().of("org/fails")


def test_adapters_answer_beside_their_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "MAX_ADAPTERS", 2)
    base = adapter(tmp_path, "run 1")
    for name in ("run 2", "run 3"):
        adapter(tmp_path, name)
    with serving("base") as url:
        monkeypatch.setenv("TUNEPOINT_VLLM_URL", url)
        servers = VllmServers()
        runs = base.elsewhere = VllmRuns(servers)
        for name in ("run 1", "run 2", "run 1", "run 3"):
            fitted = FittedCausal(base, name, Prompt("", kind="text"), Built(3))
            replies = fitted.answer(["a", "b"])
            assert [reply.text for reply in replies] == [name, name]
            assert replies[0].usage.model == "vllm:base"
        assert fitted.answer(["one"])[0].text == "run 3"  # a single request is timed where it will be served
        assert list(state(url)["adapters"]) == ["run 2", "run 3"]  # the oldest went
        runs.release()
        servers.close()
        assert state(url)["adapters"] == {}


def test_a_server_that_takes_no_adapters_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = adapter(tmp_path, "run 1")
    with serving("base", adapters=False) as url:
        monkeypatch.setenv("TUNEPOINT_VLLM_URL", url)
        with pytest.raises(ModelError, match="start it with --enable-lora and VLLM_ALLOW_RUNTIME"):
            texts(VllmRuns(VllmServers()).of(base, "run 1", 2))


def test_only_adapters_are_served_so() -> None:
    check_engine(Tune(base="b", engine="vllm"))
    for tune in (Tune(base="b", engine="vllm", method="full"), Tune(base="b", engine="vllm", rank=128)):
        with pytest.raises(TaskError, match="serves adapters"):
            check_engine(tune)


def test_the_engine_is_part_of_what_is_measured_and_older_studies_keep_their_identity() -> None:
    usual, other = Tune(base="b"), Tune(base="b", engine="vllm")
    assert "engine" not in usual.identity() and other.identity()["engine"] == "vllm"


@pytest.mark.usefixtures("installed")
def test_a_study_starts_its_own_server(small_task: Path, tmp_path: Path) -> None:
    content = small_task.read_text()
    path = small_task.parent / "vllm.toml"
    models = '[[models]]\nname = "vllm:org/base"\nstyles = ["zero-shot"]\n'
    path.write_text(f"{content}{models}[search]\ncalls = 0\n")
    assert call_price("vllm:org/base", None) is None
    run(Task.load(path), out=tmp_path / "study", seed=3)
    manifest = json.loads((tmp_path / "study" / "manifest.json").read_text())
    assert manifest["models"]["vllm:org/base"]["price"] == "this machine"
    assert any("base" in name for name in manifest["sealed_test"]["finalists"])
