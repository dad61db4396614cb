"""A hostile hour, shortened: attackers of all kinds at once, and how the gateway answers others meanwhile.

Half-open connections, huge and deep bodies, long texts for the redaction, servers whose events never end,
500 clients that hardly read, forged hosts. All of it on loopback: a good and a bad server, the gateway, the
attackers and the one who measures are a process each. The bad server and the attackers have a low priority
(nice 10): elsewhere their work is done by other machines. Prints the latency of /healthz and of chat
requests, the gateway's memory, and what is left of the attack after it.

    python benchmarks/hostile.py [--seconds 60] [--only slowloris,bodies]
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

HALF_OPEN, SLOW_READERS = 1_200, 500
LOW_PRIORITY = 10
MAX_HEALTH_MS, MAX_MEMORY_MB = 250.0, 300.0
Attack = Callable[[int, float, Counter[str]], Awaitable[None]]
"""The gateway's port, when to end (`time.monotonic()`), and counts of what happened."""


# -- the server behind the gateway -------------------------------------------------------------------


def serve_models(port: int) -> None:
    """A server whose models answer at once, at length, or without an end."""
    import uvicorn

    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choice = {"index": 0, "delta": {"content": "it goes to billing "}, "finish_reason": None}
    event = b"data: " + json.dumps({**head, "choices": [choice]}).encode() + b"\n\n"
    message = {"role": "assistant", "content": "billing"}
    whole = {**head, "object": "chat.completion", "choices": [{"index": 0, "message": message}]}
    finish = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    last = b"data: " + json.dumps(finish).encode() + b"\n\ndata: [DONE]\n\n"

    def pieces(model: str) -> Iterator[bytes]:
        if model == "long":  # 1.6 MB
            yield from [event * 100] * (1_600_000 // len(event) // 100)
            yield last
        while model == "endless":
            yield b"data: " + b"x" * 60_000
        while model == "forever":
            yield event * 50

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body, expects_more = b"", True
        while expects_more:
            part = await receive()
            body, expects_more = body + part.get("body", b""), part.get("more_body", False)
        request = json.loads(body)
        kind = b"text/event-stream" if request.get("stream") else b"application/json"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        if not request.get("stream"):
            await send({"type": "http.response.body", "body": json.dumps(whole).encode()})
            return
        gone = asyncio.create_task(receive())
        for piece in pieces(request["model"]):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0.02 if request["model"] == "forever" else 0)
            if gone.done():
                return
        await send({"type": "http.response.body", "body": b""})

    uvicorn.run(app, port=port, log_level="critical", access_log=False, lifespan="off")


# -- attackers ---------------------------------------------------------------------------------------


def chat(model: str = "chat", content: str = "I was charged twice", **more: Any) -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": content}], **more}).encode()


def request(body: bytes, host: str = "localhost", path: str = "/v1/chat/completions") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body


async def exchange(port: int, sent: bytes, counts: Counter[str], name: str) -> None:
    """Send bytes, read the answer, and count its status."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            async with asyncio.timeout(30):
                writer.write(sent)
                await writer.drain()
                status = (await reader.readline()).decode().split(" ")
                await reader.read()
            counts[f"{name} {status[1] if len(status) > 1 else 'closed'}"] += 1
        finally:
            writer.transport.abort()
    except (OSError, TimeoutError) as error:
        counts[f"{name} {type(error).__name__}"] += 1
        await asyncio.sleep(0.05)


async def half_open(port: int, end: float, start: bytes, drop: bytes, counts: Counter[str]) -> None:
    """Keep one connection half open, a few bytes each second, and open it again when it is closed."""
    while time.monotonic() < end:
        writer = None
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(start)
            while time.monotonic() < end:
                await asyncio.sleep(1)
                writer.write(drop)
                await writer.drain()
        except OSError:
            counts["half-open closed by the gateway"] += 1
            await asyncio.sleep(0.5)
        finally:
            if writer is not None:
                writer.transport.abort()


async def slowloris(port: int, end: float, counts: Counter[str]) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    starts = [(head, b"x: y\r\n"), (head + b"content-length: 4000000\r\n\r\n{", b"x" * 1_000), (b"", b"")]
    await asyncio.gather(*(half_open(port, end, *starts[n % 3], counts) for n in range(HALF_OPEN)))


async def repeated(port: int, end: float, counts: Counter[str], name: str, sent: list[bytes]) -> None:
    number = 0
    while time.monotonic() < end:
        await exchange(port, sent[number % len(sent)], counts, name)
        number += 1


async def bodies(port: int, end: float, counts: Counter[str]) -> None:
    deep, lists = b"[" * 900 + b"]" * 900, b"[" + b"[]," * 1_200_000 + b"0]"
    sent = [
        request(chat(content="y" * 3_900_000)),
        request(chat(content="y" * 5_000_000)),
        request(chat()[:-1] + b', "x": ' + deep + b"}"),
        request(b"[" * 1_000_000),
        request(chat()[:-1] + b', "x": [' + b'"a",' * 700_000 + b'"a"]}'),
        request(chat()[:-1] + b', "x": ' + lists + b"}"),
        request(b'{"request_id": "r", "comment": "' + b"y" * 700_000 + b'"}', path="/v1/feedback"),
    ]
    await asyncio.gather(*(repeated(port, end, counts, "bodies", sent[n:] + sent[:n]) for n in range(4)))


async def long_texts(port: int, end: float, counts: Counter[str]) -> None:
    texts = ["AB12" + "A" * 34, "1 2 3 4 5 6 7 8 9 ", "a@" + "b." * 40, "sk-" + "a" * 60 + "!", "+44 (0) 20-"]
    sent = [request(chat(content=(text * 4_000)[:100_000])) for text in texts]
    await asyncio.gather(*(repeated(port, end, counts, "long texts", sent) for _ in range(2)))


async def endless_events(port: int, end: float, counts: Counter[str]) -> None:
    sent = [request(chat("endless", stream=True))]
    await asyncio.gather(*(repeated(port, end, counts, "endless events", sent) for _ in range(5)))


async def slow_reader(port: int, end: float, model: str, counts: Counter[str]) -> None:
    """Read an answer with 256 bytes a second and the smallest buffer."""
    loop = asyncio.get_running_loop()
    body = request(chat(model, stream=True))
    while time.monotonic() < end:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        raw.setblocking(False)
        try:
            await loop.sock_connect(raw, ("127.0.0.1", port))
            await loop.sock_sendall(raw, body)
            while time.monotonic() < end and await loop.sock_recv(raw, 256):
                await asyncio.sleep(1)
        except OSError:
            counts["slow readers cut off"] += 1
        finally:
            raw.close()
        await asyncio.sleep(0.2)


async def slow_readers(port: int, end: float, counts: Counter[str]) -> None:
    models = ["long"] * 9 + ["forever"]
    await asyncio.gather(*(slow_reader(port, end, models[n % 10], counts) for n in range(SLOW_READERS)))


async def forged(port: int, end: float, counts: Counter[str]) -> None:
    sent = [
        request(chat(), host="evil.example"),
        request(chat(), host="localhost\r\nhost: evil.example"),
        request(chat(), host="x" * 20_000),
        b"GET /healthz/ HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"x: y\r\n" * 5_000 + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n" * 2_000,
        b"\x16\x03\x01" * 1_000,
    ]
    await repeated(port, end, counts, "forged", sent)


ATTACKS: dict[str, Attack] = {
    "slowloris": slowloris,
    "bodies": bodies,
    "texts": long_texts,
    "endless": endless_events,
    "readers": slow_readers,
    "forged": forged,
}


def attack(port: int, seconds: float, names: list[str]) -> None:
    """Attack in all ways at once; print what happened."""
    os.nice(LOW_PRIORITY)
    counts: Counter[str] = Counter()

    async def run() -> None:
        end = time.monotonic() + seconds
        await asyncio.gather(*(ATTACKS[name](port, end, counts) for name in names))

    asyncio.run(run())
    print(json.dumps(counts))


# -- measuring ---------------------------------------------------------------------------------------


def timed(port: int, method: str, path: str, body: bytes | None = None) -> tuple[float, int]:
    """Milliseconds of a call on a connection of its own, and its status; 0 if there was no answer."""
    started = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, {"content-type": "application/json"})
        reply = connection.getresponse()
        reply.read()
        status = reply.status
    except (OSError, http.client.HTTPException):
        status = 0
    finally:
        connection.close()
    return (time.perf_counter() - started) * 1_000, status


def memory_mb(pid: int, field: str) -> float:
    """Resident memory of a process now (`VmRSS`), or the most that it has had (`VmHWM`)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1_024 for line in lines if line.startswith(f"{field}:"))


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def measure(port: int, seconds: float) -> dict[str, Any]:
    """Ask for /healthz and for chat answers, each about 20 times a second, from a thread of its own."""
    end = time.monotonic() + seconds

    def ask(*call: Any) -> list[tuple[float, int]]:
        calls = []
        while time.monotonic() < end:
            calls.append(timed(port, *call))
            time.sleep(0.05)
        return calls

    with ThreadPoolExecutor(2) as threads:
        health = threads.submit(ask, "GET", "/healthz")
        answers = threads.submit(ask, "POST", "/v1/chat/completions", chat())
        return {**summary("health", health.result()), **summary("chat", answers.result())}


def summary(name: str, calls: list[tuple[float, int]]) -> dict[str, Any]:
    times = [milliseconds for milliseconds, _ in calls]
    return {
        f"{name}_calls": len(calls),
        f"{name}_failed": sum(status != 200 for _, status in calls),
        f"{name}_p50_ms": float(np.quantile(times, 0.5)),
        f"{name}_p99_ms": float(np.quantile(times, 0.99)),
        f"{name}_worst_ms": max(times),
    }


@contextmanager
def process(words: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start a server, wait until it listens, and end it."""
    with tempfile.TemporaryFile() as log:
        started = subprocess.Popen(words, stdout=log, stderr=log)
        try:
            for _ in range(600):
                with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                if started.poll() is not None:
                    log.seek(0)
                    raise SystemExit(f"{words} did not start: {log.read().decode()[-2_000:]}")
                time.sleep(0.1)
            yield started
        finally:
            started.send_signal(signal.SIGTERM)
            try:
                started.wait(30)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings(folder: Path, port: int, good: int, bad: int) -> Path:
    lines = [f'[server]\nport = {port}\nstore = "{folder}/capture.sqlite"\n']
    for name in ("chat", "long", "endless", "forever"):
        lines.append(f'[[tasks]]\nname = "{name}"\n[[tasks.arms]]\nname = "up"\n')
        behind = good if name == "chat" else bad
        lines.append(f'model = "http://127.0.0.1:{behind}/v1#{name}"\nprice = {{ input = 1, output = 2 }}\n')
    path = folder / "serve.toml"
    path.write_text("".join(lines))
    return path


def hostile(folder: Path, seconds: float, names: list[str]) -> dict[str, Any]:
    """Run the attack; return what was measured."""
    port, good, bad = free_port(), free_port(), free_port()
    me = [sys.executable, str(Path(__file__).resolve())]
    tunepoint = str(Path(sys.executable).with_name("tunepoint"))
    serve = [[*me, "--serve", str(good)], [*me, "--serve", str(bad), "--low-priority"]]
    with process(serve[0], good), process(serve[1], bad):
        with process([tunepoint, "serve", str(settings(folder, port, good, bad))], port) as gateway:
            (
                timed(port, "GET", "/healthz"),
                timed(port, "POST", "/v1/chat/completions", chat()),
            )  # until it is ready
            before = memory_mb(gateway.pid, "VmRSS"), open_files(gateway.pid)
            words = [*me, "--attack", str(port), "--seconds", str(seconds), "--only", ",".join(names)]
            attackers = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
            results = measure(port, seconds)
            printed, _ = attackers.communicate()
            peak = memory_mb(gateway.pid, "VmHWM")
            time.sleep(8)  # what was left open is closed by now
            after = memory_mb(gateway.pid, "VmRSS"), open_files(gateway.pid)
            stopping = time.monotonic()
        results["stop_s"] = time.monotonic() - stopping
    results |= {"memory_peak_mb": peak, "memory_before_mb": before[0], "memory_after_mb": after[0]}
    results |= {"files_before": before[1], "files_after": after[1], "exit_code": gateway.returncode}
    return {**results, "attack": json.loads(printed or "{}")}


def show(results: dict[str, Any]) -> None:
    print(f"{'':10}{'calls':>8}{'failed':>8}{'p50 ms':>9}{'p99 ms':>9}{'worst ms':>10}")
    for name in ("health", "chat"):
        calls, failed = results[f"{name}_calls"], results[f"{name}_failed"]
        p50, p99, worst = (results[f"{name}_{key}_ms"] for key in ("p50", "p99", "worst"))
        print(f"{name:10}{calls:>8}{failed:>8}{p50:>9.1f}{p99:>9.1f}{worst:>10.1f}")
    memory = [results[f"memory_{when}_mb"] for when in ("before", "peak", "after")]
    print(f"memory: {memory[0]:.0f} MB before, {memory[1]:.0f} at its peak, {memory[2]:.0f} after")
    print(f"open files: {results['files_before']} before, {results['files_after']} after")
    print(f"stopped in {results['stop_s']:.1f} s with exit code {results['exit_code']}")
    for what, count in sorted(results["attack"].items()):
        print(f"  {what}: {count:,}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--only", default=",".join(ATTACKS), help=f"of {', '.join(ATTACKS)}")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--attack", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--low-priority", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.low_priority:
        os.nice(LOW_PRIORITY)
    if options.serve:
        return serve_models(options.serve)
    names = [name for name in options.only.split(",") if name in ATTACKS]
    if options.attack:
        return attack(options.attack, options.seconds, names)
    with tempfile.TemporaryDirectory() as folder:
        results = hostile(Path(folder), options.seconds, names)
    show(results)
    held = results["health_worst_ms"] <= MAX_HEALTH_MS and results["memory_peak_mb"] <= MAX_MEMORY_MB
    print(json.dumps({**results, "held": held}))
    return None


if __name__ == "__main__":
    main()
