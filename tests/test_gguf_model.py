"""A real language model in a file, run by llama.cpp: SmolLM2 with 135 million parameters."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import write_small
from gguf_weights import SMOLLM2, smollm2

from tunepoint import Task, read_trials, run
from tunepoint.errors import ModelError
from tunepoint.models.chat import Demonstration, Message, Prompt
from tunepoint.models.endpoints import Completion, Request, TextModel, allow_all, request_of
from tunepoint.models.gguf import endpoint as endpoint_module
from tunepoint.models.gguf.endpoint import GgufEndpoint
from tunepoint.models.label_confidence import label_probability

LABELS = ("billing", "device setup", "billing and more", "c++", 'say "hi"', "प्रश्न")
QUESTION = Prompt("My invoice is wrong", "Route the message.", LABELS, system=True)


@pytest.fixture(scope="module")
def weights() -> Path:
    return smollm2()


@pytest.fixture(scope="module")
def endpoint(weights: Path):  # type: ignore[no-untyped-def]
    opened = GgufEndpoint(SMOLLM2, weights, context=1_024)
    yield opened
    opened.close()


def test_every_answer_is_one_of_the_labels(endpoint: GgufEndpoint) -> None:
    prompts = [
        Prompt(f"{text} {n}", "Route the message.", LABELS, system=True)
        for text in ("My invoice is wrong", "It will not pair", "hi", "😀")
        for n in range(3)
    ]
    replies = TextModel(endpoint, remote=False).answer(prompts)
    assert all(reply.format_ok and reply.answer in LABELS for reply in replies)
    assert all(reply.text == reply.answer for reply in replies)
    in_json = TextModel(endpoint, remote=False).answer(
        [replace(prompt, form="json") for prompt in prompts[:4]]
    )
    assert all(json.loads(reply.text) == {"answer": reply.answer} for reply in in_json)
    assert all(0 < (reply.confidence or 0) <= 1 for reply in (*replies, *in_json))
    assert all((reply.usage.core_seconds or 0) >= 0 and reply.usage.seconds for reply in replies)
    assert sum(reply.usage.core_seconds or 0 for reply in replies) > 0


def test_confidences_of_labels_add_up_to_one(endpoint: GgufEndpoint) -> None:
    """Forced to each of two labels in turn, the model's probabilities of both are complementary."""
    labels = ("yes", "no")
    request = request_of(Prompt("Is the sky blue?", "Answer the question.", labels, system=True))
    free = _probability(endpoint, request, 'root ::= "yes" | "no"')
    forced = {label: _probability(endpoint, request, f'root ::= "{label}"') for label in labels}
    assert sum(forced.values()) == pytest.approx(1.0, abs=0.02)
    assert free == pytest.approx(max(forced.values()), abs=0.02)
    reply = TextModel(endpoint, remote=False).answer([Prompt("Is it blue?", "Answer.", labels)])[0]
    assert reply.confidence is not None and 0.4 < reply.confidence <= 1


def _probability(endpoint: GgufEndpoint, request: Request, grammar: str) -> float:
    """The probability of what is written among the labels, from a prompt that nothing is known of."""
    # Computed anew every time: from a cached prefix, the values differ by some hundredths.
    body = endpoint._body(request) | {"grammar": grammar, "cache_prompt": False}
    body.pop("response_format", None)
    endpoint._open()
    server = endpoint._idle.get()
    try:
        reply = server.handle_chat_completions(body)
    finally:
        endpoint._idle.put(server)
    probability = label_probability(reply["choices"][0]["logprobs"]["content"], request.choices)
    assert probability is not None
    return probability


def test_a_prefix_that_prompts_share_is_computed_once(endpoint: GgufEndpoint) -> None:
    """Answers may then differ in near ties: sums over many tokens round otherwise than over few."""
    shots = tuple(Demonstration(f"message {n}", LABELS[n % 2]) for n in range(8))
    prompts = [Prompt(f"input {n}", "Route it.", LABELS, demonstrations=shots, system=True) for n in range(6)]
    model = TextModel(endpoint, remote=False)
    first, second = model.answer(prompts), model.answer(prompts)
    for before, after in zip(first, second, strict=True):
        assert before.answer != after.answer or before.confidence == pytest.approx(after.confidence, abs=0.15)
    # the first prompt of each server is new, all others share the demonstrations with one before them
    cached = [reply.usage.cached_tokens / reply.usage.input_tokens for reply in second]
    assert min(cached) > 0.8


def test_json_follows_the_schema_and_samples_differ_by_their_number(endpoint: GgufEndpoint) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    model = TextModel(endpoint, remote=False)
    reply = model.answer([Prompt("Anna lives in Rome", "Extract.", kind="json", schema=schema)])[0]
    assert reply.format_ok and '"city"' in str(reply.answer)
    story = Prompt("Tell me a story", kind="text", max_output_tokens=12, temperature=1.0)
    texts = {reply.text for reply in model.answer([replace(story, sample=number) for number in range(4)])}
    assert len(texts) > 1


def test_an_input_that_does_not_fit_fails_alone(endpoint: GgufEndpoint) -> None:
    long = Prompt("pairing " * 2_000, "Route the message.", LABELS)
    fits, fails = TextModel(endpoint, remote=False).answer([QUESTION, long])
    assert fits.format_ok and not fails.format_ok
    assert "tokens leave no room in a context of 1024" in str(fails.error)


def test_too_little_memory_is_said_before_loading(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "free_memory", lambda: 50_000_000)
    model = GgufEndpoint(SMOLLM2, weights)
    with pytest.raises(ModelError, match=r"needs about 0\.\d GB of memory, and 0\.1 GB are free"):
        TextModel(model, remote=False).answer([QUESTION])


def test_a_broken_file_is_named(weights: Path, tmp_path: Path) -> None:
    """Its head is whole, its weights are cut off."""
    cut = tmp_path / "cut.gguf"
    with weights.open("rb") as file:
        cut.write_bytes(file.read(5_000_000))
    with pytest.raises(ModelError, match=r"gguf:cut\.gguf: llama\.cpp cannot load .*cut\.gguf"):
        TextModel(GgufEndpoint("gguf:cut.gguf", cut), remote=False).answer([QUESTION])


def test_answers_arrive_one_by_one(endpoint: GgufEndpoint) -> None:
    arrived: list[int] = []

    def done(position: int, completion: Completion) -> None:
        arrived.append(position)

    endpoint.complete([request_of(QUESTION)] * 3, done, allow_all)
    assert sorted(arrived) == [0, 1, 2]
    endpoint.complete([], done, allow_all)


@pytest.mark.no_cover  # what it runs, others cover
def test_a_study_prompts_a_language_model_of_this_machine(weights: Path, tmp_path: Path) -> None:
    write_small(tmp_path, per_queue=12)
    content = tomllib.loads((tmp_path / "task.toml").read_text())
    model = {"name": f"gguf:{weights}", "styles": ["zero-shot"]}
    content |= {"models": [model], "search": {"calls": 0}}
    result = run(Task.parse(content, folder=tmp_path), out=tmp_path / "study")
    kinds = {finalist["kind"]: finalist for finalist in result.document["finalists"]}
    assert {"prompt", "tuned", "baseline"} <= kinds.keys() and result.document["prompting_measured"]
    prompted = kinds["prompt"]
    assert prompted["format_ok"] == 1.0 and prompted["p95_seconds"] > 0
    assert prompted["cost_per_query_usd"]["likely"] > 0
    trials = [t for t in read_trials(tmp_path / "study" / "trials.jsonl") if t.arm == prompted["arm"]]
    assert all(trial.core_seconds is not None for trial in trials)


def test_prompts_that_take_turns_are_computed_once(weights: Path) -> None:
    """As the ways of prompting in a race; one has the demonstrations of the other, and as many more."""
    opened = GgufEndpoint(SMOLLM2, weights, context=1_024, processors=1)
    cached = []
    for turn in range(2):
        for kind in ("invoice", "parcel"):
            system = Message("system", "invoice " * 150 + f"{kind} " * 100)
            long = Request((system, Message("user", f"question {turn}")), 2)
            opened.complete([long], lambda _, completion: cached.append(completion.usage), allow_all)
    opened.close()
    assert [usage.cached_tokens > 0.8 * usage.input_tokens for usage in cached] == [False, False, True, True]


def test_states_of_earlier_prompts_take_half_of_the_memory_that_is_left(weights: Path) -> None:
    endpoint = GgufEndpoint(SMOLLM2, weights, processors=2)
    assert endpoint._kept_states_mib(None) == 512
    assert endpoint._kept_states_mib(endpoint.memory_bytes + 2**30) == 256
    assert endpoint._kept_states_mib(endpoint.memory_bytes) == 0
