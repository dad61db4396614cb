"""Many calls to a chat model: time beside the ideal, and memory.

A mock server in a process of its own answers every call after 50 ms. The calls go through the
whole path: rendering, the client, parsing, recording in SQLite.

    python benchmarks/runner.py [--calls 2000] [--concurrency 64] [--latency 0.05]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import resource
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from mock_server import completion, start_server

from tunepoint.models.chat import Prompt
from tunepoint.models.endpoints import TextModel
from tunepoint.models.openai import OpenAIEndpoint
from tunepoint.models.recording import CallRecording, RecordedEndpoint


async def answer(latency: float, body: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(latency)
    return completion("billing", 50, 2)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=2_000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.05)
    options = parser.parse_args()
    server, port = start_server(partial(answer, options.latency))
    prompts = [Prompt(f"message {i}", "Route it.", ("billing", "fault")) for i in range(options.calls)]
    ideal = math.ceil(options.calls / options.concurrency) * options.latency
    with tempfile.TemporaryDirectory() as folder:
        endpoint = OpenAIEndpoint(f"http://127.0.0.1:{port}/v1#mock", concurrency=options.concurrency)
        recording = CallRecording(Path(folder) / "calls.sqlite")
        model = TextModel(RecordedEndpoint(endpoint.name, recording, endpoint))
        started = time.perf_counter()
        model.answer([Prompt("the first", "Route it.", ("billing", "fault"))])
        starting = time.perf_counter() - started
        started = time.perf_counter()
        replies = model.answer(prompts)
        seconds = time.perf_counter() - started
        assert all(reply.answer == "billing" for reply in replies)
        assert len(recording) == options.calls + 1
        endpoint.close()
        recording.close()
    server.terminate()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{options.calls} calls, {options.concurrency} at once, {options.latency * 1000:.0f} ms each")
    print(f"{'start-up, first call':<24}{starting:8.2f} s")
    print(f"{'all calls':<24}{seconds:8.2f} s, {options.calls / seconds:,.0f} a second")
    print(f"{'ideal':<24}{ideal:8.2f} s, ratio {seconds / ideal:.3f}")
    print(f"{'peak memory':<24}{memory:8.0f} MiB")
    figures = {
        "benchmark": "runner",
        "calls": options.calls,
        "start_seconds": round(starting, 3),
        "seconds": round(seconds, 3),
        "ideal_seconds": round(ideal, 3),
        "ratio": round(seconds / ideal, 3),
        "peak_mib": round(memory),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
