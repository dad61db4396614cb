"""Data files as spreadsheets, databases, pandas and trainers of other tools write them."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tunepoint.data.examples import read_examples, read_source
from tunepoint.data.rows import read_rows, read_table
from tunepoint.errors import DataError, TunepointError
from tunepoint.task.columns import Columns

TEXTS = [f"the {thing} of order {i} is late" for i, thing in enumerate(("lamp", "desk", "tent", "bike") * 5)]
LABELS = ["late", "broken", "late", "wrong"] * 5
COLUMNS = Columns(("text",), "label")


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def lines(template: str = '"{}",{}\n') -> str:
    return "".join(template.format(text, label) for text, label in zip(TEXTS, LABELS, strict=True))


def as_jsonl(rows: Sequence[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def pairs(path: Path) -> list[tuple[str, str]]:
    examples, _ = read_examples(path, COLUMNS)
    return [(example.input, example.target) for example in examples]


ROWS = list(zip(TEXTS, LABELS, strict=True))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sep.csv", "sep=;\r\ntext;label\r\n" + lines('"{}";{}\r\n')),
        ("quoted.csv", '"sep=,"\ntext,label\n' + lines()),
        ("marked.csv", "\ufeffSEP=|\ntext|label\n" + lines("{}|{}\n")),
        ("tab.csv", "sep=\t\ntext\tlabel\n" + lines("{}\t{}\n")),
        ("trailing.csv", "text,label,,\n" + lines('"{}",{},,\n') + ",,,\n"),
        ("surplus.csv", "text,label\n" + lines('"{}",{},,\n')),
        ("spaces.csv", "text, label\n" + lines('"{}", "{}"\n')),
        ("blank.csv", "\n  \ntext,label\n" + lines()),
        ("title.csv", "Export of orders\n\ntext,label\n" + lines()),
        ("comments.csv", "# exported 2025-01-01, by hand\n# 20 rows\ntext,label\n" + lines()),
        ("comment.csv", "# exported 2025-01-01, by hand\ntext,label\n" + lines()),
        ("wide title.csv", "Orders, all of them, 2025\n\ntext,label\n" + lines()),
        ("array.json", json.dumps([{"text": text, "label": label} for text, label in ROWS], indent=1)),
        ("array.jsonl", json.dumps([{"text": text, "label": label} for text, label in ROWS])),
        ("held.json", json.dumps({"version": 1, "data": [{"text": t, "label": k} for t, k in ROWS]})),
        ("lines.json", as_jsonl([{"text": text, "label": label} for text, label in ROWS])),
    ],
)
def test_the_same_table_in_many_forms(tmp_path: Path, name: str, text: str) -> None:
    assert pairs(write(tmp_path, name, text)) == ROWS


def test_spaces_after_commas_are_no_part_of_quoted_fields(tmp_path: Path) -> None:
    text = 'label, text\na, "one, two"\nb, "three"\n'
    assert pairs(write(tmp_path, "a.csv", text)) == [("one, two", "a"), ("three", "b")]


def test_quotes_escaped_with_backslashes(tmp_path: Path) -> None:
    text = 'text,label\n"he said \\"no, thanks\\" in C:\\\\temp",a\n"plain",b\n'
    assert pairs(write(tmp_path, "a.csv", text)) == [
        ('he said "no, thanks" in C:\\temp', "a"),
        ("plain", "b"),
    ]


def test_names_of_columns_may_be_given_with_the_spaces_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text, label\nhello, x\n")
    examples, _ = read_examples(path, Columns(("text",), " label"))
    assert examples[0].target == "x"


def test_a_name_for_columns_without_one(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", ",,text,label\n1,2,hello,x\n")
    assert dict(next(read_rows(path))[1]) == {"column 1": "1", "column 2": "2", "text": "hello", "label": "x"}


def test_blank_lines_keep_the_numbers_of_the_rows(tmp_path: Path) -> None:
    """They are part of the ids of studies on disk."""
    path = write(tmp_path, "a.csv", "text,label\n\na,b\n\n\nc,d\n")
    assert [line for line, _ in read_rows(path)] == [2, 4]


@pytest.mark.parametrize("closing", ["", '"'])
def test_stray_quotes_in_tab_separated_values_are_text(tmp_path: Path, closing: str) -> None:
    rows = lines("{}\t{}\n").replace("the tent of order 2 ", '"the tent of order 2 ', 1)
    rows = rows.replace("order 9 is late", f"order 9 is late{closing}")
    path = write(tmp_path, "a.tsv", "text\tlabel\n" + rows)
    table = read_table(path)
    assert len(table.rows) == 20 and table.rows[2][1]["text"].startswith('"the tent')
    assert "a.tsv:4: quotes that do not enclose a field" in table.notes[0]


def test_quoted_fields_of_many_lines_in_tab_separated_values(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", 'text\tlabel\n"one\ntwo ""and"" three"\ta\nfour\tb\n')
    assert pairs(path) == [('one\ntwo "and" three', "a"), ("four", "b")]
    assert read_table(path).notes == ()


def test_a_field_that_swallowed_rows_is_pointed_at(tmp_path: Path) -> None:
    rows = lines("{},{}\n").replace("the tent of order 2 ", '"the tent of order 2 ', 1)
    path = write(tmp_path, "a.csv", "text,label\n" + rows.replace("order 9 is late", 'order 9 is late"'))
    (note,) = read_table(path).notes
    assert "a.csv:4: a quoted field holds 7 lines that look like rows" in note
    letters = "".join(f'"dear all,\n\nletter {i},\n\nbye",a\n' for i in range(9))
    assert read_table(write(tmp_path, "b.csv", "text,label\n" + letters)).notes == ()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.csv",
            "text,label\n" + lines("{},{}\n").replace("the tent", '"the tent', 1),
            r"a\.csv:4: .*left open",
        ),
        ("a.csv", "Orders\ntext,label\n" + lines(), r"a\.csv:2: 2 fields .* is line 1 not the header"),
        ("a.csv", "text,label\n\na,b\nc,d,e\n", r"a\.csv:4: 3 fields"),
        ("a.csv", "\0t\0e\0x\0t\0,\0l\0\n", r"a\.csv:1: holds NUL characters, as UTF-16"),
        ("a.json", '[\n{"text": "a"},\n{oops}\n]', r"a\.json:3: not JSON"),
        ("a.json", '{"text": ["a", "b"], "label": ["x", "y"]}', r"found columns \('text', 'label'\)"),
        ("a.json", '{\n"text": "a",\n"label": "b"}', "found a single object"),
        ("a.json", '["a"]', r"a\.json:1: expected one JSON object per row, got str"),
        ("a.jsonl", '{\n"text": "a"}\n', r"a\.jsonl:1: not JSON .* one whole object"),
    ],
)
def test_files_that_cannot_be_read_name_the_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_table(write(tmp_path, name, text))


def test_a_key_that_some_rows_leave_out_is_an_empty_cell(tmp_path: Path) -> None:
    rows = [
        {"text": text, "label": label} | ({"who": "me"} if i else {}) for i, (text, label) in enumerate(ROWS)
    ]
    path = write(tmp_path, "a.jsonl", as_jsonl([*rows, {"text": "no label"}]))
    source = read_source(path, Columns(("text",), "label", group="who"))
    assert [example.group for example in source.examples[:2]] == [None, "me"]
    assert [(row.id, row.reason) for row in source.dropped] == [("a.jsonl:21", "empty target")]
    assert source.notes == ("a.jsonl: 1 of 20 examples have no 'who'; each counts as a group of its own",)
    with pytest.raises(DataError, match="no column 'wo'; did you mean 'who'"):
        read_source(path, Columns(("text",), "label", group="wo"))


def test_nan_is_no_value(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"text": "a", "label": NaN}\n{"text": "b", "label": 1.5}\n')
    examples, dropped = read_examples(path, COLUMNS)
    assert [example.target for example in examples] == ["1.5"]
    assert [row.reason for row in dropped] == ["empty target"]


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


CALL = {"type": "function", "function": {"name": "route", "arguments": '{"queue": "late"}'}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}


def chat_rows(folder: Path, *chats: Any, column: str = "messages") -> list[dict[str, Any]]:
    path = write(folder, "chat.jsonl", as_jsonl([{column: chat} for chat in chats]))
    return [dict(row) for _, row in read_rows(path)]


@pytest.mark.parametrize(
    ("chat", "question", "answer"),
    [
        ([user("q"), assistant("a"), user("thanks")], "q", "a"),
        ([user("q"), assistant("a", weight=1), user("r"), assistant("b", weight=0)], "q", "a"),
        (
            [user([{"type": "text", "text": "q"}, IMAGE]), assistant([{"type": "text", "text": "a"}])],
            "q",
            "a",
        ),
        ([user(["q", "r"]), assistant("a")], "q\nr", "a"),
        (
            [user("q"), assistant(None, tool_calls=[CALL])],
            "q",
            '{"arguments": {"queue": "late"}, "name": "route"}',
        ),
        ([user("q"), {"role": "assistant", "function_call": CALL["function"]}], "q", None),
        ([{"role": "developer", "content": "s"}, user("q"), assistant("a")], "q", "a"),
        ([user("q"), assistant("a", tool_calls=None, weight=None)], "q", "a"),
    ],
)
def test_the_last_answer_of_a_chat_with_its_question(
    tmp_path: Path, chat: Any, question: str, answer: str | None
) -> None:
    (row,) = chat_rows(tmp_path, chat)
    assert row["input"] == question
    assert row["target"] == (answer or '{"arguments": {"queue": "late"}, "name": "route"}')
    assert "conversation" not in row


def test_a_conversation_is_all_that_stands_before_the_last_answer(tmp_path: Path) -> None:
    several = [
        user("q"),
        assistant(None, tool_calls=[CALL]),
        {"role": "tool", "content": "ok"},
        assistant("a"),
    ]
    rows = chat_rows(tmp_path, several, [user("r"), assistant("b")])
    assert rows[0]["conversation"].split("\n")[::2] == ["user: q", "tool: ok"]
    assert [row["conversation"] for row in rows[1:]] == ["r"]
    assert "have several turns" in read_table(tmp_path / "chat.jsonl").notes[0]


def test_chats_without_an_answer_in_words_are_left_out_with_a_reason(tmp_path: Path) -> None:
    chats = [
        [user("q"), assistant("a")],
        [user("q"), assistant(None, tool_calls=[CALL])],
        [user("q"), assistant("a", weight=0)],
        [user("q")],
        None,
    ]
    path = write(tmp_path, "chat.jsonl", as_jsonl([{"messages": chat} for chat in chats]))
    source = read_source(path, Columns(("input",), "target"))
    assert len(source.examples) == 1
    assert [(row.id, row.reason) for row in source.dropped] == [
        ("chat.jsonl:2", "its answer is a function call, not a text"),
        ("chat.jsonl:3", "every answer of the chat has weight 0"),
        ("chat.jsonl:4", "the chat has no assistant message"),
        ("chat.jsonl:5", "messages is None; expected a list of role and content"),
    ]


@pytest.mark.parametrize(
    ("column", "chat"),
    [
        ("conversations", [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]),
        (
            "contents",
            [{"role": "user", "parts": [{"text": "q"}]}, {"role": "model", "parts": [{"text": "a"}]}],
        ),
        ("messages", json.dumps([user("q"), assistant("a")])),
        ("messages", str([user("q"), assistant("a")])),
    ],
)
def test_chats_in_other_forms(tmp_path: Path, column: str, chat: Any) -> None:
    (row,) = chat_rows(tmp_path, chat, column=column)
    assert (row["input"], row["target"]) == ("q", "a")


def test_a_column_that_a_chat_replaces_is_named(tmp_path: Path) -> None:
    chat = [{"role": "human", "content": "q"}, {"role": "ai", "content": "a"}]
    table = read_table(
        write(tmp_path, "chat.jsonl", as_jsonl([{"messages": chat, "input": "mine", "id": 1}]))
    )
    assert dict(table.rows[0][1]) == {"id": 1, "input": "q", "target": "a", "system": ""}
    assert table.notes == (
        "chat.jsonl: the column 'input' now holds text from the chats; rename yours to keep it",
    )
    kept = read_table(write(tmp_path, "b.jsonl", as_jsonl([{"messages": chat, "conversation": "mine"}])))
    assert kept.rows[0][1]["conversation"] == "mine" and kept.notes == ()


def test_messages_of_trl_stay_in_their_columns(tmp_path: Path) -> None:
    row = {"prompt": [{"role": "system", "content": "s"}, user("q")], "completion": [assistant("a")]}
    table = read_table(write(tmp_path, "trl.jsonl", as_jsonl([row])))
    assert dict(table.rows[0][1]) == {"system": "s", "prompt": "q", "completion": "a"}
    assert table.roles == (("prompt",), "completion")
    mine = read_table(write(tmp_path, "mine.jsonl", as_jsonl([{**row, "input": "mine", "target": 1}])))
    assert mine.rows[0][1]["input"] == "mine" and mine.rows[0][1]["target"] == 1 and len(mine.notes) == 1


@pytest.mark.parametrize("value", ["hello", ["one", "two"]])
def test_a_column_named_messages_may_hold_texts(tmp_path: Path, value: Any) -> None:
    path = write(tmp_path, "a.jsonl", as_jsonl([{"messages": value, "label": "x"}]))
    assert dict(next(read_rows(path))[1]) == {"messages": value, "label": "x"}


def test_chats_in_parquet(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    chats = [[user("q"), assistant("a", weight=1)], [user("r"), assistant("b")]]
    parquet.write_table(arrow.table({"messages": chats, "score": [0.5, None]}), tmp_path / "a.parquet")
    rows = [row for _, row in read_rows(tmp_path / "a.parquet")]
    assert [(row["input"], row["target"]) for row in rows] == [("q", "a"), ("r", "b")]


SEEDS = {
    "a.csv": 'sep=,\ntext, label,,\n"one, ""two""\n three", a,,\nfour,b,,\n',
    "a.tsv": 'text\tlabel\n"one\ntwo"\ta\n"three\tb\n',
    "a.json": '[{"text": "a", "label": {"k": [1.5, null]}}, {"text": "b"}]',
    "a.jsonl": as_jsonl(
        [{"messages": [user([{"type": "text", "text": "q"}]), assistant(None, tool_calls=[CALL])]}]
    ),
    "b.jsonl": as_jsonl([{"prompt": [user("q")], "completion": [assistant("a", weight=0)]}]),
}


@pytest.mark.parametrize("name", SEEDS)
def test_whatever_a_file_holds_it_is_read_or_refused_in_words(tmp_path: Path, name: str) -> None:
    rng, path = random.Random(name), tmp_path / name
    spice = [
        '"',
        "\\",
        "\n",
        "\0",
        "[" * 3_000,
        "9" * 5_000,
        "1e999",
        "NaN",
        "\ud7ff",
        "null",
        '{"role":',
        ",",
    ]
    for _ in range(350):
        text = SEEDS[name]
        for _ in range(rng.randint(1, 4)):
            start = rng.randrange(len(text) + 1)
            text = text[:start] + rng.choice([*spice, ""]) + text[start + rng.randint(0, 6) :]
        path.write_bytes(text.encode())
        try:
            read_source(path, Columns(("text",), "label"))
        except TunepointError as error:
            assert str(error).startswith(str(path))
