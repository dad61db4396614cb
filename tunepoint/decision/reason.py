"""The reason for a verdict in a few sentences."""

from __future__ import annotations

from tunepoint.decision.finalists import Finalist
from tunepoint.decision.numbers import about_usd, percent
from tunepoint.decision.verdict import Decision
from tunepoint.task.task import Task


def verdict_reason(decision: Decision, task: Task) -> str:
    """Return the verdict's reason in words: the score, the rivals, the money, and what would settle it."""
    winner = decision.finalist(decision.winner)
    sentences = [_score_sentence(winner, task)]
    sentences += [_difference_sentence(decision, rival) for rival in _rivals(decision)]
    months = f"{decision.evidence.costs.months:g}"
    sentences.append(f"It costs about {about_usd(winner.horizon_usd.likely)} over {months} months.")
    if decision.evidence_needed is not None:
        sentences.append(decision.evidence_needed.why)
    return " ".join(sentences)


def _score_sentence(winner: Finalist, task: Task) -> str:
    score = winner.score
    verb = "gets" if task.score.metric == "exact" else "scores"
    right = " right answers" if task.score.metric == "exact" else ""
    interval = f"(95% interval {percent(score.low)} to {percent(score.high)})"
    return f"{winner.title} {verb} {percent(score.estimate)}{right} on the test set {interval}."


def _difference_sentence(decision: Decision, rival: Finalist) -> str:
    difference = next(d for d in decision.differences if d.against == rival.arm).difference
    lead = 100 * difference.estimate
    interval = f"({100 * difference.low:+.1f} to {100 * difference.high:+.1f})"
    comparison = "more" if lead >= 0 else "less"
    return f"That is {abs(lead):.1f} points {comparison} than {rival.title} {interval}."


def _rivals(decision: Decision) -> list[Finalist]:
    """The rival, which is on the other side of 'prompt or tune' if anyone is, and the best of all others."""
    others = [finalist for finalist in decision.finalists if finalist.arm != decision.winner]
    best = max(others, key=lambda finalist: finalist.score.estimate)
    rival = best if decision.rival is None else decision.finalist(decision.rival)
    return [rival] if rival is best else [rival, best]
