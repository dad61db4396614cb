"""Where a study's dollars went: calls, tokens and dollars of each model that is paid for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import add
from pathlib import Path

from tunepoint.models.prices import CallPrice
from tunepoint.models.recording import read_calls


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
