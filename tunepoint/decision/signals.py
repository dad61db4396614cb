"""The practical framework's criteria, each measured on the user's own task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tunepoint.data.formats import Format
from tunepoint.decision.verdict import Decision, Finalist
from tunepoint.stats.intervals import Interval
from tunepoint.task.task import Task
from tunepoint.trials.trial import ArmKind

Direction = Literal["prompt", "fine-tune", "hybrid"]
PROMPTED: tuple[ArmKind, ...] = ("prompt", "incumbent")
"""Arms that tuning would replace; an incumbent is taken to be prompted."""
CONSISTENT = 0.95
"""Share of targets in one format from which a format is what the task wants."""
ENOUGH = 500
"""Good examples, the rule of thumb's own number."""


@dataclass(frozen=True)
class Signal:
    """One criterion: what it points to, its value, its threshold and whether it holds."""

    id: str
    points_to: Direction
    criterion: str
    value: float | None
    threshold: float | None
    holds: bool | None
    """None when it was not measured."""
    detail: str


@dataclass(frozen=True)
class Facts:
    """What a study knows beyond trials and costs; None is 'not measured'."""

    revisions: int | None = None
    novelty: float | None = None
    """Share of test inputs less familiar than 95% of the training inputs are to each other."""
    far_slice: Interval | None = None
    """Tuned minus prompted on the least familiar fifth of the test."""
    examples: int | None = None
    thinnest: int | None = None
    format: Format | None = None
    """The commonest format of the targets, and the share that has it."""
    ceiling: Interval | None = None
    """What the next step of the search for a prompt would gain on dev, else what the ladder's last gained."""
    searched: Mapping[str, Any] | None = None
    """What that search did; None where there was none."""
    captured: int | None = None
    """Examples whose targets a model wrote and somebody accepted."""
    light_prompt: Interval | None = None
    """Tuned with a light prompt minus tuned alone, on dev."""


def measure_signals(decision: Decision, task: Task, facts: Facts) -> list[Signal]:
    """All criteria, P1 to H2, in order."""
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


def _best(decision: Decision, *kinds: ArmKind) -> Finalist | None:
    """The finalist of these kinds with the highest score."""
    among = [finalist for finalist in decision.finalists if finalist.kind in kinds]
    return max(among, key=lambda finalist: finalist.score.estimate, default=None)


def _changing(decision: Decision, task: Task, facts: Facts) -> Signal:
    criterion = "requirements still change"
    declared = task.declared.requirements_change
    if declared is not None:
        said = "declared in the task" if declared else "declared stable in the task"
        return Signal("P1", "prompt", criterion, float(declared), 1.0, declared, said)
    if facts.revisions is None:
        return Signal("P1", "prompt", criterion, None, 1.0, None, "not measured: no study history")
    detail = f"{facts.revisions} revisions of instruction or labels in 30 days of studies"
    return Signal("P1", "prompt", criterion, facts.revisions, 1.0, facts.revisions >= 1, detail)


def _few_examples(decision: Decision, task: Task, facts: Facts) -> Signal:
    criterion = "clear instructions and a few examples suffice"
    prompted, best = (
        _best(decision, *PROMPTED),
        max(decision.finalists, key=lambda finalist: finalist.score.estimate),
    )
    if prompted is None:
        return Signal("P2", "prompt", criterion, None, None, None, "not measured: no prompting arm")
    gap = best.score.estimate - prompted.score.estimate
    detail = f"{prompted.arm} is {gap:.3f} under the best arm ({best.arm})"
    margin = task.limits.margin
    return Signal("P2", "prompt", criterion, round(gap, 4), margin, gap <= margin, detail)


def _diverse(decision: Decision, task: Task, facts: Facts) -> Signal:
    criterion = "diverse, unpredictable inputs"
    if facts.novelty is None:
        why = "not measured: needs the inputs, and an encoder to compare them"
        return Signal("P3", "prompt", criterion, None, 0.2, None, why)
    detail = f"{facts.novelty:.0%} of test inputs are novel (5% would be usual)"
    loses = False
    if facts.far_slice is not None:
        far = facts.far_slice
        loses = far.high < 0
        detail += (
            f"; tuned minus prompted on the least familiar fifth {far.estimate:+.3f} "
            f"({far.low:+.3f} to {far.high:+.3f})"
        )
    holds = facts.novelty > 0.2 or loses
    return Signal("P3", "prompt", criterion, round(facts.novelty, 4), 0.2, holds, detail)


def _budget(decision: Decision, task: Task, facts: Facts) -> Signal:
    criterion = "limited budget"
    tuned, limit = _best(decision, "tuned", "hybrid"), task.limits.upfront_usd
    if tuned is None or limit is None:
        why = "no tuned arm" if tuned is None else "limits.upfront_usd is not set"
        return Signal("P4", "prompt", criterion, None, limit, None, f"not measured: {why}")
    cost = tuned.upfront_usd.likely
    detail = f"{tuned.arm} costs about ${cost:,.0f} upfront, the limit is ${limit:,.0f}"
    return Signal("P4", "prompt", criterion, round(cost, 2), limit, cost > limit, detail)


def _newest(decision: Decision, task: Task, facts: Facts) -> Signal:
    criterion = "wants the newest foundation models"
    wanted = task.declared.newest_models
    if wanted is None:
        return _retiring(decision, criterion)
    return Signal("P5", "prompt", criterion, float(wanted), 1.0, wanted, "declared in the task")


def _retiring(decision: Decision, criterion: str) -> Signal:
    """Whether the best tuned arm's base model retires before it has paid back."""
    tuned, prompted = _best(decision, "tuned", "hybrid"), _best(decision, *PROMPTED)
    crossing = decision.evidence.break_even(tuned.arm, prompted.arm) if tuned and prompted else None
    retires = None if tuned is None else _lifetime(decision, tuned.arm)
    if crossing is None or tuned is None or prompted is None or retires is None:
        why = "not measured: declared.newest_models is not set, and the base model has no retirement date"
        return Signal("P5", "prompt", criterion, None, 1.0, None, why)
    if crossing.dearer_to_build != tuned.arm:  # nothing has to be earned back
        detail = f"{tuned.arm} costs no more to build than {prompted.arm}"
        return Signal("P5", "prompt", criterion, 0.0, 0.5, False, detail)
    late = crossing.probability_no_payback
    detail = (
        f"{tuned.arm}: its base model retires in {retires:,.0f} days; what it costs more to build than "
        f"{prompted.arm} is not earned back by then in {late:.0%} of draws"
    )
    return Signal("P5", "prompt", criterion, round(late, 4), 0.5, late > 0.5, detail)


def _lifetime(decision: Decision, arm: str) -> float | None:
    """Days until an arm's base model retires; None where nothing is known."""
    costs = decision.evidence.costs
    months = costs.lifetimes[costs.arms.index(arm)] if costs.lifetimes else None
    return None if months is None else months * 365.25 / 12


def _format(decision: Decision, task: Task, facts: Facts) -> Signal:
    criterion = "specific, consistent format that prompting fails to keep"
    prompted = _best(decision, "prompt")
    if prompted is None:
        return Signal("F1", "fine-tune", criterion, None, 0.02, None, "not measured: no prompting arm")
    failures = 1 - prompted.format_ok
    detail = f"{prompted.arm}: {failures:.1%} of answers out of format"
    if facts.format is None:
        return Signal("F1", "fine-tune", criterion, round(failures, 4), 0.02, failures > 0.02, detail)
    detail += f"; one format covers {facts.format.covered:.0%} of targets ({facts.format.pattern[:80]})"
    holds = facts.format.covered >= CONSISTENT and failures > 0.02
    return Signal("F1", "fine-tune", criterion, round(failures, 4), 0.02, holds, detail)


def _examples(decision: Decision, task: Task, facts: Facts) -> Signal:
    criterion = "hundreds or thousands of good examples"
    if facts.examples is None:
        return Signal("F2", "fine-tune", criterion, None, ENOUGH, None, "not measured: no examples given")
    detail = f"{facts.examples} examples after de-duplication"
    if facts.thinnest is not None:
        detail += f", {facts.thinnest} of the thinnest label"
    return Signal("F2", "fine-tune", criterion, facts.examples, ENOUGH, facts.examples >= ENOUGH, detail)


def _ceiling(decision: Decision, task: Task, facts: Facts) -> Signal:
    criterion, margin = "prompting has hit its ceiling", task.limits.margin
    if facts.ceiling is None:
        why = "not measured: needs the steps of the prompting ladder on dev"
        return Signal("F3", "fine-tune", criterion, None, margin, None, why)
    gain = facts.ceiling
    if facts.searched is not None:
        steps = " to ".join(f"{objective:.3f}" for _, objective in facts.searched["trajectory"])
        detail = (
            f"after {facts.searched['proposals']} proposals ({steps} on dev, the price of tokens taken off) "
            f"one more would gain {gain.estimate:+.3f}, {gain.high:+.3f} at most (95%, if gains do not grow)"
        )
    else:
        detail = (
            f"the last step of the prompting ladder gained {gain.estimate:+.3f} on dev, "
            f"{gain.high:+.3f} at most (95%)"
        )
    return Signal("F3", "fine-tune", criterion, round(gain.high, 4), margin, gain.high < margin, detail)


def _volume(decision: Decision, task: Task, facts: Facts) -> Signal:
    criterion = "cost per query matters at this volume"
    volume = task.traffic.queries_per_month.likely
    tuned, prompted = _best(decision, "tuned", "hybrid"), _best(decision, *PROMPTED)
    if tuned is None or prompted is None:
        why = "not measured: needs a tuned and a prompting arm"
        return Signal("F4", "fine-tune", criterion, volume, None, None, why)
    crossing = decision.evidence.break_even(tuned.arm, prompted.arm)
    if crossing.queries_per_month is None or crossing.cheaper_to_run != tuned.arm:
        detail = f"{tuned.arm} never becomes cheaper than {prompted.arm}: its running cost is not lower"
        return Signal("F4", "fine-tune", criterion, volume, None, False, detail)
    band = crossing.queries_per_month
    errors = "" if task.value.error_usd is None else ", what errors cost included"
    detail = (
        f"break-even{errors}, at {band.likely:,.0f} queries a month ({band.low:,.0f} to {band.high:,.0f}; "
        f"never in {crossing.probability_never:.0%} of draws)"
    )
    return Signal("F4", "fine-tune", criterion, volume, round(band.likely), volume > band.likely, detail)


def _latency(decision: Decision, task: Task, facts: Facts) -> Signal:
    criterion, limit = "latency matters", task.limits.p95_seconds
    tuned, prompted = _best(decision, "tuned", "hybrid"), _best(decision, *PROMPTED)
    slow = None if prompted is None else prompted.p95_seconds
    fast = None if tuned is None else tuned.p95_seconds
    if slow is None:
        why = "not measured: no seconds of a prompting arm"
        return Signal("F5", "fine-tune", criterion, None, limit, None, why)
    detail = f"p95 prompted {slow:.3f} s" + ("" if fast is None else f", tuned {fast:.3f} s")
    if limit is None:
        return Signal("F5", "fine-tune", criterion, slow, None, None, detail + "; no limits.p95_seconds")
    holds = slow > limit and fast is not None and fast <= limit
    return Signal("F5", "fine-tune", criterion, round(slow, 6), limit, holds, detail)


def _captured(decision: Decision, task: Task, facts: Facts) -> Signal:
    criterion = "prompting validated the task and produced enough good outputs"
    if not facts.captured:
        why = "not measured: no example was written by a model (data.origin), as `tunepoint harvest` notes it"
        return Signal("H1", "hybrid", criterion, None, ENOUGH, None, why)
    detail = f"{facts.captured} accepted answers of models are among the examples"
    return Signal("H1", "hybrid", criterion, facts.captured, ENOUGH, facts.captured >= ENOUGH, detail)


def _light_prompt(decision: Decision, task: Task, facts: Facts) -> Signal:
    criterion = "a light prompt on the tuned model is worth its tokens"
    if facts.light_prompt is None:
        why = "not measured: no tuned model was tried with and without a prompt"
        return Signal("H2", "hybrid", criterion, None, 0.0, None, why)
    gain = facts.light_prompt
    detail = f"with a light prompt {gain.estimate:+.3f} on dev ({gain.low:+.3f} to {gain.high:+.3f})"
    return Signal("H2", "hybrid", criterion, round(gain.estimate, 4), 0.0, gain.low > 0, detail)


def rule_of_thumb(volume: float) -> str:
    """What the blog posts would say at this volume."""
    if volume < 10_000:
        return "under 10,000 queries a month: prompt"
    if volume <= 100_000:
        return "10,000 to 100,000 queries a month: do the math"
    return "over 100,000 queries a month: fine-tune"


def beside_the_rule(decision: Decision) -> str | None:
    """The measured break-even with the rival, and why it is not the rule's; None where there is no rival."""
    pair = {decision.winner, decision.rival}
    found = next(
        (one for one in decision.break_even if {one.cheaper_to_build, one.cheaper_to_run} == pair), None
    )
    if found is None:
        return None
    evidence = decision.evidence
    costs, worth = evidence.costs, evidence.error_usd or 0.0
    one, other = costs.arms.index(found.cheaper_to_build), costs.arms.index(found.cheaper_to_run)
    extra, monthly = (
        float(np.median(part[:, other] - part[:, one])) for part in (costs.upfront, costs.per_month(0.0))
    )
    running = costs.per_query + worth * (1 - evidence.scores)
    saving = 1_000 * float(np.median(running[:, one] - running[:, other]))
    errors = ", errors included" if worth else ""
    runs = f"saves ${saving:,.2f}" if saving > 0 else f"costs ${-saving:,.2f} more"
    why = f"it costs ${extra:,.0f} more to build and {runs} on 1,000 answers{errors}"
    if abs(monthly) >= 0.005:
        why += f", and ${abs(monthly):,.2f} a month {'more' if monthly > 0 else 'less'} whether asked or not"
    if found.queries_per_month is None:
        return (
            f"measured: {found.cheaper_to_run} never becomes cheaper than {found.cheaper_to_build}, for {why}"
        )
    volume = found.queries_per_month
    return (
        f"measured: {found.cheaper_to_run} is cheaper than {found.cheaper_to_build} from about "
        f"{volume.likely:,.0f} ({volume.low:,.0f} to {volume.high:,.0f}), for {why}"
    )
