"""The two sides of 'prompt or fine-tune', and the best arm of each."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tunepoint.trials.trial import ArmKind

PROMPTED_KINDS: tuple[ArmKind, ...] = ("prompt", "incumbent")
"""Arms that fine-tuning would replace; what runs today is taken to be prompted."""
TUNED_KINDS: tuple[ArmKind, ...] = ("tuned", "hybrid")
"""Arms that are one tuned model; a cascade is two models and stands for neither side alone."""
CONTROL_KINDS: tuple[ArmKind, ...] = ("baseline",)
"""Arms without a language model and without tuning: neither side, and what both must beat."""


def variants_of(kinds: Sequence[ArmKind], names: Sequence[str]) -> tuple[str, ...]:
    """Return what each arm is a variant of: prompts of each other, and whatever holds a tuned model.

    A hybrid and a cascade hold one; what runs today and a control stand for themselves.
    """
    trained: tuple[ArmKind, ...] = (*TUNED_KINDS, "cascade")
    return tuple(
        "tuned" if kind in trained else "prompt" if kind == "prompt" else name
        for kind, name in zip(kinds, names, strict=True)
    )


def best_of(kinds: Sequence[ArmKind], scores: Sequence[float], wanted: Collection[ArmKind]) -> int | None:
    """Return the position of the best arm of the wanted kinds; None where there is none."""
    positions = [position for position, kind in enumerate(kinds) if kind in wanted]
    return max(positions, key=lambda position: scores[position], default=None)


def rival_of(kinds: Sequence[ArmKind], scores: Sequence[float], arm: int) -> int:
    """Return the position of the best arm on the other side.

    Where that side is empty the best control stands for it, and where there is none the best of all others.
    """
    others = [other for other in range(len(kinds)) if other != arm]
    controls = [other for other in others if kinds[other] in CONTROL_KINDS]
    if kinds[arm] in PROMPTED_KINDS:
        across = [other for other in others if kinds[other] not in (*PROMPTED_KINDS, *CONTROL_KINDS)]
    elif kinds[arm] in CONTROL_KINDS:
        across = [other for other in others if other not in controls]
    else:
        across = [other for other in others if kinds[other] in PROMPTED_KINDS]
    return max(across or controls or others, key=lambda other: scores[other])
