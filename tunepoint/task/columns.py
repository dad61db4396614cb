"""Which columns of a data file hold what."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Columns:
    """Which columns hold what."""

    input: tuple[str, ...]
    target: str
    group: str | None = None
    slice: str | None = None
    date: str | None = None
    id: str | None = None
    origin: str | None = None
    licence: str | None = None

    @property
    def needed(self) -> tuple[str, ...]:
        """Every column that must be in the file."""
        optional = (self.group, self.slice, self.date, self.id, self.origin, self.licence)
        return (*self.input, self.target, *(name for name in optional if name))
