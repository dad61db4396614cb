"""The Monte Carlo of costs: 20,000 draws over 36 months and 10 arms.

Two arms run on reserved machines, and five have cached prompts, in office hours that are not known exactly.

Draws, the cost over the horizon with its band at 21 volumes, and the break-even of every pair with the
first arm. Prints seconds of each and the peak of memory.

    python benchmarks/economics.py [--draws 20000] [--arms 10] [--months 36]
"""

from __future__ import annotations

import argparse
import json
import resource
import time

import numpy as np

from tunepoint import Task
from tunepoint.costs.arm_cost import ArmCost
from tunepoint.costs.break_even import break_even
from tunepoint.costs.caching import CachedPrefix
from tunepoint.costs.simulation import simulate
from tunepoint.stats.ranges import Range, quantiles
from tunepoint.task.hosting import Dedicated

PREFIX = CachedPrefix(
    tokens=3_000,
    input=0.4,
    read=0.04,
    write=0.5,
    minutes=Range(5, 7, 10),
    reached=Range(0.6, 0.9, 1),
    asked_for=True,
)
"""The start of a prompt that a provider caches."""


def arms(count: int) -> list[ArmCost]:
    machine = Dedicated(usd_per_hour=Range(0.4, 0.526, 0.8), requests_per_second=2.0)
    return [
        ArmCost(
            f"arm {i}",
            "prompt" if i % 2 else "tuned",
            labels=100 * i,
            hours=Range(1, 2 + i, 10 + i),
            usd_per_query=Range(0.0, 0.0, 0.0) if i in (4, 8) else Range(0.0005, 0.001, 0.002),
            retrain_hours=Range(1, 2, 4),
            dedicated=machine if i in (4, 8) else None,
            prefixes=(PREFIX,) if i % 2 else (),
        )
        for i in range(count)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=20_000)
    parser.add_argument("--arms", type=int, default=10)
    parser.add_argument("--months", type=float, default=36)
    options = parser.parse_args()
    traffic = {
        "queries_per_month": [2e4, 5e4, 3e5],
        "horizon_months": options.months,
        "growth_per_month": 0.02,
        "hours_a_week": [40, 50, 168],
    }
    task = Task.parse({"name": "economics", "traffic": traffic, "costs": {"discount_per_year": 0.05}})
    costs = arms(options.arms)
    clock = [time.perf_counter()]
    draws = simulate(costs, task, options.draws, np.random.default_rng(0))
    clock.append(time.perf_counter())
    draws.horizon()
    clock.append(time.perf_counter())
    bands = [quantiles(draws.horizon(volume)[:, 0]) for volume in np.geomspace(1e2, 1e7, 21).tolist()]
    clock.append(time.perf_counter())
    break_evens = [break_even(draws, 0, other) for other in range(1, options.arms)]
    clock.append(time.perf_counter())
    names = ("draws", "horizon", f"bands at {len(bands)} volumes", f"{len(break_evens)} break-evens")
    seconds = dict(zip(names, np.diff(clock).tolist(), strict=True))
    for name, value in seconds.items():
        print(f"{name:24} {value:8.3f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{'peak memory':24} {peak:8.2f} GiB")
    print(json.dumps({"benchmark": "economics", "seconds": seconds, "peak_gib": peak}))


if __name__ == "__main__":
    main()
