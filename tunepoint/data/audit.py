"""Checks of the examples: doubtful labels, thin labels, personal data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunepoint.data.examples import Example
from tunepoint.data.personal.finder import find_personal_data

MIN_LABEL_EXAMPLES = 20
"""Examples below which a label is thin: hard to learn and to measure."""

_KINDS = {
    "email": "e-mail address",
    "phone": "phone number",
    "card": "payment card",
    "account": "bank account",
    "ssn": "social security number",
    "ip": "IP address",
    "secret": "API key",
    "unverified": "number in a text that takes too long to check",
}
"""Kinds of personal data in words."""


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
    """In words, such as "e-mail address"."""


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
    """Return which kinds of personal data inputs hold; the capture store redacts the same."""
    findings = []
    for example in examples:
        findings += [PersonalDataFinding(example.id, kind) for kind in _kinds(example.input)]
    return findings


def _kinds(text: str) -> list[str]:
    return list(dict.fromkeys(_KINDS[finding.kind] for finding in find_personal_data(text)))


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
