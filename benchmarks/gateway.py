"""The gateway beside a bare pass-through and, where they are installed, LiteLLM and Portkey, in one run.

A mock server on loopback answers at once. Each proxy is one process; the load comes from another one.
Prints requests/s, p50 and p99 at 1, 16 and 64 requests at once, streaming and not, the latency that is
added at 500 requests/s, and the memory of each process.

    python benchmarks/gateway.py [--seconds 5] [--only tunepoint,bare]
    pip install 'litellm[proxy]' in another environment: --litellm PATH/TO/bin/litellm
    npm install @portkey-ai/gateway: --portkey PATH/TO/node_modules/@portkey-ai/gateway/build/start-server.js
        (1.15.2 cannot stream with the newest hono: overrides of hono 4.9.7 and @hono/node-server 1.13.7)
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import numpy as np

T = TypeVar("T")
BODY = {"model": "bench", "messages": [{"role": "user", "content": "Which queue? I was charged twice."}]}
WORDS = ["it", "goes", "to", "billing", "because", "the", "card", "was", "charged", "twice", "this", "month"]
ENVIRONMENT = {
    "LITELLM_MASTER_KEY": "sk-bench",
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
}
PORTS = {"mock": 8_701, "tunepoint": 8_702, "bare": 8_703, "litellm": 8_704, "portkey": 8_705}


# -- servers, each in a process of its own ----------------------------------------------------------


def mock() -> Any:
    """A raw ASGI application that answers at once."""
    head = {"id": "chatcmpl-1", "created": 1, "model": "mock-1"}
    message = {"role": "assistant", "content": "billing"}
    completion = {
        **head,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 2, "total_tokens": 22},
    }
    answer = json.dumps(completion).encode()
    chunk = {**head, "object": "chat.completion.chunk"}
    deltas = [
        {"choices": [{"index": 0, "delta": {"content": f"{word} "}, "finish_reason": None}]} for word in WORDS
    ]
    deltas.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    events = [
        b"data: " + json.dumps({**chunk, **d}, separators=(",", ":")).encode() + b"\n\n" for d in deltas
    ]
    events.append(b"data: [DONE]\n\n")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            part = await receive()
            body += part.get("body", b"")
            if not part.get("more_body"):
                break
        stream = b'"stream":true' in body.replace(b" ", b"")
        kind = b"text/event-stream" if stream else b"application/json"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        if not stream:
            await send({"type": "http.response.body", "body": answer})
            return
        for event in events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return app


def bare() -> Any:
    """Starlette with aiohttp as the client, which only passes requests on."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response, StreamingResponse
    from starlette.routing import Route

    held: list[aiohttp.ClientSession] = []
    url = f"http://127.0.0.1:{PORTS['mock']}/v1/chat/completions"

    async def chat(request: Request) -> Response:
        if not held:
            held.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        body = await request.body()
        if json.loads(body).get("stream"):

            async def events() -> Any:
                async with held[0].post(url, data=body) as reply:
                    async for part in reply.content.iter_any():
                        yield part

            return StreamingResponse(events(), media_type="text/event-stream")
        async with held[0].post(url, data=body) as reply:
            return Response(await reply.read(), media_type="application/json")

    return Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])


def serve(name: str) -> None:
    import uvicorn

    app = {"mock": mock, "bare": bare}[name]()
    uvicorn.run(app, port=PORTS[name], log_level="error", access_log=False, lifespan="off")


@contextmanager
def process(name: str, words: list[str], **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a server, wait until it answers, and end it with all its children."""
    with tempfile.TemporaryFile() as log:
        started = subprocess.Popen(
            words, stdout=log, stderr=log, env={**os.environ, **environment}, start_new_session=True
        )
        try:
            if not _answers(name, started):
                log.seek(0)
                raise SystemExit(f"{name} did not start: {log.read().decode()[-2_000:]}")
            yield started
        finally:
            if started.poll() is None:
                os.killpg(started.pid, signal.SIGTERM)
                started.wait(60)


def _answers(name: str, started: subprocess.Popen[bytes]) -> bool:
    """Wait until a server answers; False if it has ended."""
    for _ in range(600):
        if started.poll() is not None:
            return False
        try:
            request = urllib.request.Request(address(name), json.dumps(BODY).encode(), headers(name))
            with urllib.request.urlopen(request, timeout=5):
                return True
        except OSError:
            time.sleep(0.2)
    return False


def address(name: str) -> str:
    return f"http://127.0.0.1:{PORTS[name]}/v1/chat/completions"


def headers(name: str) -> dict[str, str]:
    headers_sent = {"content-type": "application/json", "authorization": "Bearer sk-bench"}
    if name == "portkey":
        headers_sent |= {
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"http://127.0.0.1:{PORTS['mock']}/v1",
        }
    return headers_sent


def command(name: str, options: argparse.Namespace, folder: Path) -> list[str]:
    if name in ("mock", "bare"):
        return [sys.executable, str(Path(__file__).resolve()), "--serve", name]
    if name == "portkey":
        return ["node", options.portkey, f"--port={PORTS[name]}", "--headless"]
    upstream = f"http://127.0.0.1:{PORTS['mock']}/v1"
    if name == "litellm":
        settings = folder / "litellm.yaml"
        entry = {"model": "openai/mock-1", "api_base": upstream, "api_key": "x"}
        content = {"model_list": [{"model_name": "bench", "litellm_params": entry}]}
        settings.write_text(json.dumps(content))
        return [options.litellm, "--config", str(settings), "--port", str(PORTS[name]), "--host", "127.0.0.1"]
    settings = folder / "serve.toml"
    settings.write_text(
        f'[server]\nport = {PORTS[name]}\nstore = "{folder}/capture.sqlite"\nworkers = 1\n'
        '[[tasks]]\nname = "bench"\n'
        f'[[tasks.arms]]\nname = "mock"\nmodel = "{upstream}#mock-1"\n'
        "price = { input = 1, output = 2 }\n"
    )
    return [str(Path(sys.executable).with_name("tunepoint")), "serve", str(settings)]


# -- load -------------------------------------------------------------------------------------------


async def closed_loop(name: str, at_once: int, seconds: float, stream: bool) -> dict[str, float]:
    """Run `at_once` callers, each of which calls again as soon as it is answered."""
    body = json.dumps({**BODY, "stream": stream}).encode()
    times: list[float] = []
    failed = 0
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=headers(name)) as session:
        end = time.perf_counter() + seconds

        async def caller() -> None:
            nonlocal failed
            while (started := time.perf_counter()) < end:
                async with session.post(address(name), data=body) as reply:
                    await reply.read()
                    failed += reply.status != 200
                times.append(time.perf_counter() - started)

        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(at_once)))
        took = time.perf_counter() - began
    p50, p99 = np.quantile(times, [0.5, 0.99]) * 1_000
    return {"rps": len(times) / took, "p50_ms": p50, "p99_ms": p99, "failed": failed}


async def open_loop(name: str, rate: float, seconds: float) -> dict[str, float]:
    """Send requests at a fixed rate, whether earlier ones were answered or not."""
    body = json.dumps(BODY).encode()
    times: list[float] = []
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), headers=headers(name)
    ) as session:

        async def send(due: float) -> None:
            async with session.post(address(name), data=body) as reply:
                await reply.read()
            times.append(time.perf_counter() - due)

        tasks, began = [], time.perf_counter()
        for number in range(int(rate * seconds)):
            due = began + number / rate
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.create_task(send(time.perf_counter())))
        await asyncio.gather(*tasks)
    p50, p99 = np.quantile(times, [0.5, 0.99]) * 1_000
    return {"p50_ms": p50, "p99_ms": p99}


def memory_mb(pid: int) -> float:
    """Sum the resident memory of a process and its children, in megabytes."""
    total = 0.0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            facts = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
            group = int(Path(f"/proc/{status.parent.name}/stat").read_text().rsplit(")", 1)[1].split()[2])
        except (OSError, ValueError, IndexError):
            continue
        if group == pid:
            total += int(facts.get("VmRSS", "0 kB").split()[0]) / 1_024
    return total


def measure(load: Callable[[], Coroutine[Any, Any, T]]) -> T:
    import uvloop

    return uvloop.run(load())  # type: ignore[no-any-return]


def one_proxy(
    name: str, options: argparse.Namespace, folder: Path, direct: dict[str, float]
) -> dict[str, Any]:
    """Load one proxy in every way, and print a row for each."""
    with process(name, command(name, options, folder), **ENVIRONMENT) as server:
        measure(lambda n=name: closed_loop(n, 16, 1.0, False))  # warm
        rows: dict[str, Any] = {}
        for stream in (False, True):
            for at_once in (1, 16, 64):
                figures = measure(lambda n=name, c=at_once, s=stream: closed_loop(n, c, options.seconds, s))
                mode = "streaming" if stream else "whole"
                rows[f"{mode} {at_once}"] = figures
                failed = f"  {figures['failed']:.0f} failed" if figures["failed"] else ""
                print(
                    f"{name:12}{at_once:>8}{mode:>10}{figures['rps']:>12,.0f}{figures['p50_ms']:>9.2f}"
                    f"{figures['p99_ms']:>9.2f}{failed}",
                    flush=True,
                )
        if name in ("bare", "tunepoint", "portkey"):
            at_500 = measure(lambda n=name: open_loop(n, 500, options.seconds))
            rows["added at 500/s"] = {key: at_500[key] - direct[key] for key in at_500}
            print(
                f"{name:12}added at 500/s: p50 {at_500['p50_ms'] - direct['p50_ms']:.2f} ms, "
                f"p99 {at_500['p99_ms'] - direct['p99_ms']:.2f} ms"
            )
        rows["memory_mb"] = memory_mb(server.pid)
        print(f"{name:12}{rows['memory_mb']:.0f} MB")
        if name == "tunepoint":
            with urllib.request.urlopen(f"http://127.0.0.1:{PORTS[name]}/metrics") as reply:
                counts = [line for line in reply.read().decode().splitlines() if "capture" in line]
            print("            " + ", ".join(line for line in counts if not line.startswith("#")))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--litellm")
    parser.add_argument("--portkey")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.serve)
    names = [
        "bare",
        "tunepoint",
        *(["litellm"] if options.litellm else []),
        *(["portkey"] if options.portkey else []),
    ]
    names = [name for name in names if not options.only or name in options.only.split(",")]
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, process("mock", command("mock", options, Path(folder))):
        direct = measure(lambda: open_loop("mock", 500, options.seconds))
        print(f"{'':12}{'at once':>8}{'':>10}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}")
        for name in names:
            results[name] = one_proxy(name, options, Path(folder), direct)
    results["load_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024
    print(json.dumps(results, default=float))
    return None


if __name__ == "__main__":
    main()
