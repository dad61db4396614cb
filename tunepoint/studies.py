"""The main job: measure every arm on the user's task, price them, decide, report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunepoint.arms import Arm, trainable
from tunepoint.candidates import Candidates, load_encoder, spare_encoder
from tunepoint.cost.prices import (
    ArmCost,
    arms_toml,
    declared_cost,
    guessed_cost,
    read_arms,
)
from tunepoint.costing import measured_cost
from tunepoint.decisions import Decision, decide, joint_of
from tunepoint.documents import document, economics
from tunepoint.errors import StudyError, TrialsError, nearest
from tunepoint.findings import (
    contamination,
    disagreements,
    familiarity,
    gather_facts,
    judge_warnings,
    ladder,
    model_warnings,
    provenance,
    training_warnings,
    without_copies,
)
from tunepoint.growth import Learning, growing_arms, learn, still_rising
from tunepoint.measure.bench import Bench, Progress, open_models, silent
from tunepoint.measure.meter import Meter
from tunepoint.measure.people import Grades, people_grades, with_people, write_sheet
from tunepoint.measure.prepare import Audit, Prepared, prepare
from tunepoint.measure.study import Study, cores, open_study
from tunepoint.measure.tables import Table, tabulate
from tunepoint.measure.trials import Trial, make_folder, mean_score, read_trials, write_json, write_text
from tunepoint.quotes import Quote
from tunepoint.report import write_report
from tunepoint.sealed import open_test, usable
from tunepoint.signals import Facts, measure_signals
from tunepoint.sizes import Design, Size, cluster_size, design_of, plan_sizes
from tunepoint.slices import Sliced, by_slice
from tunepoint.spending import Costed, buying, stopped_words
from tunepoint.steps import Selected, draw_curve, look, plan, select
from tunepoint.task import JUDGE, Task

if TYPE_CHECKING:  # the client takes its time to import
    from tunepoint.tuning.hosted import HostedQuote


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
    prepared = prepare(task, np.random.default_rng([seed, 1]))
    encoder = load_encoder(task)
    folder = Path(out) if out is not None else default_folder(task, prepared, seed)
    with open_study(folder, task, prepared, seed) as study:
        price = task.costs.core_hour_usd.likely / 3600 * cores()
        meter = Meter(max_usd, price, float(study.manifest["spent_usd"]))
        bench = Bench(study, task, prepared, meter, progress)
        with open_models(task, folder / "calls.sqlite", meter, replay=replay) as models:
            bench.use(models)
            tried = plan(bench, encoder, models, None if replay else confirm)
            prepared = look(bench, encoder, prepared)
            chosen = select(bench, tried, models)
            tried = chosen.tried
            draw_curve(bench, tried)
            finalists = chosen.finalists
            open_test(bench, tried, chosen, buying(bench, chosen, _costed(finalists, study, task)))
            study.note_models(models.facts())
            return _conclude(bench, tried, chosen, prepared)


def default_folder(task: Task, prepared: Prepared, seed: int) -> Path:
    """`studies/NAME-FINGERPRINT`: the same question goes on, another one starts anew."""
    identity = f"{task.measured_by()[:4]}{prepared.fingerprint[:4]}"
    return Path("studies") / f"{task.name}-{identity}-{seed}"


# -- from trials to the verdict ------------------------------------------------------------


def _conclude(bench: Bench, tried: Candidates, chosen: Selected, prepared: Prepared) -> Result:
    study, task, finalists = bench.study, bench.task, chosen.finalists
    names = [arm.name for arm in finalists]
    grades = people_grades(task, study.folder)
    trials = with_people(usable(study.test.trials, finalists), grades)
    _note_decided(study, trials, grades)
    table = tabulate(trials, names)
    costs = _costed(finalists, study, task)(table)
    seed = int(study.manifest["seed"])
    today = datetime.now(UTC).date()
    learning = learn(study, tried, trainable(task, prepared.split.train), np.random.default_rng([seed, 9]))
    copies = contamination(table, costs, task, prepared, seed)
    decision = without_copies(_decided(bench, tried, chosen, table, costs, learning), copies)
    encoder = tried.encoder or spare_encoder()
    near = familiarity(encoder, prepared, np.random.default_rng([seed, 10])) if encoder else None
    facts = gather_facts(study, task, tried, chosen, prepared, near)
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
        "ladder": ladder(study, tried, chosen.winners),
        "search": study.manifest.get("search"),
        "curve": [{"examples": size, **asdict(score)} for size, score in learning.rows] if learning else [],
        "learning": learning.document() if learning else None,
        "not_run": [asdict(left) for left in (*chosen.not_run, *tried.not_run)],
        "disagreements": disagreements(prepared, table, study.test.trials),
        "economics": economics(decision, task),
    }
    if task.score.metric == JUDGE:
        write_sheet(study.folder, study.test.trials, prepared.split.test, np.random.default_rng([seed, 5]))
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
    bench: Bench,
    tried: Candidates,
    chosen: Selected,
    table: Table,
    costs: Sequence[ArmCost],
    learning: Learning | None,
) -> Decision:
    """The decision, with what the study saw on the way among its caveats."""
    study, task, names = bench.study, bench.task, table.names
    growing = growing_arms(tried, chosen.finalists)
    warnings = [*training_warnings(study), *model_warnings(study, datetime.now(UTC).date())]
    warnings += [*judge_warnings(study, task, names), *stopped_words(bench)]
    rng = np.random.default_rng([int(study.manifest["seed"]), 3])
    growth = learning.growth(growing) if learning else None
    decision = decide(table, costs, task, rng, caveats=warnings, growth=growth)
    rising = still_rising(decision, learning, growing, task.limits.margin)
    return replace(decision, caveats=(*rising, *decision.caveats))


def _slices_of(
    table: Table, costs: Sequence[ArmCost], task: Task, prepared: Prepared, study: Study
) -> Sliced | None:
    """The finalists by slice, or by label where no column names slices."""
    kinds = [cost.kind for cost in costs]
    rng = np.random.default_rng([int(study.manifest["seed"]), 6])
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


# -- trials that another tool measured -----------------------------------------------------


def decide_trials(
    trials: Path | str,
    task: Task,
    *,
    arms: Path | str | None = None,
    out: Path | str | None = None,
    seed: int = 0,
) -> Result:
    """Decide on trials that any tool measured.

    Args:
        trials: a JSONL file with `arm`, `item` and `score` on every line.
        arms: arms.toml with kind and cost of each arm; guessed from names and trials if None.
        out: folder for decision.json and the report; nothing is written if None.

    Raises:
        TrialsError: the files do not follow their format, or name different arms.

    """
    table = tabulate(read_trials(Path(trials)))
    costs = _foreign_costs(table, Path(arms) if arms is not None else None)
    decision = decide(table, costs, task, np.random.default_rng([seed, 3]))
    content = document(
        decision,
        task,
        measure_signals(decision, task, Facts()),
        slices=by_slice(table, [cost.kind for cost in costs], np.random.default_rng([seed, 6])),
        provenance={"trials": Path(trials).name, "seed": seed},
        today=datetime.now(UTC).date(),
    )
    measurements = {"economics": economics(decision, task)}
    folder = None if out is None else Path(out)
    if folder is not None:
        if (folder / "manifest.json").exists():
            raise StudyError(f"{folder}: is a study that was measured here; choose another --out")
        make_folder(folder)
        _write(folder, content, measurements)
    return Result(decision, content, folder)


def _foreign_costs(table: Table, arms: Path | None) -> list[ArmCost]:
    if arms is None:
        return [guessed_cost(scores) for scores in table.arms]
    declared = read_arms(arms)
    for name in table.names:
        if name not in declared:
            raise TrialsError(f"{arms}: no [[arm]] named {name!r}; {nearest(name, declared)}")
    return [declared_cost(declared[scores.arm], scores) for scores in table.arms]


# -- before anything is run ------------------------------------------------------------------


def planned(
    task: Path | None, differences: tuple[float, ...], power: float, study: Path | None, seeds: int
) -> tuple[Design, list[Size]]:
    """The sizes that a study needs.

    Args:
        task: its margin, groups and prices count; the defaults if None.
        differences: in mean score, between 0 and 1.
        power: probability of seeing each.
        study: a folder or trials.jsonl whose variances count; typical ones if None.
        seeds: training seeds of the tuned arm.

    Raises:
        TunepointError: a file cannot be read, or a number is out of range.

    """
    loaded = Task.load(task) if task is not None else None
    design = Design(seeds=seeds)
    if study is not None:
        path = study / "trials.jsonl" if study.is_dir() else study
        joint = joint_of(tabulate(read_trials(path)))
        first, second = np.argsort(-joint.estimates)[:2].tolist() if len(joint.estimates) > 1 else (0, 0)
        if first == second:
            raise TrialsError(f"{path}: has one arm; variances of a difference need two")
        design = replace(design_of(joint, first, second), seeds=seeds)
    elif loaded is not None and loaded.data is not None and loaded.data.group is not None:
        examples = prepare(loaded, np.random.default_rng(0)).examples
        design = replace(design, cluster_size=cluster_size(list(examples)))
    return design, plan_sizes(loaded, design, differences, power)
