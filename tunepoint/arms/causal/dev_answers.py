"""The answers of a tuned model to the validation set, by prompt: what its servers are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from tunepoint.arms.parity import measured_reply
from tunepoint.arms.templates import PromptLength
from tunepoint.data.examples import Example
from tunepoint.models.chat import Reply
from tunepoint.trials.trial import Trial

DEV_ANSWERS_FILE = "dev.jsonl"
"""In the folder of a tuned model."""


def dev_trials(
    replies: Mapping[PromptLength, Sequence[Reply]],
    dev: Sequence[Example],
    scores: Mapping[PromptLength, Sequence[float]],
) -> list[Trial]:
    """Return the answers as trials, whose arm is the prompt length.

    Args:
        replies: by prompt length, in the order of `dev`.
        dev: the validation examples.
        scores: by prompt length, in the order of `dev`.

    """
    return [
        Trial(
            arm=length,
            item=example.id,
            score=score,
            format_ok=reply.answer is not None,
            input_tokens=reply.usage.input_tokens or None,
            output_tokens=reply.usage.output_tokens or None,
            answer=reply.answer if reply.answer is not None else reply.text,
            error=reply.error,
        )
        for length, answers in replies.items()
        for example, reply, score in zip(dev, answers, scores[length], strict=True)
    ]


def by_prompt(trials: Sequence[Trial], dev: Sequence[Example]) -> dict[PromptLength, list[Reply]]:
    """Turn the trials of `dev_trials` into replies in the order of `dev`.

    Leaves out prompt lengths without an answer to each example.
    """
    recorded = {(trial.arm, trial.item): trial for trial in trials}
    lengths = dict.fromkeys(trial.arm for trial in trials)
    return {
        cast("PromptLength", length): [measured_reply(recorded[length, example.id]) for example in dev]
        for length in lengths
        if all((length, example.id) in recorded for example in dev)
    }
