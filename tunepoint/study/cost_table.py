"""Costs by volume, as a spreadsheet."""

from __future__ import annotations

import csv
import io

from tunepoint.costs.prices import money
from tunepoint.files.cells import escape_cell
from tunepoint.stats.ranges import quantiles
from tunepoint.study.whatif import WhatIf

VOLUMES = tuple(float(f"{10**k * step:g}") for k in range(2, 8) for step in (1, 2, 5))
"""Queries a month in the table of costs."""


def costs_csv(comparison: WhatIf) -> str:
    """Return the costs of every arm by volume, in both scenarios: a header, and a row for each."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    bands = [f"{what}_{name}" for what in ("month_usd", "horizon_usd") for name in ("low", "likely", "high")]
    writer.writerow(["scenario", "arm", "kind", "queries_per_month", *bands])
    for scenario, decision in (("as decided", comparison.before), ("what if", comparison.after)):
        costs = decision.evidence.costs
        for volume in VOLUMES:
            month, horizon = costs.per_month(volume), costs.horizon(volume)
            for i, arm in enumerate(costs.arms):
                ranges = [quantiles(values[:, i]) for values in (month, horizon)]
                dollars = [money(usd) for band in ranges for usd in (band.low, band.likely, band.high)]
                writer.writerow(
                    [scenario, escape_cell(arm), decision.finalist(arm).kind, f"{volume:g}", *dollars]
                )
    return out.getvalue()
