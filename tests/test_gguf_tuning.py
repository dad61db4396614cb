"""A model in a GGUF file is opened for tuning, and written again with tuned weights."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_small
from gguf_weights import SMOLLM2, smollm2
from safetensors.torch import load_file, save_file
from servers import Fake, serving
from test_chat_study import asked
from test_teaching import mostly_right
from test_tuned_study import routing

from tunepoint import Task, run
from tunepoint.arms.causal.tune import tune_model
from tunepoint.errors import ModelError, TaskError
from tunepoint.models.chat import Message, Prompt
from tunepoint.models.endpoints import Completion, Request, TextModel, allow_all
from tunepoint.models.gguf.endpoint import GgufEndpoint
from tunepoint.models.gguf.unpacking import checkpoint_of
from tunepoint.models.gguf.writing import reorder, write_adapter, write_tuned
from tunepoint.models.local import LocalEndpoint
from tunepoint.study.gguf_export import export_language_model
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
    assert not checkpoint.with_suffix(".unfinished").exists()


def test_processes_that_unpack_the_same_file_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.setenv("TUNEPOINT_MODELS", str(tmp_path / "store"))
    unpacked: list[Path] = []

    def slowly(name: str, path: Path, target: Path) -> None:
        assert not unpacked, "two at once"
        unpacked.append(target)
        (target / "config.json").write_text("{}")

    monkeypatch.setattr("tunepoint.models.gguf.unpacking._unpack", slowly)
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: checkpoint_of("gguf:model.gguf", tmp_path), range(4)))
    assert len(folders) == 1 and len(unpacked) == 1
    assert [file.name for file in folders.pop().iterdir()] == ["config.json"]


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


def test_an_adapter_in_a_file_of_its_own_answers_as_the_merged_weights(
    weights: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """Of attention, whose rows llama.cpp keeps in another order, and of a feed-forward layer."""
    merged, adapter = tmp_path / "merged", tmp_path / "adapter"
    write_random_adapter(checkpoint, merged, adapter, rank=4, alpha=6)
    write_tuned(weights, merged, tmp_path / "merged.gguf")
    write_adapter(weights, adapter, tmp_path / "adapter.gguf")
    assert (tmp_path / "adapter.gguf").stat().st_size < 0.02 * weights.stat().st_size
    plain = beginnings(weights)
    whole, beside_base = beginnings(tmp_path / "merged.gguf"), beginnings(weights, tmp_path / "adapter.gguf")
    assert sum(a != b for a, b in zip(plain, whole, strict=True)) >= 3  # the adapter makes a difference
    assert sum(a == b for a, b in zip(whole, beside_base, strict=True)) >= 2  # near ties may fall otherwise


def beginnings(path: Path, adapter: Path | None = None) -> list[str]:
    """The first words that a model writes of each of four tales."""
    endpoint = GgufEndpoint(f"gguf:{path}", path, adapter=adapter, context=512, processors=1)
    tales = ("a fox", "the sea", "two sisters", "an old clock")
    requests = [Request((Message("user", f"Tell a tale of {tale}."),), 6) for tale in tales]
    written: dict[int, Completion] = {}
    endpoint.complete(requests, written.__setitem__, allow_all)
    endpoint.close()
    return [written[i].text for i in range(len(tales))]


def write_random_adapter(checkpoint: Path, merged: Path, adapter: Path, *, rank: int, alpha: float) -> None:
    """An adapter of random matrices as PEFT writes it, and the weights with it in them."""
    rng = np.random.default_rng(0)
    weights = load_file(checkpoint / "model.safetensors")
    matrices = {}
    for layer in ("self_attn.q_proj", "self_attn.k_proj", "mlp.down_proj"):
        for number in (0, 7, 29):
            name = f"model.layers.{number}.{layer}"
            rows, columns = weights[f"{name}.weight"].shape
            a, b = (
                torch.tensor(0.15 * rng.normal(size=size), dtype=torch.float32)
                for size in ((rank, columns), (rows, rank))
            )
            matrices |= {f"base_model.model.{name}.lora_{part}.weight": m for part, m in (("A", a), ("B", b))}
            weights[f"{name}.weight"] = weights[f"{name}.weight"].float() + alpha / rank * (b @ a)
    for folder in (merged, adapter):
        folder.mkdir()
    save_file(weights, merged / "model.safetensors")
    save_file(matrices, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text(json.dumps({"r": rank, "lora_alpha": alpha}))


def test_an_adapter_with_more_than_lora_is_refused(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"r": 4, "lora_alpha": 8, "use_dora": true}')
    with pytest.raises(ModelError, match="plain LoRA only; merge this one"):
        write_adapter(weights, tmp_path, tmp_path / "adapter.gguf")


@pytest.mark.slow
@pytest.mark.usefixtures("chat_alone")
def test_a_studys_language_model_is_exported_for_ollama_as_it_was_measured(
    weights: Path, tmp_path: Path
) -> None:
    tune = {"base": SMOLLM2, "epochs": 1, "seeds": 1}
    task = routing(tmp_path, tune=[tune])
    run(task, out=tmp_path / "study")
    folder = tmp_path / "exported"
    written = export_language_model(task, tmp_path / "study", folder)
    parity = written.written.parity
    assert parity.holds and not parity.other_prompts
    assert {file.name for file in folder.iterdir()} == {"model.gguf", "adapter.gguf", "Modelfile"}


@pytest.mark.slow
@pytest.mark.usefixtures("chat_alone")
def test_a_distilled_language_model_is_exported_too(weights: Path, tmp_path: Path) -> None:
    with serving(Fake(mostly_right)) as fake:
        teacher = asked(fake, styles=["zero-shot"], train_on_outputs=True)
        tune = {"base": SMOLLM2, "epochs": 1, "seeds": 1, "distil": True}
        task = routing(tmp_path, models=[teacher], tune=[tune], search={"calls": 0})
        run(task, out=tmp_path / "study")
    arm = "smollm2-135m lora taught, no prompt"
    written = export_language_model(task, tmp_path / "study", tmp_path / "exported", arm)
    assert written.arm == arm and written.written.parity.holds


@pytest.mark.slow
def test_a_tuned_model_is_served_from_gguf_as_it_was_measured(weights: Path, tmp_path: Path) -> None:
    task = Task.load(write_small(tmp_path))
    tuned = tune_model(task, Tune(base=SMOLLM2, epochs=1), tmp_path / "out", gguf=True)
    assert tuned.written is not None and tuned.written.left_out is None and tuned.written.parity.holds
    assert not tuned.written.parity.other_prompts  # llama.cpp renders the chat template as training did
    assert tuned.gguf.exists() and tuned.merged is None and not (tmp_path / "out" / "merged").exists()
    assert (tmp_path / "out" / "Modelfile").read_text().startswith("FROM ./model.gguf\n")
    assert (tmp_path / "out" / "adapter.gguf").exists()  # it answered as measured too
