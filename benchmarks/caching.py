"""The modelled share of cache hits, and the cost that follows, against simulated arrivals.

A million calls for each traffic: spread over the week, in office hours, in bursts; with lifetimes of
5 minutes to a day, renewed by each use or not. Prints the shares, the greatest error in points and in cost,
and how far off the price is that a study measures, which asks in one burst.

    python benchmarks/caching.py [--calls 1000000]
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from tunepoint.costs.caching import OFFICE_DAY_HOURS, OFFICE_DAYS, Arrivals, spells_of
from tunepoint.stats.arrays import Flags, Floats
from tunepoint.task.hosting import HOURS_PER_MONTH, HOURS_PER_WEEK

VOLUMES = (1_000, 10_000, 30_000, 100_000, 1_000_000)
"""Calls a month."""
LIFETIMES = (5.0, 60.0, 1_440.0)
"""Minutes."""
WEEKS = (("all week", 168.0, 1.0), ("office", 40.0, 1.0), ("bursts of 4", 168.0, 4.0), ("both", 40.0, 4.0))
"""Hours of traffic a week, and calls in a burst."""
PROMPT, INPUT, READ, WRITE, REST = 3_000, 1.0, 0.1, 1.25, 200 * 1.0 + 20 * 5.0
"""Tokens of the prefix; dollars per million of them uncached, read and written; millionths for the rest."""


def arrivals(
    calls: int, volume: float, hours_a_week: float, calls_per_burst: float, rng: np.random.Generator
) -> Floats:
    """Return (calls,) minutes at which calls come, in order.

    Bursts are a Poisson process within the hours of traffic, and their sizes geometric; the calls of a
    burst are seconds apart.
    """
    bursts = round(calls / calls_per_burst)
    per_minute = volume / calls_per_burst / (HOURS_PER_MONTH * 60) * HOURS_PER_WEEK / hours_a_week
    open_minutes = rng.exponential(1 / per_minute, bursts).cumsum()
    days = OFFICE_DAYS if hours_a_week <= OFFICE_DAYS * OFFICE_DAY_HOURS else 7
    a_day = hours_a_week * 60 / days
    number, within = np.divmod(open_minutes, a_day)
    week, day = np.divmod(number, days)
    start = (week * 7 + day) * 24 * 60 + within
    sizes = rng.geometric(1 / calls_per_burst, bursts)
    offsets = np.arange(sizes.sum()) - np.repeat(sizes.cumsum() - sizes, sizes)
    return np.sort(np.repeat(start, sizes) + offsets * (2 / 60))


def hits(times: Floats, minutes: float, *, renewed: bool) -> Flags:
    """Return (calls,) whether each call finds what an earlier one left in the cache."""
    if renewed:
        return np.concatenate([[False], np.diff(times) <= minutes])
    hit = np.ones(len(times), dtype=bool)
    position = 0
    while position < len(times):
        hit[position] = False
        position = int(np.searchsorted(times, times[position] + minutes, side="right"))
    return hit


def usd_per_million(share: float) -> float:
    """Return the dollars of a million answers, of which this share finds the prefix."""
    return PROMPT * (share * READ + (1 - share) * WRITE) + REST


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=1_000_000)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    points, costs = [], []
    study = usd_per_million(1.0)
    print("traffic       lifetime renewed   calls/month   simulated  modelled   cost error  study's price")
    for words, hours, burst in WEEKS:
        for minutes in LIFETIMES:
            for renewed in (True, False):
                for volume in VOLUMES:
                    times = arrivals(options.calls, volume, hours, burst, rng)
                    simulated = float(hits(times, minutes, renewed=renewed).mean())
                    spells = spells_of(np.array([minutes]), Arrivals(np.array([hours]), np.array([burst])))
                    modelled = float(spells.hit_share(np.array([[volume]]), renewed=renewed).item())
                    true = usd_per_million(simulated)
                    error = usd_per_million(modelled) / true - 1
                    points.append(abs(modelled - simulated))
                    costs.append(abs(error))
                    cache = f"{words:12} {minutes:5.0f} min {'yes' if renewed else 'no':7}"
                    shares = f"{volume:13,} {simulated:11.3f} {modelled:9.3f}"
                    print(f"{cache} {shares} {error:12.2%} {study / true - 1:14.0%}")
    print(f"greatest error: {100 * max(points):.1f} points, {max(costs):.1%} of the cost")
    print(json.dumps({"benchmark": "caching", "max_points": max(points), "max_cost_error": max(costs)}))


if __name__ == "__main__":
    main()
