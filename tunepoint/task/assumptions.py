"""What a task assumes about traffic, limits, the price of errors and the rates behind costs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from tunepoint.files.amounts import Amount, Dollars, Share
from tunepoint.files.toml import Section
from tunepoint.stats.ranges import Range


class Traffic(Section):
    """How often the task is asked, and for how long to look ahead."""

    queries_per_month: Amount = Range(10_000, 10_000, 10_000)
    horizon_months: Annotated[float, Field(ge=0.1, le=120)] = 12
    growth_per_month: Annotated[float, Field(gt=-1, le=1)] = 0.0
    """Share by which each month has more queries than the one before; negative where they shrink."""

    @field_validator("queries_per_month")
    @classmethod
    def _some(cls, queries: Range) -> Range:
        if queries.likely <= 0:
            raise ValueError(
                "nobody asks, so nothing need be chosen; give the queries a month that you expect"
            )
        return queries


class Limits(Section):
    """What an arm must keep to be chosen."""

    margin: Share = 0.02
    min_score: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    p95_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    upfront_usd: Dollars | None = None
    monthly_usd: Dollars | None = None


class Value(Section):
    """What a wrong answer costs, and which savings are too small to matter."""

    error_usd: Dollars | None = None
    materiality: Share = 0.05


class Costs(Section):
    """Rates behind the costs; each a number or [low, likely, high]."""

    label_minutes: Amount = Range(0.3, 0.5, 1.0)
    """Minutes a person takes to label one example."""
    label_usd: Amount | None = None
    """Price of one label, where they are bought; in place of minutes."""
    cleaning_hours: Amount = Range(0, 0, 0)
    """Hours to clean examples, for every arm that needs labels."""
    evaluation_hours: Amount = Range(0, 0, 0)
    """Hours to evaluate an arm before it serves."""
    review_hours_per_month: Amount = Range(0, 0, 0)
    """Hours a month in which people read answers of what serves."""
    hourly_usd: Amount = Range(60, 60, 60)
    """One hour of the people who label and build."""
    engineering_hours: Amount = Range(4, 8, 24)
    """Hours to put a tuned model into production."""
    prompt_hours: Amount = Range(1, 2, 6)
    """Hours to put a prompt into production."""
    core_hour_usd: Amount = Range(0.04, 0.04, 0.04)
    """One processor core for one hour."""
    retrain_months: Annotated[float, Field(ge=0.1, allow_inf_nan=False)] = 6
    """Months after which a tuned model is trained again."""
    retrain_hours: Amount = Range(1, 2, 4)
    """Hours to check and release a retrained model."""
    base_model_months: Annotated[float, Field(ge=0.1, allow_inf_nan=False)] | None = None
    """Months after which a provider retires a base model; None where nothing is known or it is your own."""
    reprompt_hours: Amount = Range(1, 2, 6)
    """Hours to move a prompt to the model that follows."""
    discount_per_year: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """What a dollar a year from now is worth less than one today."""
    labels_owned: bool = False
    """True leaves out the labels that the data has already: money that is spent."""
