"""The reason for a verdict in a few sentences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tunepoint.decision.finalists import Finalist
from tunepoint.decision.numbers import about_usd, at_start, percent, points_range
from tunepoint.decision.summary import expected_costs
from tunepoint.decision.verdict import Decision

SMALLEST_SINGLE_USD = 0.01
"""A smaller price of an error is given for 1,000 of them."""


def verdict_reason(decision: Decision) -> str:
    """Return the verdict's reason in words: the score, the lead over the rivals, and the money."""
    winner = decision.finalist(decision.winner)
    interval = f"{percent(winner.score.low)} to {percent(winner.score.high)}"
    title, right = at_start(winner.title), percent(winner.score.estimate)
    sentences = [f"{title} gives {right} right answers (95% interval {interval})."]
    leads = [_lead(decision, rival) for rival in _rivals(decision)]
    sentences.append(f"That is {' and '.join(leads)}.")
    months, cost = f"{decision.evidence.costs.months:g}", expected_costs(decision.evidence)[winner.arm]
    sentences.append(f"It costs about {about_usd(cost.build + cost.run)} over {months} months.")
    implied = implied_error_usd(decision)
    if implied is not None:
        sentences.append(implied.sentence())
    return " ".join(sentences)


@dataclass(frozen=True)
class ImpliedPrice:
    """What a wrong answer must cost for the better and dearer of two options to be worth its price."""

    better: str
    """Its title."""
    other: str
    """The title of the cheaper option."""
    usd: float
    """Dollars of a wrong answer."""
    chosen: bool
    """Whether the better option is the one that was chosen."""

    def sentence(self) -> str:
        """Return it in words."""
        price = f"a wrong answer costs you more than {about_usd(self.usd)}"
        if self.usd < SMALLEST_SINGLE_USD:
            price = f"1,000 wrong answers cost you more than {about_usd(1_000 * self.usd)}"
        if self.chosen:
            return f"It is worth its price against {self.other} if {price} (value.error_usd)."
        return f"{at_start(self.better)} is worth its price if {price} (value.error_usd)."


def implied_error_usd(decision: Decision) -> ImpliedPrice | None:
    """Return the price of an error at which winner and rival cost the same, errors included.

    The difference of their costs over the horizon / (queries x difference of their scores), by medians.
    None where errors have a price already, there is no rival, the better one is the cheaper one too, or
    the rival has to go whatever it is worth.
    """
    evidence = decision.evidence
    if evidence.error_usd is not None or decision.rival is None or evidence.replaced is not None:
        return None
    costs = evidence.costs
    winner, rival = costs.arms.index(decision.winner), costs.arms.index(decision.rival)
    horizon = costs.horizon()
    extra = float(np.median(horizon[:, winner] - horizon[:, rival]))
    points = float(evidence.estimates[winner] - evidence.estimates[rival])
    queries = float(np.median(costs.volume)) * costs.schedule.query_weight
    if extra * points <= 0 or queries <= 0:
        return None
    titles = [decision.titles[decision.winner], decision.titles[decision.rival]]
    better, other = titles if points > 0 else titles[::-1]
    return ImpliedPrice(better, other, extra / (queries * points), chosen=points > 0)


def _lead(decision: Decision, rival: Finalist) -> str:
    difference = next(d for d in decision.differences if d.against == rival.arm).difference
    comparison = "more" if difference.estimate >= 0 else "less"
    return (
        f"{abs(100 * difference.estimate):.1f} points {comparison} than {rival.title} "
        f"({points_range(difference.low, difference.high)})"
    )


def _rivals(decision: Decision) -> list[Finalist]:
    """The rival, which is on the other side of 'prompt or tune' if anyone is, and the best of all others."""
    others = [finalist for finalist in decision.finalists if finalist.arm != decision.winner]
    best = max(others, key=lambda finalist: finalist.score.estimate)
    rival = best if decision.rival is None else decision.finalist(decision.rival)
    return [rival] if rival is best else [rival, best]
