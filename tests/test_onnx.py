"""Tuned encoders as ONNX: the file answers as what was measured, in a process without torch too."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_extraction import JSON_TASK, QUICK, bookings
from typer.testing import CliRunner

from tunepoint import Result, Task
from tunepoint.arms.encoder import onnx_embedding, onnx_export
from tunepoint.arms.encoder.classifier import Classifier
from tunepoint.arms.encoder.extraction import SpanTagger
from tunepoint.arms.encoder.onnx import open_graph, served_by
from tunepoint.arms.encoder.onnx_embedding import onnx_embedder
from tunepoint.arms.encoder.onnx_export import write_graph
from tunepoint.cli.app import app
from tunepoint.errors import ModelError, StudyError
from tunepoint.models.encoder import Encoder
from tunepoint.serve.onnx import GRAPHS, use_onnxruntime
from tunepoint.study.encoder_export import GRAPH, export_encoder


@pytest.mark.no_cover  # what it runs, others cover
def test_a_study_s_encoder_is_written_with_its_card_and_runs_by_the_card_s_own_code(
    finished: Result, small_task: Path, tmp_path: Path
) -> None:
    assert finished.folder is not None
    task = Task.load(small_task)
    exported = export_encoder(task, finished.folder, tmp_path / "onnx", "fine-tuned encoder")
    assert exported.parity.holds and exported.parity.differing == ()
    card = (tmp_path / "onnx" / "README.md").read_text()
    facts = json.loads((tmp_path / "onnx" / "tunepoint.json").read_text())
    assert facts["train_sha256"] in card and "95% interval" in card and "Apache-2.0" in card
    assert "learning_rate 0.0003" in card and {"dev", "sealed test"} >= set(facts["scores"]) >= {"dev"}
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    code += "\nimport sys\nassert 'torch' not in sys.modules"
    code = code.replace("your input", "my invoice shows a charge I do not know")
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "onnx", capture_output=True, text=True, check=False
    )
    assert ran.stdout.strip() == "['billing']", ran.stderr
    assert str(Path.cwd()).encode() not in (tmp_path / "onnx" / GRAPH).read_bytes()


def test_an_encoder_that_serves_reads_by_its_graph_and_reads_the_same(
    finished: Result,
    encoder: Encoder,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert finished.folder is not None
    (run, *_) = sorted(finished.folder.rglob("*.safetensors"))
    fitted = Classifier.load(run, encoder)
    texts = ["I was charged twice", "The thing will not pair", "x", "a long story " * 120]
    before = fitted.encoder.embed(texts), fitted.answer(texts)
    assert use_onnxruntime(fitted, tmp_path) == 1 and use_onnxruntime(fitted, tmp_path) == 0  # once is enough
    (graph,) = (tmp_path / GRAPHS).iterdir()
    assert fitted.encoder.runtime is not None and encoder.runtime is None
    assert np.abs(fitted.encoder.embed(texts) - before[0]).max() < 1e-5
    for reply, other in zip(fitted.answer(texts), before[1], strict=True):
        assert reply.answer == other.answer and reply.confidence == pytest.approx(other.confidence, abs=1e-5)
    written = graph.stat().st_mtime_ns
    again = Classifier.load(run, encoder)
    assert use_onnxruntime(again, tmp_path) == 1 and graph.stat().st_mtime_ns == written  # it was kept
    tokens = again.encoder.tokens([f"{number} a long story " * 120 for number in range(5)])
    assert sum(map(len, tokens)) > 2 * onnx_embedding.MAX_PACKED_TOKENS  # three sequences
    assert again.encoder.runtime is not None
    assert np.abs(again.encoder.runtime(tokens) - again.encoder.embed_tokens(tokens)).max() < 1e-5
    onnx_embedder(encoder, tmp_path / "untuned")
    (untuned,) = (tmp_path / "untuned").iterdir()
    graph.write_bytes(other := untuned.read_bytes())
    assert (
        use_onnxruntime(Classifier.load(run, encoder), tmp_path) == 1 and graph.read_bytes() != other
    )  # made anew
    monkeypatch.setattr(onnx_embedding, "MAX_DIFFERENCE", 0.0)
    third = Classifier.load(run, encoder)
    assert use_onnxruntime(third, tmp_path) == 0 and third.encoder.runtime is None
    assert "is served without onnxruntime" in caplog.text
    assert "its vectors differ from the encoder's" in caplog.text


def test_the_command_writes_the_best_encoder_and_names_what_it_cannot(
    finished: Result, small_task: Path, tmp_path: Path
) -> None:
    words = ["export", str(small_task), "--for", "onnx", "--to", str(tmp_path / "out")]
    without = CliRunner().invoke(app, words)
    assert without.exit_code == 2 and "--study" in without.output
    unknown = CliRunner().invoke(app, [*words, "--study", str(finished.folder), "--arm", "fine-tuned encodr"])
    assert unknown.exit_code == 2 and "fine-tuned encoder" in unknown.output
    done = CliRunner().invoke(app, [*words, "--study", str(finished.folder)])
    assert done.exit_code == 0 and "answers are the same" in done.output, done.output
    other = Task.load(small_task).model_copy(update={"instruction": "Something else."})
    assert finished.folder is not None
    with pytest.raises(StudyError, match="another task"):
        export_encoder(other, finished.folder, tmp_path / "other")


@pytest.mark.no_cover  # what it runs, others cover
def test_a_graph_that_answers_otherwise_is_not_kept_and_nothing_else_goes(
    finished: Result, small_task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = onnx_export.write_graph

    def broken(fitted: Classifier, path: Path) -> None:
        whole(Classifier(fitted.encoder, fitted.labels, -fitted.weight, fitted.bias, fitted.built), path)

    monkeypatch.setattr(onnx_export, "write_graph", broken)
    (tmp_path / "notes.txt").write_text("mine")
    assert finished.folder is not None
    with pytest.raises(ModelError, match=r"does not answer as it was measured, not kept: \d+ of \d+ answers"):
        export_encoder(Task.load(small_task), finished.folder, tmp_path, "probe")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.no_cover  # what it runs, others cover
def test_weights_that_are_not_those_that_were_measured_are_noticed(
    finished: Result, small_task: Path, tmp_path: Path
) -> None:
    assert finished.folder is not None
    study = tmp_path / "study"
    shutil.copytree(finished.folder, study)
    for path in (study / "arms").glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            facts = file.metadata()
        tensors = load_file(path)
        save_file({**tensors, "weight": -tensors["weight"]}, path, metadata=facts)
    with pytest.raises(ModelError, match="does not answer as it was measured"):
        export_encoder(Task.load(small_task), study, tmp_path / "out", "fine-tuned encoder")


@pytest.mark.no_cover  # what it runs, others cover
def test_an_extractor_s_graph_finds_the_same_places_in_long_inputs_too(
    encoder: Encoder, tmp_path: Path
) -> None:
    fitted = SpanTagger(encoder, QUICK).fit(JSON_TASK, bookings(80), np.random.default_rng(0))
    write_graph(fitted, tmp_path / "spans.onnx")
    served: Any = served_by(tmp_path / "spans.onnx", fitted)
    texts = [example.input for example in bookings(30, seed=2)]
    texts += ["", " ".join(["and so on"] * 120) + " Book me lunch in Oslo for 5 on 4711"]
    for tagged, other in zip(fitted.tagged(texts), served.tagged(texts), strict=True):
        assert [span[:2] for span in tagged.spans] == [span[:2] for span in other.spans]
        assert tagged.choices == other.choices and tagged.confidence == pytest.approx(
            other.confidence, abs=1e-4
        )
    assert [r.text for r in served.answer(texts)] == [r.text for r in fitted.answer(texts)]


def test_what_is_missing_or_broken_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelError, match=r"x.onnx: onnxruntime cannot read it"):
        open_graph(tmp_path / "x.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match=r"pip install 'tunepoint\[onnx\]'"):
        open_graph(tmp_path / "x.onnx")
