"""A study's tuned encoder as ONNX, with its card; kept only if it answers dev as it was measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunepoint.arms.catalog import load_encoder
from tunepoint.arms.parity import Parity, parity
from tunepoint.data.examples import fingerprint
from tunepoint.data.licences import trainable
from tunepoint.errors import ModelError, StudyError, nearest
from tunepoint.files.text import make_folder, write_json, write_text
from tunepoint.stats.streams import Stream, stream
from tunepoint.study.encoder_card import EncoderFacts, encoder_card
from tunepoint.study.measured import MeasuredStudy, read_measured
from tunepoint.task.task import Task
from tunepoint.trials.grading import task_scorer
from tunepoint.trials.tabulation import mean_interval
from tunepoint.trials.trial import mean_score

if TYPE_CHECKING:
    from tunepoint.arms.encoder.classifier import FineTuned, Probe
    from tunepoint.arms.encoder.extraction import SpanTagger

    TunedEncoder = FineTuned | Probe | SpanTagger

GRAPH = "model.onnx"


@dataclass(frozen=True)
class ExportedEncoder:
    """What was written."""

    folder: Path
    arm: str
    """Name of the arm."""
    parity: Parity
    """Of the graph against the measured model, on dev."""


def export_encoder(task: Task, study: Path, folder: Path, arm: str | None = None) -> ExportedEncoder:
    """Write a tuned encoder of a study as ONNX: graph, tokenizer, card.

    Args:
        task: of the study.
        study: its directory.
        folder: where to write.
        arm: name of the encoder's arm; the best encoder on dev if None.

    Raises:
        StudyError: the folder is no study of this task, or has no tuned encoder of that name.
        ModelError: packages are missing, or the graph gives other answers; it is not kept then.

    """
    from tunepoint.arms.encoder.onnx import served_by
    from tunepoint.arms.encoder.onnx_export import write_graph

    study_trials = read_measured(task, study)
    split = study_trials.prepared.split
    encoder_arm = _encoder_arm(task, study_trials, arm)
    fitted = encoder_arm.fit(task, split.train, stream(study_trials.seed, Stream.FIT))
    make_folder(folder)
    write_graph(fitted, folder / GRAPH)
    recorded = study_trials.dev_replies(encoder_arm.name)
    dev = [example for example in split.dev if example.id in recorded]
    measured = [recorded[example.id] for example in dev]
    answers = served_by(folder / GRAPH, fitted).answer([example.input for example in dev])
    comparison = parity(dev, measured, answers, task_scorer(task))
    if not comparison.holds:
        (folder / GRAPH).unlink()
        raise ModelError(
            f"the ONNX graph of {encoder_arm.name} does not answer as it was measured, not kept: {comparison}"
        )
    encoder_arm.encoder.tokenizer.save(str(folder / "tokenizer.json"))
    facts = _facts(task, study_trials, encoder_arm, fitted.built.examples)
    write_json(folder / "tunepoint.json", asdict(facts))
    write_text(folder / "README.md", encoder_card(task, facts, comparison))
    return ExportedEncoder(folder, encoder_arm.name, comparison)


def _encoder_arm(task: Task, measured_study: MeasuredStudy, name: str | None) -> TunedEncoder:
    """The arm of that name, or the best on dev."""
    study, dev = measured_study.folder, measured_study.dev
    encoder = load_encoder(task)
    if encoder is None:
        raise StudyError(f"{study}: no encoder gives answers of kind {task.answer.kind!r}, as its task needs")
    from tunepoint.arms.encoder.classifier import FineTuned, Probe
    from tunepoint.arms.encoder.extraction import SpanTagger

    keep = study / "arms"
    arms: list[TunedEncoder] = (
        [SpanTagger(encoder, keep=keep)]
        if task.answer.kind == "json"
        else [FineTuned(encoder, keep=keep), Probe(encoder)]
    )
    measured = {arm.name: arm for arm in arms if arm.name in dev}
    if name is not None and name not in measured:
        raise StudyError(
            f"{study}: {name!r} is not one of its tuned encoders that work alone; "
            f"{nearest(name, measured)} A hybrid needs its examples beside it"
        )
    if not measured:
        raise StudyError(f"{study}: no encoder was tuned in it")
    if name is not None:
        return measured[name]
    return max(measured.values(), key=lambda arm: mean_score(dev[arm.name]))


def _facts(task: Task, study: MeasuredStudy, arm: TunedEncoder, examples: int) -> EncoderFacts:
    """What the card says and tunepoint.json keeps."""
    from tunepoint.arms.encoder.classifier import Probe

    prepared = study.prepared
    trials = {"dev": study.dev.get(arm.name), "sealed test": study.test.get(arm.name)}
    return EncoderFacts(
        arm=arm.name,
        base=arm.encoder.name,
        recipe={"C": arm.strength} if isinstance(arm, Probe) else asdict(arm.recipe),
        examples=examples,
        train_sha256=fingerprint(trainable(task, prepared.split.train)),
        data_sha256=prepared.fingerprint,
        task_sha256=task.trials_fingerprint(),
        seed=study.seed,
        scores={part: mean_interval(of_part) for part, of_part in trials.items() if of_part},
    )
