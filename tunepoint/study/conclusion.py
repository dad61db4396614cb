"""From trials to the verdict and its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tunepoint.arms.catalog import CandidateArms
from tunepoint.arms.contract import Arm
from tunepoint.costs.arm_cost import ArmCost
from tunepoint.costs.arms_toml import arms_toml
from tunepoint.data.licences import trainable
from tunepoint.data.prepare import Audit, Prepared
from tunepoint.decision.document import document, economics
from tunepoint.decision.signals import measure_signals
from tunepoint.decision.slices import Sliced, by_slice
from tunepoint.decision.verdict import Decision, decide
from tunepoint.files.text import write_json, write_text
from tunepoint.models.embedded import installed_encoder
from tunepoint.report.html import write_report
from tunepoint.stats.streams import Stream, stream
from tunepoint.study.adaptive import Costed, purchase_caveats
from tunepoint.study.arm_costs import measured_cost
from tunepoint.study.bench import Runner
from tunepoint.study.contamination import contamination, without_copies
from tunepoint.study.directory import Study, provenance
from tunepoint.study.facts import input_novelty, signal_facts
from tunepoint.study.holdout import usable
from tunepoint.study.learning_curve import Learning, growing_arms, learn, still_rising
from tunepoint.study.selection import Selection
from tunepoint.study.tables import disagreements, ladder
from tunepoint.study.warnings import judge_warnings, model_warnings, training_warnings
from tunepoint.task.sections import JUDGE
from tunepoint.task.task import Task
from tunepoint.trials.human_grades import Grades, apply_grades, read_grades, write_grading_sheet
from tunepoint.trials.table import Table, tabulate
from tunepoint.trials.trial import Trial, mean_score


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

    @property
    def report(self) -> Path | None:
        """The report, if the study has a folder."""
        return self.folder / "report.html" if self.folder else None


# -- from trials to the verdict ------------------------------------------------------------


def _conclude(runner: Runner, candidates: CandidateArms, selection: Selection, prepared: Prepared) -> Result:
    study, task, finalists = runner.study, runner.task, selection.finalists
    names = [arm.name for arm in finalists]
    grades = read_grades(task, study.folder)
    trials = apply_grades(usable(study.test.trials, finalists), grades)
    _note_decided(study, trials, grades)
    table = tabulate(trials, names)
    costs = _costed(finalists, study, task)(table)
    seed = int(study.manifest["seed"])
    today = datetime.now(UTC).date()
    learning = learn(
        study, candidates, trainable(task, prepared.split.train), stream(seed, Stream.LEARNING_CURVE)
    )
    copies = contamination(table, costs, task, prepared, seed)
    decision = without_copies(_decided(runner, candidates, selection, table, costs, learning), copies)
    encoder = candidates.encoder or installed_encoder()
    near = input_novelty(encoder, prepared, stream(seed, Stream.NOVELTY)) if encoder else None
    facts = signal_facts(study, task, candidates, selection, prepared, near)
    on_dev = study.dev.of(decision.winner)
    optimism = mean_score(on_dev) - decision.finalist(decision.winner).score.estimate if on_dev else None
    content = document(
        decision,
        task,
        measure_signals(decision, task, facts),
        optimism=optimism,
        slices=_slices_of(table, costs, task, prepared, study),
        contamination=copies,
        provenance=provenance(study.manifest),
        today=today,
    )
    measurements = {
        "audit": asdict(prepared.audit),
        "ladder": ladder(study, candidates, selection.winners),
        "search": study.manifest.get("search"),
        "curve": [{"examples": size, **asdict(score)} for size, score in learning.rows] if learning else [],
        "learning": learning.document() if learning else None,
        "not_run": [asdict(left) for left in (*selection.not_run, *candidates.not_run)],
        "disagreements": disagreements(prepared, table, study.test.trials),
        "economics": economics(decision, task),
    }
    if task.score.metric == JUDGE:
        write_grading_sheet(
            study.folder, study.test.trials, prepared.split.test, stream(seed, Stream.GRADING_SHEET)
        )
    write_text(study.folder / "arms.toml", arms_toml(costs))
    _write(study.folder, content, measurements)
    return Result(decision, content, study.folder, tuple(study.repairs), prepared.audit)


def _note_decided(study: Study, trials: Sequence[Trial], grades: Grades) -> None:
    """Write down which runs were decided on and what people said: `whatif` decides on the same."""
    study.manifest["decided"] = {
        "runs": [list(run) for run in dict.fromkeys((one.arm, one.seed, one.decode) for one in trials)],
        "people": [[item, answer, grade] for (item, answer), grade in grades.items()],
    }
    study.save()


def _decided(
    runner: Runner,
    candidates: CandidateArms,
    selection: Selection,
    table: Table,
    costs: Sequence[ArmCost],
    learning: Learning | None,
) -> Decision:
    """The decision, with what the study saw on the way among its caveats."""
    study, task, names = runner.study, runner.task, table.names
    growing = growing_arms(candidates, selection.finalists)
    warnings = [*training_warnings(study), *model_warnings(study, datetime.now(UTC).date())]
    warnings += [*judge_warnings(study, task, names), *purchase_caveats(runner)]
    rng = study.rng(Stream.DECISION)
    growth = learning.growth(growing) if learning else None
    decision = decide(table, costs, task, rng, caveats=warnings, growth=growth)
    rising = still_rising(decision, learning, growing, task.limits.margin)
    return replace(decision, caveats=(*rising, *decision.caveats))


def _slices_of(
    table: Table, costs: Sequence[ArmCost], task: Task, prepared: Prepared, study: Study
) -> Sliced | None:
    """The finalists by slice, or by label where no column names slices."""
    kinds = [cost.kind for cost in costs]
    rng = study.rng(Stream.SLICES)
    if task.answer.kind != "label":
        return by_slice(table, kinds, rng)
    labels = {example.id: example.target for example in prepared.split.test}
    tuned = [cost.arm for cost in costs if cost.kind in ("tuned", "hybrid")]
    trials = study.test.of(tuned[0]) if tuned else []
    answered = {trial.item: trial.answer or "" for trial in reversed(trials)}
    return by_slice(table, kinds, rng, labels=labels, answered=answered)


def _write(folder: Path, content: Mapping[str, Any], measurements: Mapping[str, Any]) -> None:
    """The three files that every decision has, the report last."""
    write_json(folder / "measurements.json", measurements)
    write_json(folder / "decision.json", content)
    write_report(folder, content, measurements)


def _costed(finalists: Sequence[Arm], study: Study, task: Task) -> Costed:
    """What the finalists cost, by the trials of a table."""
    return lambda table: [measured_cost(arm, study, table, task) for arm in finalists]
