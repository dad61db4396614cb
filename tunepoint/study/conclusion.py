"""From trials to the verdict and its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tunepoint.arms.prompting.chat_prompts import ChatPrompt
from tunepoint.costs.arm_cost import ArmCost
from tunepoint.costs.arms_toml import arms_toml
from tunepoint.data.audit import DoubtfulLabel
from tunepoint.data.licences import trainable
from tunepoint.data.prepare import Audit, Prepared
from tunepoint.decision.document import document
from tunepoint.decision.economics import economics
from tunepoint.decision.signals import Facts, measure_signals
from tunepoint.decision.slices import Sliced, by_slice
from tunepoint.decision.verdict import Decision, decide
from tunepoint.files.text import write_json, write_text
from tunepoint.models.embedded import installed_encoder
from tunepoint.report.html import write_report
from tunepoint.report.notebook import notebook_html
from tunepoint.stats.streams import Stream
from tunepoint.study.adaptive import purchase_caveats
from tunepoint.study.arm_costs import measured_costs
from tunepoint.study.compared_models import compared_models
from tunepoint.study.contamination import Contamination, contamination, without_copies
from tunepoint.study.curve_drawing import fit_learning_curve
from tunepoint.study.directory import CALLS, Study
from tunepoint.study.facts import input_novelty, signal_facts
from tunepoint.study.holdout import usable
from tunepoint.study.items import sent_prompts, write_items
from tunepoint.study.labelling.counting import labelling_caveats, pooled
from tunepoint.study.labelling.inputs import read_pool
from tunepoint.study.labelling.pool import open_pool
from tunepoint.study.learning_curve import LearningCurve, growing_arms, still_rising
from tunepoint.study.leniency import Leniency, leniency, without_conventions
from tunepoint.study.records import Decided
from tunepoint.study.runner import Runner
from tunepoint.study.selection import Selection
from tunepoint.study.spending import spending_lines
from tunepoint.study.tables import disagreements, ladder
from tunepoint.study.tracking import track
from tunepoint.study.warnings import (
    anew_warnings,
    batch_warnings,
    copying_warnings,
    judge_warnings,
    model_warnings,
    recording_warnings,
    training_warnings,
    unreadable_warnings,
)
from tunepoint.task.sections import JUDGE
from tunepoint.trials.human_grades import Grades, apply_grades, read_grades, write_grading_sheet
from tunepoint.trials.table import Table
from tunepoint.trials.tabulation import tabulate
from tunepoint.trials.trial import ArmKind, Trial, mean_score


@dataclass(frozen=True)
class Result:
    """A finished study."""

    decision: Decision
    document: Mapping[str, Any]
    """The content of decision.json."""
    folder: Path | None
    notes: tuple[str, ...] = ()
    """What happened on the way that the user should know."""
    audit: Audit | None = None
    """What was found in the examples; None for trials that another tool measured."""

    def _repr_html_(self) -> str:
        """The verdict in a notebook."""
        return notebook_html(self.document, "STUDY" if self.folder is None else str(self.folder))

    @property
    def report(self) -> Path | None:
        """The report, if the study has a folder."""
        return self.folder / "report.html" if self.folder else None


@dataclass(frozen=True)
class _Measured:
    """All that a study measured, as the decision reads it."""

    runner: Runner
    selection: Selection
    prepared: Prepared
    """With doubtful labels in its audit."""
    trials: Sequence[Trial]
    """Of the finalists, with people's grades."""
    table: Table
    """The same as a table."""
    costs: Sequence[ArmCost]
    """Of the finalists, in the order of the table."""
    curve: LearningCurve | None


def conclude(runner: Runner, selection: Selection, doubts: Sequence[DoubtfulLabel] | None) -> Result:
    """Decide on what a study measured, and write its files.

    Args:
        runner: with all trials recorded.
        selection: the finalists.
        doubts: doubtful labels, for the audit; None where nothing looked for them.

    """
    study, task = runner.study, runner.task
    study.note_models(runner.models.facts())
    measured = _collect(runner, selection, doubts)
    copies = contamination(measured.table, measured.costs, task, measured.prepared, study.manifest.seed)
    lenient = _leniency(measured)
    decision = without_conventions(without_copies(_decide(measured), copies), lenient)
    content = _decision_content(measured, decision, copies, lenient)
    measurements = _measurements(measured, decision)
    if task.score.metric == JUDGE:
        rng = study.rng(Stream.GRADING_SHEET)
        write_grading_sheet(study.folder, study.test.trials, runner.prepared.split.test, rng)
    write_text(study.folder / "arms.toml", arms_toml(measured.costs))
    prompts = sent_prompts(runner, selection.finalists)
    write_items(study.folder, measured.trials, measured.table.names, runner.prepared.split.test, prompts)
    write_files(study.folder, content, measurements)
    paid = {name: price for name, price in runner.prices.items() if name not in runner.models.reply_origins}
    notes = [*study.repairs, *spending_lines(study.folder / CALLS, paid)]
    notes += track(task.track, study.folder, content)
    return Result(decision, content, study.folder, tuple(notes), measured.prepared.audit)


def _collect(runner: Runner, selection: Selection, doubts: Sequence[DoubtfulLabel] | None) -> _Measured:
    """Read the trials that count, with people's grades, and price the finalists by them."""
    study, task, finalists = runner.study, runner.task, selection.finalists
    prepared = runner.prepared if doubts is None else runner.prepared.with_doubts(doubts)
    grades = read_grades(task, study.folder)
    trials = apply_grades(usable(study.test.trials, finalists), grades)
    _note_decided(study, trials, grades)
    table = pooled(tabulate(trials, [arm.name for arm in finalists]), study.folder)
    costs = measured_costs(finalists, study, table, task)
    train = trainable(task, prepared.split.train)
    pool = None if table.pool is None else open_pool(study.folder, table.names)
    curve = fit_learning_curve(study, selection.candidates, train, study.rng(Stream.LEARNING_CURVE), pool)
    return _Measured(runner, selection, prepared, trials, table, costs, curve)


def _leniency(measured: _Measured) -> Leniency | None:
    """The verdict by a score that forgives how answers are written; None where it says the same."""
    study, test, names = measured.runner.study, measured.prepared.split.test, measured.table.names
    task, pooled = measured.runner.task, measured.table.pool is not None
    seed = study.manifest.seed
    lenient = leniency(measured.trials, test, names, measured.costs, task, seed, pooled=pooled)
    return None if lenient is None else replace(lenient, form_shown=_form_shown(measured))


def _form_shown(measured: _Measured) -> tuple[float, float] | None:
    """Scores on the validation set of prompts with and without right answers that show their form."""
    log = measured.runner.study.dev
    shown: list[float] = []
    without: list[float] = []
    for arm in measured.selection.winners:
        if isinstance(arm, ChatPrompt) and not arm.style.shows_examples:
            (shown if arm.style.answers else without).append(mean_score(log.of(arm.name)))
    return (max(shown), max(without)) if shown and without else None


def _note_decided(study: Study, trials: Sequence[Trial], grades: Grades) -> None:
    """Record which runs were decided on and what people said: `whatif` decides on the same."""
    runs = list(dict.fromkeys((trial.arm, trial.seed, trial.decode) for trial in trials))
    people = [(item, answer, grade) for (item, answer), grade in grades.items()]
    study.update(decided=Decided(runs=runs, people=people))


def _decide(measured: _Measured) -> Decision:
    """The decision, with what the study saw on the way among its caveats."""
    runner, table, curve = measured.runner, measured.table, measured.curve
    study, task = runner.study, runner.task
    growing = growing_arms(measured.selection.candidates, measured.selection.finalists)
    warnings = [*training_warnings(study), *model_warnings(study, task, datetime.now(UTC).date())]
    warnings += [*judge_warnings(study, task, table.names), *purchase_caveats(runner)]
    warnings += [*unreadable_warnings(study), *anew_warnings(study)]
    warnings += recording_warnings(runner.models.reply_origins)
    warnings += copying_warnings(study, measured.selection.winners)
    warnings += batch_warnings(task, measured.costs)
    warnings += labelling_caveats(table, study.folder)
    rng = study.rng(Stream.DECISION)
    growth = curve.growth(growing) if curve else None
    decision = decide(table, measured.costs, task, rng, caveats=warnings, growth=growth)
    rising = still_rising(decision, curve, growing, task.limits.margin)
    return replace(decision, caveats=(*rising, *decision.caveats))


def _decision_content(
    measured: _Measured, decision: Decision, copies: Contamination, lenient: Leniency | None
) -> dict[str, Any]:
    """The content of decision.json."""
    study, task = measured.runner.study, measured.runner.task
    on_dev = study.dev.of(decision.winner)
    optimism = mean_score(on_dev) - decision.finalist(decision.winner).score.estimate if on_dev else None
    return document(
        decision,
        task,
        measure_signals(decision, task, _facts(measured)),
        optimism=optimism,
        slices=_slices(measured),
        contamination=copies.content(),
        lenient=None if lenient is None else lenient.content(),
        provenance=study.manifest.provenance(),
        models=compared_models(measured.selection.candidates, measured.runner.models),
        today=datetime.now(UTC).date(),
    )


def _facts(measured: _Measured) -> Facts:
    """What the signals need."""
    runner, prepared = measured.runner, measured.prepared
    # a task that no encoder can answer is read by one all the same, if it is installed
    encoder = measured.selection.candidates.encoder or installed_encoder()
    study, nearness = runner.study, None
    if encoder is not None:
        nearness = input_novelty(encoder, prepared, study.rng(Stream.NOVELTY), read_pool(study.folder))
    return signal_facts(study, runner.task, measured.selection, prepared, measured.table, nearness)


def _slices(measured: _Measured) -> Sliced | None:
    """The finalists by slice, or by label where no column names slices."""
    study, table, costs = measured.runner.study, measured.table, measured.costs
    # what has to go is no option for any slice
    kinds: list[ArmKind] = ["baseline" if cost.replaced else cost.kind for cost in costs]
    rng = study.rng(Stream.SLICES)
    if measured.runner.task.answer.kind != "label":
        return by_slice(table, kinds, rng)
    labels = {example.id: example.target for example in measured.prepared.split.test}
    tuned = [cost.arm for cost in costs if cost.kind in ("tuned", "hybrid")]
    trials = study.test.of(tuned[0]) if tuned else []
    answered = {trial.item: trial.answer or "" for trial in reversed(trials)}  # the first answer counts
    return by_slice(table, kinds, rng, labels=labels, answered=answered)


def _measurements(measured: _Measured, decision: Decision) -> dict[str, Any]:
    """The content of measurements.json."""
    study, selection, curve = measured.runner.study, measured.selection, measured.curve
    search = study.manifest.search
    return {
        "audit": asdict(measured.prepared.audit),
        "ladder": ladder(study, selection.candidates, selection.winners),
        "search": None if search is None else search.content(),
        "curve": [{"examples": size, **asdict(score)} for size, score in curve.rows] if curve else [],
        "learning": curve.document() if curve else None,
        "not_run": [asdict(arm) for arm in (*selection.not_run, *selection.candidates.not_run)],
        "disagreements": disagreements(measured.prepared, measured.table, study.test.trials),
        "economics": economics(decision, measured.runner.task),
    }


def write_files(folder: Path, content: Mapping[str, Any], measurements: Mapping[str, Any]) -> None:
    """Write the three files that every decision has, the report last."""
    write_json(folder / "measurements.json", measurements, indent=None)
    write_json(folder / "decision.json", content)
    write_report(folder, content, measurements)
