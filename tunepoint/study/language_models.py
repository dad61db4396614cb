"""The language models that a task tunes, as arms: here in three prompts each, or at a provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tunepoint.arms.catalog import CandidateArms, why_closed
from tunepoint.arms.causal.from_task import SEEDS_HOSTED, causal_arms, titled
from tunepoint.arms.contract import Arm, HasLearningCurve, NotRun
from tunepoint.arms.distilled import DistilledSet, Pupil
from tunepoint.errors import BudgetReached, ModelError, TaskError, nearest
from tunepoint.files.amounts import TokenPrice
from tunepoint.models.opening import ChatModels
from tunepoint.models.prices import UNKNOWN, call_price, no_price, own_price, own_prices
from tunepoint.study.bench import Runner
from tunepoint.task.sections import Tune

if TYPE_CHECKING:
    from tunepoint.arms.hosted.hosted import HostedQuote, HostedTuned
Confirm = Callable[["HostedQuote"], None]


@dataclass(frozen=True)
class TunedArms:
    """Arms that tune a language model."""

    arms: tuple[Arm, ...]
    pupil: Pupil | None = None
    """The same, taught by a prompted model, where the task asks for it."""
    growing: HasLearningCurve | None = None
    """The one whose learning curve is drawn, where the task asks for it."""


def with_tuned(
    candidates: CandidateArms, runner: Runner, models: ChatModels, confirm: Confirm | None
) -> CandidateArms:
    """The candidates of a task with the language models that it tunes.

    Raises:
        TaskError: a provider that is not known.
        ModelError: a package is missing, or a base does not fit this machine.
        DataError: the examples are too few, or too long for the base.

    """
    if not runner.task.tune:
        return candidates
    closed = why_closed(runner.task, runner.prepared.split.train)
    if closed is not None:
        return replace(candidates, not_run=(*candidates.not_run, NotRun("[[tune]]", closed)))
    found = [_arms(one, title, runner, models, confirm) for one, title in titled(runner.task)]
    left = tuple(
        one for one in candidates.not_run if one.name not in {_what(tune) for tune in runner.task.tune}
    )
    return replace(
        candidates,
        tuned=(*candidates.tuned, *(arm for one in found for arm in one.arms if arm.kind == "tuned")),
        hybrid=(*candidates.hybrid, *(arm for one in found for arm in one.arms if arm.kind == "hybrid")),
        not_run=left,
        pupils=tuple(one.pupil for one in found if one.pupil is not None),
        growing=next((one.growing for one in found if one.growing is not None), candidates.growing),
    )


def _what(tune: Tune) -> str:
    return "hosted fine-tuning" if tune.provider else "LoRA on a language model"


def _arms(tune: Tune, title: str, runner: Runner, models: ChatModels, confirm: Confirm | None) -> TunedArms:
    if tune.provider is not None:
        hosted = hosted_arm(tune, runner, models, confirm)

        def once_more(distilled: DistilledSet, instruction: str | None) -> list[Arm]:
            return [replace(hosted, lesson=distilled)]

        return TunedArms((hosted,), once_more if tune.distil else None)
    split, keep = runner.prepared.split, runner.study.folder / "arms" / "language models"
    quote, arms = causal_arms(tune, title, runner.task, split.train, split.dev, keep)
    runner.progress(f"{title}: {quote}", runner.done_seconds, runner.planned_seconds)

    def pupil(distilled: DistilledSet, instruction: str | None) -> list[Arm]:
        found = [replace(arm, lesson=distilled) for arm in arms]
        if instruction is not None:  # the light prompts are chosen anew, that of the teacher among them
            found += [replace(arm, instruction=instruction) for arm in found if arm.diet != "none"]
        return list(found)

    return TunedArms(tuple(arms), pupil if tune.distil else None, arms[0] if tune.curve else None)


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


def hosted_arm(tune: Tune, runner: Runner, models: ChatModels, confirm: Confirm | None) -> HostedTuned:
    """A base tuned at a provider, its training under the study's cap, its answers recorded."""
    from tunepoint.arms.hosted.hosted import HostedTuned
    from tunepoint.arms.hosted.providers import PROVIDERS

    if tune.provider not in PROVIDERS:
        known = nearest(str(tune.provider), PROVIDERS)
        raise TaskError(f"tune.provider {tune.provider!r} is none that we know; {known}")
    check_price(tune, own_prices(runner.task.folder))
    assert models.tuned is not None, "models are opened for tuning where a task names a provider"

    def allowed(quote: HostedQuote) -> None:
        meter, most = runner.meter, 0.0 if quote.dollars is None else quote.dollars.high
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
        runner.study.folder / "arms" / "jobs",
        tune.epochs,
        validation=runner.prepared.split.dev,
        confirm=allowed,
        progress=lambda what, share: runner.progress(what, runner.done_seconds, runner.planned_seconds),
        served_as=tune.served_as,
        open=models.tuned,
        hosting=tune.hosting,
        seeds=tune.seeds or SEEDS_HOSTED,
    )
