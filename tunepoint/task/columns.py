"""The columns of a data file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Columns:
    """Names of the columns that hold the parts of an example; None where there is none."""

    input: tuple[str, ...]
    """One column or several; each of several stands in the input under its name."""
    target: str
    """The right answer."""
    group: str | None = None
    """Rows that belong together and stay on one side of the split."""
    slice: str | None = None
    """A named part of the traffic, such as a language."""
    date: str | None = None
    id: str | None = None
    origin: str | None = None
    """Who wrote the right answer."""
    licence: str | None = None
    """The license of the row."""

    @property
    def needed(self) -> tuple[str, ...]:
        """All columns that the file must have."""
        optional = (self.group, self.slice, self.date, self.id, self.origin, self.licence)
        return (*self.input, self.target, *(name for name in optional if name))
