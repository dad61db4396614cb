"""Filters for harvested examples: licences, near duplicates, doubtful labels and balance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from numpy.random import Generator

from tunepoint.capture.acceptance import Embed, HarvestedExample, Rejections
from tunepoint.capture.records import THIS_MACHINE
from tunepoint.data.audit import doubtful_labels
from tunepoint.data.copies import copy_key
from tunepoint.data.dedupe import link_near_duplicates, match_near_duplicates
from tunepoint.data.examples import Example
from tunepoint.task.task import Task

MIN_AUDITED = 10
"""Examples below which labels are not audited: they are compared with each other."""


def drop_unlicensed(
    harvested: Sequence[HarvestedExample], task: Task, rejections: Rejections
) -> list[HarvestedExample]:
    """Drop answers whose model's terms do not allow training.

    Only models with `train_on_outputs = true` are allowed. A cascade's model names both of its models,
    and both have to be. Nobody's terms forbid learning from an arm of this machine, or from a correction.
    """
    allowed = {THIS_MACHINE, *(model.name for model in task.models if model.train_on_outputs)}
    kept = []
    for item in harvested:
        writers = item.example.writers
        if item.accepted == "corrected" or set(writers) <= allowed:
            kept.append(item)
        else:
            rejections[
                f"written by {', '.join(writers)}: set train_on_outputs = true in [[models]] if its terms "
                "allow training"
            ] += 1
    return kept


def drop_similar(
    harvested: Sequence[HarvestedExample],
    others: Sequence[Example],
    reason: str,
    rejections: Rejections,
) -> list[HarvestedExample]:
    """Drop examples that are copies or near duplicates of others."""
    texts, other_texts = [item.example.input for item in harvested], [other.input for other in others]
    copies = set(map(copy_key, other_texts))
    similar = match_near_duplicates(texts, other_texts, signs_count=True) if other_texts else {}
    kept = []
    for position, item in enumerate(harvested):
        if position in similar or copy_key(item.example.input) in copies:
            rejections[reason] += 1
        else:
            kept.append(item)
    return kept


def drop_repeated(harvested: Sequence[HarvestedExample], rejections: Rejections) -> list[HarvestedExample]:
    """Drop copies and near duplicates of earlier examples."""
    texts = [item.example.input for item in harvested]
    later = {position for _, position in link_near_duplicates(texts, signs_count=True)}
    seen: set[str] = set()
    kept = []
    for position, item in enumerate(harvested):
        text = copy_key(item.example.input)
        if position in later or text in seen:
            rejections["similar to another question"] += 1
        else:
            kept.append(item)
        seen.add(text)
    return kept


def drop_doubtful(
    harvested: Sequence[HarvestedExample], embed: Embed | None, rejections: Rejections
) -> list[HarvestedExample]:
    """Drop answers that the other examples contradict; what a person wrote stays."""
    examples = [item.example for item in harvested]
    if embed is None or len(examples) < MIN_AUDITED:
        return list(harvested)
    vectors = embed([example.input for example in examples])
    doubtful = {doubt.id for doubt in doubtful_labels(examples, vectors, limit=len(examples))}
    kept = [item for item in harvested if item.example.id not in doubtful or item.accepted == "corrected"]
    if len(kept) < len(harvested):
        rejections["with a label that the other examples contradict"] += len(harvested) - len(kept)
    return kept


def balance_labels(
    harvested: Sequence[HarvestedExample],
    max_per_label: int | None,
    rng: Generator,
    rejections: Rejections,
) -> list[HarvestedExample]:
    """Keep at most so many examples of a label: corrections first, the others by lot."""
    if max_per_label is None:
        return list(harvested)
    order = rng.permutation(len(harvested)).tolist()
    order.sort(key=lambda position: harvested[position].accepted != "corrected")
    counts: Counter[str] = Counter()
    kept = []
    for position in order:
        label = harvested[position].example.target
        if counts[label] < max_per_label:
            counts[label] += 1
            kept.append(position)
    if len(kept) < len(harvested):
        rejections[f"beyond {max_per_label} examples of their label"] += len(harvested) - len(kept)
    return [harvested[position] for position in sorted(kept)]
