"""Training examples as a causal model sees them: the tokens that it will be asked with, then the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.random import Generator

from tunepoint.arms.templates import PROMPT_LENGTHS, PromptLength, fill_template, template_for_length
from tunepoint.data.examples import Example
from tunepoint.errors import DataError
from tunepoint.models.chat import Prompt
from tunepoint.models.endpoints import request_of
from tunepoint.task.task import Task

IGNORED = -100
"""Label of a token that the loss leaves out: all of the prompt."""
SHOWN = 3
FEWEST = 10
"""Training examples without which a run says nothing."""
MOST_CUT = 0.5
"""Share of examples that may be too long before training is refused."""


@dataclass(frozen=True)
class Row:
    """One training example in tokens."""

    input_ids: list[int]
    labels: list[int]

    @property
    def answer_tokens(self) -> int:
        """Tokens that the loss counts."""
        return sum(label != IGNORED for label in self.labels)


@dataclass(frozen=True)
class Rows:
    """Training examples in tokens, and those that were left out."""

    rows: tuple[Row, ...]
    too_long: tuple[tuple[str, int], ...]
    """(id of the example, its tokens): longer than the model's context, left out and never cut."""

    @property
    def tokens(self) -> int:
        """Tokens of one epoch."""
        return sum(len(row.input_ids) for row in self.rows)

    def warnings(self, context: int) -> tuple[str, ...]:
        """What was left out, in words."""
        if not self.too_long:
            return ()
        shown = ", ".join(f"{name} ({tokens})" for name, tokens in self.too_long[:SHOWN])
        more = f" and {len(self.too_long) - SHOWN} more" if len(self.too_long) > SHOWN else ""
        return (
            f"{len(self.too_long)} examples have more tokens than the context of {context} and were not "
            f"trained on: {shown}{more}",
        )


def draw_prompt_lengths(count: int, shares: Sequence[float], rng: Generator) -> list[PromptLength]:
    """Which prompt each of the examples is trained with."""
    return [PROMPT_LENGTHS[i] for i in rng.choice(len(PROMPT_LENGTHS), size=count, p=list(shares)).tolist()]


def rows_of(
    task: Task,
    examples: Sequence[Example],
    diets: Sequence[PromptLength],
    tokenizer: Any,
    context: int,
    *,
    train: Sequence[Example] | None = None,
) -> Rows:
    """Examples in tokens; the tokens before the answer are those that serving will send.

    Args:
        diets: the prompt of each example.
        tokenizer: with a chat template.
        context: tokens that the model can read; longer examples are left out and named.
        train: what has the labels; the examples themselves if None.

    Raises:
        DataError: too few examples, or half of them do not fit into the context.

    """
    if len(examples) < FEWEST:
        raise DataError(
            f"{len(examples)} training examples are too few to fine-tune a language model: {FEWEST} at "
            "least, and some hundreds to gain from it; add examples or leave out [[tune]]"
        )
    templates = {diet: template_for_length(task, train or examples, diet) for diet in PROMPT_LENGTHS}
    rows, too_long = [], []
    for example, diet in zip(examples, diets, strict=True):
        row = _row(fill_template(templates[diet], example), example.target, tokenizer)
        if len(row.input_ids) > context:
            too_long.append((example.id, len(row.input_ids)))
        else:
            rows.append(row)
    found = Rows(tuple(rows), tuple(too_long))
    if len(too_long) > MOST_CUT * len(examples):
        raise DataError(
            f"{found.warnings(context)[0]}; that is {len(too_long)} of {len(examples)}: shorten the inputs "
            "or take a base with a longer context"
        )
    return found


def _row(prompt: Prompt, target: str, tokenizer: Any) -> Row:
    turns = [{"role": turn.role, "content": turn.content} for turn in request_of(prompt).messages]
    text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    before: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    answer: list[int] = [
        *tokenizer(target, add_special_tokens=False)["input_ids"],
        tokenizer.eos_token_id,
    ]
    return Row([*before, *answer], [*[IGNORED] * len(before), *answer])
