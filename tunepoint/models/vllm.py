"""vLLM as the engine of a model: a server that runs already, or one that is started while it is needed.

One server runs a base and, beside it, any number of adapters that were tuned from it (multi-LoRA): each has a
name of its own, under which requests ask for it. See https://docs.vllm.ai/en/latest/features/lora.html.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from tunepoint.errors import ModelError
from tunepoint.models.providers import VLLM_ADDRESS, VLLM_PREFIX, Address, parse_model_name

START_SECONDS = 1_800.0
"""How long a server may take to load a model: the first time it fetches and compiles it."""
STOP_SECONDS = 30.0
LOOK_SECONDS = 0.5
MAX_ADAPTERS = 8
"""Adapters that a server holds at once."""
MAX_RANK = 64
"""Of an adapter; vLLM takes memory for as much."""
LOG_LINES = 5
"""Of a server that did not start, in its error."""
RUNTIME_ADAPTERS = "VLLM_ALLOW_RUNTIME_LORA_UPDATING"
"""Environment variable of a server that takes adapters while it runs."""


class VllmServers:
    """The servers of a study, one for each base."""

    def __init__(self, tuned: Collection[str] = ()) -> None:
        """Prepare to reach or start servers; the first request does.

        Args:
            tuned: bases of which adapters are asked too.

        """
        self.at_end: list[Callable[[], None]] = []
        """Called by `close`."""
        self._tuned = tuned
        self._servers: dict[str, VllmServer] = {}

    def of(self, base: str, folder: Path = Path()) -> VllmServer:
        """Return the server of a base.

        Args:
            base: a directory, or a name on the hub.
            folder: where a relative directory starts.

        Raises:
            ModelError: none runs, and none can be started.

        """
        if base not in self._servers:
            path = folder / base
            model = str(path.resolve()) if path.is_dir() else base
            self._servers[base] = reach(base) or start(base, model, adapters=base in self._tuned)
        return self._servers[base]

    def release(self) -> None:
        """Stop the servers that were started, whose memory a training needs; requests start them again."""
        for base, server in list(self._servers.items()):
            if server.process is not None:
                server.stop()
                del self._servers[base]

    def close(self) -> None:
        """Stop what was started, and take adapters back from what was there."""
        while self.at_end:
            self.at_end.pop()()
        self.release()
        for server in self._servers.values():
            server.unload_all()
        self._servers.clear()


class VllmServer:
    """A server that runs, and the adapters that it has got from us."""

    def __init__(self, address: Address, process: subprocess.Popen[bytes] | None = None) -> None:
        self.address = address
        self.process = process
        """None for a server that was there before."""
        self._adapters: list[str] = []

    def load(self, folder: Path) -> None:
        """Let the server read an adapter, named as its folder; the oldest goes where there are too many.

        Raises:
            ModelError: it takes no adapters, or cannot read this one.

        """
        adapter = folder.name
        if adapter in self._adapters:
            return
        if len(self._adapters) >= MAX_ADAPTERS:
            self._unload(self._adapters.pop(0))
        try:
            self._post("load_lora_adapter", {"lora_name": adapter, "lora_path": str(folder.resolve())})
        except urllib.error.HTTPError as error:
            with error:
                words = error.read().decode("utf-8", "replace")[:300]
            if "already been loaded" not in words:
                hint = f"start it with --enable-lora and {RUNTIME_ADAPTERS}=True"
                known = error.code in (404, 405)
                raise ModelError(
                    f"{self.address.url}: does not take the adapter {folder} (HTTP {error.code}: {words}); "
                    f"{hint if known else 'it has to see that folder, and its base has to be the same'}"
                ) from None
        self._adapters.append(adapter)

    def unload_all(self) -> None:
        """Take back the adapters that were loaded."""
        while self._adapters:
            self._unload(self._adapters.pop())

    def stop(self) -> None:
        """End a server that was started."""
        assert self.process is not None, "another one is not ours to end"
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def _unload(self, adapter: str) -> None:
        with suppress(OSError):  # a server that is gone has none
            self._post("unload_lora_adapter", {"lora_name": adapter})

    def _post(self, path: str, body: Mapping[str, Any]) -> None:
        headers = {"content-type": "application/json", "authorization": f"Bearer {self.address.key()}"}
        url, data = f"{self.address.url}/{path}", json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=300):
            pass


def reach(base: str) -> VllmServer | None:
    """Return the server of TUNEPOINT_VLLM_URL, or of vLLM's own port; None where none offers the base.

    Raises:
        ModelError: a server was named, and does not offer it.

    """
    address = parse_model_name(VLLM_PREFIX + base)
    offered = _offered(address)
    if offered is not None and base in offered:
        return VllmServer(address)
    if VLLM_ADDRESS in os.environ:
        what = "no server replies" if offered is None else f"it offers {', '.join(offered) or 'no model'}"
        raise ModelError(
            f"{VLLM_PREFIX}{base}: {what} at {address.url} ({VLLM_ADDRESS}); start `vllm serve {base}` there"
        )
    return None


def start(base: str, model: str, *, adapters: bool) -> VllmServer:
    """Start a server, and wait until it has loaded the model.

    Args:
        base: what requests call the model.
        model: a directory, or a name on the hub.
        adapters: whether it has to take adapters.

    Raises:
        ModelError: vLLM is not installed, or the server ended.

    """
    program = shutil.which("vllm")
    if program is None:
        raise ModelError(
            f"{VLLM_PREFIX}{base}: no vLLM server replies on port 8000, and vllm is not installed; start "
            f"`vllm serve {base}`, name its address in {VLLM_ADDRESS}, or `pip install vllm` on a machine "
            "with a GPU"
        )
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # the model's own defaults for sampling would be part of a result that nobody has asked for
    command = [program, "serve", model, "--served-model-name", base, "--generation-config", "vllm"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    if adapters:
        command += ["--enable-lora", "--max-loras", str(MAX_ADAPTERS), "--max-lora-rank", str(MAX_RANK)]
    log = tempfile.NamedTemporaryFile(prefix="tunepoint-vllm-", suffix=".log", delete=False)  # noqa: SIM115
    with log:
        kept = [sys.executable, "-m", "tunepoint.models.kept_server", str(os.getpid()), *command]
        process = subprocess.Popen(kept, stdout=log, stderr=log, env={**os.environ, RUNTIME_ADAPTERS: "True"})
    server = VllmServer(Address(base, f"http://127.0.0.1:{port}/v1", base, None), process)
    try:
        _wait_until_loaded(server, base, Path(log.name))
    except BaseException:
        server.stop()
        raise
    return server


def _wait_until_loaded(server: VllmServer, base: str, log: Path) -> None:
    assert server.process is not None, "it was started just now"
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if server.process.poll() is not None:
            break
        if base in (_offered(server.address) or ()):
            return
        time.sleep(LOOK_SECONDS)
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-LOG_LINES:]
    raise ModelError(
        f"{VLLM_PREFIX}{base}: vLLM did not start; its log ({log}) ends: {' / '.join(lines) or 'empty'}"
    )


def _offered(address: Address) -> list[str] | None:
    """Names of the models that a server offers; None where none replies."""
    headers = {"authorization": f"Bearer {address.key()}"}
    request = urllib.request.Request(f"{address.url}/models", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return [str(model["id"]) for model in json.load(response)["data"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
