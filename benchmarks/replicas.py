"""Gateways that share one PostgreSQL: what they sustain together, and what a crash costs.

A mock server answers at once; gateways, load and database share the machine, so the requests/s that two cores
show are those of all of them. `cpu_ms_per_request` is what the gateways' processes used for a request: its
inverse is what a core of their own sustains.

* 1, 2 and 4 gateways: requests/s, p99, CPU, memory; captures lost or doubled.
* A budget, 16 callers, 4 gateways: dollars over it.
* The same traffic with a canary on 1 and on 4 gateways: the verdict, and how often it was acted on.
* 4 gateways under load: one is killed (SIGKILL), then PostgreSQL is away for `--away` seconds.
* `tunepoint serve --workers 2` against one process.

    python benchmarks/replicas.py [--seconds 5] [--away 30]    # needs PostgreSQL's binaries
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from gateway import BODY, PORTS, command, measure, process

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from postgres_server import Postgres, postgres_server

from tunepoint.capture.opening import open_store
from tunepoint.capture.spending import spending
from tunepoint.serve.auth import make_key

CALLERS = 16
NAMES = [f"replica {number}" for number in range(4)]
PORTS.update({name: 8_710 + number for number, name in enumerate(NAMES)})
PORTS["workers"] = 8_720
TICKS = os.sysconf("SC_CLK_TCK")


def database(server: Postgres, name: str) -> str:
    """Return the address of an empty database."""
    as_admin = ("-h", str(server.folder), "-U", "tunepoint", "-c")
    server.call("psql", *as_admin, f"create database {name}", "postgres")
    return f"postgresql://tunepoint@/{name}?host={server.folder}"


def settings(folder: Path, name: str, store: str, workers: int = 1) -> Path:
    """Write serve.toml: two arms at the mock, and one where nobody answers."""
    mock = f"http://127.0.0.1:{PORTS['mock']}/v1"
    content = f'[server]\nport = {PORTS[name]}\nstore = "{store}"\nworkers = {workers}\n'
    content += '[[tasks]]\nname = "bench"\n'
    for arm, address in (("mock", mock), ("spare", mock), ("broken", "http://127.0.0.1:9/v1")):
        content += f'[[tasks.arms]]\nname = "{arm}"\nmodel = "{address}#mock-1"\n'
        content += "price = { input = 10, output = 20 }\n"
    path = folder / f"{name.replace(' ', '-')}.toml"
    path.write_text(content)
    return path


@contextmanager
def gateways(
    folder: Path, names: list[str], store: str, workers: int = 1
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start gateways, wait until they answer, and end them as SIGTERM does."""
    program = str(Path(sys.executable).with_name("tunepoint"))
    with ExitStack() as stack:
        started = []
        for name in names:
            words = [program, "serve", str(settings(folder, name, store, workers))]
            null = subprocess.DEVNULL
            started.append(subprocess.Popen(words, stdout=null, stderr=null, start_new_session=True))
            stack.callback(_end, started[-1])
        for name in names:
            until(lambda n=name: health(n) is not None, 60)
        yield started


def _end(gateway: subprocess.Popen[bytes]) -> None:
    if gateway.poll() is None:
        os.killpg(gateway.pid, signal.SIGTERM)
        gateway.wait(60)


def health(name: str) -> dict[str, Any] | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORTS[name]}/healthz", timeout=2) as reply:
            return json.load(reply)  # type: ignore[no-any-return]
    except OSError:
        return None


def until(condition: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("it never came to that")
        time.sleep(0.05)


def usage(process_id: int) -> tuple[float, float]:
    """Sum the processor seconds and the resident megabytes of a process and its children."""
    seconds = megabytes = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if process_id in (int(stat.parent.name), int(fields[1])):
            seconds += (int(fields[11]) + int(fields[12])) / TICKS
            megabytes += int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return seconds, megabytes


class Load:
    """Callers that ask one gateway after the other, and what became of their requests."""

    def __init__(self, names: list[str], key: str = "") -> None:
        self.names = list(names)
        self.headers = {"authorization": f"Bearer {key}"} if key else {}
        self.times: list[float] = []
        self.codes: Counter[int] = Counter()
        self.unanswered = 0

    async def run(self, seconds: float, callers: int = CALLERS, requests: int | None = None) -> float:
        """Call until the time is over, or so often in all; return the seconds that took."""
        left = [requests if requests is not None else 10**9]
        end = time.perf_counter() + seconds
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, headers=self.headers) as session:

            async def caller(number: int) -> None:
                turn = number
                while time.perf_counter() < end and left[0] > 0:
                    left[0] -= 1
                    name, turn = self.names[turn % len(self.names)], turn + 1
                    await self._ask(session, name, f"u{left[0]}")

            began = time.perf_counter()
            await asyncio.gather(*(caller(number) for number in range(callers)))
            return time.perf_counter() - began

    async def _ask(self, session: aiohttp.ClientSession, name: str, user: str) -> None:
        body = {**BODY, "user": user, "max_completion_tokens": 20}
        started = time.perf_counter()
        try:
            url = f"http://127.0.0.1:{PORTS[name]}/v1/chat/completions"
            async with session.post(url, json=body) as reply:
                await reply.read()
                self.codes[reply.status] += 1
            self.times.append(time.perf_counter() - started)
        except aiohttp.ClientError:
            self.unanswered += 1
            await asyncio.sleep(0.05)


def captured(store: str) -> tuple[int, int]:
    """Return how many answers the store holds, and how many ids."""
    with open_store(store) as opened:
        ids = [request.id for request in opened.requests() if request.status == 200]
    return len(ids), len(set(ids))


def throughput(folder: Path, server: Postgres, count: int, seconds: float) -> dict[str, float]:
    store, names = database(server, f"throughput{count}"), NAMES[:count]
    load = Load(names)
    with gateways(folder, names, store) as started:
        measure(lambda: Load(names).run(1.0))
        time.sleep(1)
        before, kept = sum(usage(g.pid)[0] for g in started), captured(store)[0]
        idle = float(np.mean([usage(g.pid)[1] for g in started]))
        took = measure(lambda: load.run(seconds))
        cpu = sum(usage(g.pid)[0] for g in started) - before
        memory = float(np.mean([usage(g.pid)[1] for g in started]))
    rows, distinct = captured(store)
    return {
        "requests_per_s": len(load.times) / took,
        "p99_ms": float(np.quantile(load.times, 0.99)) * 1_000,
        "cpu_ms_per_request": cpu / len(load.times) * 1_000,
        "memory_mb_each": memory,
        "memory_mb_each_before": idle,
        "lost": load.codes[200] - (rows - kept),
        "doubled": rows - distinct,
    }


def workers(folder: Path, count: int, seconds: float) -> dict[str, float]:
    with gateways(folder, ["workers"], f"{folder}/workers{count}.sqlite", count) as started:
        time.sleep(3)  # all of them
        measure(lambda: Load(["workers"]).run(1.0))
        before, load = usage(started[0].pid)[0], Load(["workers"])
        took = measure(lambda: load.run(seconds, 64))
        cpu = usage(started[0].pid)[0] - before
        return {
            "requests_per_s": len(load.times) / took,
            "p99_ms": float(np.quantile(load.times, 0.99)) * 1_000,
            "cpu_ms_per_request": cpu / len(load.times) * 1_000,
            "memory_mb": usage(started[0].pid)[1],
        }


def budget(folder: Path, server: Postgres) -> dict[str, float]:
    store, limit = database(server, "budget"), 0.05
    with open_store(store) as opened:
        key = make_key(opened, "app", ("call",), usd_a_month=limit)
        with gateways(folder, NAMES, store):
            load = Load(NAMES, key)
            measure(lambda: load.run(30.0, requests=2_000))
        spent = spending(opened)["app"] / 1e9
    over = max(0.0, spent - limit)
    return {"limit_usd": limit, "spent_usd": spent, "overrun_usd": over, "refused": load.codes[429]}


def canary(folder: Path, server: Postgres, count: int, arm: str) -> dict[str, Any]:
    store, names = database(server, f"canary{count}{arm}"), NAMES[:count]
    with gateways(folder, names, store), open_store(store) as opened:
        change = {"canary": {"arm": arm, "steps": [0.3, 0.6], "requests": 100, "margin": 0.1}}
        url = f"http://127.0.0.1:{PORTS[names[0]]}/v1/routes/bench"
        kind = {"content-type": "application/json"}
        request = urllib.request.Request(url, json.dumps(change).encode(), kind)
        urllib.request.urlopen(request, timeout=10).close()
        time.sleep(2)

        def over() -> bool:
            measure(lambda: Load(names).run(30.0, requests=300))
            time.sleep(1.2)
            return (opened.state("routes/bench") or {})["canary"] is None

        until(over, 120)
        lines = [entry["what"].partition(":")[0] for entry in opened.audit_log("bench")]
        champion = (opened.state("routes/bench") or {})["champion"]
    return {"champion": champion, "changes": lines}


def crashes(folder: Path, server: Postgres, away: float) -> dict[str, Any]:
    store = database(server, "crashes")
    with gateways(folder, NAMES, store) as started:
        load = Load(NAMES)

        async def kill_one() -> None:
            running = asyncio.create_task(load.run(4.0))
            await asyncio.sleep(2)
            os.kill(started[-1].pid, signal.SIGKILL)
            load.names.remove(NAMES[-1])  # as a load balancer that asks /readyz does
            await running

        measure(kill_one)
        killed = {"unanswered": load.unanswered, "answered": load.codes[200]}
        time.sleep(1)
        killed["captures_lost"] = load.codes[200] - captured(store)[0]
        before, load = captured(store)[0], Load(NAMES[:-1])

        async def without_database() -> None:
            running = asyncio.create_task(load.run(away + 4))
            await asyncio.sleep(2)
            server.stop()
            await asyncio.sleep(away)
            server.start()
            await running

        measure(without_database)
        until(lambda: all((health(n) or {}).get("on_disk") == 0 for n in NAMES[:-1]), 120)
        time.sleep(1)
    rows, distinct = captured(store)
    answered = load.codes[200]
    gone = {
        "seconds": away,
        "answered": answered,
        "failed": sum(load.codes.values()) - answered + load.unanswered,
        "p99_ms": float(np.quantile(load.times, 0.99)) * 1_000,
        "captures_lost": answered - (rows - before),
        "captures_doubled": rows - distinct,
    }
    return {"replica_killed": killed, "database_away": gone}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--away", type=float, default=30.0)
    options = parser.parse_args()
    results: dict[str, Any] = {}

    def show(name: str, figures: dict[str, Any]) -> None:
        results[name] = figures
        words = [f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items()]
        print(f"{name}: {', '.join(words)}", flush=True)

    with tempfile.TemporaryDirectory() as name, postgres_server() as server:
        folder = Path(name)
        with process("mock", command("mock", options, folder)):
            for count in (1, 2, 4):
                show(f"{count} gateways", throughput(folder, server, count, options.seconds))
            for count in (1, 2):
                show(f"{count} workers", workers(folder, count, options.seconds))
            show("budget", budget(folder, server))
            for arm in ("spare", "broken"):
                for count in (1, 4):
                    show(f"canary {arm}, {count} gateways", canary(folder, server, count, arm))
            for key, figures in crashes(folder, server, options.away).items():
                show(key, figures)
    print(json.dumps(results, default=float))


if __name__ == "__main__":
    main()
