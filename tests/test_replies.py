"""Replies that come with a task: taken in place of the model, told apart from it, never made up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import EXAMPLE, write_small
from numpy.typing import NDArray

from tunepoint import Task
from tunepoint.arms.catalog import candidates
from tunepoint.arms.prompting.candidates import chat_arms
from tunepoint.arms.prompting.chat_prompts import ChatPrompt
from tunepoint.data.prepare import prepare
from tunepoint.errors import ModelError
from tunepoint.models.chat import Message, Usage
from tunepoint.models.endpoints import Allow, Completion, Done, Request, TextModel, allow_all, request_of
from tunepoint.models.named_models import NamedModel
from tunepoint.models.opening import open_models
from tunepoint.models.recording import CallRecording, RecordedEndpoint
from tunepoint.models.replies import (
    NOT_RECORDED,
    Agreement,
    RepliesEndpoint,
    ReplyOrigin,
    agreement,
    read_replies,
    write_replies,
)
from tunepoint.report.words import models_words
from tunepoint.stats.racing import FIRST_LOOK_ITEMS
from tunepoint.study.finalists import _is_here
from tunepoint.study.quote import quote
from tunepoint.study.warnings import recording_warnings
from tunepoint.task.sections import ModelName

MODEL = "embedded:smollm2-135m"
ORIGIN = ReplyOrigin(
    MODEL, "SmolLM2", 134_515_008, "b179", "llama.cpp 1", "a processor, 2 cores", "greedy", date(2026, 11, 26)
)


class Shouting:
    """A model that answers in capitals."""

    name = MODEL

    def __init__(self, also: str = "") -> None:
        self.asked, self.also = 0, also

    def complete(self, requests: list[Request], done: Done, allow: Allow) -> None:
        for position, request in enumerate(requests):
            self.asked += 1
            usage = Usage(MODEL, 7, 3, 2, seconds=0.25, core_seconds=0.5)
            text = request.messages[0].content.upper() + self.also
            done(position, Completion(text, usage, confidence=0.75))


def question(text: str) -> Request:
    return Request((Message("user", text),))


def recorded_calls(path: Path, texts: list[str], model: Shouting) -> Path:
    """A study's recording of what a model answered."""
    recording = CallRecording(path)
    requests = [question(text) for text in texts]
    RecordedEndpoint(MODEL, recording, model).complete(requests, lambda i, c: None, allow_all)  # type: ignore
    recording.close()
    return path


def completed(endpoint: RepliesEndpoint, texts: list[str]) -> list[Completion]:
    completions: dict[int, Completion] = {}
    endpoint.complete([question(text) for text in texts], completions.__setitem__, allow_all)
    return [completions[i] for i in range(len(texts))]


@dataclass
class FakeArm:
    """The name of an arm and of its model."""

    name: str
    base_model: str | None


def never() -> Shouting:
    raise AssertionError("the model was opened")


def no_vectors(texts: object) -> NDArray[np.float32]:
    raise AssertionError("texts were embedded")


@pytest.fixture
def replies(tmp_path: Path) -> Path:
    """A file of 200 replies."""
    calls = recorded_calls(tmp_path / "calls.sqlite", [f"m {i}" for i in range(200)], Shouting())
    assert write_replies(tmp_path / "replies.jsonl", calls, ORIGIN) == 200
    return tmp_path / "replies.jsonl"


def test_a_reply_comes_back_with_all_that_was_measured(replies: Path) -> None:
    endpoint = RepliesEndpoint(MODEL, replies, never)  # type: ignore[arg-type]
    first = completed(endpoint, ["m 7", "m 199"])[0]
    assert first == Completion("M 7", Usage(MODEL, 7, 3, 2, seconds=0.25, core_seconds=0.5), confidence=0.75)
    assert endpoint.origin == replace(ORIGIN, day=datetime.now(UTC).date())
    assert "m 7" not in replies.read_text()  # whoever asks has the messages: the file does not repeat them


def test_a_reply_may_hold_any_sign(tmp_path: Path) -> None:
    calls = recorded_calls(tmp_path / "calls.sqlite", ["m"], Shouting("\u2028\x85\r\n\x0c end"))
    write_replies(tmp_path / "replies.jsonl", calls, ORIGIN)
    endpoint = RepliesEndpoint(MODEL, tmp_path / "replies.jsonl", never)  # type: ignore[arg-type]
    assert completed(endpoint, ["m"])[0].text == "M\u2028\x85\r\n\x0c end"


def test_missing_replies_are_counted_over_all_requests(replies: Path) -> None:
    """A study asks some of them one by one."""
    endpoint = RepliesEndpoint(MODEL, replies, never)  # type: ignore[arg-type]
    for text in ("other 1", "other 2"):
        assert completed(endpoint, [text])[0].error == NOT_RECORDED
    with pytest.raises(ModelError, match="3 of 3 replies are not in"):
        completed(endpoint, ["other 3"])


def test_few_missing_replies_are_failures_and_many_an_error(replies: Path) -> None:
    endpoint = RepliesEndpoint(MODEL, replies, never)  # type: ignore[arg-type]
    few = completed(endpoint, [f"m {i}" for i in range(198)] + ["other"])
    assert [completion.error for completion in few[-2:]] == [None, NOT_RECORDED] and not few[-1].lasting
    with pytest.raises(
        ModelError, match=r"6 of 210 replies are not in .*take `replies` out of \[\[models\]\]"
    ):
        completed(endpoint, [f"m {i}" for i in range(194, 204)] + ["x"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [*lines[:5], '{"key": "x"'], "line 6: is no recorded reply"),
        (lambda lines: [lines[0], '{"key": "x", "text": "a", "colour": 1}'], "line 2: is no recorded reply"),
        (lambda lines: lines[1:], "line 1: is no recorded reply"),
        (lambda lines: [*lines, lines[3]], "line 202: is no recorded reply .*twice"),
        (lambda lines: [lines[0], '{"key": "x", "text": 5}'], "line 2: .*text"),
        (lambda lines: [lines[0], '{"key": "x", "text": "a", "seconds": NaN}'], "line 2: "),
        (lambda lines: [lines[0], '{"key": "x", "text": "a", "confidence": 1.5}'], "line 2: .*confidence"),
        (lambda lines: [lines[0], '{"key": "x", "text": "a", "input_tokens": -1}'], "line 2: .*input_tokens"),
        (lambda lines: [lines[0], "[" * 100_000], "line 2: "),
        (lambda lines: [], "line 1: is no recorded reply"),
    ],
)
def test_a_damaged_file_is_refused_by_its_line(replies: Path, change, message: str) -> None:  # type: ignore
    replies.write_text("\n".join(change(replies.read_text().splitlines())))
    with pytest.raises(ModelError, match=message):
        read_replies(replies)


def test_another_models_replies_and_a_missing_file_are_refused(replies: Path) -> None:
    with pytest.raises(ModelError, match="holds replies of embedded:smollm2-135m, not of openai/x"):
        RepliesEndpoint("openai/x", replies, never)  # type: ignore[arg-type]
    for path in (replies.with_name("none.jsonl"), replies.parent):
        with pytest.raises(ModelError, match="this file of replies cannot be read"):
            read_replies(path)
    with pytest.raises(ModelError, match="holds no reply of openai/x"):
        write_replies(
            replies, replies.with_name("calls.sqlite"), ReplyOrigin(**{**vars(ORIGIN), "model": "openai/x"})
        )


def test_the_model_itself_is_asked_only_when_it_serves(replies: Path) -> None:
    model = Shouting()
    endpoint = RepliesEndpoint(MODEL, replies, lambda: model)
    completed(endpoint, ["m 1"])
    assert model.asked == 0
    endpoint.go_live()
    assert completed(endpoint, ["m 1", "never recorded"])[1].text == "NEVER RECORDED"
    assert model.asked == 2


def test_no_weights_are_needed_to_open_a_model_whose_replies_are_here(
    replies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEPOINT_MODELS", str(tmp_path / "no models"))
    named = NamedModel(MODEL, replies=replies)
    with open_models([named], tmp_path / "new.sqlite", lambda endpoint, price: endpoint) as models:
        assert models.reply_origins[MODEL].title == "SmolLM2"
        assert models.parameters[MODEL] == ORIGIN.parameters
        missing = models.go_live(1)
        assert "tunepoint models pull" in str(missing[MODEL])
        prompt: Any = FakeArm("prompted", MODEL)
        assert not _is_here(prompt, missing, needed=["another"])
        assert _is_here(prompt, {}, needed=["prompted"])
        with pytest.raises(ModelError, match="tunepoint models pull"):
            _is_here(prompt, missing, needed=["prompted"])


def test_a_study_of_recorded_replies_alone_is_not_quoted(replies: Path, tmp_path: Path) -> None:
    """Nothing is asked, so nothing takes an hour."""
    task = Task.load(write_small(tmp_path))
    prepared = prepare(task, 0)
    for path, calls in ((replies, False), (None, True)):
        models = (ModelName(name=MODEL, replies=path),)
        asking = task.model_copy(update={"models": models})
        endpoint = RepliesEndpoint(MODEL, replies, never)  # type: ignore[arg-type]
        arms = candidates(asking, None, [TextModel(endpoint, remote=False)], prepared.split.train, (), None)
        assert (quote(asking, arms, prepared.split, {}, 1) is not None) == calls


def test_agreement_counts_what_both_have_answered(replies: Path, tmp_path: Path) -> None:
    same = recorded_calls(tmp_path / "same.sqlite", ["m 1", "m 2", "new"], Shouting())
    other = recorded_calls(tmp_path / "other.sqlite", ["m 1", "m 2", "new"], Shouting("!"))
    assert agreement(replies, same) == Agreement(asked=2, same=2)
    assert agreement(replies, other) == Agreement(asked=2, same=0)
    (tmp_path / "no.sqlite").write_text("this is no database, and long enough to be taken for none at all")
    with pytest.raises(ModelError, match="is not a recording of calls"):
        agreement(replies, tmp_path / "no.sqlite")


def test_the_report_says_that_replies_were_recorded() -> None:
    model = {"name": MODEL, "role": "prompted", "parameters": 134_515_008, "recorded": ORIGIN.content()}
    words = models_words({"models": [model]})
    assert words == "Prompted: smollm2-135m (135 million parameters; replies recorded on 2026-11-26)."
    warning = recording_warnings({MODEL: ORIGIN})[0]
    for part in ("2026-11-26", "b179", "llama.cpp 1", "a processor, 2 cores", "greedy", "not asked now"):
        assert part in warning


def test_recorded_replies_make_another_study_than_asking() -> None:
    task = Task.load(EXAMPLE)
    assert list(task.replies()) == ["embedded:qwen2.5-coder-0.5b"]
    asking = task.asking_models()
    assert not asking.replies() and task.trials_fingerprint() != asking.trials_fingerprint()


def test_the_recording_of_the_example_answers_what_the_example_asks() -> None:
    """A change of a template, of the messages or of the split needs `make record-demo`."""
    task = Task.load(EXAMPLE)
    ((name, path),) = task.replies().items()
    assert path.stat().st_size < 4e6
    endpoint, keys = RepliesEndpoint(name, path, never), read_replies(path)[1]  # type: ignore[arg-type]
    split = prepare(task, 0).split
    inputs, recorded = [example.input for example in split.dev], {}
    for arm in chat_arms(task, [TextModel(endpoint, remote=False)], no_vectors):
        assert isinstance(arm, ChatPrompt)
        # the numbers that the race draws demonstrations with
        prompts = arm.fit(task, split.train, np.random.default_rng([0, 0])).prompts(inputs)
        recorded[arm.name] = sum(request_of(prompt).key(name) in keys for prompt in prompts)
    assert len(recorded) == 20 and min(recorded.values()) >= FIRST_LOOK_ITEMS, recorded
    assert sum(count == len(inputs) for count in recorded.values()) >= 15  # races stop few of them
