"""Ten minutes at 200 requests/s, a quarter of them streams, some failing: the gateway's memory stays flat.

Prints resident memory every 30 seconds, and the rise from the first two minutes to the last two.

    python benchmarks/soak.py [--minutes 10] [--rate 200]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

import aiohttp
from gateway import BODY, ENVIRONMENT, address, command, headers, memory_mb, process


async def soak(pid: int, minutes: float, rate: float) -> tuple[list[tuple[float, float]], int, int]:
    """Send requests at a steady rate; return memory over time, and how many were answered and failed."""
    memory: list[tuple[float, float]] = []
    answered = failed = 0
    plain, stream = (json.dumps({**BODY, "stream": on}).encode() for on in (False, True))
    wrong = b'{"model": "bench", "messages": []}'
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), headers=headers("tunepoint")
    ) as session:

        async def send(number: int) -> None:
            nonlocal answered, failed
            body = wrong if number % 50 == 0 else stream if number % 4 == 0 else plain
            user = json.dumps(f"user {number % 5_000}").encode()
            body = body.replace(b'"model"', b'"user": ' + user + b', "model"', 1)
            async with session.post(address("tunepoint"), data=body) as reply:
                await reply.read()
                answered += reply.status == 200
                failed += reply.status not in (200, 400)

        began, tasks = time.perf_counter(), set[asyncio.Task[None]]()
        for number in range(int(rate * 60 * minutes)):
            wait = began + number / rate - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(send(number))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            if number % int(rate * 30) == 0:
                memory.append((time.perf_counter() - began, memory_mb(pid)))
                print(f"{memory[-1][0]:6.0f} s {memory[-1][1]:7.1f} MB", flush=True)
        await asyncio.gather(*tasks)
    return memory, answered, failed


def main() -> None:
    """Run the gateway under load and print how much its memory rose."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=200.0)
    arguments = parser.parse_args()
    options = argparse.Namespace(litellm=None, portkey=None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            process("mock", command("mock", options, folder)),
            process("tunepoint", command("tunepoint", options, folder), **ENVIRONMENT) as server,
        ):
            memory, answered, failed = asyncio.run(soak(server.pid, arguments.minutes, arguments.rate))
    late = memory[-1][0] - 120
    first = [megabytes for at, megabytes in memory if 30 <= at <= 150]
    last = [megabytes for at, megabytes in memory if at >= late]
    rise = sum(last) / len(last) - sum(first) / len(first)
    print(f"{answered} answered, {failed} failed; memory rose by {rise:.1f} MB")
    print(json.dumps({"answered": answered, "failed": failed, "rise_mb": rise, "memory": memory}))


if __name__ == "__main__":
    main()
