"""What is doubtful in the examples: labels, thin classes, personal data."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunepoint.data.examples import Example

THIN = 20
"""Examples per label under which a label can hardly be learnt and measured."""

_EMAIL = re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b")
_PHONE = re.compile(r"(?<![\w-])\+?\(?\d{2,4}\)?(?:[ .\-/]\(?\d{2,4}\)?){2,5}(?![\w-])")
_CARD = re.compile(r"(?<![\w-])\d(?:[ -]?\d){12,18}(?![\w-])")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b")
_DATE = re.compile(r"^(?:19|20)\d\d[ .\-/]\d\d?[ .\-/]\d\d?$|^\d\d?[ .\-/]\d\d?[ .\-/](?:19|20)\d\d$")


@dataclass(frozen=True)
class DoubtfulLabel:
    """A label that a model trained on the other examples would not have given."""

    id: str
    target: str
    suggestion: str
    confidence: float
    """Cross-validated probability of the suggestion, 0..1."""


@dataclass(frozen=True)
class PersonalDataFinding:
    """Personal data in an input: what kind, and where; never the data itself."""

    id: str
    kind: str


def thin_labels(
    examples: Sequence[Example], minimum: int = THIN, *, declared: Collection[str] = ()
) -> dict[str, int]:
    """Labels with fewer than `minimum` examples, rarest first; declared ones may have none."""
    counts = Counter(dict.fromkeys(declared, 0))
    counts.update(example.target for example in examples)
    return {label: n for label, n in sorted(counts.items(), key=lambda pair: pair[1]) if n < minimum}


def personal_data(examples: Sequence[Example]) -> list[PersonalDataFinding]:
    """E-mail addresses, phone numbers, payment cards and IBANs in the inputs."""
    found = []
    for example in examples:
        found += [PersonalDataFinding(example.id, kind) for kind in _kinds(example.input)]
    return found


def _kinds(text: str) -> list[str]:
    kinds = []
    if _EMAIL.search(text):
        kinds.append("e-mail address")
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
    """The check digit of payment cards (ISO/IEC 7812-1)."""
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
    """Labels that cross-validation contradicts, most doubtful first.

    Confident learning (Northcutt, Jiang and Chuang 2021, section 3.1): a label is doubtful
    when another label's out-of-fold probability exceeds that label's own average
    self-confidence, and the given label's falls below its own.

    Args:
        examples: n labelled examples.
        features: (n, d) vectors of the inputs.
        groups: n names; a group is never on both sides of a fold.

    """
    labels, given = np.unique([example.target for example in examples], return_inverse=True)
    names = list(groups) if groups is not None else [example.id for example in examples]
    folds = min(folds, len(set(names)))
    if len(labels) < 2 or folds < 2 or min(np.bincount(given)) < 2:
        return []
    probability = _out_of_fold(features, given, names, folds)
    own = probability[np.arange(len(examples)), given]
    threshold = np.array([own[given == label].mean() for label in range(len(labels))])
    other = np.where(np.arange(len(labels)) == given[:, None], -1.0, probability - threshold)
    suggested = other.argmax(axis=1)
    doubtful = np.flatnonzero((other.max(axis=1) > 0) & (own < threshold[given]))
    margin = probability[np.arange(len(examples)), suggested] - own
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
    features: NDArray[np.float32], given: NDArray[np.intp], names: Sequence[str], folds: int
) -> NDArray[np.float64]:
    """(n, labels) probabilities, each from a model that saw nothing of the example's group."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold

    model = LogisticRegression(C=10.0, max_iter=300)
    splitter = GroupKFold(n_splits=folds, shuffle=True, random_state=0)
    probability = np.zeros((len(given), int(given.max()) + 1))
    for inside, outside in splitter.split(features, given, names):
        model.fit(features[inside], given[inside])
        probability[np.ix_(outside, model.classes_)] = model.predict_proba(features[outside])
    return probability
