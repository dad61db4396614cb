"""The criteria for prompting or fine-tuning, each measured on the user's own task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tunepoint.data.formats import Format
from tunepoint.decision.criteria import (
    BUDGET,
    CAPTURED,
    CEILING,
    CHANGING,
    DIVERSE,
    EXAMPLES,
    FEW_EXAMPLES,
    FORMAT,
    LATENCY,
    LIGHT_PROMPT,
    NEWEST,
    VOLUME,
    Signal,
)
from tunepoint.decision.finalists import Finalist
from tunepoint.decision.numbers import (
    about_usd,
    is_realistic,
    percent,
    points,
    points_interval,
    seconds,
    volume,
    volume_interval,
)
from tunepoint.decision.sides import PROMPTED_KINDS, TUNED_KINDS, best_of
from tunepoint.decision.verdict import Decision
from tunepoint.stats.intervals import Interval
from tunepoint.task.task import Task
from tunepoint.trials.trial import ArmKind

MIN_FORMAT_COVERAGE = 0.95
"""Share of targets in one format from which the task is taken to want that format."""
MAX_FORMAT_FAILURES = 0.02
MIN_GOOD_EXAMPLES = 500
"""Good examples, the rule of thumb's own number."""
MAX_NOVELTY = 0.2
"""Share of novel inputs above which inputs are called diverse; 5% is normal by the definition of novel."""
NOT_PROMPTED = "no language model was prompted"
"""Why a signal about prompting is not measured."""
MAX_NO_PAYBACK = 0.5
"""Probability that the base model retires before it has paid back, above which that speaks for a prompt."""


@dataclass(frozen=True)
class Facts:
    """What a study knows beyond trials and costs; None is 'not measured'."""

    revisions: int | None = None
    novelty: float | None = None
    """Share of inputs less familiar than 95% of the training inputs are to each other."""
    compared_inputs: tuple[int, bool] | None = None
    """How many inputs that is the share of, and whether they are a pool's instead of the test set's."""
    far_slice: Interval | None = None
    """Tuned minus prompted on inputs like the least familiar fifth of the test."""
    examples: int | None = None
    thinnest: int | None = None
    """Examples of the rarest label."""
    format: Format | None = None
    """The commonest format of the targets, and the share that has it."""
    ceiling: Interval | None = None
    """What the next step of the prompt search would gain on dev, else what the last prompt style gained."""
    searched: Mapping[str, Any] | None = None
    """What that search did; None where there was none."""
    headroom: Mapping[str, Any] | None = None
    """The test that kept a study from searching; None where it searched, or there was no test."""
    captured: int | None = None
    """Examples whose targets a model wrote and somebody accepted."""
    light_prompt: Interval | None = None
    """Tuned with a light prompt minus tuned alone, on dev."""


def measure_signals(decision: Decision, task: Task, facts: Facts) -> list[Signal]:
    """Return all criteria, P1 to H2, in order."""
    makers: list[Callable[[Decision, Task, Facts], Signal]] = [
        _changing,
        _few_examples,
        _diverse,
        _budget,
        _newest,
        _format,
        _examples,
        _ceiling,
        _volume,
        _latency,
        _captured,
        _light_prompt,
    ]
    return [make(decision, task, facts) for make in makers]


def _best(decision: Decision, kinds: tuple[ArmKind, ...]) -> Finalist | None:
    """The finalist of these kinds with the highest score."""
    finalists = decision.finalists
    scores = [finalist.score.estimate for finalist in finalists]
    position = best_of([finalist.kind for finalist in finalists], scores, kinds)
    return None if position is None else finalists[position]


def _changing(decision: Decision, task: Task, facts: Facts) -> Signal:
    declared = task.declared.requirements_change
    if declared is not None:
        detail = f"task.toml says that they {'change' if declared else 'are stable'}"
        return CHANGING.measured(value=float(declared), threshold=1.0, holds=declared, detail=detail)
    if facts.revisions is None:
        return CHANGING.unmeasured("there are no earlier studies", threshold=1.0)
    return CHANGING.measured(
        value=facts.revisions,
        threshold=1.0,
        holds=facts.revisions >= 1,
        detail=f"{facts.revisions} revisions of the instruction or the labels in 30 days of studies",
    )


def _few_examples(decision: Decision, task: Task, facts: Facts) -> Signal:
    prompted = _best(decision, PROMPTED_KINDS)
    if prompted is None:
        return FEW_EXAMPLES.unmeasured(NOT_PROMPTED)
    best = max(decision.finalists, key=lambda finalist: finalist.score.estimate)
    gap, margin = best.score.estimate - prompted.score.estimate, task.limits.margin
    detail = f"{prompted.title} is the best option"
    if best is not prompted:
        detail = f"{prompted.title} scores {100 * gap:.1f} points less than the best option ({best.title})"
    return FEW_EXAMPLES.measured(value=round(gap, 4), threshold=margin, holds=gap <= margin, detail=detail)


def _diverse(decision: Decision, task: Task, facts: Facts) -> Signal:
    if facts.novelty is None:
        return DIVERSE.unmeasured(
            "it needs the inputs, and an encoder to compare them", threshold=MAX_NOVELTY
        )
    compared = "the test inputs"
    if facts.compared_inputs is not None and facts.compared_inputs[1]:
        compared = f"{facts.compared_inputs[0]:,} inputs outside the test set"
    detail = f"{facts.novelty:.0%} of {compared} look new (5% is normal)"
    if _best(decision, PROMPTED_KINDS) is None:
        return DIVERSE.unmeasured(f"{detail}, but {NOT_PROMPTED}", threshold=MAX_NOVELTY)
    tuning_loses = False
    if facts.far_slice is not None:
        tuning_loses = facts.far_slice.high < 0
        detail += (
            "; on the least familiar fifth, fine-tuning scores "
            f"{points_interval(facts.far_slice)} against prompting"
        )
    return DIVERSE.measured(
        value=round(facts.novelty, 4),
        threshold=MAX_NOVELTY,
        holds=facts.novelty > MAX_NOVELTY or tuning_loses,
        detail=detail,
    )


def _budget(decision: Decision, task: Task, facts: Facts) -> Signal:
    tuned, limit = _best(decision, TUNED_KINDS), task.limits.upfront_usd
    if tuned is None or limit is None:
        why = "there is no tuned option" if tuned is None else "limits.upfront_usd is not set"
        return BUDGET.unmeasured(why, threshold=limit)
    cost = tuned.upfront_usd.likely
    detail = f"{tuned.title} costs about {about_usd(cost)} to build; the limit is {about_usd(limit)}"
    return BUDGET.measured(value=round(cost, 2), threshold=limit, holds=cost > limit, detail=detail)


def _newest(decision: Decision, task: Task, facts: Facts) -> Signal:
    declared = task.declared.newest_models
    if declared is None:
        return _retiring(decision)
    detail = f"task.toml says that it {'must' if declared else 'need not'}"
    return NEWEST.measured(value=float(declared), threshold=1.0, holds=declared, detail=detail)


def _retiring(decision: Decision) -> Signal:
    """Whether the best tuned arm's base model retires before it has paid back."""
    tuned, prompted = _best(decision, TUNED_KINDS), _best(decision, PROMPTED_KINDS)
    retires = None if tuned is None else _lifetime_days(decision, tuned.arm)
    if tuned is None or prompted is None or retires is None:
        why = "declared.newest_models is not set, and the base model has no retirement date"
        return NEWEST.unmeasured(why, threshold=1.0)
    crossing = decision.evidence.break_even(tuned.arm, prompted.arm)
    if crossing.dearer_to_build != tuned.arm:  # nothing has to be earned back
        detail = f"{tuned.title} costs no more to build than {prompted.title}"
        return NEWEST.measured(value=0.0, threshold=MAX_NO_PAYBACK, holds=False, detail=detail)
    late = crossing.probability_no_payback
    return NEWEST.measured(
        value=round(late, 4),
        threshold=MAX_NO_PAYBACK,
        holds=late > MAX_NO_PAYBACK,
        detail=(
            f"the base model of {tuned.title} retires in {retires:,.0f} days; in {late:.0%} of the "
            f"simulations its higher build cost than that of {prompted.title} is not earned back by then"
        ),
    )


def _lifetime_days(decision: Decision, arm: str) -> float | None:
    costs = decision.evidence.costs
    return costs.lifetime_days(costs.arms.index(arm))


def _format(decision: Decision, task: Task, facts: Facts) -> Signal:
    prompted = _best(decision, ("prompt",))
    if prompted is None:
        return FORMAT.unmeasured(NOT_PROMPTED, threshold=MAX_FORMAT_FAILURES)
    failures = 1 - prompted.format_ok
    holds = failures > MAX_FORMAT_FAILURES
    detail = f"{percent(failures)} of the answers of {prompted.title} are out of format"
    if facts.format is not None:
        holds = holds and facts.format.covered >= MIN_FORMAT_COVERAGE
        pattern = facts.format.pattern[:80]
        detail += f"; {facts.format.covered:.0%} of the right answers have one format ({pattern})"
    return FORMAT.measured(
        value=round(failures, 4), threshold=MAX_FORMAT_FAILURES, holds=holds, detail=detail
    )


def _examples(decision: Decision, task: Task, facts: Facts) -> Signal:
    if facts.examples is None:
        return EXAMPLES.unmeasured("no examples are given", threshold=MIN_GOOD_EXAMPLES)
    detail = f"{facts.examples} examples without duplicates"
    if facts.thinnest is not None:
        detail += f", {facts.thinnest} of the rarest label"
    return EXAMPLES.measured(
        value=facts.examples,
        threshold=MIN_GOOD_EXAMPLES,
        holds=facts.examples >= MIN_GOOD_EXAMPLES,
        detail=detail,
    )


def _ceiling(decision: Decision, task: Task, facts: Facts) -> Signal:
    margin = task.limits.margin
    if facts.ceiling is None:
        why = "it needs several prompt styles of a language model, measured on the validation set"
        return CEILING.unmeasured(why, threshold=margin)
    gain = facts.ceiling
    at_most = f"{points(gain.estimate)} on the validation set, at most {points(gain.high)} (95%)"
    detail = f"the last step up in prompt style gained {at_most}"
    if facts.headroom is not None:
        detail = f"by new instructions on {facts.headroom['tried']} failures, a search would gain {at_most}"
    elif facts.searched is not None:
        proposals = facts.searched["proposals"]
        detail = f"after {proposals} proposals of the prompt search, one more would gain {at_most}"
        if ends := facts.searched.get("ends"):
            detail += f"; {len(ends)} searches ended at {', '.join(map(percent, ends))}"
    return CEILING.measured(
        value=round(gain.high, 4), threshold=margin, holds=gain.high < margin, detail=detail
    )


def _volume(decision: Decision, task: Task, facts: Facts) -> Signal:
    queries = task.traffic.queries_per_month.likely
    tuned, prompted = _best(decision, TUNED_KINDS), _best(decision, PROMPTED_KINDS)
    if tuned is None or prompted is None:
        return VOLUME.unmeasured("it needs a tuned model and a prompted one", value=queries)
    crossing = decision.evidence.break_even(tuned.arm, prompted.arm)
    band = crossing.queries_per_month
    if band is None or crossing.cheaper_to_run != tuned.arm:
        detail = f"{tuned.title} never becomes cheaper than {prompted.title}: it costs no less to run"
        return VOLUME.measured(value=queries, threshold=None, holds=False, detail=detail)
    if not is_realistic(band, task.traffic.queries_per_month):
        detail = f"no realistic break-even: it would take about {volume(band.likely)} queries a month"
        return VOLUME.measured(value=queries, threshold=round(band.likely), holds=False, detail=detail)
    until = crossing.queries_until
    where = f"above {volume_interval(band)}"
    if until is not None:
        where = f"from {volume_interval(band)} to about {volume(until.likely)}"
    return VOLUME.measured(
        value=queries,
        threshold=round(band.likely),
        holds=queries > band.likely and (until is None or queries < until.likely),
        detail=(
            f"fine-tuning pays off {where}; you expect about {volume(queries)}"
            f"{'' if task.value.error_usd is None else '. This counts what errors cost'}"
        ),
    )


def _latency(decision: Decision, task: Task, facts: Facts) -> Signal:
    limit = task.limits.p95_seconds
    tuned, prompted = _best(decision, TUNED_KINDS), _best(decision, PROMPTED_KINDS)
    slow = None if prompted is None else prompted.p95_seconds
    fast = None if tuned is None else tuned.p95_seconds
    if slow is None:
        why = NOT_PROMPTED if prompted is None else "the prompted model has no measured seconds"
        return LATENCY.unmeasured(why, threshold=limit)
    detail = f"95% of the answers take up to {seconds(slow)} with prompting"
    detail += "" if fast is None else f" and {seconds(fast)} with fine-tuning"
    if limit is None:
        detail += "; limits.p95_seconds is not set"
        return LATENCY.measured(value=slow, threshold=None, holds=None, detail=detail)
    return LATENCY.measured(
        value=round(slow, 6),
        threshold=limit,
        holds=slow > limit and fast is not None and fast <= limit,
        detail=f"{detail}; the limit is {limit:g} s",
    )


def _captured(decision: Decision, task: Task, facts: Facts) -> Signal:
    if not facts.captured:
        why = "no example was written by a model (`tunepoint harvest` notes that in data.origin)"
        return CAPTURED.unmeasured(why, threshold=MIN_GOOD_EXAMPLES)
    return CAPTURED.measured(
        value=facts.captured,
        threshold=MIN_GOOD_EXAMPLES,
        holds=facts.captured >= MIN_GOOD_EXAMPLES,
        detail=f"{facts.captured} accepted answers of models are among the examples",
    )


def _light_prompt(decision: Decision, task: Task, facts: Facts) -> Signal:
    if facts.light_prompt is None:
        return LIGHT_PROMPT.unmeasured("no tuned model was tried with and without a prompt", threshold=0.0)
    gain = facts.light_prompt
    return LIGHT_PROMPT.measured(
        value=round(gain.estimate, 4),
        threshold=0.0,
        holds=gain.low > 0,
        detail=f"with a light prompt it scores {points_interval(gain)} on the validation set",
    )
