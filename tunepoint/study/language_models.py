"""The language models that a task tunes, as arms: here in three prompts each, or at a provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tunepoint.arms.catalog import CandidateArms
from tunepoint.arms.causal.from_task import HOSTED_SEEDS, causal_arms, tunes_with_titles
from tunepoint.arms.contract import Arm, HasLearningCurve, NotRun
from tunepoint.arms.distilled import DistilledSet, Distiller
from tunepoint.data.licences import why_untrainable
from tunepoint.errors import BudgetReached, ModelError, TaskError, nearest
from tunepoint.files.amounts import TokenPrice
from tunepoint.models.prices import UNKNOWN_PRICE, call_price, missing_price, project_price, project_prices
from tunepoint.models.providers import VLLM_PREFIX
from tunepoint.study.runner import Runner
from tunepoint.task.sections import Tune

if TYPE_CHECKING:
    from tunepoint.arms.causal.base import RunEndpoints
    from tunepoint.arms.hosted.hosted import HostedTuned
    from tunepoint.arms.hosted.quote import HostedQuote

Confirm = Callable[["HostedQuote"], None]


@dataclass(frozen=True)
class TunedArms:
    """Arms that tune a language model."""

    arms: tuple[Arm, ...]
    distiller: Distiller | None = None
    """Builds the same arms from the answers of a prompted model, where the task asks for it."""
    curve_arm: HasLearningCurve | None = None
    """The one whose learning curve is drawn, where the task asks for it."""


def with_tuned(candidates: CandidateArms, runner: Runner, confirm: Confirm | None) -> CandidateArms:
    """Return the candidates of a task with the language models that it tunes.

    Raises:
        TaskError: a provider that is not known.
        ModelError: a package is missing, or a base does not fit this machine.
        DataError: the examples are too few, or too long for the base.

    """
    if not runner.task.tune:
        return candidates
    untrainable = why_untrainable(runner.task, runner.prepared.split.train)
    if untrainable is not None:
        return replace(candidates, not_run=(*candidates.not_run, NotRun("[[tune]]", untrainable)))
    groups = [_tuned_arms(tune, title, runner, confirm) for tune, title in tunes_with_titles(runner.task)]
    arms = [arm for group in groups for arm in group.arms]
    tuned_now = {_kind_of_tuning(tune) for tune in runner.task.tune}
    curve_arms = [group.curve_arm for group in groups if group.curve_arm is not None]
    return replace(
        candidates,
        tuned=(*candidates.tuned, *(arm for arm in arms if arm.kind == "tuned")),
        hybrid=(*candidates.hybrid, *(arm for arm in arms if arm.kind == "hybrid")),
        not_run=tuple(arm for arm in candidates.not_run if arm.name not in tuned_now),
        distillers=tuple(group.distiller for group in groups if group.distiller is not None),
        curve_arm=next(iter(curve_arms), candidates.curve_arm),
    )


def _kind_of_tuning(tune: Tune) -> str:
    """The name under which `catalog` lists what a task without it does not try."""
    return "hosted fine-tuning" if tune.provider else "LoRA on a language model"


def _tuned_arms(tune: Tune, title: str, runner: Runner, confirm: Confirm | None) -> TunedArms:
    if tune.provider is not None:
        hosted = hosted_arm(tune, runner, confirm)

        def distil_hosted(distilled: DistilledSet, instruction: str | None) -> list[Arm]:
            return [replace(hosted, distilled=distilled)]

        return TunedArms((hosted,), distil_hosted if tune.distil else None)
    split, keep = runner.prepared.split, runner.study.folder / "arms" / "language models"
    elsewhere = _runs_elsewhere(tune, runner)
    quote, arms = causal_arms(tune, title, runner.task, split.train, split.dev, keep, elsewhere)
    runner.announce(f"{title}: {quote}")

    def distil_local(distilled: DistilledSet, instruction: str | None) -> list[Arm]:
        distilled_arms = [replace(arm, distilled=distilled) for arm in arms]
        if instruction is not None:  # the prompt search may have found words that help a tuned model too
            prompted = [arm for arm in distilled_arms if arm.prompt_length != "none"]
            distilled_arms += [replace(arm, instruction=instruction) for arm in prompted]
        return list(distilled_arms)

    return TunedArms(tuple(arms), distil_local if tune.distil else None, arms[0] if tune.curve else None)


def _runs_elsewhere(tune: Tune, runner: Runner) -> RunEndpoints | None:
    """What answers with a tuned base: vLLM, other machines, or None for this process."""
    from tunepoint.arms.causal.vllm_runs import BesideVllm, VllmRuns, check_engine

    if tune.engine == "transformers":
        models = (*runner.task.models, *([runner.task.score.judge] if runner.task.score.judge else []))
        if any(model.name.startswith(VLLM_PREFIX) for model in models):
            return BesideVllm(runner.models.vllm, runner.runs_elsewhere)
        return runner.runs_elsewhere
    check_engine(tune)
    return VllmRuns(runner.models.vllm)


def check_price(tune: Tune, own: Mapping[str, TokenPrice]) -> None:
    """Check that the price of the tuned model's answers is known, before its training is paid for.

    Args:
        tune: what is tuned at a provider.
        own: prices of the project, by model.

    Raises:
        ModelError: the price is unknown, and no machines are reserved.

    """
    name = tune.served_as or f"{tune.provider}/ft:{tune.base}"
    price = call_price(name, project_price(name, own)) if tune.provider != "own" else None
    if price is not None and price.source == UNKNOWN_PRICE and tune.hosting is None:
        raise ModelError(
            f"{missing_price(name, own=own)}; or give [[tune]] hosting, if machines are reserved for it"
        )


def hosted_arm(tune: Tune, runner: Runner, confirm: Confirm | None) -> HostedTuned:
    """Return a base model that a provider tunes, within the study's budget; its answers are recorded.

    Raises:
        TaskError: a provider that is not known.
        ModelError: the price of its answers is unknown.

    """
    from tunepoint.arms.hosted.hosted import HostedTuned
    from tunepoint.arms.hosted.providers import PROVIDERS

    if tune.provider not in PROVIDERS:
        hint = nearest(str(tune.provider), PROVIDERS)
        raise TaskError(f"tune.provider {tune.provider!r} is not a known provider; {hint}")
    check_price(tune, project_prices(runner.task.folder))
    open_tuned = runner.models.tuned
    key_env = tune.key_env or (None if tune.served_as else PROVIDERS[tune.provider].model_key())
    assert open_tuned is not None, "models are opened for tuning where a task names a provider"

    def confirm_within_budget(quote: HostedQuote) -> None:
        budget, usd = runner.budget, 0.0 if quote.dollars is None else quote.dollars.high
        if budget.cap_usd is not None and budget.spent_usd + usd > budget.cap_usd:
            raise BudgetReached(
                f"spending cap: ${budget.spent_usd:.2f} of ${budget.cap_usd:.2f} are spent, and fine-tuning "
                f"may cost ${usd:.2f} ({quote}). Nothing was uploaded: run again with a higher --max-usd"
            )
        if confirm is not None:
            confirm(quote)

    return HostedTuned(
        PROVIDERS[tune.provider],
        tune.base,
        runner.study.folder / "arms" / "jobs",
        tune.epochs,
        validation=runner.prepared.split.dev,
        confirm=confirm_within_budget,
        progress=lambda what, share: runner.announce(what),
        served_as=tune.served_as,
        open=lambda name, abilities: open_tuned(name, abilities, key_env),
        hosting=tune.hosting,
        seeds=tune.seeds or HOSTED_SEEDS,
    )
