"""Whether what is served is what was measured: dev replayed through the real endpoint, answer by answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunepoint.data.examples import Example
from tunepoint.errors import EvidenceError
from tunepoint.models.chat import Reply, Usage
from tunepoint.stats.intervals import Interval
from tunepoint.stats.paired import compare, joint_scores
from tunepoint.trials.scorers import BatchScorer, score_replies
from tunepoint.trials.trial import Trial

SHOWN_DIFFERENCES = 5
"""Examples with another answer that are shown."""
MAX_DIFFERING_SHARE = 0.02
"""Share of answers that may differ: other kernels and other batches move near ties."""
MIN_EXAMPLES = 8


@dataclass(frozen=True)
class Parity:
    """A served model against the measured one, on the same examples."""

    examples: int
    differing: tuple[tuple[str, str, str], ...]
    """(id, answer as measured, answer as served)"""
    other_prompts: tuple[tuple[str, int, int], ...]
    """(id, tokens of the prompt as measured, as served): another chat template, where both are known."""
    difference: Interval
    """Score as served minus score as measured, 95%."""

    @property
    def holds(self) -> bool:
        """Whether the served model may be promoted."""
        few = len(self.differing) <= MAX_DIFFERING_SHARE * self.examples
        return not self.other_prompts and (few or 0 in self.difference) and self.difference.high >= 0

    def __str__(self) -> str:
        said = (
            f"{self.examples - len(self.differing)} of {self.examples} answers are the same; score "
            f"{self.difference.estimate:+.3f} ({self.difference.low:+.3f} to {self.difference.high:+.3f})"
        )
        if self.other_prompts:
            item, before, now = self.other_prompts[0]
            said += (
                f"; {len(self.other_prompts)} prompts have other tokens ({item}: {before} measured, {now} "
                "served): another chat template"
            )
        for item, measured, served in self.differing[:SHOWN_DIFFERENCES]:
            said += f"\n  {item}: {measured!r} measured, {served!r} served"
        return said


def parity(
    examples: Sequence[Example], measured: Sequence[Reply], served: Sequence[Reply], scoring: BatchScorer
) -> Parity:
    """Compare two models' replies to the same examples.

    Args:
        scoring: gives answers their scores; a reply that cannot be read is worth 0.

    Raises:
        EvidenceError: fewer than 8 examples.

    """
    if len(examples) < MIN_EXAMPLES:
        raise EvidenceError(f"{len(examples)} examples show no parity: {MIN_EXAMPLES} at least, and some hundreds")
    pairs = list(zip(examples, measured, served, strict=True))
    scores = [score_replies(scoring, replies, examples)[None] for replies in (served, measured)]
    found = compare(joint_scores(scores), [(0, 1)], np.random.default_rng(0))[0].difference
    return Parity(
        len(examples),
        tuple((e.id, _said(one), _said(other)) for e, one, other in pairs if _said(one) != _said(other)),
        tuple(
            (e.id, one.usage.input_tokens, other.usage.input_tokens)
            for e, one, other in pairs
            if 0 < one.usage.input_tokens != other.usage.input_tokens > 0
        ),
        found,
    )


def measured_reply(trial: Trial) -> Reply:
    """A recorded trial as the reply that it was."""
    usage = Usage("measured", trial.input_tokens or 0, output_tokens=trial.output_tokens or 0)
    answer = trial.answer if trial.format_ok else None
    return Reply(trial.answer or "", answer, usage, format_ok=trial.format_ok, error=trial.error)


def _said(reply: Reply) -> str:
    return reply.text if reply.answer is None else reply.answer
