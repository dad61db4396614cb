"""Baselines: controls without a language model, and what a study may say without one."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tunepoint import Example, Result, Task
from tunepoint.arms.baselines.controls import label_baselines
from tunepoint.arms.baselines.neighbor_vote import NeighborVote
from tunepoint.arms.baselines.word_counts import WordCountsBaseline
from tunepoint.arms.prompting.candidates import chat_arms, left_out, retrieved_counts
from tunepoint.arms.prompting.chat_prompts import ChatPrompt
from tunepoint.cli.app import app
from tunepoint.errors import TaskError
from tunepoint.models.chat import Demonstration, Prompt
from tunepoint.models.endpoints import Request, request_of
from tunepoint.models.label_codes import codes_of, label_of
from tunepoint.models.parsing import parse
from tunepoint.models.templates import TEMPLATES
from tunepoint.report.first_screen import headline
from tunepoint.report.words import models_words, scope_words
from tunepoint.study.prompt_export import _reading

RNG = np.random.default_rng
TASK = Task.parse({"name": "route", "instruction": "Route it."})
TRAIN = [
    Example(f"e{i}", text, label)
    for i, (text, label) in enumerate(
        [
            ("refund my invoice", "billing"),
            ("invoice charged twice", "billing"),
            ("wrong invoice amount", "billing"),
            ("hub will not pair", "setup"),
            ("pairing the hub fails", "setup"),
            ("cannot pair hub", "setup"),
        ]
    )
]
WORDS = ("invoice", "pair", "hub", "refund")


def embed(texts: Any) -> Any:
    """Unit vectors by the words that a text has."""
    rows = np.array([[word in text for word in WORDS] for text in texts], dtype=np.float32) + 1e-3
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_words_under_a_logistic_regression_separate_labels() -> None:
    fitted = WordCountsBaseline().fit(TASK, TRAIN, RNG(0))
    replies = fitted.answer(["the invoice is wrong", "the hub does not pair"])
    assert [reply.answer for reply in replies] == ["billing", "setup"]
    assert all(0.5 < (reply.confidence or 0) <= 1 for reply in replies)
    assert fitted.built.examples == 6
    assert asyncio.run(fitted.answer_one("invoice")).answer == "billing"


@pytest.mark.parametrize(
    ("train", "answer"),
    [
        ([Example("a", "x", "only"), Example("b", "y", "only")], "only"),
        ([Example("a", "...", "p"), Example("b", "!!", "q"), Example("c", "?", "q")], "q"),
    ],
)
def test_without_words_or_without_a_choice_it_gives_the_commonest_label(
    train: list[Example], answer: str
) -> None:
    assert [r.answer for r in WordCountsBaseline().fit(TASK, train, RNG(0)).answer(["x", "??"])] == [
        answer
    ] * 2


def test_the_nearest_examples_vote_and_the_nearest_of_all_breaks_a_tie() -> None:
    vote = NeighborVote(embed, 3).fit(TASK, TRAIN, RNG(0))
    reply = vote.answer(["refund the invoice"])[0]
    assert reply.answer == "billing" and reply.confidence == 1.0
    tie = NeighborVote(embed, 6).fit(TASK, TRAIN, RNG(0)).answer(["hub and pair"])[0]
    assert (tie.answer, tie.confidence) == ("setup", 0.5)


def test_rows_that_may_not_be_trained_on_leave_out_what_trains() -> None:
    closed = Task.parse(
        {
            "name": "route",
            "instruction": "Route it.",
            "data": {"path": "x.csv", "licence": "terms", "no_training": ["shut"]},
        },
        folder=Path(),
    )
    shut = [Example(e.id, e.input, e.target, licence="shut") for e in TRAIN]
    names = [arm.name for arm in label_baselines(closed, shut, None, embed, (6, 16))]
    assert names == ["vote of 6 similar", "vote of 16 similar"]
    assert len(label_baselines(closed, TRAIN, None, embed)) == 1


# -- what is tried with a model on this machine ----------------------------------------------


class Here:
    """A model on this machine that is never called."""

    def __init__(self, name: str = "embedded:qwen2.5-coder-0.5b") -> None:
        self.name, self.remote = name, name.startswith("openai")


def task_of(name: str, **settings: Any) -> Task:
    return Task.parse({"name": "t", "instruction": "Do it.", "models": [{"name": name, **settings}]})


def test_a_model_here_is_prompted_in_fewer_ways_and_the_form_of_a_label_is_one_of_them() -> None:
    here: Any = Here()
    arms = chat_arms(task_of(here.name), [here], embed)
    names = [arm.name for arm in arms]
    assert len(names) == len(set(names)) == 21
    for form in ("", ", JSON", ", letters"):
        assert f"qwen2.5-coder-0.5b few-shot, 24 examples, plain{form}" in names
    assert not any("thought" in name for name in names)
    hosted: Any = Here("openai/gpt-5-mini")
    assert len(chat_arms(task_of(hosted.name), [hosted], embed)) == 62
    assert [arm.name for arm in left_out(task_of(here.name), [here])] == [
        "qwen2.5-coder-0.5b: chain of thought, self-consistency, extract then answer, draft, check and repair"
    ]
    assert retrieved_counts([here.name]) == [6] and retrieved_counts(["openai/x"]) == [6, 16]


def test_a_server_is_asked_for_labels_in_json_and_plainly_and_shown_what_it_is_asked_for() -> None:
    hosted: Any = Here("openai/gpt-5-mini")
    task = task_of(hosted.name)
    arms = [arm for arm in chat_arms(task, [hosted], embed) if isinstance(arm, ChatPrompt)]
    forms = {(arm.template_name, arm.form) for arm in arms if not arm.style.reasoning}
    assert forms == {*((name, "json") for name in TEMPLATES), ("plain", "plain")}
    for arm in arms:
        if arm.style.shots and not arm.style.reasoning:
            request = request_of(arm.fit(task, TRAIN, RNG(0)).prompts(["a refund"])[0])
            shown = {m.content for m in request.messages if m.role == "assistant"}
            in_json = {'{"answer": "billing"}', '{"answer": "setup"}'}
            assert shown == (in_json if arm.form == "json" else {"billing", "setup"})
            assert (request.schema is not None) == (arm.form == "json")
            assert request.labels == ("billing", "setup")  # so that the confidence is a label's


@pytest.mark.parametrize("name", ["openai/gpt-5-mini", "embedded:qwen2.5-coder-0.5b"])
def test_a_study_goes_on_with_the_prompts_that_it_has_measured(name: str) -> None:
    model: Any = Here(name)
    task = task_of(name)
    arms = chat_arms(task, [model], embed)
    names = [arm.name for arm in arms]
    assert len(set(names)) == len(names)
    assert [arm.name for arm in chat_arms(task, [model], embed, names)] == names
    for first in names:  # a study that was killed behind any of them
        assert [arm.name for arm in chat_arms(task, [model], embed, [first])] == names


def test_a_study_of_an_older_version_goes_on_with_its_own_prompts() -> None:
    hosted: Any = Here("openai/gpt-5-mini")
    task = task_of(hosted.name)
    former = "gpt-5-mini few-shot, 4 examples, plain"
    arms = chat_arms(task, [hosted], embed, [former])
    assert len(arms) == 55 and former in [arm.name for arm in arms]
    assert {arm.form for arm in arms if isinstance(arm, ChatPrompt)} == {"either"}
    again = chat_arms(task, [hosted], embed, [arm.name for arm in arms])
    assert [arm.name for arm in again] == [arm.name for arm in arms]


def test_the_task_may_name_the_styles_and_other_names_are_errors() -> None:
    here: Any = Here()
    named = task_of(here.name, styles=["chain of thought", "extract then answer"])
    assert len(chat_arms(named, [here], embed)) == 2
    names = (
        "zero-shot, system message, few-shot, retrieved few-shot, self-consistency, draft, check and repair"
    )
    assert [(arm.name, arm.reason) for arm in left_out(named, [here])] == [
        (f"qwen2.5-coder-0.5b: {names}", "[[models]] styles leaves them out")
    ]
    assert named.trials_fingerprint() != task_of(here.name).trials_fingerprint()
    with pytest.raises(TaskError, match=r"styles of embedded:.*: 'few shots' is none; .*few-shot"):
        chat_arms(task_of(here.name, styles=["few shots"]), [here], embed)


def test_demonstrations_have_the_form_of_the_answer() -> None:
    shown = (Demonstration("an invoice", "billing"),)
    prompt = Prompt("a refund", "Route it.", ("billing", "setup"), demonstrations=shown, form="json")
    request = request_of(prompt)
    assert request.messages[1].content == '{"answer": "billing"}'
    assert 'one JSON object {"answer": LABEL}' in request.messages[0].content
    assert request.schema is not None and request.choices == ()
    plain = request_of(Prompt(**{**prompt.__dict__, "form": "plain"}))
    assert plain.messages[1].content == "billing" and plain.schema is None and plain.choices
    letter = Prompt(**{**prompt.__dict__, "form": "letter", "descriptions": {"setup": "pairing"}})
    request = request_of(letter)
    assert "A. billing\nB. setup: pairing" in request.messages[0].content
    assert "Reply with the letter in front of the label" in request.messages[0].content
    assert request.messages[1].content == "A" and request.schema is None and request.choices == ("A", "B")
    terse = request_of(replace(letter, template_name="terse")).messages[0].content
    assert "One of: A. billing, B. setup: pairing." in terse


@pytest.mark.parametrize(
    ("text", "label"),
    [
        *(("B", "setup"), ("(b)", "setup"), ("**A.**", "billing"), ('{"answer": "B"}', "setup")),
        *(("setup", "setup"), ("It is about billing", "billing"), ("C", None), ("AB", None)),
    ],
)
def test_a_letter_is_read_as_its_label(text: str, label: str | None) -> None:
    assert parse(Prompt("", labels=("billing", "setup"), form="letter"), text).answer == label


def test_an_exported_prompt_says_how_its_reply_is_read() -> None:
    labels = ("billing", "setup")
    assert _reading(Prompt("", labels=labels, form="letter")) == {"answers": {"A": "billing", "B": "setup"}}
    assert _reading(Prompt("", labels=labels, form="json")) == {"answer_key": "answer"}
    assert _reading(Prompt("", labels=labels, form="plain")) == {}


@pytest.mark.parametrize(
    ("schema", "labels"),
    [
        ({"properties": {"answer": {"enum": ["a", "b"]}}}, ("a", "b")),
        *(
            ({"properties": {"answer": answer}}, ())
            for answer in (True, {}, {"enum": [1, 2]}, {"enum": ["a", None]})
        ),
        *((schema, ()) for schema in ({"properties": True}, {}, {"properties": {"answer": {}, "why": {}}})),
    ],
)
def test_labels_are_read_from_our_schema_and_from_no_other(schema: Any, labels: tuple[str, ...]) -> None:
    """A schema of the user's own may hold anything."""
    assert Request((), schema=schema).labels == labels


def test_codes_are_never_labels_themselves() -> None:
    assert codes_of(("x", "y")) == ("A", "B")
    assert codes_of(("b", "x")) == ("1", "2")  # "B" would be a label and a code
    assert codes_of(("B", "1")) == ("N1", "N2") and codes_of(("B", "1", "n1")) == ("NN1", "NN2", "NN3")
    assert label_of("nn2.", ("B", "1", "n1")) == "1"
    assert codes_of(("(B)", "(C)")) == ("1", "2")  # a label may be a letter but for its signs
    many = tuple(f"label {i}" for i in range(77))
    assert codes_of(many)[-1] == "77" and label_of("(77)", many) == "label 76"
    assert label_of("78", many) is None and label_of("A", many) is None
    assert "the number in front" in request_of(Prompt("", labels=many, form="letter")).messages[0].content


# -- what is said without a language model ---------------------------------------------------


def finalist(arm: str, kind: str, label: str | None = None) -> dict[str, Any]:
    return {"arm": arm, "kind": kind, "score": {"estimate": 0.8}, "label": label}


def test_without_a_prompted_model_the_first_sentence_says_so() -> None:
    alone = {"finalists": [finalist("t", "tuned"), finalist("b", "baseline")]}
    assert str(scope_words(alone)).startswith("No language model was prompted, so nothing here is about")
    assert scope_words({"finalists": [*alone["finalists"], finalist("p", "prompt")]}) is None
    assert scope_words({"finalists": [*alone["finalists"], finalist("i", "incumbent")]}) is None
    # Studies of older versions called it a prompt.
    former = {"finalists": [finalist("z", "prompt", "nearest label name (no language model)")]}
    assert scope_words(former) is not None
    won = {"finalists": [finalist("b", "baseline", "TF-IDF (no language model)")], "verdict": "baseline"}
    assert headline({**won, "winner": "b", "strength": "leaning", "differences": []}) == (
        "Use a simple method without a language model."
    )


def test_models_are_named_with_their_sizes() -> None:
    models = [
        {"name": "embedded:qwen2.5-coder-0.5b", "role": "prompted", "parameters": 494_032_768},
        {"name": "openai/gpt-5-mini", "role": "prompted", "parameters": None},
        {"name": "embedded:minilm", "role": "tuned", "parameters": 22_713_216},
    ]
    assert models_words({"models": models}) == (
        "Prompted: qwen2.5-coder-0.5b (494 million parameters), gpt-5-mini (size not known). "
        "Tuned: all-MiniLM-L6-v2, an encoder (22.7 million parameters)."
    )
    assert models_words({}) is None


def test_a_study_of_the_encoder_alone_says_nothing_about_prompting(finished: Result) -> None:
    document = finished.document
    assert document["prompting_measured"] is False and document["verdict"] in ("fine-tune", "undecided")
    assert [model["role"] for model in document["models"]] == ["tuned"]
    signals = {signal["id"]: signal for signal in document["signals"]}
    for name in ("P2", "P3", "F1", "F3"):
        assert signals[name]["holds"] is None and "not measured" in signals[name]["detail"], name
    assert finished.report is not None and "No language model was prompted" in finished.report.read_text()


def test_the_models_command_lists_what_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEPOINT_MODELS", str(tmp_path))
    listed = CliRunner().invoke(app, ["models", "list"])
    assert listed.exit_code == 0 and "embedded:smollm2-135m" in listed.output and "not here" in listed.output
    missing = CliRunner().invoke(app, ["models", "verify", "smollm2-135m"])
    assert missing.exit_code == 2 and f"is not in {tmp_path}" in missing.stderr
    removed = CliRunner().invoke(app, ["models", "remove", "smollm2-135m"])
    assert removed.output == "0 MB freed\n"
    (tmp_path / "x.gguf").write_bytes(b"x")
    wrong = CliRunner().invoke(app, ["models", "pull", "smollm2-135m", "--from", str(tmp_path / "x.gguf")])
    assert wrong.exit_code == 2 and "is not SmolLM2-135M-Instruct" in wrong.stderr
