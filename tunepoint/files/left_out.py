"""Entries of a file that cannot be used: left out, counted by reason, and the first of each named."""

from __future__ import annotations

from dataclasses import dataclass, field


class LeftOut(Exception):
    """An entry that cannot be used; its text is the reason, as it follows a number: "without messages"."""


@dataclass
class Tally:
    """How many entries were left out for each reason, and where the first is."""

    counts: dict[str, int] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    def add(self, reason: LeftOut | str, place: str, number: int = 1) -> None:
        """Count entries that were left out for a reason."""
        text = str(reason)
        self.counts[text] = self.counts.get(text, 0) + number
        self.places.setdefault(text, place)

    def update(self, other: Tally) -> None:
        """Add what was left out of another file."""
        for reason, number in other.counts.items():
            self.add(reason, other.places[reason], number)

    def lines(self) -> list[str]:
        """Return one line for each reason."""
        return [
            f"left out: {number} {why} (first: {self.places[why]})" for why, number in self.counts.items()
        ]
