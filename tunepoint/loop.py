"""The whole circle: serve the best prompt, collect, tune, decide, canary, promote, watch, ask again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol

from tunepoint.capture.harvest import Harvest
from tunepoint.errors import TunepointError

Step = Literal["serve", "collect", "tune", "canary", "watch"]
STEPS: tuple[Step, ...] = ("serve", "collect", "tune", "canary", "watch")
"""In order: serve the best prompt; gather examples; tune on them and decide on the sealed test; try the
winner on some users; watch it until something speaks for asking again."""


ASKABLE = ("tune", "canary", "promote", "collect")
"""What may wait for a person's yes; `collect` is asking again."""


class LoopError(TunepointError):
    """The loop cannot go on as it is asked to."""


@dataclass(frozen=True)
class Goals:
    """When the loop goes on, and what it asks a person first."""

    good: int = 500
    """Examples from traffic before a model is tuned."""
    again: int = 100
    """Of those that came since the last study, before the next round tunes."""
    per_label: int = 10
    """Of each label that the task declares, those that are there already counted."""
    ask: frozenset[str] = frozenset()
    """Of `ASKABLE`, what waits for a person's yes."""


@dataclass(frozen=True)
class Standing:
    """Where the loop is, and what it waits for."""

    step: Step
    round: int = 1
    """How often it was asked to tune, this time included."""
    waits: str = ""
    facts: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """What the step has written down: the study, the challenger, since when."""


@dataclass(frozen=True)
class Challenger:
    """An arm of a new study that won there."""

    study: str
    arm: str
    name: str
    """What it is called in the gateway."""


@dataclass(frozen=True)
class Studied:
    """What a study with the harvested examples has found."""

    why: str
    facts: Mapping[str, Any]
    """To be written down."""
    challenger: Challenger | None = None
    """The arm that shall be tried; None where the prompt stays, or nothing is settled."""
    needed: int | None = None
    """Examples after which to ask again, where nothing is settled."""


class World(Protocol):
    """What the loop does things with; `circle.py` is the real one. Everything may be done twice."""

    def standing(self) -> Standing:
        """Where it stopped."""
        ...

    def move(self, step: Step, why: str, **facts: Any) -> Standing:
        """Go to a step; written down, and in the audit log."""
        ...

    def wait(self, standing: Standing, what: str) -> Standing:
        """Stay, and say what is waited for."""
        ...

    def said_yes(self, to: str) -> bool:
        """Whether a person has agreed to a step of this round."""
        ...

    def serve_prompt(self) -> tuple[str | None, str]:
        """See that the best prompt serves: the arm that does, or None and what is missing."""
        ...

    def harvest(self) -> Harvest:
        """Examples from all traffic that is kept."""
        ...

    def fresh(self, found: Harvest) -> int:
        """How many of them no study of this loop has seen."""
        ...

    def lacking(self, found: Harvest) -> Sequence[str]:
        """Labels that have too few examples."""
        ...

    def study(self, found: Harvest) -> Studied:
        """Tune on all examples and decide on the sealed test."""
        ...

    def canary(self, challenger: Challenger) -> tuple[Literal["runs", "promoted", "rolled back"], str]:
        """See that the challenger is tried on live traffic; how it stands."""
        ...

    def promote(self, challenger: Challenger) -> None:
        """A person said yes."""
        ...

    def reasons(self) -> tuple[Sequence[str], str]:
        """What speaks for asking again: drift, volume, price, a retirement; and what was looked at."""
        ...


def turn(world: World, goals: Goals) -> Standing:
    """Go on from where the loop is until it has to wait; may be stopped and called again at any time."""
    standing = world.standing()
    while True:
        asked = standing.step in goals.ask and not world.said_yes(standing.step)
        if standing.step == "serve":
            arm, missing = world.serve_prompt()
            if arm is None:
                return world.wait(standing, missing)
            standing = world.move("collect", f"{arm} serves")
        elif standing.step == "collect":
            found = world.harvest()
            first = standing.round == 1
            good = max(goals.good, standing.facts.get("needed", 0)) if first else goals.again
            count = len(found.taken) if first else world.fresh(found)
            if count < good:
                return world.wait(standing, f"{count} of {good} good examples")
            if lacking := world.lacking(found):
                return world.wait(standing, f"more than {goals.per_label} examples of {', '.join(lacking)}")
            standing = world.move("tune", f"{len(found.taken)} good examples were collected")
        elif standing.step == "tune":
            if asked:
                return world.wait(standing, "a person's yes to tuning")
            done = world.study(world.harvest())
            if done.challenger is not None:
                standing = world.move("canary", done.why, challenger=vars(done.challenger), **done.facts)
            elif done.needed is not None:
                standing = world.move("collect", done.why, needed=done.needed, **done.facts)
            else:
                standing = world.move("watch", done.why, **done.facts)
        elif standing.step == "canary":
            if asked:
                return world.wait(standing, "a person's yes to the canary")
            challenger = Challenger(**standing.facts["challenger"])
            state, why = world.canary(challenger)
            if state == "runs" and "promote" in goals.ask and world.said_yes("promote"):
                world.promote(challenger)
                continue
            if state == "runs":
                return world.wait(standing, why)
            standing = world.move("watch", f"{challenger.name} was {state}: {why}")
        else:
            reasons, looked_at = world.reasons()
            if not reasons:
                return world.wait(standing, f"nothing speaks for asking again ({looked_at})")
            if "collect" in goals.ask and not world.said_yes("collect"):
                return world.wait(standing, f"a person's yes to asking again: {'; '.join(reasons)}")
            why, asked_ = f"asked again: {'; '.join(reasons)}", [*standing.facts.get("asked", []), *reasons]
            standing = world.move("collect", why, round=standing.round + 1, asked=asked_)
