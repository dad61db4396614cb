"""What people read for each arm of a decision."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tunepoint.decision.sides import PROMPTED_KINDS

NO_LANGUAGE_MODEL = "(no language model)"
"""Ends the label of a baseline."""
WHEN_UNSURE = " when unsure"
"""Ends the label of a cascade."""
SIZE = re.compile(r" \(\d[\d.]*[MB]\)")
"""The size of a model in a label."""


@dataclass(frozen=True)
class Names:
    """What people read for each arm, and which arms are prompted."""

    titles: Mapping[str, str]
    kinds: Mapping[str, str]
    shorts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, decision: Mapping[str, Any]) -> Names:
        """Return the names of a decision; one without labels shows the arms' own names."""
        finalists = decision.get("finalists", ())
        titles = {finalist["arm"]: finalist.get("label") or finalist["arm"] for finalist in finalists}
        return cls(titles, {finalist["arm"]: _kind_of(finalist) for finalist in finalists}, _shorts(titles))

    def title(self, arm: str) -> str:
        """Return what people read for an arm; its name where it is no finalist."""
        return self.titles.get(arm, arm)

    def short(self, arm: str) -> str:
        """Return the shortest name that tells an arm from the other finalists."""
        return self.shorts.get(arm, self.title(arm))

    def is_prompted(self, arm: str) -> bool:
        """Return whether an arm is on the prompting side."""
        return self.kinds.get(arm) in PROMPTED_KINDS


def _shorts(titles: Mapping[str, str]) -> dict[str, str]:
    """Titles without what the other finalists' titles do not make necessary."""
    shorts = {arm: _short(title) for arm, title in titles.items()}
    every = list(shorts.values())
    return {arm: short if every.count(short) == 1 else titles[arm] for arm, short in shorts.items()}


def _short(title: str) -> str:
    cheap, first, strong = title.partition(" first, ")
    if first and strong.endswith(WHEN_UNSURE):
        strong = strong.removesuffix(WHEN_UNSURE).partition(", ")[0]
        return f"{_plain(cheap)}, then {_plain(strong)}"
    return _plain(title)


def _plain(title: str) -> str:
    """A title without the size of its model, and without saying that there is none."""
    return SIZE.sub("", title.removesuffix(NO_LANGUAGE_MODEL).strip())


def _kind_of(finalist: Mapping[str, Any]) -> str:
    """Return the kind of a finalist; older versions called what compares vectors a prompt."""
    if finalist["kind"] == "prompt" and str(finalist.get("label")).endswith(NO_LANGUAGE_MODEL):
        return "baseline"
    return str(finalist["kind"])
