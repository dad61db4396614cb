"""The larger language models of this machine, with their real weights: `make test-weights`."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import write_small
from gguf_weights import pulled

from tunepoint import Task, run
from tunepoint.models.chat import Demonstration, Prompt
from tunepoint.models.endpoints import TextModel
from tunepoint.models.gguf.endpoint import GgufEndpoint

pytestmark = pytest.mark.weights
MODELS = ("embedded:qwen2.5-coder-0.5b", "embedded:qwen2.5-coder-1.5b")
MESSAGES = {
    "You charged my card twice for one invoice": "billing",
    "The speaker does not pair with my phone": "device setup",
    "Please delete all personal data you hold about me": "privacy",
    "Why is there a fee on my last bill?": "billing",
    "How do I connect the hub to the wifi?": "device setup",
    "Who can read the recordings of my camera?": "privacy",
}
LABELS = tuple(dict.fromkeys(MESSAGES.values()))
SHOTS = tuple(
    Demonstration(text, label)
    for text, label in (
        ("I was billed for a plan that I cancelled", "billing"),
        ("The camera is stuck while installing", "device setup"),
        ("Stop sharing my e-mail address", "privacy"),
    )
)


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Iterator[TextModel]:
    endpoint = GgufEndpoint(request.param, pulled(request.param), context=2_048)
    yield TextModel(endpoint, remote=False)
    endpoint.close()


def label_prompts(**changes: object) -> list[Prompt]:
    prompt = Prompt("", "Say which team handles the message.", LABELS, demonstrations=SHOTS, system=True)
    return [replace(prompt, input=text, **changes) for text in MESSAGES]  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["plain", "json", "letter"])
def test_labels_are_readable_in_every_form_and_mostly_right_in_words(model: TextModel, form: str) -> None:
    replies = model.answer(label_prompts(form=form))
    assert all(reply.format_ok and reply.answer in LABELS for reply in replies)
    assert all(0 < (reply.confidence or 0) <= 1 for reply in replies)
    right = [reply.answer == label for reply, label in zip(replies, MESSAGES.values(), strict=True)]
    # letters are harder for small models (0.5B: 2 of 6), so the validation set chooses the form
    assert sum(right) >= 4 or form == "letter"


def test_a_schema_confines_the_reply(model: TextModel) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "city": {"type": "string"}},
        "required": ["name", "city"],
        "additionalProperties": False,
    }
    text = "Anna Berg moved to Oslo in May."
    reply = model.answer([Prompt(text, "Extract the name and the city.", kind="json", schema=schema)])[0]
    content = json.loads(str(reply.answer))
    assert content.keys() == {"name", "city"} and content["city"] == "Oslo"


def test_reasoning_ends_in_a_number(model: TextModel) -> None:
    question = "A box holds 12 pens. How many pens do 5 boxes hold?"
    prompt = Prompt(question, "Solve it.", kind="number", reasoning=True, max_output_tokens=300)
    reply = model.answer([prompt])[0]
    assert reply.format_ok and float(str(reply.answer)) == 60
    assert reply.usage.output_tokens > 5  # it has thought


def test_an_input_beyond_the_context_fails_alone(model: TextModel) -> None:
    long = Prompt("pairing " * 4_000, "Route the message.", LABELS)
    fits, fails = model.answer([label_prompts()[0], long])
    assert fits.format_ok and not fails.format_ok and "context of 2048" in str(fails.error)


def test_a_study_prompts_it_beside_a_tuned_encoder(model: TextModel, tmp_path: Path) -> None:
    write_small(tmp_path, per_queue=12)
    content = tomllib.loads((tmp_path / "task.toml").read_text())
    content |= {"models": [{"name": model.name, "styles": ["few-shot"]}], "search": {"calls": 0}}
    result = run(Task.parse(content, folder=tmp_path), out=tmp_path / "study")
    prompted = next(f for f in result.document["finalists"] if f["kind"] == "prompt")
    assert prompted["format_ok"] == 1.0 and prompted["score"]["estimate"] > 1 / 3
