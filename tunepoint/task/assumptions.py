"""Sections of task.toml about money: traffic, limits, the price of an error, and rates."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from tunepoint.files.amounts import Amount, Dollars, Share
from tunepoint.files.toml import Section
from tunepoint.stats.ranges import Range
from tunepoint.task.hosting import HOURS_PER_WEEK


class Traffic(Section):
    """How many queries there are, and how many months of cost to compare."""

    queries_per_month: Amount = Range(10_000, 10_000, 10_000)
    """Queries in the first month; the likely value is above 0."""
    horizon_months: Annotated[float, Field(ge=0.1, le=120)] = 12
    """Months of running cost that are compared."""
    growth_per_month: Annotated[float, Field(gt=-1, le=1)] = 0.0
    """Growth of the queries from each month to the next, as a share; negative if they shrink."""

    hours_a_week: Amount = Range(HOURS_PER_WEEK, HOURS_PER_WEEK, HOURS_PER_WEEK)
    """Hours with queries: 40 for an office, 168 for day and night. Cached prompts depend on it."""
    calls_per_burst: Amount = Range(1, 1, 1)
    """Queries that come together, seconds apart, on average: a user's, or those of one batch of documents."""
    batch_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the queries that can wait a day for their answer, and so go by a provider's batch API."""

    @field_validator("queries_per_month")
    @classmethod
    def _positive(cls, queries: Range) -> Range:
        if queries.likely <= 0:
            raise ValueError("must be positive; give the expected queries per month")
        return queries

    @field_validator("hours_a_week")
    @classmethod
    def _within_a_week(cls, hours: Range) -> Range:
        if hours.low <= 0 or hours.high > HOURS_PER_WEEK:
            raise ValueError(f"must lie above 0 and within the {HOURS_PER_WEEK:g} hours of a week")
        return hours

    @field_validator("calls_per_burst")
    @classmethod
    def _at_least_one(cls, calls: Range) -> Range:
        if calls.low < 1:
            raise ValueError("must be at least 1: queries that come one by one")
        return calls


class Limits(Section):
    """Limits that an arm must keep to be chosen; None is no limit."""

    margin: Share = 0.02
    """How much lower a cheaper arm may score and still count as good enough."""
    min_score: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    """Lowest mean score."""
    p95_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Highest 95th percentile of the seconds of an answer."""
    upfront_usd: Dollars | None = None
    """Highest cost to build."""
    monthly_usd: Dollars | None = None
    """Highest running cost of a month."""


class Value(Section):
    """What a wrong answer costs, and which savings are too small to matter."""

    error_usd: Dollars | None = None
    """Dollars lost by a wrong answer; turns scores into money."""
    materiality: Share = 0.05
    """A saving below this share of the whole cost does not matter."""


class Costs(Section):
    """Rates behind the costs; an amount is a number or [low, likely, high]."""

    label_minutes: Amount = Range(0.3, 0.5, 1.0)
    """Minutes a person takes to label one example."""
    label_usd: Amount | None = None
    """Price of one label, if you buy labels; replaces the minutes."""
    cleaning_hours: Amount = Range(0, 0, 0)
    """Hours to clean examples, for every arm that needs labels."""
    evaluation_hours: Amount = Range(0, 0, 0)
    """Hours to evaluate an arm before it goes into production."""
    review_hours_per_month: Amount = Range(0, 0, 0)
    """Hours a month in which people read the answers in production."""
    hourly_usd: Amount = Range(60, 60, 60)
    """One hour of the people who label and build."""
    engineering_hours: Amount = Range(4, 8, 24)
    """Hours to put a tuned model into production."""
    prompt_hours: Amount = Range(1, 2, 6)
    """Hours to put a prompt into production."""
    core_hour_usd: Amount = Range(0.04, 0.04, 0.04)
    """One processor core for one hour."""
    cluster_hour_usd: Dollars | None = None
    """All machines of the cluster on which a study runs (`--on`) for one hour; their cores, at the price of
    `core_hour_usd`, if None."""
    retrain_months: Annotated[float, Field(ge=0.1, allow_inf_nan=False)] = 6
    """Months between two trainings of a tuned model."""
    retrain_hours: Amount = Range(1, 2, 4)
    """Hours to check and release a retrained model."""
    base_model_months: Annotated[float, Field(ge=0.1, allow_inf_nan=False)] | None = None
    """Months after which a provider retires a base model; None if unknown, or if it is your own."""
    reprompt_hours: Amount = Range(1, 2, 6)
    """Hours to move a prompt to the successor of a retired model."""
    discount_per_year: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Yearly discount rate: how much less a dollar is worth a year from now."""
    labels_owned: bool = True
    """Whether the examples' labels are there already, so that they cost nothing; new labels always cost."""
