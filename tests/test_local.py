"""A causal language model in process, and behind `transformers serve`."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from checkpoints import tiny_checkpoint
from conftest import write_small

from tunepoint import Task, read_trials, run
from tunepoint.cli.doctor import diagnose
from tunepoint.errors import ModelError
from tunepoint.models.chat import Prompt
from tunepoint.models.endpoints import TextModel
from tunepoint.models.local import LocalEndpoint, _Decided
from tunepoint.models.openai import OpenAIEndpoint

LABELS = ("billing", "device_setup", "billing and more")
QUESTION = Prompt("My invoice is wrong", "Route the message.", LABELS, system=True)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


def test_labels_are_constrained_and_batches_change_nothing(checkpoint: Path) -> None:
    prompts = [replace(QUESTION, input="pairing " * n) for n in range(1, 12)]
    single = TextModel(LocalEndpoint.load("local:tiny", checkpoint.parent, batch_size=1)).answer(prompts)
    many = TextModel(LocalEndpoint.load("local:tiny", checkpoint.parent, batch_size=8)).answer(prompts)
    for alone, together in zip(single, many, strict=True):
        assert alone.format_ok and alone.answer in LABELS
        assert alone.answer == together.answer
        assert alone.confidence == pytest.approx(together.confidence, abs=1e-3)
        assert alone.usage.input_tokens == together.usage.input_tokens > 30
        assert alone.usage.seconds is not None and together.usage.seconds is None


def test_confidence_is_the_probability_among_the_choices(checkpoint: Path) -> None:
    """Two labels that begin with different tokens: their probabilities add up to 1."""
    endpoint = LocalEndpoint.load("local:tiny", checkpoint.parent)
    prompt = replace(QUESTION, labels=("billing", "device_setup"))
    reply = TextModel(endpoint).answer([prompt])[0]
    tokens = endpoint._prompt_tokens(_request(prompt))
    logits = endpoint.model(torch.tensor([tokens])).logits[0, -1].float().detach()
    first = {label: endpoint.tokenizer(label)["input_ids"][0] for label in prompt.labels}
    among = torch.softmax(torch.stack([logits[first[label]] for label in prompt.labels]), 0)
    best = int(among.argmax())
    assert reply.answer == prompt.labels[best]
    assert reply.confidence == pytest.approx(float(among[best]), abs=1e-4)


def _request(prompt: Prompt):  # type: ignore[no-untyped-def]
    from tunepoint.models.endpoints import request_of

    return request_of(prompt)


def test_a_choice_that_is_decided_is_not_written_to_its_end(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One label begins another, and one is alone from its first token on: nothing but the work changes."""
    prompts = [replace(QUESTION, input="pairing " * n, labels=LABELS[:k]) for n in (1, 9) for k in (1, 2, 3)]
    endpoint = LocalEndpoint.load("local:tiny", checkpoint.parent)
    steps: list[int] = []
    generate = endpoint.model.generate

    def counted(**settings: Any) -> Any:
        output = generate(**settings)
        steps.append(len(output.scores))
        return output

    monkeypatch.setattr(endpoint.model, "generate", counted)
    quick = TextModel(endpoint).answer(prompts)
    monkeypatch.setattr(_Decided, "__call__", lambda self, ids, scores, **more: torch.zeros(len(ids)).bool())
    whole = TextModel(endpoint).answer(prompts)
    for stopped, written in zip(quick, whole, strict=True):
        assert stopped.text == written.text and stopped.usage.output_tokens == written.usage.output_tokens
        assert stopped.confidence == pytest.approx(written.confidence, abs=1e-5)
    half = len(steps) // 2
    assert sum(steps[:half]) < sum(steps[half:]) / 2


def test_text_is_generated_and_samples_differ_by_number(checkpoint: Path) -> None:
    model = TextModel(LocalEndpoint.load("local:tiny", checkpoint.parent))
    free = Prompt("Say something", kind="number", temperature=1.0)
    first, second = model.answer([replace(free, sample=0), replace(free, sample=1)])
    repeated = model.answer([replace(free, sample=0)])[0]
    assert first.text != second.text and repeated.text == first.text
    assert first.usage.output_tokens > 0


def test_an_input_that_does_not_fit_fails_alone(tmp_path: Path) -> None:
    small = tiny_checkpoint(tmp_path / "small", context=256)
    model = TextModel(LocalEndpoint.load("local:small", small.parent))
    fits, long = model.answer([replace(QUESTION, input="hi"), replace(QUESTION, input="pairing " * 200)])
    assert fits.format_ok and not long.format_ok
    assert "leave no room in a context of 256" in str(long.error)


def test_what_is_no_model_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"local:nowhere: .*no directory .*nowhere; .* local:OWNER/NAME"):
        LocalEndpoint.load("local:nowhere", tmp_path)
    with pytest.raises(ModelError, match=r"local:empty: cannot be loaded from .*empty.*config\.json"):
        LocalEndpoint.load("local:empty", tmp_path)
    tiny_checkpoint(tmp_path / "base", template=None)
    with pytest.raises(ModelError, match="no chat template"):
        LocalEndpoint.load("local:base", tmp_path)


@pytest.mark.no_cover  # what it runs, others cover
def test_a_study_prompts_a_local_model(tmp_path: Path) -> None:
    """Some of its prompts do not fit into the context: those items fail, the study goes on."""
    write_small(tmp_path, per_queue=12)
    tiny_checkpoint(tmp_path / "tiny", context=320)
    content = tomllib.loads((tmp_path / "task.toml").read_text())
    content |= {"models": [{"name": "local:tiny"}], "search": {"calls": 0}}
    result = run(Task.parse(content, folder=tmp_path), out=tmp_path / "study")
    prompted = next(f for f in result.document["finalists"] if f["kind"] == "prompt")
    assert prompted["arm"].startswith("tiny ")
    assert 0.5 < prompted["format_ok"] <= 1.0  # what fits is a label; what does not fit is said
    assert prompted["p95_seconds"] > 0 and prompted["cost_per_query_usd"]["likely"] > 0
    if prompted["format_ok"] < 1:
        caveat = next(c for c in result.document["caveats"] if "did not parse and count as wrong" in c)
        assert "messages.csv:" in caveat and "leave no room in a context of 320" in caveat
    timed = [t for t in read_trials(tmp_path / "study" / "trials.jsonl") if t.arm == prompted["arm"]]
    assert timed[0].seconds and timed[0].input_tokens


@contextlib.contextmanager
def served(checkpoint: Path, hub: Path) -> Iterator[str]:
    """`transformers serve`, offline, on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (hub / "hub").mkdir(parents=True)
    environment = os.environ | {"HF_HOME": str(hub), "HF_HUB_OFFLINE": "1"}
    command = [Path(sys.executable).parent / "transformers", "serve", str(checkpoint)]
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    log = (hub / "log").open("w")
    process = subprocess.Popen([*command, *options], env=environment, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}/v1"
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=5) as client:
            for _ in range(240):
                with contextlib.suppress(openai.OpenAIError):
                    client.models.list()
                    break
                assert process.poll() is None, (hub / "log").read_text()[-2_000:]
                time.sleep(0.25)
        yield url
    finally:
        process.terminate()
        process.wait(20)
        log.close()


@pytest.mark.skipif(
    importlib.util.find_spec("fastapi") is None, reason="`transformers serve` needs fastapi and uvicorn"
)
@pytest.mark.no_cover  # what it runs, others cover
def test_a_real_server_answers(checkpoint: Path, tmp_path: Path) -> None:
    with served(checkpoint, tmp_path / "home") as url:
        endpoint = OpenAIEndpoint(f"{url}#{checkpoint}", concurrency=2)
        try:
            free = Prompt("Say something", kind="text")
            replies = TextModel(endpoint).answer([replace(free, input=f"Say {n}") for n in range(4)])
            labelled = TextModel(endpoint).answer([QUESTION])[0]
        finally:
            endpoint.close()
        assert all(reply.usage.input_tokens > 5 for reply in replies)
        assert all(reply.text or reply.error for reply in replies)
        assert labelled.usage.output_tokens > 0  # nonsense, but an answer
        port = int(url.split(":")[2].split("/")[0])
        assert any(f.name.startswith(url) for f in diagnose([port]))
