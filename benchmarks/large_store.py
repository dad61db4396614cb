"""A PostgreSQL store with millions of requests: the dashboard, a harvest, and the end of a month.

* `dashboard`: seconds of its data for one task of all that traffic, the median of `--looks`.
* `harvest`: questions a second, and the most memory of the process, with a tenth of the requests and with all
  of them: constant memory is the same in both.
* `purge`: seconds in which the requests of whole months go as tables, and those of a day row by row.

    python benchmarks/large_store.py [--requests 10_000_000]    # needs PostgreSQL's binaries and 6 GB
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from postgres_server import postgres_server

from tunepoint.capture.opening import open_store
from tunepoint.capture.partitions import make_months
from tunepoint.capture.store import Store

DAYS = 90
"""Over which the requests are spread."""
FILL = """
insert into requests (id, at, task, arm, role, model, input, output, answer, format_ok, status, streamed,
    input_tokens, output_tokens, seconds, cost_nanousd, "user", origin)
select md5(n::text), {start} + n * {step}, 'triage', (array['prompt','tuned'])[1 + n %% 2], 'champion', 'm',
    'message ' || n || repeat(' where is my parcel, I have waited for it so long', 2), 'shipping', 'shipping',
    true, case when n %% 500 = 0 then 503 else 200 end, false, 90, 3, .2 + (n %% 100) / 100.0,
    12000 + n %% 977, 'user ' || n %% 50000, 'gateway'
from generate_series({first}, {last}) n
"""
FEEDBACK = """
insert into feedback (request, at, score)
select md5(n::text), {start} + n * {step} + 5, 1.0 from generate_series(1, {count}, 1000) n
"""
HARVEST = """
import json, resource, sys, time
import numpy as np
from tunepoint import Task
from tunepoint.capture.harvest import harvest
from tunepoint.capture.opening import open_store
from tunepoint.data.examples import Example
task = Task.parse({"name": "triage", "answer": {"labels": {"shipping": "", "billing": ""}},
                   "models": [{"name": "m", "train_on_outputs": True,
                               "price": {"input": 1, "output": 1}}]})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open_store(sys.argv[1]) as store:
    until = float(sys.argv[2])
    whole = store.requests
    store.requests = lambda name: whole(name, until=until)
    started = time.perf_counter()
    harvested = harvest(store, task, (), (), np.random.default_rng(0))
    seconds = time.perf_counter() - started
most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"questions": harvested.questions, "examples": len(harvested.examples),
                  "questions_a_second": round(harvested.questions / seconds),
                  "mb": round(most / 1024), "mb_before": round(before / 1024)}))
"""


def fill(store: Store, count: int, start: float) -> None:
    """Write requests, half a million at a time."""
    step = DAYS * 86_400 / count
    for first in range(1, count + 1, 500_000):
        last = min(count, first + 499_999)
        with store.engine.begin() as connection:
            connection.exec_driver_sql("set local statement_timeout = 0")
            connection.exec_driver_sql(FILL.format(start=start, step=step, first=first, last=last))
    with store.engine.begin() as connection:
        connection.exec_driver_sql("set local statement_timeout = 0")
        connection.exec_driver_sql(FEEDBACK.format(start=start, step=step, count=count))
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("set statement_timeout = 0")
        connection.exec_driver_sql("vacuum analyze")


def dashboard(store: Store, looks: int) -> dict[str, float]:
    """Seconds of the dashboard's data."""
    from tunepoint.serve.dashboard import dashboard_data

    policy = SimpleNamespace(canary=None, document=dict)
    task: Any = SimpleNamespace(
        monitor=SimpleNamespace(decision=None), router=SimpleNamespace(policy=policy), template=None
    )
    seconds = []
    for _ in range(looks):
        started = time.perf_counter()
        data = dashboard_data(store, "triage", task)
        seconds.append(time.perf_counter() - started)
    return {"seconds": round(float(np.median(seconds)), 3), "requests_in_view": data["requests"]}


def harvested(address: str, until: float) -> dict[str, Any]:
    """Harvest in a process of its own, for its memory."""
    command = [sys.executable, "-c", HARVEST, address, str(until)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    content: dict[str, Any] = json.loads(done.stdout)
    return content


def purged(store: Store, before: float) -> dict[str, Any]:
    """Seconds in which what is older goes."""
    started = time.perf_counter()
    rows = store.purge(before)
    return {"seconds": round(time.perf_counter() - started, 2), "row_by_row": rows}


def main() -> None:
    """Fill a store, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000_000)
    parser.add_argument("--looks", type=int, default=9)
    options = parser.parse_args()
    start = time.time() - DAYS * 86_400
    with postgres_server() as server, open_store(server.url) as store:
        make_months(store, start, time.time())
        started = time.perf_counter()
        fill(store, options.requests, start)
        results: dict[str, Any] = {"filled_seconds": round(time.perf_counter() - started)}
        results["dashboard"] = dashboard(store, options.looks)
        print("dashboard", results["dashboard"], flush=True)
        tenth = harvested(server.url, start + DAYS * 8_640)
        results["harvest"] = {"a tenth": tenth, "all": harvested(server.url, time.time())}
        print("harvest", results["harvest"], flush=True)
        now = datetime.now(UTC)
        month = datetime(now.year, now.month, 1, tzinfo=UTC).timestamp()  # that of today stays
        results["purge"] = {"months": purged(store, month), "a day": purged(store, month + 86_400)}
    print(json.dumps({"requests": options.requests, **results}))


if __name__ == "__main__":
    main()
