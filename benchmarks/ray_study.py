"""One study on one machine, and on Ray clusters of one and of two nodes: the same verdict, and its time.

Every node has one processor and its own processes; the nodes share this machine, so two of them need two
cores. `--rows` messages of examples/support-triage are routed; its fine-tuned encoder has three seeds and
three parts of a learning curve: six runs that can be trained side by side.

* `alone`: `tunepoint run`, with one thread.
* `one node`, `two nodes`: `--on ray`; efficiency is the time of one node over twice that of two.
* `killed`: two nodes, and a process that trains is killed (SIGKILL) in the middle.

    OMP_NUM_THREADS=1 python benchmarks/ray_study.py [--rows 700]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import psutil
import ray
from ray.cluster_utils import Cluster

from tunepoint import Task, run

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "support-triage"
STORE_BYTES = 400 * 2**20
CLOCKS = ("seconds", "core_seconds")


@contextmanager
def nodes(count: int) -> Iterator[None]:
    """A cluster of so many nodes with one processor each."""
    settings = {"num_cpus": 1, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args={**settings, "include_dashboard": False})
    for _ in range(count - 1):
        cluster.add_node(**settings)
    os.environ["RAY_ADDRESS"] = cluster.address
    try:
        yield
    finally:
        del os.environ["RAY_ADDRESS"]
        ray.shutdown()
        cluster.shutdown()


def kill_a_training(killed: list[int]) -> None:
    """Kill the first process that trains, once it has for some seconds."""
    while not killed:
        time.sleep(0.2)
        for process in psutil.process_iter(["cmdline"]):
            words = " ".join(process.info["cmdline"] or [])
            if words.startswith("ray::") and "carry_out" in words:
                time.sleep(5.0)
                if process.is_running():
                    process.send_signal(signal.SIGKILL)
                    killed.append(process.pid)
                    return


def trials(folder: Path) -> list[str]:
    """All trials but for what a clock measured, in a fixed order."""
    lines = []
    for log in ("dev.jsonl", "curve.jsonl", "trials.jsonl"):
        for line in (folder / log).read_text(encoding="utf-8").splitlines():
            trial = {name: value for name, value in json.loads(line).items() if name not in CLOCKS}
            lines.append(log + json.dumps(trial, sort_keys=True))
    return sorted(lines)


def measured(task: Task, folder: Path, on: str | None) -> dict[str, Any]:
    """Run a study; return its time and what it found."""
    shutil.rmtree(folder, ignore_errors=True)
    started = time.perf_counter()
    result = run(task, out=folder, on=on)
    seconds = time.perf_counter() - started
    return {"seconds": round(seconds, 1), "verdict": result.document["winner"], "trials": trials(folder)}


def write_task(folder: Path, rows: int) -> Task:
    """The example with so many rows, and without its language model, whose replies are recorded."""
    with (EXAMPLE / "messages.csv").open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        lines = [row for row in reader if row["queue"]][:rows]
    with (folder / "messages.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    (folder / "task.toml").write_text(
        'name = "ray"\ninstruction = "Route the message."\n'
        # without a price of errors: how much evidence is bought depends on seconds, also on one machine
        '[data]\npath = "messages.csv"\ninput = "text"\ntarget = "queue"\ngroup = "customer_id"\n',
        encoding="utf-8",
    )
    return Task.load(folder)


def main() -> None:
    """Run the study four times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=700)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task = write_task(folder, options.rows)
        results = {"alone": measured(task, folder / "alone", None)}
        print("alone", results["alone"]["seconds"], flush=True)
        for label, count in (("one node", 1), ("two nodes", 2), ("killed", 2)):
            killed: list[int] = []
            with nodes(count):
                if label == "killed":
                    threading.Thread(target=kill_a_training, args=(killed,), daemon=True).start()
                results[label] = measured(task, folder / label.replace(" ", "-"), "ray")
            results[label]["killed_processes"] = len(killed)
            print(label, results[label]["seconds"], flush=True)
    expected = results["alone"].pop("trials")
    for label, result in results.items():
        if label != "alone":
            result["same_trials"] = result.pop("trials") == expected
    efficiency = results["one node"]["seconds"] / (2 * results["two nodes"]["seconds"])
    print(json.dumps({"rows": options.rows, **results, "efficiency": round(efficiency, 2)}))


if __name__ == "__main__":
    main()
