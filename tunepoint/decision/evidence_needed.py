"""What would settle an undecided study.

Future studies are simulated from the study's own variance components: what is known now is drawn,
a larger study is made of it, and the rule is applied to that (the predictive probability of
Spiegelhalter, Freedman and Blackburn 1986).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tunepoint.decision.futures import (
    EVIDENCE_WORDS,
    EXAMPLE_DOUBLINGS,
    FutureStudy,
    Kind,
    LearningGain,
    UnitPrices,
    settled_share,
)
from tunepoint.decision.labels_needed import LabelsNeeded
from tunepoint.decision.numbers import about_minutes, about_usd, significant
from tunepoint.decision.rule import Evidence
from tunepoint.decision.stakes import Stakes, stakes_of
from tunepoint.stats.paired import JointScores

MIN_SETTLED_SHARE = 0.9
"""Share of simulated futures that must be settled for a promise of 80%: the arm that looks best now
looks better than it is, so fewer real studies are settled than simulated ones (docs/error-rates.md)."""
ITEM_FACTORS = (1.25, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Multiples of the measured items that are tried."""
SEED_FACTORS = (2, 3, 4, 6, 8, 12, 16)
SURE = 0.95
"""Probability from which no option counts as good enough."""
BOTH_FACTOR = 4
"""Multiple of items and seeds that is tried where neither helps alone."""


FewerLabels = Callable[[float], LabelsNeeded | None]


@dataclass(frozen=True)
class Option:
    """One kind of evidence that would settle a study, on top of what there is."""

    more: int
    usd: float
    """What it costs: labels, answers and training."""
    minutes: float | None = None
    """Of labelling, for labels where the options disagree."""
    inputs: int | None = None
    """Among which those are found."""


@dataclass(frozen=True)
class EvidenceNeeded:
    """What would settle an undecided study; None for what would not help."""

    test_items: int | None
    """More test items, on top of those measured."""
    training_seeds: int | None
    """More seeds of every trained arm."""
    training_examples: int | None
    """More labelled examples to train on."""
    why: str
    usd: Mapping[Kind, float] | None = None
    """What each costs, where it would help."""
    stakes_usd: float | None = None
    """The most that another option could save over the horizon, where the score is not in doubt or has a
    price."""
    recommended: bool = True
    """False where it costs more than is at stake."""
    labels: int | None = None
    """Labels of inputs on which the options disagree (`tunepoint label`)."""
    inputs: int | None = None
    """Inputs without a label among which that many are found."""


def evidence_needed(
    joint: JointScores,
    evidence: Evidence,
    prices: UnitPrices,
    rng: np.random.Generator,
    titles: Sequence[str],
    reachable: bool = True,
    growth: LearningGain | None = None,
    fewer_labels: FewerLabels | None = None,
) -> EvidenceNeeded:
    """Return the least of each kind of evidence that gives at least a leaning verdict, four times in five.

    Args:
        joint: distribution of the measured scores.
        evidence: draws of scores and costs.
        prices: of one more piece of evidence.
        rng: draws the simulated studies.
        titles: of the arms, for people.
        reachable: whether any arm meets the limits.
        growth: what more training examples bring; None where no learning curve was drawn.
        fewer_labels: returns the labels where options disagree that do for a multiple of the evidence.

    """
    hopeless = _none_good_enough(evidence, reachable)
    if hopeless is not None:
        return _hopeless(hopeless)

    def settles(future: FutureStudy) -> bool:
        return settled_share(joint, evidence, future, rng, growth) >= MIN_SETTLED_SHARE

    stakes = stakes_of(evidence, evidence.best_bet())
    options = _single_options(joint, prices, settles, growth, fewer_labels)
    if options:
        graded = joint.graded_groups is not None and joint.tested is None
        needed = _cheapest_first(options, graded_by_people=graded)
        return _against(stakes, needed, min(option.usd for option in options.values()), titles)
    if joint.max_seeds and settles(FutureStudy(items=BOTH_FACTOR, seeds=BOTH_FACTOR)):
        needed = _items_and_seeds(joint, prices)
        return _against(stakes, needed, sum((needed.usd or {}).values()), titles)
    noisy_decodes = sorted(joint.decoded)
    if noisy_decodes and settles_without_decode_noise(joint, evidence, rng):
        names = ", ".join(titles[arm] for arm in noisy_decodes)
        return _hopeless(
            f"Whole runs of answers differ ({names}), and no number of test items tells what the next run "
            "will do. Find out why the same question gets different answers, or measure more decodes."
        )
    return _hopeless(
        f"The options are too close: even {ITEM_FACTORS[-1]} times the test items would not separate them "
        "reliably. A wider margin or another price would decide."
    )


def _none_good_enough(evidence: Evidence, reachable: bool) -> str | None:
    """Why no evidence helps, because no option may be chosen; None where one may."""
    if not reachable:
        return "No option meets the limits, and more evidence will not change that."
    if evidence.replaced is None:
        return None
    sure = evidence.risks_of(evidence.best_bet()).unacceptable
    if sure <= SURE:
        return None
    probability = "over 99%" if sure > 0.99 else f"{sure:.0%}"
    return (
        f"No option is within {100 * evidence.limits.margin:g} points of what runs today ({probability} "
        "sure), and more evidence will not change that. Try other options, or a wider margin."
    )


def _against(
    stakes: Stakes | None, needed: EvidenceNeeded, price: float, titles: Sequence[str]
) -> EvidenceNeeded:
    """The evidence beside what is at stake, and not recommended where its price is higher."""
    if stakes is None:
        return needed
    if price <= stakes.usd:
        return replace(needed, stakes_usd=stakes.usd)
    return replace(needed, why=stakes.too_close(price, titles), stakes_usd=stakes.usd, recommended=False)


def _hopeless(why: str) -> EvidenceNeeded:
    return EvidenceNeeded(None, None, None, why)


def settles_without_decode_noise(joint: JointScores, evidence: Evidence, rng: np.random.Generator) -> bool:
    """Return whether many more test items would do if every run of an arm answered alike."""
    seed_covariance = joint.seed_covariance.copy()
    for arm in joint.decoded:
        seed_covariance[arm, :] = seed_covariance[:, arm] = 0.0
    without_decode_noise = replace(joint, seed_covariance=seed_covariance)
    many_items = FutureStudy(items=ITEM_FACTORS[-1])
    return settled_share(without_decode_noise, evidence, many_items, rng) >= MIN_SETTLED_SHARE


def _single_options(
    joint: JointScores,
    prices: UnitPrices,
    settles: Callable[[FutureStudy], bool],
    growth: LearningGain | None,
    fewer_labels: FewerLabels | None,
) -> dict[Kind, Option]:
    """Each kind of evidence that would do alone, with the least of it.

    The kinds are tried in a fixed order, because the simulated studies draw from one generator.
    """
    options: dict[Kind, Option] = {}
    factor = _first_that_holds(ITEM_FACTORS, lambda factor: settles(FutureStudy(items=factor)))
    if factor is not None:
        items = int(np.ceil((factor - 1) * joint.worth_items / 10) * 10)
        options["test_items"] = Option(items, items * prices.item)
        instead = fewer_labels(factor) if fewer_labels is not None else None
        if instead is not None:
            minutes = instead.labels * prices.label_minutes
            options["labels"] = Option(instead.labels, prices.labels(instead), minutes, instead.inputs)
    if joint.max_seeds:
        factor = _first_that_holds(SEED_FACTORS, lambda factor: settles(FutureStudy(seeds=factor)))
        if factor is not None:
            seeds = int((factor - 1) * joint.max_seeds)
            options["training_seeds"] = Option(seeds, seeds * prices.seed)
    if growth is not None:
        times = _first_that_holds(EXAMPLE_DOUBLINGS, lambda times: settles(FutureStudy(doublings=int(times))))
        if times is not None:
            examples = growth.examples * (2 ** int(times) - 1)
            options["training_examples"] = Option(examples, examples * prices.example + prices.retraining)
    return options


def _cheapest_first(options: Mapping[Kind, Option], *, graded_by_people: bool) -> EvidenceNeeded:
    """All options, in words the cheapest first."""
    first, *others = sorted(options, key=lambda kind: options[kind].usd)
    option = options[first]
    graded = ", as many of them graded by people as now," if graded_by_people else ""
    time = "" if option.minutes is None else f" and {about_minutes(option.minutes)}"
    why = (
        f"{_amount(first, option)}{graded if first == 'test_items' else ''} (about "
        f"{about_usd(option.usd)}{time}) would settle it with a probability of 80%."
    )
    if option.inputs:
        where = f"{significant(option.inputs)} more inputs without a label"
        why += f" They are found among {where} (tunepoint label)."
    if others:
        rest = (f"{_amount(kind, options[kind])} ({about_usd(options[kind].usd)})" for kind in others)
        why += f" So would {' or '.join(rest)}."
    labels, items, seeds, examples = (
        options[kind].more if kind in options else None for kind in EVIDENCE_WORDS
    )
    usd = {kind: option.usd for kind, option in options.items()}
    inputs = options["labels"].inputs if "labels" in options else None
    return EvidenceNeeded(items, seeds, examples, why=f"About {why}", usd=usd, labels=labels, inputs=inputs)


def _amount(kind: Kind, option: Option) -> str:
    words = EVIDENCE_WORDS[kind]
    if option.more == 1:
        words = words.replace("labels", "label") if kind == "labels" else words.removesuffix("s")
    return f"{significant(option.more)} more {words}"


def _items_and_seeds(joint: JointScores, prices: UnitPrices) -> EvidenceNeeded:
    """Test items and training seeds that settle a study together."""
    more_items = round((BOTH_FACTOR - 1) * joint.worth_items)
    more_seeds = (BOTH_FACTOR - 1) * joint.max_seeds
    usd: dict[Kind, float] = {
        "test_items": more_items * prices.item,
        "training_seeds": more_seeds * prices.seed,
    }
    both = f"{more_seeds} more seeds and {significant(more_items)} more test items together"
    why = (
        f"Training seeds vary too much. About {both} (about {about_usd(sum(usd.values()))}) would settle it "
        "with a probability of 80%."
    )
    return EvidenceNeeded(more_items, more_seeds, None, why, usd)


def _first_that_holds(steps: Sequence[float], holds: Callable[[float], bool]) -> float | None:
    """The first step from which something holds, by bisection; None if it does not hold at the last."""
    if not holds(steps[-1]):
        return None
    low, high = 0, len(steps) - 1
    while low < high:
        middle = (low + high) // 2
        if holds(steps[middle]):
            high = middle
        else:
            low = middle + 1
    return steps[high]
