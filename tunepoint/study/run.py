"""The main job: measure every arm on the user's task, price them, decide, report."""

from __future__ import annotations

from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunepoint.arms.catalog import load_encoder
from tunepoint.data.prepare import Prepared, prepare
from tunepoint.models.batch.gathering import Batches
from tunepoint.models.batch.log import BATCHES, BatchLog
from tunepoint.models.payments import PAYMENTS, PaymentLog
from tunepoint.study.adaptive import purchase_policy
from tunepoint.study.chat_models import open_chat_models
from tunepoint.study.cluster.machines import open_cluster
from tunepoint.study.conclusion import Result, conclude
from tunepoint.study.curve_drawing import draw_curve, train_ahead
from tunepoint.study.directory import CALLS, default_folder, open_study
from tunepoint.study.fresh import JUDGE_ALONE, set_failed_aside
from tunepoint.study.holdout import open_test
from tunepoint.study.journal import Place, is_address, working_copy
from tunepoint.study.planning import Confirm, find_doubtful_labels, plan
from tunepoint.study.progress import ShowProgress, silent
from tunepoint.study.runner import Runner
from tunepoint.study.seal import register_study
from tunepoint.study.selection import select
from tunepoint.study.spending import study_budget
from tunepoint.task.task import Task

if TYPE_CHECKING:
    from tunepoint.models.encoder import Encoder


def run(
    task: Task,
    *,
    out: Path | str | None = None,
    seed: int = 0,
    max_usd: float | None = None,
    progress: ShowProgress = silent,
    confirm: Confirm | None = None,
    replay: bool = False,
    fresh: str | None = None,
    on: str | None = None,
) -> Result:
    """Measure every arm that the task allows, and decide.

    Args:
        out: the study directory, or its address in an object store, as in `s3://bucket/studies/mine`;
            `studies/NAME-FINGERPRINT-SEED` if None. A killed study resumes where it stopped.
        seed: all randomness; the same seed gives the same split, scores and verdict.
        max_usd: stop before the step that would spend more, this machine's time included.
        progress: called whenever something is done, with how far the study is.
        confirm: called with a quote before calls or tuning are paid for; raises to stop.
        replay: take every completion from the recording of an earlier run, and call no model.
        fresh: ask again, and pay: `judge` for missing grades, an option's name for its unreadable answers.
        on: the cluster whose machines train, run and call models: `ray`, or an address as in
            `ray://HOST:10001`. This process does all of it if None.

    Raises:
        TunepointError: whatever the user can correct; nothing that was measured is lost.

    """
    prepared, encoder = prepare(task, seed), load_encoder(task)
    with (
        _place(task, out, prepared, seed) as place,
        open_study(folder := place.folder, task, prepared, seed) as study,
        closing(PaymentLog(folder / PAYMENTS)) as payments,
        nullcontext() if on is None else open_cluster(on) as machines,
    ):
        register_study(task, folder)
        budget = study_budget(study.manifest, task, max_usd, payments, place.check)
        if machines is not None:
            budget.rent(machines.hour_usd(task))
        again = fresh is not None and study.measured  # a few answers were confirmed by themselves
        how: Any = {"replay": replay, "fresh_judge": fresh == JUDGE_ALONE, "others": machines}
        batches = Batches(BatchLog(folder / BATCHES), budget)
        with open_chat_models(task, folder / CALLS, budget, batches=batches, **how) as models:
            set_failed_aside(study, fresh)
            runner = Runner(study, task, prepared, budget, models, progress, fresh=fresh, machines=machines)
            with runner.charging_rent():
                return _measure_and_decide(runner, encoder, None if replay or again else confirm)


def _measure_and_decide(runner: Runner, encoder: Encoder | None, confirm: Confirm | None) -> Result:
    """The whole story of a study, from its plan to its verdict."""
    candidates = plan(runner, encoder, confirm)
    doubts = find_doubtful_labels(runner, encoder)
    train_ahead(runner, candidates)
    selection = select(runner, candidates)
    draw_curve(runner, selection.candidates)
    open_test(runner, selection, purchase_policy(runner, selection))
    runner.charge_rent()  # it is part of what the report says was spent
    return conclude(runner, selection, doubts)


def _place(
    task: Task, out: Path | str | None, prepared: Prepared, seed: int
) -> AbstractContextManager[Place]:
    """The folder that a study works in: its directory, or the working copy of one in an object store."""
    if out is not None and is_address(str(out)):
        return working_copy(str(out))
    return nullcontext(Place(Path(out) if out is not None else default_folder(task, prepared, seed)))
