"""Parity: whether a served model answers as the measured one did, example by example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tunepoint.data.examples import Example
from tunepoint.errors import EvidenceError
from tunepoint.models.chat import Reply, Usage
from tunepoint.stats.comparisons import compare
from tunepoint.stats.intervals import Interval
from tunepoint.stats.paired import joint_scores
from tunepoint.trials.grading import BatchScorer, score_replies
from tunepoint.trials.trial import Trial

SHOWN_DIFFERENCES = 5
"""Examples with different answers that the report lists."""
MAX_DIFFERING_SHARE = 0.02
"""Share of answers that may differ: other kernels and batch sizes change answers that are nearly tied."""
MIN_EXAMPLES = 8
"""Fewer than these give no usable interval."""


class AnswerPair(NamedTuple):
    """Two different answers to one example."""

    example: str
    measured: str
    served: str


class PromptTokens(NamedTuple):
    """Two different lengths of one example's prompt, in tokens."""

    example: str
    measured: int
    served: int


@dataclass(frozen=True)
class Parity:
    """A served model compared with the measured one, on the same examples."""

    examples: int
    differing: tuple[AnswerPair, ...]
    other_prompts: tuple[PromptTokens, ...]
    """Prompts of another length, where both lengths are known: the chat templates differ."""
    difference: Interval
    """Score as served minus score as measured, 95%."""

    @property
    def holds(self) -> bool:
        """Whether the served model may be promoted."""
        few = len(self.differing) <= MAX_DIFFERING_SHARE * self.examples
        return not self.other_prompts and (few or 0 in self.difference) and self.difference.high >= 0

    def __str__(self) -> str:
        text = (
            f"{self.examples - len(self.differing)} of {self.examples} answers are the same; score "
            f"{self.difference.estimate:+.3f} ({self.difference.low:+.3f} to {self.difference.high:+.3f})"
        )
        if self.other_prompts:
            first = self.other_prompts[0]
            text += (
                f"; {len(self.other_prompts)} prompts have another number of tokens ({first.example}: "
                f"{first.measured} measured, {first.served} served), so the server uses another chat template"
            )
        for pair in self.differing[:SHOWN_DIFFERENCES]:
            text += f"\n  {pair.example}: {pair.measured!r} measured, {pair.served!r} served"
        return text


def parity(
    examples: Sequence[Example], measured: Sequence[Reply], served: Sequence[Reply], scoring: BatchScorer
) -> Parity:
    """Compare the replies of the measured and the served model to the same examples.

    Args:
        scoring: gives answers their scores; an unreadable reply counts as 0.

    Raises:
        EvidenceError: there are fewer than 8 examples.

    """
    if len(examples) < MIN_EXAMPLES:
        raise EvidenceError(
            f"{len(examples)} examples are too few to compare a served model with the measured one: "
            f"{MIN_EXAMPLES} are the minimum, and a few hundred are better"
        )
    replies = list(zip(examples, measured, served, strict=True))
    scores = [score_replies(scoring, side, examples)[None] for side in (served, measured)]
    # A fixed seed: the same replies always give the same verdict.
    difference = compare(joint_scores(scores), [(0, 1)], np.random.default_rng(0))[0].difference
    answers = (AnswerPair(example.id, _text(then), _text(now)) for example, then, now in replies)
    prompts = (
        PromptTokens(example.id, then.usage.input_tokens, now.usage.input_tokens)
        for example, then, now in replies
    )
    return Parity(
        len(examples),
        tuple(pair for pair in answers if pair.measured != pair.served),
        tuple(tokens for tokens in prompts if 0 < tokens.measured != tokens.served > 0),
        difference,
    )


def measured_reply(trial: Trial) -> Reply:
    """Return the reply that a trial recorded."""
    usage = Usage("measured", trial.input_tokens or 0, output_tokens=trial.output_tokens or 0)
    answer = trial.answer if trial.format_ok else None
    return Reply(trial.answer or "", answer, usage, format_ok=trial.format_ok, error=trial.error)


def _text(reply: Reply) -> str:
    return reply.text if reply.answer is None else reply.answer
