"""The fine-tuned encoder of a study served in process: answers/s at rising concurrency, p50 and p99.

python benchmarks/served_encoder.py STUDY [--arm NAME] [--texts CSV] [--seconds 8]
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

import aiohttp
import numpy as np
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
    parser.add_argument("--texts", type=Path, default=EXAMPLE, help="CSV with a column `text`")
    options = parser.parse_args()
    with options.texts.open(newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file) if row["text"]]
    if options.texts == EXAMPLE:
        # The encoder remembers the vectors of the study's own messages, so each gets one more token.
        texts = [f"{text} ok" for text in texts]
    with tempfile.TemporaryDirectory() as name:
        settings = Path(name) / "serve.toml"
        settings.write_text(
            f'[server]\nport = 8702\nstore = "{name}/capture.sqlite"\n[[tasks]]\nname = "bench"\n'
            f"study = {json.dumps(str(options.study.resolve()))}\nonly = [{json.dumps(options.arm)}]\n"
            f"champion = {json.dumps(options.arm)}\n"
        )
        tunepoint = str(Path(sys.executable).with_name("tunepoint"))
        rows = {}
        with process("tunepoint", [tunepoint, "serve", str(settings)]):
            measure(lambda: load(texts, 8, 2.0))
            for at_once in (1, 4, 8, 16, 20, 24, 32):
                rate, p50, p99 = measure(partial(load, texts, at_once, options.seconds))
                rows[at_once] = {"rps": rate, "p50_ms": p50, "p99_ms": p99}
                print(
                    f"{at_once:3} at once {rate:8.0f} answers/s, p50 {p50:6.1f} ms, p99 {p99:6.1f} ms",
                    flush=True,
                )
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
