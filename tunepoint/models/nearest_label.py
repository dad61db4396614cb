"""Answer a prompt with the label nearest to its input, by the vectors of names and demonstrations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tunepoint.models.chat import Prompt

Vectors = NDArray[np.float32]

SIMILARITY_TEMPERATURE = 0.05
"""Similarity differences of this size change the odds of a label by a factor e."""


class CachingEncoder(Protocol):
    """An encoder of texts that remembers the vectors of some of them."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return the (n, width) unit vectors of texts."""
        ...

    def cache_vectors(self, texts: Sequence[str]) -> None:
        """Keep the vectors of texts that return."""
        ...


def label_probabilities(encoder: CachingEncoder, prompt: Prompt, vector: Vectors) -> Vectors:
    """Return the (labels,) probabilities of a prompt's labels.

    Names alone give a softmax of cosine similarities. Demonstrations vote with the
    exponential of their similarity, and the two distributions are mixed by
    `demonstration_weight` (nearest-neighbor interpolation, Khandelwal et al. 2020,
    equation 3).

    Args:
        encoder: computes the vectors of names and demonstrations.
        prompt: with labels.
        vector: (width,) unit vector of the prompt's input.

    """
    by_name = softmax(_label_vectors(encoder, prompt) @ vector / SIMILARITY_TEMPERATURE)
    if not prompt.demonstrations:
        return by_name
    by_vote = _votes(encoder, prompt, vector)
    return (1 - prompt.demonstration_weight) * by_name + prompt.demonstration_weight * by_vote


def _votes(encoder: CachingEncoder, prompt: Prompt, vector: Vectors) -> Vectors:
    """Return the (labels,) share of each label among the demonstrations, nearer ones heavier.

    A demonstration of what is no label of the prompt takes its share along.
    """
    inputs = [demonstration.input for demonstration in prompt.demonstrations]
    weights = softmax(encoder.embed(inputs) @ vector / SIMILARITY_TEMPERATURE)
    position = {label: i for i, label in enumerate(prompt.labels)}
    votes = np.zeros(len(prompt.labels), np.float32)
    for demonstration, weight in zip(prompt.demonstrations, weights, strict=True):
        if demonstration.target in position:
            votes[position[demonstration.target]] += weight
    return votes


def _label_vectors(encoder: CachingEncoder, prompt: Prompt) -> Vectors:
    """Return the labels' vectors: the name's, averaged with the description's if there is one."""
    names = [label_as_words(label) for label in prompt.labels]
    descriptions = [
        prompt.descriptions.get(label) or name for label, name in zip(prompt.labels, names, strict=True)
    ]
    encoder.cache_vectors([*names, *descriptions])
    mean = encoder.embed(names) + encoder.embed(descriptions)
    return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True))


def softmax(logits: Vectors) -> Vectors:
    """Return the softmax over the last axis."""
    # The greatest logit is subtracted so that the exponential cannot overflow.
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def label_as_words(label: str) -> str:
    """Return a label as words: `card_arrival` as `card arrival`."""
    return " ".join(label.replace("_", " ").replace("-", " ").replace("/", " ").split()) or label
