from __future__ import annotations

import asyncio
import csv
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import EXAMPLE

from tunepoint import Example, Task
from tunepoint.arms.baselines.nearest_examples import FixedExamples, NearestExamples
from tunepoint.arms.baselines.nearest_label import NearestLabelDescription, NearestLabelName
from tunepoint.arms.cascade import Cascade, Gate, choose_gate
from tunepoint.arms.catalog import load_encoder
from tunepoint.arms.contract import Built
from tunepoint.arms.encoder.classifier import Classifier, FineTuned, Probe
from tunepoint.arms.encoder.mixtures import TunedWithNames, TunedWithRetrieval
from tunepoint.arms.encoder.training import Recipe
from tunepoint.errors import EvidenceError, ModelError, TaskError
from tunepoint.loop.drift import input_drift
from tunepoint.models import encoder_weights
from tunepoint.models.chat import Demonstration, Prompt, Reply, Usage
from tunepoint.models.encoder import Encoder
from tunepoint.models.encoder_weights import check_weights, find_weights
from tunepoint.models.nearest_label import Vectors, label_as_words, softmax

TEXTS = {
    "billing": [
        "you charged my card twice",
        "the invoice shows the wrong amount",
        "refund me please",
        "why did the price on my bill go up",
        "my payment was declined",
    ],
    "fault": [
        "the sensor is broken",
        "device shows no light",
        "battery is dead after a week",
        "the hub does not start any more",
        "screen is cracked and black",
    ],
    "shipping": [
        "where is my parcel",
        "delivery is late",
        "the courier lost my package",
        "tracking number does not work",
        "send it to another address",
    ],
}
TRAIN = [
    Example(f"{label}{i}", text, label) for label, texts in TEXTS.items() for i, text in enumerate(texts)
]
TASK = Task.parse(
    {
        "name": "t",
        "instruction": "route",
        "answer": {
            "labels": {
                "billing": "money, charges, invoices",
                "fault": "hardware that does not work",
                "shipping": "parcels",
            }
        },
    }
)
QUESTIONS = ["I was billed two times", "sensor dead", "package has not arrived"]
ANSWERS = ["billing", "fault", "shipping"]
RNG = np.random.default_rng


@pytest.fixture(scope="module")
def encoder(minilm: Encoder) -> Encoder:
    return minilm


def answers(fitted: object) -> list[str | None]:
    return [reply.answer for reply in fitted.answer(QUESTIONS)]  # type: ignore[attr-defined]


def test_the_published_reference_similarities(encoder: Encoder) -> None:
    # The model card's pair of sentences; unit vectors of 384 dimensions.
    vectors = encoder.embed(["This is an example sentence", "Each sentence is converted"])
    assert vectors.shape == (2, 384)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1], abs=1e-5)
    assert vectors[0, :3] == pytest.approx([0.0676, 0.0635, 0.0487], abs=2e-4)


def test_vectors_do_not_depend_on_company_memory_or_warmth(encoder: Encoder) -> None:
    alone = encoder.embed(["a short one"])[0]
    other = encoder.embed(["a short one", "a much longer sentence that needs padding for the first"])[0]
    assert alone == pytest.approx(other, abs=1e-5)
    fresh = encoder.tunable_copy(4)
    fresh.cache_states(["a short one"])
    assert fresh.embed(["a short one"])[0] == pytest.approx(alone, abs=1e-5)
    assert encoder.embed([]).shape == (0, 0)


def test_what_is_needed_twice_within_an_answer_is_read_once_and_forgotten(encoder: Encoder) -> None:
    other = encoder.tunable_copy(6)
    reads: list[int] = []

    def read(tokens: Sequence[Sequence[int]]) -> Vectors:
        reads.append(len(tokens))
        return encoder.embed_tokens(tokens)

    other.runtime = read
    with other.cached_vectors(["once only", "once only"]) as vectors, ThreadPoolExecutor(1) as elsewhere:
        assert (other.embed(["once only"]) == vectors[:1]).all() and reads == [1]
        elsewhere.submit(other.embed, ["once only"]).result()  # another thread's answer is its own
        assert reads == [1, 1]
    assert other.embed(["once only"])[0] == pytest.approx(vectors[0], abs=1e-5) and reads == [1, 1, 1]


@pytest.mark.usefixtures("minilm")  # whose loading checks the weights, unlike that of the small encoder
def test_altered_and_missing_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    shutil.copytree(find_weights(), folder)
    check_weights(folder)
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    with pytest.raises(ModelError, match=r"its SHA-256 is .*, the published file's is 53aa51172d142c89"):
        Encoder.load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors missing"):
        check_weights(folder)
    monkeypatch.setattr(encoder_weights, "WEIGHTS_PACKAGE", "no_such_package")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: str(tmp_path / "hub"))
    assert find_weights() == tmp_path / "hub"

    def offline(*_: object, **__: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(ModelError, match="neither installed nor reachable"):
        find_weights()


def test_baselines_of_the_encoder_answer_and_report_confidence(encoder: Encoder) -> None:
    for arm in (
        NearestLabelName(encoder),
        NearestLabelDescription(encoder),
        FixedExamples(encoder, 3),
        NearestExamples(encoder, 4, 0.7),
    ):
        fitted = arm.fit(TASK, TRAIN, RNG(0))
        assert answers(fitted) == ANSWERS, arm.name
        assert arm.kind == "baseline"
        reply = asyncio.run(fitted.answer_one(QUESTIONS[0]))
        assert reply.answer == "billing" and reply.confidence is not None and 0 < reply.confidence <= 1
    assert NearestLabelName(encoder).fit(TASK, TRAIN, RNG(0)).built.examples == 0
    assert FixedExamples(encoder, 3).fit(TASK, TRAIN, RNG(0)).built.examples == 9
    assert NearestExamples(encoder, 4, 0.7).fit(TASK, TRAIN, RNG(0)).built.examples == 15


def test_few_shot_draws_by_its_generator(encoder: Encoder) -> None:
    first, same, other = (
        FixedExamples(encoder, 2).fit(TASK, TRAIN, RNG(s)).template.demonstrations for s in (0, 0, 5)
    )
    assert first == same != other


def test_demonstrations_change_the_answer(encoder: Encoder) -> None:
    prompt = Prompt("purple elephants", labels=("yes", "no"))
    demonstrated = replace(
        prompt, demonstrations=(Demonstration("purple elephants", "no"),), demonstration_weight=1.0
    )
    vector = encoder.embed(["purple elephants"])[0]
    assert encoder.probabilities(demonstrated, vector).tolist() == pytest.approx([0, 1])
    stranger = replace(demonstrated, demonstrations=(Demonstration("purple elephants", "maybe"),))
    assert encoder.probabilities(stranger, vector).tolist() == [0, 0]  # a vote for neither
    assert encoder.probabilities(prompt, vector).sum() == pytest.approx(1)
    with pytest.raises(ModelError, match="needs labels"):
        encoder.answer([Prompt("x")])


def test_probe_with_three_two_and_one_label(encoder: Encoder) -> None:
    assert answers(Probe(encoder).fit(TASK, TRAIN, RNG(0))) == ANSWERS
    two = [e for e in TRAIN if e.target != "shipping"]
    fitted = Probe(encoder).fit(TASK, two, RNG(0))
    assert answers(fitted)[:2] == ANSWERS[:2]
    assert fitted.probabilities(encoder.embed(QUESTIONS))[:, 2].max() < 1e-6
    faults = [e for e in TRAIN if e.target == "fault"]
    assert set(answers(Probe(encoder).fit(TASK, faults, RNG(0)))) == {"fault"}


def test_fine_tuning_learns_repeats_and_survives_the_disk(encoder: Encoder, tmp_path: Path) -> None:
    arm = FineTuned(encoder, keep=tmp_path, familiar=("seen before",))
    fitted = arm.fit(TASK, TRAIN, RNG(0))
    assert answers(fitted) == ANSWERS
    assert fitted.built.examples == 15 and fitted.built.warnings == ()
    assert arm.fit(TASK, TRAIN, RNG(0)) is fitted
    arm.cache_vectors(["asked later"])
    assert "asked later" in fitted.encoder._cache
    anew = FineTuned(encoder).fit(TASK, TRAIN, RNG(0))
    assert anew.weight == pytest.approx(fitted.weight, abs=1e-5)
    files = list(tmp_path.glob("*.safetensors"))
    assert len(files) == 1
    reloaded = FineTuned(encoder, keep=tmp_path).fit(TASK, TRAIN, RNG(0))
    assert reloaded.built == fitted.built
    vectors, same = fitted.encoder.embed(QUESTIONS), reloaded.encoder.embed(QUESTIONS)
    assert vectors == pytest.approx(same, abs=1e-6)
    assert not np.allclose(vectors, encoder.embed(QUESTIONS), atol=1e-3)
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="not a classifier saved by tunepoint"):
        Classifier.load(tmp_path / "other.safetensors", encoder)


def test_tuning_leaves_the_shared_encoder_alone(encoder: Encoder) -> None:
    before = encoder.embed(["untouched"]).copy()
    FineTuned(encoder).fit(TASK, TRAIN, RNG(1))
    assert encoder.embed(["untouched"]) == pytest.approx(before)


def test_states_that_do_not_fit_are_computed_as_they_are_needed(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunepoint.arms.encoder.training.bf16_is_fast", lambda: False)  # rounds too much
    kept = FineTuned(encoder).fit(TASK, TRAIN, RNG(0))
    monkeypatch.setattr("tunepoint.arms.encoder.training.MAX_CACHED_TOKENS", 0)
    anew = FineTuned(encoder).fit(TASK, TRAIN, RNG(0))
    assert anew.weight == pytest.approx(kept.weight, abs=1e-3)


def test_bf16_where_the_processor_has_it(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunepoint.arms.encoder.training.bf16_is_fast", lambda: True)
    assert answers(FineTuned(encoder).fit(TASK, TRAIN, RNG(0))) == ANSWERS


def test_failed_training_runs_are_detected(encoder: Encoder) -> None:
    still = FineTuned(encoder, Recipe(learning_rate=0.0)).fit(TASK, TRAIN, RNG(0))
    assert "the loss did not fall" in still.built.warnings[0]
    torn = FineTuned(encoder, Recipe(learning_rate=float("inf"))).fit(TASK, TRAIN, RNG(0))
    assert "diverged" in torn.built.warnings[0]


def test_epochs_are_cut_for_large_sets() -> None:
    assert Recipe(epochs=4).epochs_for(100) == 4
    assert Recipe(epochs=4, most_steps=100).epochs_for(32 * 60) == 1


def test_mixtures_share_the_tuned_weights_of_their_base(encoder: Encoder) -> None:
    base = FineTuned(encoder)
    for arm in (TunedWithNames(base, 0.3), TunedWithRetrieval(base, 4, 0.5)):
        fitted = arm.fit(TASK, TRAIN, RNG(0))
        assert answers(fitted) == ANSWERS
        assert fitted.tuned is base.fit(TASK, TRAIN, RNG(0))
        assert (arm.kind, arm.seeds) == ("tuned", 3)


class Fixed:
    """An arm that gives one answer with one confidence, and counts how often it is asked."""

    kind, seeds = "prompt", 1

    def __init__(self, family: str, answer: str, confidence: float | None) -> None:
        self.name = self.family = self.label = family
        self.reply = Reply(answer, answer, Usage(family), confidence=confidence)
        self.asked = 0
        self.built = Built(5, 1.0)

    def fit(self, task: Task, train: Sequence[Example], rng: np.random.Generator) -> Fixed:
        return self

    def answer(self, inputs: Sequence[str]) -> list[Reply]:
        self.asked += len(inputs)
        return [self.reply] * len(inputs)


@pytest.mark.parametrize(
    ("confidence", "expected", "calls"), [(0.9, "cheap", 0), (0.2, "strong", 2), (None, "strong", 2)]
)
def test_a_cascade_asks_the_strong_arm_only_where_it_must(
    confidence: float | None, expected: str, calls: int
) -> None:
    cheap, strong = Fixed("few", "cheap", confidence), Fixed("big", "strong", 0.5)
    arm = Cascade(cheap, strong, Gate(1.0, 0.0, 0.5))  # type: ignore[arg-type]
    fitted = arm.fit(TASK, TRAIN, RNG(0))
    assert [r.answer for r in fitted.answer(["a", "b"])] == [expected] * 2
    assert strong.asked == calls
    assert fitted.built.seconds == 2.0 and arm.name == "cascade: few, then big"
    assert arm.label == "few first, big when unsure"


def test_the_gate_keeps_what_the_cheap_arm_knows() -> None:
    confidence = np.linspace(0.05, 0.95, 200)
    cheap = (confidence > 0.5).astype(float)
    gate = choose_gate(confidence, cheap, np.full(200, 0.9))
    assert gate.accepts(Reply("x", "x", Usage("m"), confidence=0.8))
    assert not gate.accepts(Reply("x", "x", Usage("m"), confidence=0.2))
    assert not gate.accepts(Reply("x", None, Usage("m"), format_ok=False, confidence=0.9))
    always = choose_gate(confidence, np.ones(200), np.ones(200))
    assert always.accepts(Reply("x", "x", Usage("m"), confidence=0.06))
    with pytest.raises(EvidenceError, match="got 0"):
        choose_gate(np.array([]), np.array([]), np.array([]))


def test_models_that_this_version_cannot_measure_are_named() -> None:
    with pytest.raises(ModelError, match=r"'opnai/gpt' names no model.*did you mean 'openai'"):
        load_encoder(Task.parse({"name": "t", "models": [{"name": "opnai/gpt"}]}))
    with pytest.raises(TaskError, match=r"answer\.kind 'json'"):
        load_encoder(Task.parse({"name": "t", "answer": {"kind": "json"}}))


def test_without_torch_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tunepoint.models.encoder", None)
    with pytest.raises(ModelError, match=r"tunepoint\[tune\]"):
        load_encoder(TASK)


def test_small_words() -> None:
    assert label_as_words("card_arrival") == "card arrival"
    assert label_as_words("__") == "__"
    assert softmax(np.array([[0.0, 0.0]], np.float32)).tolist() == [[0.5, 0.5]]


def test_labels_of_tuned_encoders_are_words_for_people(encoder: Encoder) -> None:
    tuned = FineTuned(encoder)
    arms = (tuned, Probe(encoder), TunedWithNames(tuned, 0.1), TunedWithRetrieval(tuned, 8, 0.2))
    assert [arm.label for arm in arms] == [
        "tuned MiniLM (22M)",
        "logistic regression on MiniLM vectors",
        "tuned MiniLM + label names",
        "tuned MiniLM + 8 nearest examples",
    ]


@pytest.mark.no_cover  # what it runs, others cover
def test_drift_of_the_example_by_the_real_encoder(minilm: Encoder) -> None:
    with (EXAMPLE / "messages.csv").open(newline="", encoding="utf-8") as file:
        old = [row["text"] for row in csv.DictReader(file) if row["text"]]
    with (EXAMPLE / "new_product.csv").open(newline="", encoding="utf-8") as file:
        new = [row["text"] for row in csv.DictReader(file)]
    messages = [old[i] for i in RNG(0).permutation(len(old))[:650].tolist()]
    known, rest = messages[:500], messages[500:]
    texts = [*messages, *new]
    vectors = dict(zip(texts, minilm.embed(texts), strict=True))  # each text is read once

    def embed(inputs: Sequence[str]) -> np.ndarray:
        return np.stack([vectors[text] for text in inputs])

    assert not input_drift(embed, known, rest, RNG(1)).drifted
    assert input_drift(embed, known, new, RNG(1)).drifted
