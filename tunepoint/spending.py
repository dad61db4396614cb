"""Where a wrong answer has a price, test items are bought only while they are worth theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tunepoint.cost.prices import ArmCost
from tunepoint.data.examples import Example
from tunepoint.decisions import evidence_of, joint_of
from tunepoint.errors import EvidenceError, TrialsError
from tunepoint.measure.bench import Bench
from tunepoint.measure.trials import Table, tabulate
from tunepoint.power import ITEMS, unit_prices, values_of_information
from tunepoint.steps import Selected, at_stake

Costed = Callable[[Table], list[ArmCost]]


def buying(bench: Bench, chosen: Selected, costed: Costed) -> Callable[[Sequence[Example]], bool] | None:
    """Whether the test can stop after some items, or None where it is measured whole.

    It stops when the expected value of 100 more items (power.py) is under what the finalists' answers
    to them cost; their labels are there already. Every look is noted in the manifest. Without
    `error_usd` scores are no money, and without a model that is paid for items are nearly free.

    Args:
        costed: the cost of each finalist of a table of trials, in its order.

    """
    task, study = bench.task, bench.study
    if task.value.error_usd is None or not bench.prices:
        return None
    names = [arm.name for arm in chosen.finalists]
    looks: list[dict[str, Any]] = []

    def enough(items: Sequence[Example]) -> bool:
        asked = {example.id for example in items}
        try:
            table = tabulate([trial for trial in study.test.trials if trial.item in asked], names)
            joint = joint_of(table)
        except (TrialsError, EvidenceError):
            return False  # a judge may have failed on all of them: more items, then
        rng = np.random.default_rng([int(study.manifest["seed"]), 8, len(items)])
        costs = costed(table)
        evidence = evidence_of(table, costs, task, joint, rng)
        prices = unit_prices(table, costs, task)
        label = task.costs.label_minutes.likely / 60 * task.costs.hourly_usd.likely
        more = values_of_information(joint, evidence, replace(prices, item=prices.item - label), rng)[0]
        looks.append({"items": len(items), "value_usd": more.value_usd, "price_usd": more.price_usd})
        study.manifest["bought"] = {"for": at_stake(task), "looks": looks, "stopped": not more.pays}
        study.save()
        return not more.pays

    return enough


def stopped_words(bench: Bench) -> list[str]:
    """What the reader should know of a test that was not measured whole."""
    bought = bench.study.manifest.get("bought")
    whole = len(bench.prepared.split.test)
    if bought is None or not bought["stopped"] or bought["for"] != at_stake(bench.task):
        return []
    last = bought["looks"][-1]
    return [
        f"the test stopped after {last['items']} of {whole} items: {ITEMS} more were worth "
        f"${last['value_usd']:,.4f} and would have cost ${last['price_usd']:,.4f}"
    ]
