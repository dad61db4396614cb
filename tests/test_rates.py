"""What calls cost: published, dated, declared, or nobody knows."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tunepoint import Task
from tunepoint.files.amounts import TokenPrice
from tunepoint.models.chat import Usage
from tunepoint.models.prices import UNKNOWN_PRICE, call_price, tuned_price
from tunepoint.study.records import ModelFacts
from tunepoint.study.warnings import model_warnings


def test_a_tuned_model_has_the_price_of_its_base_and_not_of_the_untuned_one() -> None:
    price = call_price("openai/ft:gpt-4.1-mini-2025-04-14:org::id")
    assert price is not None and price.checked == date(2026, 11, 24)
    usage = Usage("", input_tokens=2_000_000, cached_tokens=1_000_000, output_tokens=1_000_000)
    assert price.dollars(usage) == pytest.approx(0.80 + 0.20 + 3.20)
    plain = call_price("openai/gpt-4.1-mini")
    assert plain is not None and plain.dollars(usage) < price.dollars(usage)
    assert price.age_days(date(2027, 3, 1)) == 97 and plain.age_days(date(2027, 3, 1)) is None


def test_cached_tokens_are_part_of_the_input_by_hand() -> None:
    price = TokenPrice(input=2, output=8, cached_input=0.5)
    assert price.dollars(1_000, 400, 50) == pytest.approx((600 * 2 + 400 * 0.5 + 50 * 8) / 1e6)
    many = price.microdollars(np.array([1_000.0, 10.0]), np.array([400.0, 0.0]), np.array([50.0, 1.0]))
    assert many.tolist() == pytest.approx([1_800, 28])
    dear = TokenPrice(input=2, output=8)  # without a price of their own they cost what input costs
    assert dear.dollars(1_000, 1_000, 0) == pytest.approx(0.002)


def test_training_is_priced_where_somebody_told_us() -> None:
    price = tuned_price("openai/ft:gpt-4o-mini-2024-07-18")
    assert price is not None and price.training == 3.0 and price.source
    other = tuned_price("openai/ft:gpt-4.1-nano-2025-04-14:o::x")
    assert other is not None and other.training is None
    assert tuned_price("openai/gpt-5-mini") is None


def test_a_declared_price_rules_and_an_unknown_one_is_said() -> None:
    name = "openai/ft:gpt-4.1-mini-2025-04-14:org::id"
    own = call_price(name, TokenPrice(input=1, output=1))
    assert own is not None and own.source == "declared in the task" and own.checked is None
    unknown = call_price("openai/ft:nobody-knows:org::id")
    assert unknown is not None and unknown.source == UNKNOWN_PRICE


@pytest.mark.parametrize(("today", "expected"), [(date(2027, 2, 22), False), (date(2027, 2, 23), True)])
def test_an_old_price_is_said_with_its_age(today: date, expected: bool, tmp_path: Path) -> None:
    facts = ModelFacts(abilities=None, asked_again={}, price="a table", price_checked="2026-11-24")
    study: Any = SimpleNamespace(manifest=SimpleNamespace(models={"openai/ft:x": facts}))
    warnings = model_warnings(study, Task(name="t"), today)
    assert bool(warnings) is expected
    if expected:
        assert "checked 91 days ago (2026-11-24, a table)" in warnings[0]
