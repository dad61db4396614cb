"""What a study may spend, and where its dollars went: calls and tokens of each model that is paid for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from operator import add
from pathlib import Path

from tunepoint.files.machine import cores
from tunepoint.models.budget import Budget
from tunepoint.models.payments import PaymentLog
from tunepoint.models.prices import CallPrice
from tunepoint.models.recording import read_calls
from tunepoint.study.manifest import Manifest
from tunepoint.task.task import Task


def study_budget(
    manifest: Manifest,
    task: Task,
    max_usd: float | None,
    payments: PaymentLog,
    before_spending: Callable[[], None] = lambda: None,
) -> Budget:
    """Return what a study may still spend; payments that a killed run did not note in the manifest count."""
    # the file of payments is the truth; studies of older versions have none
    unnoted = payments.usd - (manifest.calls_usd or 0.0) if payments.usd else 0.0
    usd_per_second = task.costs.core_hour_usd.likely / 3600 * cores()
    budget = Budget(max_usd, usd_per_second, manifest.spent_usd + unnoted, payments)
    budget.before_spending = before_spending
    return budget


def spending_lines(calls: Path, prices: Mapping[str, CallPrice]) -> list[str]:
    """Return a line for each paid model that was called, the dearest first.

    Args:
        calls: the study's recording, all calls of its earlier runs included.
        prices: name of a model -> its price.

    """
    if not calls.exists():  # logs alone were read
        return []
    lines = []
    for model, price in prices.items():
        usages = [completion.usage for _, completion, _ in read_calls(calls, model)]
        if not usages:
            continue
        total, dollars = reduce(add, usages), sum(map(price.paid, usages))
        cached = f" ({total.cached_tokens / total.input_tokens:.0%} cached)" if total.cached_tokens else ""
        batched = sum(usage.batched for usage in usages)
        by_batch = f" ({batched:,} by batch)" if batched else ""
        lines.append(
            (
                dollars,
                f"{model}: {len(usages):,} calls{by_batch}, {total.input_tokens:,} input tokens{cached}, "
                f"{total.output_tokens:,} output tokens, ${dollars:,.4f}",
            )
        )
    return [line for _, line in sorted(lines, reverse=True)]
