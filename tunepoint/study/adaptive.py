"""Where an error has a price, the next dollar goes where it buys most, until nothing is worth its price."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tunepoint.data.examples import Example
from tunepoint.decision.futures import EVIDENCE_WORDS, unit_prices
from tunepoint.decision.value_of_information import ValueOfInformation, values_of_information
from tunepoint.decision.verdict import evidence_of
from tunepoint.errors import EvidenceError, TrialsError
from tunepoint.stats.streams import Stream
from tunepoint.study.arm_costs import measured_costs
from tunepoint.study.holdout import MAX_MORE_SEEDS, Buy, usable
from tunepoint.study.planning import stakes
from tunepoint.study.records import Bought, Offer, Purchase, PurchaseDecision
from tunepoint.study.runner import Runner
from tunepoint.study.selection import Selection
from tunepoint.trials.table import joint_of
from tunepoint.trials.tabulation import tabulate


def purchase_policy(runner: Runner, selection: Selection) -> Buy | None:
    """Return what decides on the next purchase; None without `error_usd`, when scores are no money.

    For sale are test items (100 of those that are left; they are labeled) and one more training seed of
    every trained finalist. Each has an expected value (`values_of_information`) and a price: the
    finalists' answers, the training. The one with the most value for its price is bought, while its
    value is above it. Training examples are yours to buy; the report says what they are worth. The
    manifest records every decision.
    """
    task, study = runner.task, runner.study
    if task.value.error_usd is None:
        return None
    looks: list[PurchaseDecision] = []

    def buy(items: Sequence[Example], more_seeds: int) -> Purchase | None:
        try:
            offers = _offers(runner, selection, items, more_seeds)
        except (TrialsError, EvidenceError):
            # a judge may have failed on all of these items: then only more of them can tell anything
            return "test_items" if len(items) < len(runner.prepared.split.test) else None
        paying = [offer for offer in offers if offer.pays]
        best = max(paying, key=lambda offer: offer.value_usd / max(offer.price_usd, 1e-12), default=None)
        bought: Purchase | None = None
        if best is not None:
            bought = "test_items" if best.kind == "test_items" else "training_seeds"
        worth = [_recorded(offer) for offer in offers]
        looks.append(PurchaseDecision(items=len(items), more_seeds=more_seeds, worth=worth, bought=bought))
        study.update(bought=Bought(stakes=stakes(task), looks=[*looks], stopped=bought is None))
        return bought

    return buy


def _recorded(offer: ValueOfInformation) -> Offer:
    return Offer(kind=offer.kind, more=offer.more, value_usd=offer.value_usd, price_usd=offer.price_usd)


def _offers(
    runner: Runner, selection: Selection, items: Sequence[Example], more_seeds: int
) -> list[ValueOfInformation]:
    """What can still be bought, with value and price, from the trials bought so far."""
    task, study = runner.task, runner.study
    ids = {example.id for example in items}
    seeds = {arm.name: arm.seeds + more_seeds for arm in selection.finalists}
    # a resumed study has trials of later purchases already, which this decision must not see
    paid = [
        trial
        for trial in usable(study.test.trials, selection.finalists)
        if trial.item in ids and int(trial.seed or 0) < seeds[trial.arm]
    ]
    table = tabulate(paid, list(seeds))
    joint, costs = joint_of(table), measured_costs(selection.finalists, study, table, task)
    rng = study.rng(Stream.PURCHASES, len(items), more_seeds)
    evidence = evidence_of(table, costs, task, joint, rng)
    prices = unit_prices(table, costs, task)
    # the labels of these items are paid for already
    label = task.costs.label_minutes.likely / 60 * task.costs.hourly_usd.likely
    worth = values_of_information(joint, evidence, replace(prices, item=prices.item - label), rng)
    for_sale = {
        "test_items": len(items) < len(runner.prepared.split.test),
        "training_seeds": more_seeds < MAX_MORE_SEEDS,
    }
    return [offer for offer in worth if for_sale.get(offer.kind, False)]


def purchase_caveats(runner: Runner) -> list[str]:
    """What the reader should know of a test set that was not measured whole."""
    bought, whole = runner.study.manifest.bought, len(runner.prepared.split.test)
    if bought is None or bought.stakes != stakes(runner.task):
        return []
    last = bought.looks[-1]
    if bought.capped is not None:
        return [f"buying evidence ended after {last.items} of {whole} test items: {bought.capped}"]
    if not bought.stopped or last.items >= whole:
        return []
    offers = ", ".join(
        f"{offer.more} more {EVIDENCE_WORDS[offer.kind]} were worth ${offer.value_usd:,.4f} and would have "
        f"cost ${offer.price_usd:,.4f}"
        for offer in last.worth
    )
    return [f"the test stopped after {last.items} of {whole} items: {offers}"]
