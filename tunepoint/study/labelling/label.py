"""Labelling where the finalists disagree: they answer a pool, people label, the study decides again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tunepoint.decision.verdict import Decision
from tunepoint.errors import StudyError, TaskError
from tunepoint.stats.streams import Stream, stream
from tunepoint.study.finalists import study_task
from tunepoint.study.labelling.answering import Answering, Confirm
from tunepoint.study.labelling.counting import why_not
from tunepoint.study.labelling.inputs import Added
from tunepoint.study.labelling.labels import Agreement, agreement, person
from tunepoint.study.labelling.order import next_inputs
from tunepoint.study.labelling.pool import Pool, open_pool
from tunepoint.study.labelling.reading import shown, take_labels
from tunepoint.study.labelling.sampling import Brought
from tunepoint.study.labelling.sheet import SHEET, write_sheet
from tunepoint.study.manifest import Manifest, read_manifest
from tunepoint.study.progress import ShowProgress, silent
from tunepoint.study.run import run
from tunepoint.study.whatif import reopen
from tunepoint.task.sections import JUDGE
from tunepoint.task.task import Task

BATCH = 25
"""Inputs on a sheet."""
SECOND_OPINIONS = 0.1
"""Share of a person's sheet that somebody else has labelled already."""


@dataclass(frozen=True)
class Labelling:
    """Where the labelling of a study stands."""

    decision: Decision
    pool: Pool
    new_labels: int
    """Labels that were on the sheet and not known before."""
    sheet: Path | None
    """What to fill in next; None if the study is settled or nothing is left to label."""
    agreement: Agreement | None
    added: Added | None = None
    """What was added to the pool, if inputs were brought."""
    doubts: tuple[str, ...] = ()
    """Why the labels do not count, if so."""

    @property
    def settled(self) -> bool:
        """Whether the evidence is enough for a confident verdict, by bounds that hold at every look.

        The verdict may be less than confident all the same, for a reason that no label changes.
        """
        return self.kind_settled and not self.decision.evidence.open_variants()

    @property
    def kind_settled(self) -> bool:
        """Whether the evidence is enough for the kind of the verdict, though perhaps not for the variant."""
        return self.decision.evidence.verdict_strength() == "confident"

    @property
    def wrong(self) -> float:
        """Probability of being wrong, however often people have looked."""
        evidence = self.decision.evidence
        wide = evidence.at_all_looks or evidence
        return wide.risks_of(*evidence.named()).wrong


def label(
    folder: Path,
    *,
    pool: Path | None = None,
    traffic: Brought | None = None,
    batch: int = BATCH,
    by: str = "",
    second: float = SECOND_OPINIONS,
    max_usd: float | None = None,
    confirm: Confirm | None = None,
    progress: ShowProgress = silent,
) -> Labelling:
    """Take what people have labelled, decide again, and write the next sheet.

    Args:
        folder: of a finished study.
        pool: file of inputs without a label, which the finalists answer first. Without one, a study without
            a pool takes `data.pool` of its task, and the rows of its files that have no right answer.
        traffic: inputs of captured traffic, which join the pool.
        batch: inputs on the next sheet.
        by: who fills it in; then some inputs come along that others have labelled.
        second: how many of those, as a share of the sheet.
        max_usd: stop before spending more on answers.
        confirm: called with a quote before calls are paid for; raises to stop.
        progress: called whenever something is done.

    Raises:
        TunepointError: whatever the user can correct; labels and answers are kept.

    """
    task, manifest = study_task(folder), read_manifest(folder)
    _check_metric(task, folder)
    if not manifest.finalists:
        raise StudyError(f"{folder}: has not decided yet; resume it with `tunepoint run`")
    added = Answering(folder, task, manifest, max_usd, confirm, progress).answer(pool, traffic)
    answered = _opened(folder, manifest)
    labels, new = take_labels(folder, task, answered)
    answered = replace(answered, labels=tuple(labels))
    decision = run(task, out=folder, seed=manifest.seed, replay=True).decision
    doubts = why_not(answered, reopen(folder).table, folder)
    state = Labelling(decision, answered, new, None, agreement(labels), added, tuple(doubts))
    items = [] if state.settled else _next(manifest, answered, batch, by, second)
    sheet = folder / SHEET
    if not items:
        sheet.unlink(missing_ok=True)  # all of it is read
        return state
    examples = [(i, answered.inputs[i]) for i in items]
    write_sheet(sheet, [(e.id, e.input, shown(answered, i, manifest.seed)) for i, e in examples], by)
    return replace(state, sheet=sheet)


def _check_metric(task: Task, folder: Path) -> None:
    """Refuse what the labels of a pool cannot score.

    Raises:
        TaskError: a scorer of somebody's own scores, which a study's folder does not bring along.

    """
    if task.takes_labels or (task.score.metric == JUDGE and task.data is not None):
        return
    if task.data is None:
        raise TaskError(f"{folder}: its task has no [data], so the columns of a pool are unknown")
    raise TaskError(
        f"{folder}: answers are scored by {task.score.metric}, which is not run from a study's folder; "
        "labels of a pool need a metric of Tunepoint's"
    )


def _opened(folder: Path, manifest: Manifest) -> Pool:
    pool = open_pool(folder, manifest.finalists)
    if pool is None:
        raise StudyError(
            f"{folder}: has no pool that two of its options have answered; give one: "
            f"tunepoint label {folder} --pool INPUTS.csv"
        )
    return pool


def _next(manifest: Manifest, pool: Pool, batch: int, by: str, second: float) -> list[int]:
    """Return the positions of the inputs to label next, and of some that somebody else has labelled."""
    draws = stream(manifest.seed, Stream.LABELS).random(len(pool.inputs))
    chosen = list(next_inputs(pool, draws, batch))
    if not by:
        return chosen
    others = []
    for i in pool.labelled:
        opinions = pool.opinions[pool.inputs[i].id]
        if len(opinions) == 1 and person(opinions[0].by) not in ("", person(by)):
            others.append(i)
    others.sort(key=draws.__getitem__)
    return [*chosen, *others[: round(second * batch)]]
