"""The main job: measure every arm on the user's task, price them, decide, report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tunepoint.arms.catalog import load_encoder
from tunepoint.data.prepare import prepare
from tunepoint.files.machine import cores
from tunepoint.models.budget import Budget
from tunepoint.study.adaptive import purchase_policy
from tunepoint.study.bench import Progress, Runner, silent
from tunepoint.study.chat_models import open_chat_models
from tunepoint.study.conclusion import Result, _conclude, _costed
from tunepoint.study.directory import default_folder, open_study
from tunepoint.study.holdout import open_test
from tunepoint.study.learning_curve import draw_curve
from tunepoint.study.planning import find_doubtful_labels, plan
from tunepoint.study.quote import Quote
from tunepoint.study.seal import register_study
from tunepoint.study.selection import select
from tunepoint.task.task import Task

if TYPE_CHECKING:
    from tunepoint.arms.hosted.hosted import HostedQuote


def run(
    task: Task,
    *,
    out: Path | str | None = None,
    seed: int = 0,
    max_usd: float | None = None,
    progress: Progress = silent,
    confirm: Callable[[Quote | HostedQuote], None] | None = None,
    replay: bool = False,
) -> Result:
    """Measure every arm that the task allows, and decide.

    Args:
        out: the study directory; `studies/NAME-FINGERPRINT` if None. A study that was
            killed goes on where it stopped.
        seed: all randomness; the same seed gives the same split, scores and verdict.
        max_usd: stop before the step that would spend more, this machine's time included.
        progress: called with what is done, and how much of the planned work.
        confirm: called with the quote before a chat model is asked, and before a provider tunes one;
            raise to stop.
        replay: take every completion from the recording of an earlier run, and call nobody.

    Raises:
        TunepointError: whatever the user can mend; nothing that was measured is lost.

    """
    prepared = prepare(task, seed)
    encoder = load_encoder(task)
    folder = Path(out) if out is not None else default_folder(task, prepared, seed)
    with open_study(folder, task, prepared, seed) as study:
        register_study(task, folder)
        price = task.costs.core_hour_usd.likely / 3600 * cores()
        meter = Budget(max_usd, price, float(study.manifest["spent_usd"]))
        bench = Runner(study, task, prepared, meter, progress)
        with open_chat_models(task, folder / "calls.sqlite", meter, replay=replay) as models:
            bench.use(models)
            tried = plan(bench, encoder, models, None if replay else confirm)
            prepared = find_doubtful_labels(bench, encoder, prepared)
            chosen = select(bench, tried, models)
            tried = chosen.tried
            draw_curve(bench, tried)
            finalists = chosen.finalists
            open_test(bench, tried, chosen, purchase_policy(bench, chosen, _costed(finalists, study, task)))
            study.note_models(models.facts())
            return _conclude(bench, tried, chosen, prepared)
