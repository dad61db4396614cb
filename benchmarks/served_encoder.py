"""The fine-tuned encoder of a study served in process: answers/s at rising concurrency, p50 and p99.

With `--workers 1 2` for several processes too: their processor time for an answer, whose inverse is what a
core of their own answers, and their memory, of which `shared_mb` is there once for all of them.

python benchmarks/served_encoder.py STUDY [--arm NAME] [--texts CSV] [--seconds 8] [--workers 1 2]
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil
from gateway import address, headers, measure, process

EXAMPLE = Path(__file__).parents[1] / "examples" / "support-triage" / "messages.csv"


async def load(texts: list[str], at_once: int, seconds: float) -> tuple[float, float, float]:
    """Load the gateway; return answers/s, and p50 and p99 in ms."""
    times: list[float] = []
    numbers = iter(range(10**9))
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), headers=headers("tunepoint")
    ) as session:
        end = time.perf_counter() + seconds

        async def caller() -> None:
            while (started := time.perf_counter()) < end:
                number = next(numbers)
                messages = [{"role": "user", "content": texts[number % len(texts)]}]
                body = {"model": "bench", "messages": messages}
                async with session.post(address("tunepoint"), json=body) as reply:
                    await reply.read()
                    assert reply.status == 200
                times.append(time.perf_counter() - started)

        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(at_once)))
        took = time.perf_counter() - began
    p50, p99 = (np.quantile(times, [0.5, 0.99]) * 1_000).tolist()
    return len(times) / took, p50, p99


def main() -> None:
    """Serve the arm, load it at rising concurrency, and print each result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path)
    parser.add_argument("--arm", default="fine-tuned encoder")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--texts", type=Path, default=EXAMPLE, help="CSV with a column `text`")
    options = parser.parse_args()
    with options.texts.open(newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file) if row["text"]]
    if options.texts == EXAMPLE:
        # The encoder remembers the vectors of the study's own messages, so each gets one more token.
        texts = [f"{text} ok" for text in texts]
    print(json.dumps({workers: served(options, texts, workers) for workers in options.workers}))


def served(options: argparse.Namespace, texts: list[str], workers: int) -> dict[str, Any]:
    """Serve the arm by so many processes, and load them at rising concurrency."""
    with tempfile.TemporaryDirectory() as name:
        settings = Path(name) / "serve.toml"
        settings.write_text(
            f'[server]\nport = 8702\nworkers = {workers}\nstore = "{name}/capture.sqlite"\n'
            f'[[tasks]]\nname = "bench"\n'
            f"study = {json.dumps(str(options.study.resolve()))}\nonly = [{json.dumps(options.arm)}]\n"
            f"champion = {json.dumps(options.arm)}\n"
        )
        tunepoint = str(Path(sys.executable).with_name("tunepoint"))
        rows: dict[str, Any] = {}
        with process("tunepoint", [tunepoint, "serve", str(settings)]) as started:
            measure(lambda: load(texts, 8, 2.0))
            gateways = serving(started.pid, workers)
            for at_once in (1, 4, 8, 16, 20, 24, 32):
                before = processor_seconds(gateways)
                rate, p50, p99 = measure(partial(load, texts, at_once, options.seconds))
                used = (processor_seconds(gateways) - before) / (rate * options.seconds)
                rows[str(at_once)] = {"rps": rate, "p50_ms": p50, "p99_ms": p99, "cpu_ms": used * 1_000}
                print(
                    f"{workers} workers, {at_once:3} at once {rate:8.0f} answers/s, p50 {p50:6.1f} ms, "
                    f"p99 {p99:6.1f} ms, {used * 1_000:.2f} ms of a core each",
                    flush=True,
                )
            memory = [gateway.memory_full_info() for gateway in gateways]
            rows["own_mb"] = [round(of.uss / 2**20) for of in memory]
            rows["shared_mb"] = [round((of.rss - of.uss) / 2**20) for of in memory]
    return rows


def serving(process: int, workers: int) -> list[psutil.Process]:
    """The processes that answer: one, or the children of the one that was started."""
    started = psutil.Process(process)
    return [started] if workers == 1 else started.children()


def processor_seconds(gateways: list[psutil.Process]) -> float:
    """Processor time of all of them so far."""
    return sum(sum(gateway.cpu_times()[:2]) for gateway in gateways)


if __name__ == "__main__":
    main()
