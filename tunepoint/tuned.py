"""The language models that a task tunes, as arms: here in three prompts each, or at a provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tunepoint.arms import Arm, Growing, NotRun
from tunepoint.candidates import Candidates, short_names, why_closed
from tunepoint.data.examples import Example
from tunepoint.errors import BudgetReached, ModelError, TaskError, nearest
from tunepoint.measure.bench import Bench
from tunepoint.measure.study import cores
from tunepoint.models.opening import LOCAL, Models
from tunepoint.models.rates import UNKNOWN, TokenPrice, call_price, no_price, own_price, own_prices
from tunepoint.task import Task, Tune
from tunepoint.tuning.lessons import Lesson, Pupil

if TYPE_CHECKING:  # torch is loaded with the model, not with the package
    from tunepoint.tuning.causal import CausalTuned, TrainingQuote
    from tunepoint.tuning.hosted import HostedQuote, HostedTuned
    from tunepoint.tuning.recipes import CausalRecipe

SEEDS_HERE, SEEDS_HOSTED = 3, 1
"""Training runs where the task does not say: what a run costs differs by orders of magnitude."""
Confirm = Callable[["HostedQuote"], None]


@dataclass(frozen=True)
class TunedArms:
    """Arms that tune a language model."""

    arms: tuple[Arm, ...]
    pupil: Pupil | None = None
    """The same, taught by a prompted model, where the task asks for it."""
    growing: Growing | None = None
    """The one whose learning curve is drawn, where the task asks for it."""


def with_tuned(tried: Candidates, bench: Bench, models: Models, confirm: Confirm | None) -> Candidates:
    """The candidates of a task with the language models that it tunes.

    Raises:
        TaskError: a provider that is not known.
        ModelError: a package is missing, or a base does not fit this machine.
        DataError: the examples are too few, or too long for the base.

    """
    if not bench.task.tune:
        return tried
    closed = why_closed(bench.task, bench.prepared.split.train)
    if closed is not None:
        return replace(tried, not_run=(*tried.not_run, NotRun("[[tune]]", closed)))
    found = [_arms(one, title, bench, models, confirm) for one, title in titled(bench.task)]
    left = tuple(one for one in tried.not_run if one.name not in {_what(tune) for tune in bench.task.tune})
    return replace(
        tried,
        tuned=(*tried.tuned, *(arm for one in found for arm in one.arms if arm.kind == "tuned")),
        hybrid=(*tried.hybrid, *(arm for one in found for arm in one.arms if arm.kind == "hybrid")),
        not_run=left,
        pupils=tuple(one.pupil for one in found if one.pupil is not None),
        growing=next((one.growing for one in found if one.growing is not None), tried.growing),
    )


def titled(task: Task) -> list[tuple[Tune, str]]:
    """What a task tunes, each with the name that its arms carry."""
    names = short_names([one.base.removeprefix(LOCAL) for one in task.tune])
    return list(zip(task.tune, names, strict=True))


def _what(tune: Tune) -> str:
    return "hosted fine-tuning" if tune.provider else "LoRA on a language model"


def _arms(tune: Tune, title: str, bench: Bench, models: Models, confirm: Confirm | None) -> TunedArms:
    if tune.provider is not None:
        hosted = hosted_arm(tune, bench, models, confirm)

        def once_more(lesson: Lesson, instruction: str | None) -> list[Arm]:
            return [replace(hosted, lesson=lesson)]

        return TunedArms((hosted,), once_more if tune.distil else None)
    split, keep = bench.prepared.split, bench.study.folder / "arms" / "language models"
    quote, arms = causal_arms(tune, title, bench.task, split.train, split.dev, keep)
    bench.progress(f"{title}: {quote}", bench.done_seconds, bench.planned_seconds)

    def pupil(lesson: Lesson, instruction: str | None) -> list[Arm]:
        found = [replace(arm, lesson=lesson) for arm in arms]
        if instruction is not None:  # the light prompts are chosen anew, that of the teacher among them
            found += [replace(arm, instruction=instruction) for arm in found if arm.diet != "none"]
        return list(found)

    return TunedArms(tuple(arms), pupil if tune.distil else None, arms[0] if tune.curve else None)


def causal_arms(
    tune: Tune, title: str, task: Task, train: Sequence[Example], dev: Sequence[Example], keep: Path
) -> tuple[TrainingQuote, list[CausalTuned]]:
    """A base tuned on this machine: with no prompt, the instruction alone, and all of the prompt."""
    from tunepoint.tuning.causal import CausalBase, CausalTuned

    base = CausalBase(tune.base.removeprefix(LOCAL), keep, task.folder, recipe_of(tune), tuple(dev))
    quote = base.quote(task, train, task.costs.core_hour_usd.likely / 3600 * cores())
    seeds = tune.seeds or SEEDS_HERE
    return quote, [
        CausalTuned(base, "none", title, seeds, quote.seconds / quote.examples, hosting=tune.hosting),
        CausalTuned(base, "short", title, seeds, hosting=tune.hosting),  # they share its runs
        CausalTuned(base, "full", title, seeds, hosting=tune.hosting),
    ]


def recipe_of(tune: Tune) -> CausalRecipe:
    """The settings of a task's entry."""
    from tunepoint.tuning.recipes import CausalRecipe

    return CausalRecipe(
        tune.method,
        rank=tune.rank,
        alpha=2 * tune.rank,
        learning_rate=tune.learning_rate,
        epochs=tune.epochs,
        batch=tune.batch,
        log_to=tune.log_to,
    )


def check_price(tune: Tune, own: Mapping[str, TokenPrice]) -> None:
    """See that somebody knows what the tuned model's answers will cost, before its training is paid for.

    Raises:
        ModelError: nobody does, and it has no machines of its own.

    """
    name = tune.served_as or f"{tune.provider}/ft:{tune.base}"
    price = call_price(name, own_price(name, own)) if tune.provider != "own" else None
    if price is not None and price.source == UNKNOWN and tune.hosting is None:
        raise ModelError(
            f"{no_price(name, own=own)}; or give [[tune]] hosting, if machines are reserved for it"
        )


def hosted_arm(tune: Tune, bench: Bench, models: Models, confirm: Confirm | None) -> HostedTuned:
    """A base tuned at a provider, its training under the study's cap, its answers recorded."""
    from tunepoint.tuning.hosted import HostedTuned
    from tunepoint.tuning.providers import PROVIDERS

    if tune.provider not in PROVIDERS:
        known = nearest(str(tune.provider), PROVIDERS)
        raise TaskError(f"tune.provider {tune.provider!r} is none that we know; {known}")
    check_price(tune, own_prices(bench.task.folder))
    assert models.tuned is not None, "models are opened for tuning where a task names a provider"

    def allowed(quote: HostedQuote) -> None:
        meter, most = bench.meter, 0.0 if quote.dollars is None else quote.dollars.high
        if meter.cap_usd is not None and meter.spent_usd + most > meter.cap_usd:
            raise BudgetReached(
                f"spending cap: ${meter.spent_usd:.2f} of ${meter.cap_usd:.2f} are spent, and fine-tuning "
                f"may cost ${most:.2f} ({quote}). Nothing was uploaded: run again with a higher --max-usd"
            )
        if confirm is not None:
            confirm(quote)

    return HostedTuned(
        PROVIDERS[tune.provider],
        tune.base,
        bench.study.folder / "arms" / "jobs",
        tune.epochs,
        validation=bench.prepared.split.dev,
        confirm=allowed,
        progress=lambda what, share: bench.progress(what, bench.done_seconds, bench.planned_seconds),
        served_as=tune.served_as,
        open=models.tuned,
        hosting=tune.hosting,
        seeds=tune.seeds or SEEDS_HOSTED,
    )
