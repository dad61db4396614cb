"""The reason for a verdict in a few sentences."""

from __future__ import annotations

from tunepoint.decision.finalists import Finalist
from tunepoint.decision.numbers import about_usd, percent, points_range
from tunepoint.decision.verdict import Decision


def verdict_reason(decision: Decision) -> str:
    """Return the verdict's reason in words: the score, the lead over the rivals, and the money."""
    winner = decision.finalist(decision.winner)
    interval = f"{percent(winner.score.low)} to {percent(winner.score.high)}"
    sentences = [
        f"{winner.title} gives {percent(winner.score.estimate)} right answers (95% interval {interval})."
    ]
    leads = [_lead(decision, rival) for rival in _rivals(decision)]
    sentences.append(f"That is {' and '.join(leads)}.")
    months = f"{decision.evidence.costs.months:g}"
    sentences.append(f"It costs about {about_usd(winner.horizon_usd.likely)} over {months} months.")
    return " ".join(sentences)


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
