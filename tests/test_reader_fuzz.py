"""Every reader of files returns, or raises a TunepointError: nothing else, whatever the file holds."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from test_imports import ASKED, LANGFUSE, LITELLM, REPLY, SAMPLE, SPAN

from tunepoint import Task, read_trials
from tunepoint.capture.log_import import import_log
from tunepoint.costs.arms_toml import read_arms
from tunepoint.data.rows import read_rows
from tunepoint.errors import TunepointError
from tunepoint.models.production_log import read_production_log
from tunepoint.serve.settings import ServeSettings
from tunepoint.trials.human_grades import read_grades

MUTATIONS = 350
HOSTILE_VALUES = (
    *(b"null", b"NaN", b"-Infinity", b"1e999", b"9" * 5_000, b"-1", b"0.5", b"true", b'""', b"{}", b"[]"),
    *(b'"\\ud800"', b'"\\u0000"', b"[" * 3_000, b'{"a":' * 3_000, b"[" * 200 + b"]" * 200, b'[[], "x", 1]'),
)
"""What no reader expects: without end, without sense, or too deep."""
HOSTILE_SETTINGS = (
    *(b"nan", b"inf", b"-1", b"0", b"1e999", b"9" * 5_000, b"true", b'""', b"[]", b"{}", b"1979-05-27"),
    *(
        b'"\\u0000"',
        b"[" * 3_000,
        b"[" * 200 + b"]" * 200,
        b'["a", 1]',
        b'"9e99 EUR"',
        b"[1, nan, 3]",
        b"2.5",
    ),
)
HOSTILE_BYTES = (
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b'"',
    b"'",
    b"\\",
    b"\r",
    b"\n\n",
    b",",
    b"{",
    b"]",
    b"=",
)
REPEATS = 40
"""A piece of a file may stand there this often."""


def lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def packed(*members: tuple[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in members:
            archive.writestr(name, value)
    return content.getvalue()


def parquet() -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as format_

    content = io.BytesIO()
    format_.write_table(pyarrow.table({"text": ["a", "b"], "label": ["x", "y"]}), content)
    return content.getvalue()


TASK = """
name = "triage"
instruction = "Route the message."
[data]
path = "examples.csv"
input = "text"
target = "label"
[answer]
kind = "label"
labels = { billing = "money", other = "the rest" }
[traffic]
queries_per_month = [100, 200, 400]
[[models]]
name = "openai/gpt-5-mini"
price = { input = 0.25, output = 2.0 }
"""
ARMS = """
[[arm]]
name = "tuned"
kind = "tuned"
upfront_usd = [1, 2, 3]
price = { input = 0.25, output = 2.0, cache_hit = 0.5, static_tokens = 100 }
[[arm]]
name = "prompt"
kind = "prompt"
usd_per_query = 0.001
"""
SERVE = """
[server]
store = "capture.sqlite"
[[tasks]]
name = "triage"
[[tasks.arms]]
name = "mini"
model = "openai/gpt-5-mini"
"""
PROMPTFOO = {
    "provider": {"id": "openai:gpt-5-mini"},
    "prompt": {"raw": "Route {{text}}", "label": "short"},
    "testIdx": 3,
    "vars": {"text": "x"},
    "score": 1,
    "latencyMs": 420,
    "cost": 0.0001,
    "response": {"output": "billing", "tokenUsage": {"prompt": 20, "completion": 2}},
}
INSPECT = {"version": 2, "status": "success", "eval": {"task": "sums", "model": "mockllm/model"}}
BATCH = (
    {"custom_id": "c", "url": "/v1/chat/completions", "body": {"model": "m", "messages": ASKED}},
    {"custom_id": "c", "response": {"status_code": 200, "body": REPLY}, "error": None},
)
TRIAL = {
    "arm": "a",
    "item": "1",
    "score": 0.5,
    "input_tokens": 3,
    "seconds": 0.1,
    "grades": [0, 1],
    "seed": 1,
}
PRODUCTION = {"item": "1", "input": "x", "output": "y", "input_tokens": 3, "seconds": 0.5}
CHAT = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}


def read_all(path: Path) -> None:
    for _ in read_rows(path):
        pass


def requests_of(kind: str) -> Callable[[Path], object]:
    return lambda path: import_log(path, kind, "triage")


def grades_in(path: Path) -> object:
    task = Task.parse({"name": "t", "score": {"human": path.name}}, folder=path.parent)
    return read_grades(task, path.parent / "study")


READERS: dict[str, tuple[str, Callable[[], bytes], Callable[[Path], object]]] = {
    "csv": ("a.csv", lambda: b'text,label\n"a, b",x\nc,"y ""z"""\n', read_all),
    "tsv": ("a.tsv", lambda: b"text\tlabel\na\tx\nb\ty\n", read_all),
    "jsonl": ("a.jsonl", lambda: lines({"text": "a", "label": "x"}, CHAT), read_all),
    "parquet": ("a.parquet", parquet, read_all),
    "openai": (
        "a.jsonl",
        lambda: lines({"request": {"messages": ASKED}, "response": REPLY}, *BATCH),
        requests_of("openai"),
    ),
    "litellm": ("a.jsonl", lambda: lines(LITELLM), requests_of("litellm")),
    "langfuse": ("a.json", lambda: lines({"data": [LANGFUSE]}), requests_of("langfuse")),
    "otel": (
        "a.json",
        lambda: lines({"resourceSpans": [{"scopeSpans": [{"spans": [SPAN]}]}]}),
        requests_of("otel"),
    ),
    "promptfoo": (
        "a.json",
        lambda: lines({"results": {"results": [PROMPTFOO, PROMPTFOO]}}),
        requests_of("promptfoo"),
    ),
    "inspect": ("a.json", lambda: lines({**INSPECT, "samples": [SAMPLE]}), requests_of("inspect")),
    "eval": (
        "a.eval",
        lambda: packed(("header.json", lines(INSPECT)), ("samples/1.json", lines(SAMPLE))),
        requests_of("inspect"),
    ),
    "trials": ("a.jsonl", lambda: lines(TRIAL, {**TRIAL, "arm": "b"}), read_trials),
    "production log": ("a.jsonl", lambda: lines(PRODUCTION), lambda path: read_production_log(path, "today")),
    "grades": ("a.csv", lambda: b"item,input,reference,answer,grade\n1,x,y,z,3\n2,x,y,z,\n", grades_in),
    "arms": ("arms.toml", ARMS.encode, read_arms),
    "task": ("task.toml", TASK.encode, Task.load),
    "serve": ("serve.toml", SERVE.encode, ServeSettings.load),
}


def cut_and_filled(content: bytes, rng: Random) -> bytes:
    """Return the content with one to three pieces removed, repeated, or replaced by hostile ones."""
    for _ in range(rng.randint(1, 3)):
        start = rng.randrange(len(content) + 1)
        end = min(len(content), start + rng.choice((0, 1, 4, 20)))
        pieces = (*HOSTILE_VALUES, *HOSTILE_BYTES, b"", content[start:end] * REPEATS)
        content = content[:start] + rng.choice(pieces) + content[end:]
    return content


def with_another_value(content: bytes, rng: Random) -> bytes:
    """Return JSON lines in which one value is another: still JSON, so that all code behind sees it."""
    rows = content.splitlines()
    row = rng.randrange(len(rows))
    marked = json.dumps(_with_mark(json.loads(rows[row]), rng)).encode()
    rows[row] = marked.replace(b'"MARK"', rng.choice(HOSTILE_VALUES))
    return b"\n".join(rows)


def with_another_setting(content: bytes, rng: Random) -> bytes:
    """Return TOML in which one key has another value."""
    rows = content.splitlines()
    row = rng.choice([number for number, line in enumerate(rows) if b" = " in line])
    rows[row] = rows[row].split(b" = ")[0] + b" = " + rng.choice(HOSTILE_SETTINGS)
    return b"\n".join(rows)


def repacked(content: bytes, rng: Random) -> bytes:
    """Return an archive in which one member is mutated, with sizes and checksums that are right."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(list(members))
    members[name] = with_another_value(members[name], rng)
    return packed(*members.items())


MUTATORS = {
    ".json": with_another_value,
    ".jsonl": with_another_value,
    ".toml": with_another_setting,
    ".eval": repacked,
}
"""Besides `cut_and_filled`: mutations that keep the form of the file."""


def _with_mark(value: Any, rng: Random) -> Any:
    """Return a value in which a random part of it is a mark."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return "MARK"
    if isinstance(value, dict):
        key = rng.choice(list(value))
        return {**value, key: _with_mark(value[key], rng)}
    position = rng.randrange(len(value))
    return [*value[:position], _with_mark(value[position], rng), *value[position + 1 :]]


def readable(path: Path, content: bytes, read: Callable[[Path], object]) -> bool:
    path.write_bytes(content)
    try:
        read(path)
    except TunepointError:
        return False
    return True


@pytest.fixture
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where the machine has one: most of the time goes into writing files."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.mark.parametrize("name", READERS)
def test_a_reader_returns_or_says_what_is_wrong(name: str, quick_folder: Path) -> None:
    file, content, read = READERS[name]
    path, rng = quick_folder / file, Random(0)
    assert readable(path, content(), read)
    keep_form = MUTATORS.get(path.suffix, cut_and_filled)
    for _ in range(MUTATIONS // 2):
        readable(path, cut_and_filled(content(), rng), read)
        readable(path, keep_form(content(), rng), read)
