"""Checks of the examples: doubtful labels, thin labels, personal data."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunepoint.data.examples import Example

MIN_LABEL_EXAMPLES = 20
"""Examples below which a label is thin: hard to learn and to measure."""

_EMAIL = re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b")
_PHONE = re.compile(r"(?<![\w-])\+?\(?\d{2,4}\)?(?:[ .\-/]\(?\d{2,4}\)?){2,5}(?![\w-])")
_CARD = re.compile(r"(?<![\w-])\d(?:[ -]?\d){12,18}(?![\w-])")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b")
_DATE = re.compile(r"^(?:19|20)\d\d[ .\-/]\d\d?[ .\-/]\d\d?$|^\d\d?[ .\-/]\d\d?[ .\-/](?:19|20)\d\d$")


@dataclass(frozen=True)
class DoubtfulLabel:
    """A label that a model trained on the other examples contradicts."""

    id: str
    """Of the example."""
    target: str
    """Its label."""
    suggestion: str
    """The label that the model gives."""
    confidence: float
    """Cross-validated probability of the suggestion, 0 to 1."""


@dataclass(frozen=True)
class PersonalDataFinding:
    """An input with personal data; the data itself is not repeated."""

    id: str
    """Of the example."""
    kind: str
    """E-mail address, payment card, phone number or bank account."""


def thin_labels(
    examples: Sequence[Example], minimum: int = MIN_LABEL_EXAMPLES, *, declared: Collection[str] = ()
) -> dict[str, int]:
    """Return labels with fewer than `minimum` examples, rarest first: label -> examples.

    Args:
        examples: of a task with labels.
        minimum: examples from which a label is not thin.
        declared: labels of task.toml, which may have no example at all.

    """
    counts = Counter(dict.fromkeys(declared, 0))
    counts.update(example.target for example in examples)
    return {label: n for label, n in sorted(counts.items(), key=lambda pair: pair[1]) if n < minimum}


def personal_data(examples: Sequence[Example]) -> list[PersonalDataFinding]:
    """Return where inputs hold e-mail addresses, phone numbers, payment cards and IBANs."""
    findings = []
    for example in examples:
        findings += [PersonalDataFinding(example.id, kind) for kind in _kinds(example.input)]
    return findings


def _kinds(text: str) -> list[str]:
    kinds = []
    if _EMAIL.search(text):
        kinds.append("e-mail address")
    # The digits of a card also look like a phone number, so a card is not searched for one.
    if any(_luhn(match.group()) for match in _CARD.finditer(text)):
        kinds.append("payment card")
    elif any(_is_phone(match.group()) for match in _PHONE.finditer(text)):
        kinds.append("phone number")
    if _IBAN.search(text):
        kinds.append("bank account")
    return kinds


def _is_phone(text: str) -> bool:
    digits = sum(character.isdigit() for character in text)
    return 8 <= digits <= 15 and not _DATE.match(text)


def _luhn(text: str) -> bool:
    """Whether the digits pass the check of payment cards (ISO/IEC 7812-1, annex B)."""
    digits = [int(character) for character in reversed(text) if character.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


def doubtful_labels(
    examples: Sequence[Example],
    features: NDArray[np.float32],
    *,
    groups: Sequence[str] | None = None,
    folds: int = 5,
    limit: int = 50,
) -> list[DoubtfulLabel]:
    """Return labels that cross-validation contradicts, most doubtful first.

    Confident learning (Northcutt, Jiang and Chuang 2021, "Confident learning: estimating uncertainty in
    dataset labels", section 3.1): a label is doubtful if another label's out-of-fold probability exceeds
    that label's average self-confidence, and the given label's probability is below its own average.

    Args:
        examples: n examples with labels.
        features: (n, d) vectors of the inputs.
        groups: (n,) names; a group is never on both sides of a fold.
        folds: of the cross-validation.
        limit: how many to return.

    """
    labels, codes = np.unique([example.target for example in examples], return_inverse=True)
    names = list(groups) if groups is not None else [example.id for example in examples]
    folds = min(folds, len(set(names)))
    if len(labels) < 2 or folds < 2 or min(np.bincount(codes)) < 2:
        return []
    probability = _out_of_fold(features, codes, names, folds)
    self_confidence = probability[np.arange(len(examples)), codes]
    threshold = np.array([self_confidence[codes == label].mean() for label in range(len(labels))])
    # How far each other label exceeds its threshold; -1 keeps the given label from being suggested.
    excess = np.where(np.arange(len(labels)) == codes[:, None], -1.0, probability - threshold)
    suggested = excess.argmax(axis=1)
    doubtful = np.flatnonzero((excess.max(axis=1) > 0) & (self_confidence < threshold[codes]))
    margin = probability[np.arange(len(examples)), suggested] - self_confidence
    ranked = doubtful[np.argsort(-margin[doubtful], kind="stable")][:limit]
    return [
        DoubtfulLabel(
            examples[i].id,
            examples[i].target,
            str(labels[suggested[i]]),
            round(float(probability[i, suggested[i]]), 4),
        )
        for i in ranked.tolist()
    ]


def _out_of_fold(
    features: NDArray[np.float32], codes: NDArray[np.intp], names: Sequence[str], folds: int
) -> NDArray[np.float64]:
    """Return (n, labels) probabilities, each from a model without the example's group."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold

    model = LogisticRegression(C=10.0, max_iter=300)
    splitter = GroupKFold(n_splits=folds, shuffle=True, random_state=0)
    probability = np.zeros((len(codes), int(codes.max()) + 1))
    for inside, outside in splitter.split(features, codes, names):
        model.fit(features[inside], codes[inside])
        probability[np.ix_(outside, model.classes_)] = model.predict_proba(features[outside])
    return probability
