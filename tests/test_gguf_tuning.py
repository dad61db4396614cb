"""A model in a GGUF file is opened for tuning, and written again with tuned weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import write_small
from gguf_weights import SMOLLM2, smollm2

from tunepoint import Task
from tunepoint.arms.causal.tune import tune_model
from tunepoint.errors import ModelError, TaskError
from tunepoint.models.chat import Prompt
from tunepoint.models.endpoints import TextModel
from tunepoint.models.gguf.endpoint import GgufEndpoint
from tunepoint.models.gguf.unpacking import checkpoint_of
from tunepoint.models.gguf.writing import reorder, write_tuned
from tunepoint.models.local import LocalEndpoint
from tunepoint.task.sections import Tune

LABELS = ("billing", "device_setup", "privacy_security")
PROMPTS = [
    Prompt(text, "Route the message.", LABELS, system=True)
    for text in ("My invoice is wrong", "It will not pair", "Delete my data", "Who read my mail?")
    for _ in range(2)
]


@pytest.fixture(scope="module")
def weights() -> Path:
    return smollm2()


@pytest.fixture(scope="module")
def checkpoint(weights: Path) -> Path:
    return checkpoint_of(SMOLLM2, Path())


def test_the_checkpoint_is_unpacked_once_and_whole(checkpoint: Path) -> None:
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        file.name for file in checkpoint.iterdir()
    }
    before = checkpoint.stat().st_mtime_ns
    assert checkpoint_of(SMOLLM2, Path()) == checkpoint and checkpoint.stat().st_mtime_ns == before
    assert not [folder for folder in checkpoint.parent.iterdir() if folder.name.startswith("tmp")]


def test_torch_and_llama_cpp_give_the_same_weights_the_same_answers(
    weights: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """Written again without tuning, the file answers as before: no row is in the wrong place."""
    write_tuned(weights, checkpoint, tmp_path / "again.gguf")
    replies = []
    for path in (weights, tmp_path / "again.gguf"):
        endpoint = GgufEndpoint(f"gguf:{path}", path, context=512)
        replies.append(TextModel(endpoint, remote=False).answer(PROMPTS))
        endpoint.close()
    torch = TextModel(LocalEndpoint.load(f"local:{checkpoint}"), remote=False).answer(PROMPTS)
    for before, after, here in zip(*replies, torch, strict=True):
        assert before.usage.input_tokens == after.usage.input_tokens == here.usage.input_tokens
        assert after.confidence == pytest.approx(before.confidence, abs=0.15)
    assert sum(a.answer == b.answer for a, b in zip(*replies, strict=True)) >= 6
    assert sum(a.answer == b.answer for a, b in zip(replies[0], torch, strict=True)) >= 6


def test_rows_are_interleaved_as_llama_cpp_has_them() -> None:
    weight = np.arange(8)[:, None] * np.ones((1, 3))
    assert reorder(weight, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_a_base_that_is_no_gguf_file_is_refused_before_training(tmp_path: Path) -> None:
    task = Task.load(write_small(tmp_path))
    with pytest.raises(TaskError, match=r"--gguf writes the base's own GGUF file .*local:tiny is none"):
        tune_model(task, Tune(base="local:tiny"), tmp_path / "out", gguf=True)


def test_weights_that_are_missing_are_named(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no model\.safetensors"):
        write_tuned(weights, tmp_path, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.slow
def test_a_tuned_model_is_served_from_gguf_as_it_was_measured(weights: Path, tmp_path: Path) -> None:
    task = Task.load(write_small(tmp_path))
    tuned = tune_model(task, Tune(base=SMOLLM2, epochs=1), tmp_path / "out", gguf=True)
    assert tuned.gguf_parity is not None and tuned.gguf_parity.holds
    assert not tuned.gguf_parity.other_prompts  # llama.cpp renders the chat template as training did
    assert tuned.gguf.exists() and tuned.merged is None and not (tmp_path / "out" / "merged").exists()
    assert (tmp_path / "out" / "Modelfile").read_text().startswith("FROM ./model.gguf\n")
