"""Short definitions of the terms that the report shows; docs/glossary.md has all of them."""

from __future__ import annotations

from collections.abc import Mapping

TERMS: Mapping[str, str] = {
    "option": "One candidate way to do the task: a prompt, a tuned model, or a mix.",
    "right answers": "The share of test examples answered correctly, or the mean score where answers can "
    "be partly right. The interval holds the true value with a probability of 95%.",
    "confident": "The probability that the verdict is wrong is at most 5%.",
    "likely": "The probability that the verdict is wrong is over 5% and at most 20%.",
    "not sure yet": "The best option so far is named, but it may be wrong too often to recommend it.",
    "p95": "The time within which 95% of the answers came, one request at a time.",
    "build cost": "What an option costs before it serves: labels, training, engineering hours.",
    "running cost": "What an option costs once it serves: calls, machines, review, retraining.",
    "break-even": "The monthly volume above which the option that costs more to build is cheaper overall.",
    "acceptable": "The probability that an option is within the margin of the best one, and above the "
    "minimum score.",
    "margin": "How many points a cheaper option may score below the best one and still be good enough.",
    "training set": "Examples that options may learn from or show in a prompt.",
    "validation set": "Examples on which options and settings are chosen.",
    "test set": "Examples that only the finalists answer, once, at the end.",
    "training seed": "The number that fixes one training run; several show how much luck is in it.",
    "decode": "One more answer of the same model to the same input.",
    "signal": "One criterion for prompting or for fine-tuning, measured on your task.",
    "selection optimism": "How much better the winner looked on the validation set than on the test set.",
    "near duplicate": "Two inputs that share at least 80% of their four-character pieces.",
}
"""Term -> definition, in the order of the report."""


def anchor(term: str) -> str:
    """Return the id of a term's definition in the report.

    Raises:
        KeyError: the term has no definition.

    """
    TERMS[term]
    return f"term-{term.replace(' ', '-')}"
