"""Where an error has a price, the next dollar goes where it buys most, until nothing is worth its price."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tunepoint.costs.arm_cost import ArmCost
from tunepoint.data.examples import Example
from tunepoint.decision.futures import WORDS, unit_prices
from tunepoint.decision.value_of_information import ValueOfInformation, values_of_information
from tunepoint.decision.verdict import evidence_of
from tunepoint.errors import EvidenceError, TrialsError
from tunepoint.stats.streams import Stream
from tunepoint.study.bench import Runner
from tunepoint.study.holdout import MOST_MORE_SEEDS, Buy, Purchase, usable
from tunepoint.study.planning import at_stake
from tunepoint.study.selection import Selection
from tunepoint.trials.table import Table, joint_of, tabulate

Costed = Callable[[Table], list[ArmCost]]


@dataclass(frozen=True)
class PurchaseDecision:
    """What the next pieces of evidence were worth at one point of a study."""

    items: int
    more_seeds: int
    """Training seeds on top of those that every trained arm has."""
    worth: tuple[ValueOfInformation, ...]
    bought: Purchase | None


def purchase_policy(runner: Runner, selection: Selection, costed: Costed) -> Buy | None:
    """What to buy next, or None without `error_usd`: then scores are no money and all items are measured.

    Test items (100 of those that are left; their labels are there) and one more training seed of every
    trained finalist have an expected value (power.py) and a price: the finalists' answers, the training.
    The one with the most value for its price is bought, while its value is above it. Training
    examples are bought by nobody but you; what they are worth is in the report. Every look is noted in
    the manifest.

    Args:
        costed: the cost of each finalist of a table of trials, in its order.

    """
    task, study = runner.task, runner.study
    if task.value.error_usd is None:
        return None
    looks: list[PurchaseDecision] = []

    def buy(items: Sequence[Example], more_seeds: int) -> Purchase | None:
        try:
            found = _offers(runner, selection, costed, items, more_seeds)
        except (TrialsError, EvidenceError):  # a judge may have failed on all of them: more items, then
            return "test_items" if len(items) < len(runner.prepared.split.test) else None
        worth = [one for one in found if one.pays]
        best = max(worth, key=lambda one: one.value_usd / max(one.price_usd, 1e-12), default=None)
        bought: Purchase | None = None
        if best is not None:
            bought = "test_items" if best.kind == "test_items" else "training_seeds"
        looks.append(PurchaseDecision(len(items), more_seeds, tuple(found), bought))
        study.manifest["bought"] = {
            "for": at_stake(task),
            "looks": [asdict(look) for look in looks],
            "stopped": bought is None,
        }
        study.save()
        return bought

    return buy


def _offers(
    runner: Runner, selection: Selection, costed: Costed, items: Sequence[Example], more_seeds: int
) -> list[ValueOfInformation]:
    """What can still be bought, with value and price, from the trials bought so far."""
    task, study = runner.task, runner.study
    asked = {example.id for example in items}
    seeds = {arm.name: arm.seeds + more_seeds for arm in selection.finalists}

    paid = [
        trial
        for trial in usable(study.test.trials, selection.finalists)
        if trial.item in asked and int(trial.seed or 0) < seeds[trial.arm]
    ]
    table = tabulate(paid, list(seeds))
    joint, costs = joint_of(table), costed(table)
    rng = study.rng(Stream.PURCHASES, len(items), more_seeds)
    evidence = evidence_of(table, costs, task, joint, rng)
    prices = unit_prices(table, costs, task)
    label = task.costs.label_minutes.likely / 60 * task.costs.hourly_usd.likely
    worth = values_of_information(joint, evidence, replace(prices, item=prices.item - label), rng)
    left = {
        "test_items": len(items) < len(runner.prepared.split.test),
        "training_seeds": more_seeds < MOST_MORE_SEEDS,
    }
    return [one for one in worth if left.get(one.kind, False)]


def purchase_caveats(runner: Runner) -> list[str]:
    """What the reader should know of a test that was not measured whole."""
    bought: dict[str, Any] | None = runner.study.manifest.get("bought")
    whole = len(runner.prepared.split.test)
    if bought is None or bought["for"] != at_stake(runner.task):
        return []
    last = bought["looks"][-1]
    if "capped" in bought:
        return [f"buying evidence ended after {last['items']} of {whole} items: {bought['capped']}"]
    if not bought["stopped"]:
        return []
    if last["items"] >= whole:
        return []
    offers = ", ".join(
        f"{one['more']} more {WORDS[one['kind']]} were worth ${one['value_usd']:,.4f} and would have cost "
        f"${one['price_usd']:,.4f}"
        for one in last["worth"]
    )
    return [f"the test stopped after {last['items']} of {whole} items: {offers}"]
