"""Training examples in tokens: the prompt exactly as serving sends it, then the answer."""

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
"""Label of a token that the loss leaves out, as PyTorch has it: all of the prompt."""
MAX_NAMED_EXAMPLES = 3
MIN_TRAINING_EXAMPLES = 10
"""With fewer training examples a run says nothing about the model."""
MAX_TOO_LONG_SHARE = 0.5
"""Training is refused if a larger share of the examples is too long."""


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
    """(id of the example, its tokens): longer than the model's context. Left out, because a cut example
    would teach to stop early."""

    @property
    def tokens(self) -> int:
        """Tokens of one epoch."""
        return sum(len(row.input_ids) for row in self.rows)

    def warnings(self, context: int) -> tuple[str, ...]:
        """Say which examples were left out."""
        if not self.too_long:
            return ()
        count = len(self.too_long)
        names = ", ".join(f"{name} ({tokens})" for name, tokens in self.too_long[:MAX_NAMED_EXAMPLES])
        rest = f" and {count - MAX_NAMED_EXAMPLES} more" if count > MAX_NAMED_EXAMPLES else ""
        return (
            f"{count} examples have more tokens than the context of {context} and were not trained on: "
            f"{names}{rest}",
        )


def draw_prompt_lengths(count: int, shares: Sequence[float], rng: Generator) -> list[PromptLength]:
    """Draw the prompt that each example is trained with.

    Args:
        count: of the examples.
        shares: of each length, in the order of `PROMPT_LENGTHS`.
        rng: source of the draw.

    """
    return [PROMPT_LENGTHS[i] for i in rng.choice(len(PROMPT_LENGTHS), size=count, p=list(shares)).tolist()]


def rows_of(
    task: Task,
    examples: Sequence[Example],
    lengths: Sequence[PromptLength],
    tokenizer: Any,
    context: int,
    *,
    train: Sequence[Example] | None = None,
) -> Rows:
    """Return examples in tokens; those before the answer are the tokens that serving will send.

    Args:
        task: has the instruction and the kind of answer.
        examples: to be trained on, or to stop training by.
        lengths: the prompt of each example.
        tokenizer: with a chat template.
        context: tokens that the model can read; longer examples are left out and named.
        train: examples that have all labels; the examples themselves if None.

    Raises:
        DataError: too few examples, or half of them do not fit into the context.

    """
    if len(examples) < MIN_TRAINING_EXAMPLES:
        raise DataError(
            f"{len(examples)} training examples are too few to fine-tune a language model: it needs "
            f"{MIN_TRAINING_EXAMPLES} at least, and gains from some hundreds. Add examples or remove [[tune]]"
        )
    templates = {length: template_for_length(task, train or examples, length) for length in PROMPT_LENGTHS}
    fitting, too_long = [], []
    for example, length in zip(examples, lengths, strict=True):
        row = _row(fill_template(templates[length], example), example.target, tokenizer)
        if len(row.input_ids) > context:
            too_long.append((example.id, len(row.input_ids)))
        else:
            fitting.append(row)
    rows = Rows(tuple(fitting), tuple(too_long))
    if len(too_long) > MAX_TOO_LONG_SHARE * len(examples):
        raise DataError(
            f"{rows.warnings(context)[0]}; that is {len(too_long)} of {len(examples)}: shorten the inputs "
            "or use a base with a longer context"
        )
    return rows


def _row(prompt: Prompt, target: str, tokenizer: Any) -> Row:
    turns = [{"role": turn.role, "content": turn.content} for turn in request_of(prompt).messages]
    text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    # Prompt and answer are tokenized apart: generation starts after the prompt's last token, so no token
    # may span the two. The chat template wrote the special tokens already.
    prompt_ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    answer_ids: list[int] = [
        *tokenizer(target, add_special_tokens=False)["input_ids"],
        tokenizer.eos_token_id,
    ]
    return Row([*prompt_ids, *answer_ids], [*[IGNORED] * len(prompt_ids), *answer_ids])
