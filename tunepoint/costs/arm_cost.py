"""What an arm costs to build and to run."""

from __future__ import annotations

from dataclasses import dataclass, field

from tunepoint.stats.ranges import Range
from tunepoint.task.hosting import Dedicated
from tunepoint.trials.trial import ArmKind

NOTHING = Range(0, 0, 0)


@dataclass(frozen=True)
class ArmCost:
    """What an arm costs to build and to run, before rates are applied."""

    arm: str
    kind: ArmKind
    labels: int = 0
    """Examples that a person labels before the arm can exist."""
    training_core_seconds: float = 0.0
    training_usd: float = 0.0
    """Dollars of one training elsewhere, the calls that wrote its examples included; paid again with each."""
    upfront_usd: Range = NOTHING
    """Declared dollars on top of labels, training and hours."""
    hours: Range = NOTHING
    """Hours of work until it serves."""
    monthly_usd: Range = NOTHING
    """Fixed hosting."""
    usd_per_query: Range = NOTHING
    """Declared or measured price of one answer."""
    query_error_usd: float = 0.0
    """Standard error of the measured mean price of one answer."""
    query_skew: float = 0.0
    """Skewness of that mean."""
    core_seconds_per_query: float = 0.0
    """Processor time of one answer on one's own machine, all cores."""
    core_seconds_error: float = 0.0
    """Standard error of that mean."""
    core_seconds_skew: float = 0.0
    """Its skewness."""
    retrain_hours: Range = NOTHING
    rented: bool = False
    """Whether its base model is a provider's, which retires it one day."""
    retires_months: float | None = None
    """Months until then, where that is announced."""
    deterministic: bool = False
    """Training it again with another seed would give the same arm."""
    dedicated: Dedicated | None = None
    """Reserved machines on which it is served."""
    notes: tuple[str, ...] = field(default=())
