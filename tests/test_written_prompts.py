"""Prompts that somebody wrote: read from files, filled, sent as they are, exported and served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from servers import Fake, serving
from test_chat_study import asked
from test_tuned_study import routing
from typer.testing import CliRunner

from tunepoint import Task, run
from tunepoint.arms.catalog import OLD_PLACEHOLDER, check_supported, refuse_placeholder
from tunepoint.cli.app import app
from tunepoint.errors import StudyError, TaskError
from tunepoint.models.chat import Message, Prompt
from tunepoint.models.endpoints import request_of
from tunepoint.task.sections import Search
from tunepoint.task.written_prompts import WrittenPrompt, fill, opening_of, read_messages, with_opening

TODAY = [
    {"role": "system", "content": 'Route it. Reply with {"queue": "..."} and nothing else.'},
    {"role": "user", "content": "Customer wrote: {{ input }}"},
]

QUEUES = (("invoice", "billing"), ("pairing", "device_setup"))


def written(folder: Path, content: Any, name: str = "today.json") -> WrittenPrompt:
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return WrittenPrompt(name="today", messages=Path(name))


def test_chat_messages_a_call_and_a_text_are_read(tmp_path: Path) -> None:
    expected = tuple(Message(entry["role"], entry["content"]) for entry in TODAY)  # type: ignore[arg-type]
    assert read_messages(written(tmp_path, TODAY), tmp_path, ["text"]) == expected
    call = {"model": "gpt-4o-mini", "temperature": 0, "messages": TODAY}
    assert read_messages(written(tmp_path, call), tmp_path, ["text"]) == expected
    whole = read_messages(written(tmp_path, "Route {text} now.", "p.txt"), tmp_path, ["text"])
    assert whole == (Message("user", "Route {text} now."),)
    template = read_messages(written(tmp_path, "Route: {{ input }}", "p.txt"), tmp_path, [])
    assert template == (Message("user", "Route: {{ input }}"),)
    system = read_messages(written(tmp_path, "Route the message.\n", "p.txt"), tmp_path, ["text"])
    assert system == (Message("system", "Route the message."), Message("user", "{input}"))
    alone = read_messages(written(tmp_path, "Route: {input}", "p.txt"), tmp_path, ["text"])
    assert alone == (Message("user", "Route: {input}"),)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[{", "today.json: not JSON"),
        ({"prompt": "x"}, "no list of messages"),
        ([{"role": "tool", "content": "{input}"}], "message 0.role"),
        ([{"role": "user"}], "message 0.content"),
        (
            [{"role": "user", "content": "Route it."}],
            r"no message says where the input goes.*\{input\}, \{text\}",
        ),
        ([], "holds no messages"),
    ],
)
def test_a_file_that_is_no_prompt_is_named(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(TaskError, match=words):
        read_messages(written(tmp_path, content), tmp_path, ["text"])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"\[\[prompts\]\] today: .*gone\.json: no such file"):
        read_messages(WrittenPrompt(name="today", messages=Path("gone.json")), tmp_path, [])


def test_columns_are_placeholders_and_other_braces_stay() -> None:
    messages = (Message("user", 'Subject {subject}; {{body}}; all: {input}; JSON {"a": {"b": 1}} {bodyx}'),)
    text = "subject: A {input} thing\nbody: two\nlines: here\nlast: x"
    (filled,) = fill(messages, text, ["subject", "body", "last"])
    assert filled.content == (
        f'Subject A {{input}} thing; two\nlines: here; all: {text}; JSON {{"a": {{"b": 1}}}} {{bodyx}}'
    )
    (empty,) = fill((Message("user", "{subject}|{body}"),), "body: b", ["subject", "body"])
    assert empty.content == "|b"
    (quoted,) = fill((Message("user", "{subject}|{body}"),), "body: fwd\nsubject: old", ["subject", "body"])
    assert quoted.content == "|fwd\nsubject: old"
    (whole,) = fill((Message("user", "{input}"),), "input: a\nb: c", ["input", "b"])
    assert whole.content == "input: a\nb: c"
    (filled,) = fill((Message("user", "{text}"),), "text: not a column", ["text"])
    assert filled.content == "text: not a column"


def test_a_written_prompt_is_sent_without_a_schema_around_it() -> None:
    messages = (Message("user", "as it is"),)
    request = request_of(Prompt("x", "ignored", ("a", "b"), written=messages))
    assert (request.messages, request.schema, request.choices) == (messages, None, ())


# -- in a study -------------------------------------------------------------------------------------


def answer(messages: list[dict[str, str]], body: dict[str, Any]) -> str:
    queue = "billing" if "invoice" in messages[-1]["content"] else "device_setup"
    if "Customer wrote" in messages[-1]["content"]:
        return json.dumps({"queue": queue})
    return "billing"  # what Tunepoint writes does worse here


def study_task(folder: Path, fake: Fake, **prompt: Any) -> Task:
    (folder / "today.json").write_text(json.dumps(TODAY))
    entry = {"name": "in production", "messages": "today.json", **prompt}
    models = [asked(fake, styles=["zero-shot"])]
    return routing(folder, 80, models=models, prompts=[entry], search={"calls": 0})


def test_the_prompt_of_production_is_an_option_and_leaves_the_study_with_its_messages(tmp_path: Path) -> None:
    with serving(Fake(answer)) as fake:
        out = tmp_path / "study"
        result = run(study_task(tmp_path, fake), out=out)
        best = max(
            (f for f in result.decision.finalists if f.kind == "prompt"), key=lambda f: f.score.estimate
        )
        assert best.title == "tiny, your prompt “in production”" and best.score.estimate == 1.0
        sent = [body for body in fake.calls if "Customer wrote" in body["messages"][-1]["content"]]
        assert all("response_format" not in body for body in sent)
        exported = json.loads((out / "prompt.json").read_text())
        assert exported["messages"] == TODAY and exported["samples"] == 1
        # the study keeps the words, whatever becomes of the file
        (tmp_path / "today.json").write_text("[]")
        kept = json.loads((out / "task.json").read_text())
        again = Task.parse(kept["task"], folder=Path(kept["folder"]))
        assert [m.content for m in again.written_messages()["in production"]] == [m["content"] for m in TODAY]
        # and another prompt is another study
        (tmp_path / "today.json").write_text(json.dumps([{"role": "user", "content": "Else: {input}"}]))
        with pytest.raises(StudyError, match="another"):
            run(
                Task.parse(
                    {**kept["task"], "prompts": [{"name": "in production", "messages": "today.json"}]},
                    folder=tmp_path,
                ),
                out=out,
            )


def test_a_search_begins_with_the_prompt_of_production_where_it_is_the_best(tmp_path: Path) -> None:
    """Only its opening words change: its questions, its form and its placeholders stay."""

    def improvable(messages: list[dict[str, str]], body: dict[str, Any]) -> str:
        text = messages[-1]["content"]
        if "write a new instruction" in text:
            return "```\nRoute it. An invoice is billing.\n```"
        if "Customer wrote" not in text:
            return "device_setup"
        knows = "An invoice is billing" in messages[0]["content"] or text[-1] in "3456789"
        return json.dumps({"queue": "billing" if knows and "invoice" in text else "device_setup"})

    with serving(Fake(improvable)) as fake:
        out = tmp_path / "study"
        task = study_task(tmp_path, fake).model_copy(update={"search": Search(calls=200)})
        result = run(task, out=out)
        titles = {finalist.title: finalist.score.estimate for finalist in result.decision.finalists}
        assert titles["tiny, your prompt “in production”, optimized"] == 1.0
        manifest = json.loads((out / "manifest.json").read_text())["search"]
        assert manifest["base"] == "tiny prompt in production" and not manifest["kept"]
        exported = json.loads((out / "prompt.json").read_text())
        assert exported["messages"] == [
            {"role": "system", "content": "Route it. An invoice is billing."},
            TODAY[1],
        ]
        calls = len(fake.calls)
        run(task, out=out)
        assert len(fake.calls) == calls


def test_a_search_changes_the_words_in_front_of_the_first_placeholder() -> None:
    messages = (Message("user", "Route this.\n\nText: {text}\nLanguage: {lang}"), Message("user", "Now."))
    assert opening_of(messages, ["text", "lang"]) == "Route this.\n\nText:"
    changed = with_opening(messages, ["text", "lang"], "Sort this.\nText:")
    assert changed == (Message("user", "Sort this.\nText: {text}\nLanguage: {lang}"), messages[1])
    unfilled = with_opening(messages, ["text", "lang"], "Sort {text}, {{ input }} and {this}.\nText:")
    assert unfilled[0].content.startswith("Sort text, input and {this}.\nText: {text}")
    assert opening_of((Message("user", "{{input}} Which queue?"),), []) == ""


def test_prompts_of_one_name_or_for_no_model_are_refused(tmp_path: Path) -> None:
    with serving(Fake(answer)) as fake:
        twice = study_task(tmp_path, fake).model_copy(
            update={"prompts": (WrittenPrompt(name="a", messages=Path("today.json")),) * 2}
        )
        with pytest.raises(TaskError, match="two named 'a'"):
            twice.written_messages()
        with pytest.raises(TaskError, match="no model 'openai/x' in"):
            run(study_task(tmp_path, fake, models=["openai/x"]), out=tmp_path / "study")


# -- in task.toml -----------------------------------------------------------------------------------


def test_init_takes_over_the_prompt_and_writes_no_placeholder_that_a_model_would_read(tmp_path: Path) -> None:
    rows = [f"{word} {i},{queue}" for i in range(20) for word, queue in QUEUES]
    (tmp_path / "messages.csv").write_text("text,queue\n" + "\n".join(rows) + "\n")
    (tmp_path / "today.json").write_text(json.dumps(TODAY))
    words = ["init", tmp_path / "messages.csv", "--prompt", tmp_path / "today.json"]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    task = Task.load(tmp_path)
    assert task.instruction == "" and task.written_messages()["today"][0].content == TODAY[0]["content"]
    assert "[[models]]" in (tmp_path / "task.toml").read_text()
    (tmp_path / "today.json").write_text("[]")
    again = CliRunner().invoke(app, [str(word) for word in (*words, "--force")])
    assert again.exit_code != 0 and "holds no messages" in again.output


def test_a_placeholder_that_init_once_wrote_is_not_sent_to_a_model(tmp_path: Path) -> None:
    with serving(Fake(answer)) as fake:
        task = study_task(tmp_path, fake).model_copy(update={"instruction": OLD_PLACEHOLDER})
        with pytest.raises(TaskError, match="say what to do, for models read it"):
            run(task, out=tmp_path / "study")
        assert fake.calls == []
    refuse_placeholder(task.model_copy(update={"models": (), "prompts": ()}))  # no model would read it


def test_a_prompt_without_a_model_to_send_it_to_is_refused(tmp_path: Path) -> None:
    with serving(Fake(answer)) as fake:
        task = study_task(tmp_path, fake)
    with pytest.raises(TaskError, match=r"\[\[prompts\]\] in production: no chat model to send it to"):
        check_supported(task.model_copy(update={"models": ()}))
