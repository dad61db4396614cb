"""Options that are equal within the noise: the simplest is chosen, and the others are named."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_report import CHROMIUM

from tunepoint import ArmCost, Decision, Task, Trial, decide, decide_trials, tabulate
from tunepoint.decision.sides import variants_of
from tunepoint.report.advice import equals_words
from tunepoint.report.first_screen import choice_words
from tunepoint.stats.ranges import Range

RNG = np.random.default_rng
ITEMS = 600
CENT = Range(0.01, 0.01, 0.01)


def decided(
    accuracy: dict[str, float],
    costs: list[ArmCost],
    tokens: dict[str, int] | None = None,
    seconds: dict[str, float] | None = None,
    **sections: Any,
) -> Decision:
    """A decision on arms that are right on shuffled shares of the items."""
    rng = RNG(5)
    trials = []
    for arm, share in accuracy.items():
        right = rng.permutation(ITEMS) < round(share * ITEMS)
        trials += [
            Trial(
                arm=arm,
                item=str(item),
                score=float(right[item]),
                seconds=(seconds or {}).get(arm),
                input_tokens=tokens[arm] if tokens else None,
                output_tokens=1 if tokens else None,
            )
            for item in range(ITEMS)
        ]
    task = Task.parse({"name": "t", "limits": {"margin": 0.05}, **sections})
    return decide(tabulate(trials), costs, task, RNG(0))


def priced(arm: str, kind: Any, usd: Range = CENT) -> ArmCost:
    return ArmCost(arm, kind, usd_per_query=usd)


def test_the_simpler_kind_wins_a_tie() -> None:
    accuracy = {"cascade": 0.90, "hybrid": 0.90, "tuned": 0.895, "prompt": 0.89}
    decision = decided(accuracy, [priced(kind, kind) for kind in accuracy])
    assert (decision.winner, decision.verdict) == ("prompt", "prompt")
    assert decision.equals == ("cascade", "hybrid", "tuned")
    without_prompt = dict(list(accuracy.items())[:3])
    assert decided(without_prompt, [priced(kind, kind) for kind in without_prompt]).winner == "tuned"


def test_within_a_kind_fewer_tokens_win_a_tie_and_then_the_lower_p95() -> None:
    costs = [priced(arm, "tuned") for arm in "abc"]
    accuracy = {"a": 0.9, "b": 0.9, "c": 0.9}
    seconds = {"a": 0.1, "b": 0.3, "c": 0.2}
    shorter = decided(accuracy, costs, {"a": 80, "b": 20, "c": 20}, seconds)
    assert shorter.winner == "c"
    assert decided(accuracy, costs, {"a": 80, "b": 20, "c": 30}, seconds).winner == "b"


def test_what_is_clearly_worse_or_materially_dearer_is_no_equal() -> None:
    accuracy = {"prompt": 0.80, "tuned": 0.90, "hybrid": 0.90}
    costs = [priced("prompt", "prompt"), priced("tuned", "tuned"), priced("hybrid", "hybrid")]
    decision = decided(accuracy, costs)
    assert (decision.winner, decision.equals) == ("tuned", ("hybrid",))
    dearer = [costs[0], costs[1], priced("hybrid", "hybrid", Range(0.02, 0.02, 0.02))]
    assert decided(accuracy, dearer).equals == ()
    cheaper_hybrid = [costs[0], costs[1], priced("hybrid", "hybrid", Range(0.005, 0.005, 0.005))]
    assert decided(accuracy, cheaper_hybrid).winner == "hybrid"


def test_errors_with_a_price_are_part_of_what_is_equal() -> None:
    accuracy = {"tuned": 0.90, "prompt": 0.84}
    costs = [priced("tuned", "tuned"), priced("prompt", "prompt")]
    decision = decided(accuracy, costs, value={"error_usd": 1.0}, limits={"margin": 0.2})
    assert (decision.winner, decision.equals) == ("tuned", ())


def test_an_undecided_study_keeps_its_best_bet() -> None:
    accuracy = {"tuned": 0.90, "prompt": 0.885}
    decision = decided(
        accuracy, [priced("tuned", "tuned"), priced("prompt", "prompt")], limits={"margin": 0.0}
    )
    assert (decision.strength, decision.winner, decision.equals) == (None, "tuned", ())


VARIANTS = {"prompt": 0.5, "hybrid": 0.9, "tuned": 0.9}
"""Two variants that do equally well, and an option that is out of the question."""


def of_kinds(names: Iterable[str]) -> list[ArmCost]:
    return [priced(name, name) for name in names]


def test_a_kind_is_settled_although_which_of_its_variants_is_best_is_not() -> None:
    decision = decided(VARIANTS, of_kinds(VARIANTS), limits={"margin": 0.0})
    evidence = decision.evidence
    assert all(evidence.risks_of(arm).strength is None for arm in (1, 2))  # either may be the better one
    assert (decision.verdict, decision.strength, decision.winner) == ("fine-tune", "leaning", "tuned")
    assert decision.equals == ("hybrid",) and decision.risks.wrong < 0.001
    assert decision.evidence_needed is None
    (caveat,) = [line for line in decision.caveats if "The kind is settled, the variant is not" in line]
    assert "tuned is the simplest" in caveat and "(hybrid) may give up to" in caveat
    priced_errors = decided(VARIANTS, of_kinds(VARIANTS), value={"error_usd": 5.0, "materiality": 0.02})
    assert (priced_errors.verdict, priced_errors.strength) == ("fine-tune", "leaning")


def test_a_variant_that_is_more_likely_wrong_than_right_is_not_named_for_being_simple() -> None:
    behind = {"prompt": 0.5, "tuned": 0.87, "hybrid": 0.9, "cascade": 0.9}
    decision = decided(behind, of_kinds(behind), limits={"margin": 0.01})
    assert decision.evidence.open_variants() == (1, 2, 3)  # the simplest is not clearly worse
    assert decision.evidence.risks_of(1).wrong > 0.9
    assert (decision.winner, decision.equals, decision.strength) == ("hybrid", ("cascade",), "leaning")


def test_a_close_option_of_another_kind_leaves_the_study_undecided() -> None:
    close = {**VARIANTS, "prompt": 0.9}
    decision = decided(close, of_kinds(close), limits={"margin": 0.0})
    assert decision.strength is None and decision.equals == ()
    assert not any("The kind is settled" in line for line in decision.caveats)


def test_a_control_and_what_runs_today_are_variants_of_nothing() -> None:
    names = ("a", "b", "c", "d", "e", "f")
    kinds: list[Any] = ["prompt", "prompt", "tuned", "cascade", "baseline", "incumbent"]
    assert variants_of(kinds, names) == ("prompt", "prompt", "tuned", "tuned", "e", "f")


def test_the_shared_risk_of_two_arms_by_hand() -> None:
    decision = decided(VARIANTS, of_kinds(VARIANTS), limits={"margin": 0.0})
    # four draws: both fine, one fine, none fine, and a rival at half the price that is as good
    scores = np.array([[0.5, 0.9, 0.9], [0.5, 0.9, 0.8], [0.95, 0.9, 0.9], [0.9, 0.9, 0.9]])
    draws = decision.evidence.costs.for_draws(slice(0, 4))
    per_query = np.array([[0.01, 0.01, 0.01]] * 3 + [[0.005, 0.01, 0.01]])
    evidence = replace(decision.evidence, scores=scores, costs=replace(draws, per_query=per_query))
    risks = evidence.risks_of(1, 2)
    assert (risks.unacceptable, risks.passed_over, risks.wrong) == (0.25, 0.25, 0.5)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
@pytest.mark.parametrize("value", [{}, {"error_usd": 5.0, "materiality": 0.02}], ids=["margin", "money"])
def test_the_page_settles_the_kind_as_python_does(value: dict[str, float], tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    rng = RNG(5)
    with (tmp_path / "trials.jsonl").open("w") as file:
        for kind, share in VARIANTS.items():
            right = rng.permutation(ITEMS) < share * ITEMS
            for item in range(ITEMS):
                trial = {"arm": kind, "item": str(item), "score": float(right[item]), "seconds": 1.0}
                file.write(json.dumps(trial) + "\n")
    (tmp_path / "arms.toml").write_text(
        "".join(f'[[arm]]\nname = "{kind}"\nkind = "{kind}"\nusd_per_query = 0.01\n' for kind in VARIANTS)
    )
    task = Task.parse({"name": "t", "limits": {"margin": 0.0}, "value": value})
    trials, arms = tmp_path / "trials.jsonl", tmp_path / "arms.toml"
    result = decide_trials(trials, task, arms=arms, out=tmp_path / "study")
    assert (result.decision.winner, result.decision.strength) == ("tuned", "leaning")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(Path(str(result.report)).resolve().as_uri())
        live = page.inner_text("#live")
        browser.close()
    assert ": tuned (likely)" in live, live


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
def test_the_page_chooses_the_simplest_of_equals_as_python_does(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    rng = RNG(5)
    kinds = ("cascade", "tuned", "prompt")
    with (tmp_path / "trials.jsonl").open("w") as file:
        for kind in kinds:
            right = rng.permutation(ITEMS) < (538 if kind == "prompt" else 540)
            for item in range(ITEMS):
                trial = {"arm": kind, "item": str(item), "score": float(right[item]), "seconds": 1.0}
                file.write(json.dumps(trial) + "\n")
    (tmp_path / "arms.toml").write_text(
        "".join(f'[[arm]]\nname = "{kind}"\nkind = "{kind}"\nusd_per_query = 0.01\n' for kind in kinds)
    )
    task = Task.parse({"name": "t", "limits": {"margin": 0.05}})
    result = decide_trials(
        tmp_path / "trials.jsonl", task, arms=tmp_path / "arms.toml", out=tmp_path / "study"
    )
    assert (result.decision.winner, result.decision.equals) == ("prompt", ("cascade", "tuned"))
    evidence = result.decision.evidence
    assert evidence.costs.arms[evidence.equals()[0]] != "prompt"  # so the page has something to choose
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(Path(str(result.report)).resolve().as_uri())
        live = page.inner_text("#live")
        browser.close()
    assert ": prompt (" in live


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        (("tuned", "tuned", "tuned"), "Three variants are equal within the noise; this is the simplest."),
        (("tuned", "hybrid"), "Two options are equal within the noise; this is the simplest."),
        (("tuned",), None),
    ],
)
def test_the_first_screen_counts_the_equals(kinds: tuple[str, ...], words: str | None) -> None:
    names = [f"arm{i}" for i in range(len(kinds))]
    finalists = [
        {"arm": name, "kind": kind, "score": {"estimate": 0.9}}
        for name, kind in zip(names, kinds, strict=True)
    ]
    decision = {
        "winner": "arm0",
        "verdict": "fine-tune",
        "strength": "confident",
        "equals": names[1:],
        "finalists": finalists,
    }
    assert equals_words(decision) == words
    assert choice_words(decision) == " ".join(filter(None, ("arm0.", words)))
