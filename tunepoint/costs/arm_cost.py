"""What an arm costs to build and to run."""

from __future__ import annotations

from dataclasses import dataclass, field

from tunepoint.costs.caching import CachedPrefix
from tunepoint.stats.ranges import Range
from tunepoint.task.hosting import Dedicated
from tunepoint.trials.trial import ArmKind

NOTHING = Range(0, 0, 0)


@dataclass(frozen=True)
class ArmCost:
    """What an arm costs to build and to run, before the task's rates turn hours and labels into money."""

    arm: str
    """Name of the arm: its identity in every file."""
    kind: ArmKind
    labels: int = 0
    """Examples that a person labels before the arm can exist."""
    training_core_seconds: float = 0.0
    """Processor time of one training run on this machine, all cores."""
    training_usd: float = 0.0
    """Dollars of one training run elsewhere, with the calls that wrote its examples.

    They are paid again at every retraining."""
    upfront_usd: Range = NOTHING
    """Declared dollars on top of labels, training and hours."""
    hours: Range = NOTHING
    """Hours of work until the arm serves."""
    monthly_usd: Range = NOTHING
    """Fixed hosting, dollars a month."""
    usd_per_query: Range = NOTHING
    """Declared or measured price of one answer; where `prefixes` are given, without what caches save."""
    batch_discount: float = 0.0
    """Share of that price which an answer by batch saves, as `traffic.batch_share` of the queries get it."""
    query_error_usd: float = 0.0
    """Standard error of the measured mean price of one answer."""
    query_skew: float = 0.0
    """Skewness of that mean."""
    core_seconds_per_query: float = 0.0
    """Processor time of one answer on this machine, all cores."""
    core_seconds_error: float = 0.0
    """Standard error of the mean processor time."""
    core_seconds_skew: float = 0.0
    """Skewness of the mean processor time."""
    retrain_hours: Range = NOTHING
    """Hours of work at every retraining."""
    rented: bool = False
    """Whether a provider serves the base model, and so retires it one day."""
    retires_months: float | None = None
    """Months until the announced retirement of the base model."""
    replaced: bool = False
    """Whether it is what runs today and has to go: never chosen, and what the others are compared with."""
    deterministic: bool = False
    """Whether training with another seed gives the same arm."""
    dedicated: Dedicated | None = None
    """Reserved machines that serve the arm."""
    prefixes: tuple[CachedPrefix, ...] = ()
    """Starts of its prompts that the provider caches."""
    notes: tuple[str, ...] = field(default=())
    """Caveats about these figures."""
    label: str | None = None
    """What people read instead of the name; None where the name will do."""

    @property
    def title(self) -> str:
        """What people read: the label, else the name."""
        return self.label or self.arm
