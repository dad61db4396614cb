"""The capture store on SQLite and on a real PostgreSQL server; the writer, and a store that is away."""

from __future__ import annotations

import itertools
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory
from postgres_server import INSTALLED, postgres_server

from tunepoint.capture.opening import COMPATIBILITY, open_store
from tunepoint.capture.records import CapturedRequest, Feedback, nanodollars
from tunepoint.capture.redaction import PatternRedactor, redacted
from tunepoint.capture.schema import HEAD, VERSION, metadata
from tunepoint.capture.store import Store
from tunepoint.capture.writer import Writer
from tunepoint.errors import RefusedRow, StoreError


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The URL of a server of our own."""
    if not INSTALLED:
        pytest.skip("no PostgreSQL server is installed")
    with postgres_server() as server:
        yield server.url


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "sqlite":
        where = str(tmp_path / "capture.sqlite")
    else:
        where = request.getfixturevalue("postgres")
        clean = sa.create_engine(where.replace("postgresql:", "postgresql+psycopg:"))
        with clean.begin() as connection:
            metadata.drop_all(connection)
            connection.execute(sa.text("drop table if exists tunepoint_version"))
        clean.dispose()
    with open_store(where) as opened:
        yield opened


def captured(number: int = 0, **changes: object) -> CapturedRequest:
    fields: dict[str, object] = {
        "id": f"r{number}",
        "at": 1_000.0 + number,
        "task": "triage",
        "arm": "tuned",
        "role": "champion",
        "model": "m",
        "input": f"question {number}",
        "output": "billing",
        **changes,
    }
    return CapturedRequest(**fields)  # type: ignore[arg-type]


# -- the store ----------------------------------------------------------------------------------


def test_what_is_written_is_read_again(store: Store) -> None:
    full = captured(
        1,
        answer="billing",
        format_ok=True,
        messages=[{"role": "user", "content": "hä?"}],
        parameters={"tools": [{"type": "function"}], "temperature": 0.5},
        streamed=True,
        input_tokens=10,
        cached_tokens=4,
        output_tokens=3,
        seconds=0.25,
        first_token_seconds=0.1,
        core_seconds=0.5,
        cost_nanousd=nanodollars(0.000123456789),
        confidence=0.75,
        slice="de",
        user="u",
        key="app",
        copy_of="r0",
        licence="own",
    )
    store.add([full, captured(2)], [Feedback("r1", 5.0, 0.5, True, "device", "no", "app")])
    first, second = store.requests("triage")
    assert first == full and first.cost_usd == Decimal("0.000123457")
    assert second == captured(2)
    assert store.feedback(["r1", "r2"]) == {"r1": [Feedback("r1", 5.0, 0.5, True, "device", "no", "app")]}


def test_a_request_is_written_once(store: Store) -> None:
    store.add([captured(1), captured(2)])
    store.add([replace(captured(1), output="another"), captured(3)])
    assert [request.id for request in store.requests()] == ["r1", "r2", "r3"]
    assert next(store.requests()).output == "billing"


def test_requests_come_in_order_and_by_pages(store: Store) -> None:
    store.add([captured(n, at=float(n // 3), id=f"r{n:05}") for n in range(2_500)])
    ids = [request.id for request in store.requests("triage")]
    assert ids == sorted(ids) and len(ids) == 2_500
    assert len(list(store.requests("triage", since=10, until=20))) == 30
    assert list(store.requests("another")) == []


def test_what_each_arm_served_in_sums(store: Store) -> None:
    store.add(
        [
            captured(1, cost_nanousd=100, format_ok=True),
            captured(2, cost_nanousd=300, format_ok=False),
            captured(3, status=502, error="away"),
            captured(4, arm="prompt", role="shadow", cost_nanousd=7),
        ]
    )
    prompt, tuned = store.totals("triage")
    assert (prompt.arm, prompt.role, prompt.requests, prompt.cost_nanousd) == ("prompt", "shadow", 1, 7)
    assert (tuned.requests, tuned.failed, tuned.formatted, tuned.unreadable) == (3, 1, 1, 1)
    assert (tuned.priced, tuned.cost_nanousd, tuned.first, tuned.last) == (2, 400, 1_001.0, 1_003.0)
    assert store.totals("triage", since=1_004)[0].arm == "prompt"


def test_states_and_the_audit_log(store: Store) -> None:
    assert store.state("routes/triage") is None
    store.set_state("routes/triage", {"champion": "a"})
    store.set_state("routes/triage", {"champion": "b", "share": 0.1})
    assert store.state("routes/triage") == {"champion": "b", "share": 0.1}
    store.add_audit("triage", "ops", "promoted b", {"from": "a"})
    store.add_audit("other", "ops", "stopped")
    (line,) = store.audit_log("triage")
    assert (line["who"], line["what"], line["detail"]) == ("ops", "promoted b", {"from": "a"})
    assert [entry["task"] for entry in store.audit_log()] == ["triage", "other"]


def test_old_requests_go_with_their_feedback(store: Store) -> None:
    store.add([captured(n) for n in range(10)], [Feedback("r1", 1.0, 1.0), Feedback("r8", 1.0, 0.0)])
    assert store.purge(1_005.0) == 5
    assert [request.id for request in store.requests()] == ["r5", "r6", "r7", "r8", "r9"]
    assert list(store.feedback(["r1", "r8"])) == ["r8"]
    store.add([], [Feedback("dropped", 900.0, comment="private"), Feedback("to come", 2_000.0)])
    store.purge(1_000.0)
    assert set(store.feedback(["dropped", "to come", "r8"])) == {"r8", "to come"}


def test_a_row_that_the_store_does_not_take_says_so(store: Store) -> None:
    with pytest.raises(RefusedRow):
        store.add([captured(1, input=None)])
    assert list(store.requests()) == []


def test_opening_again_changes_nothing_and_many_may_open_at_once(tmp_path: Path) -> None:
    faults: list[BaseException] = []
    numbers = itertools.count()

    def opening() -> None:
        try:
            with open_store(tmp_path / "c.sqlite") as opened:
                opened.add([captured(next(numbers))])
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=opening) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    with open_store(tmp_path / "c.sqlite") as opened:
        assert len(list(opened.requests())) == 6


def test_the_migrations_end_at_the_schema(store: Store) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    def is_no_partition(made: Any, name: str, kind: str, *rest: Any) -> bool:
        table = made.table.name if kind == "index" else name
        return kind not in ("table", "index") or not table.startswith("requests_")

    with store.engine.connect() as connection:
        opts = {"version_table": VERSION, "include_object": is_no_partition}
        context = MigrationContext.configure(connection, opts=opts)
        assert compare_metadata(context, metadata) == []


def test_a_killed_first_opening_is_made_up_for(tmp_path: Path) -> None:
    script = f"""
import os
from alembic.operations import Operations
from tunepoint.capture.opening import open_store
Operations.create_index = lambda *a, **k: os._exit(9)
open_store({str(tmp_path / "c.sqlite")!r})
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    with open_store(tmp_path / "c.sqlite") as store:
        store.add([captured(1)])
        assert len(list(store.requests())) == 1


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("no database " * 200)
    with pytest.raises(StoreError, match=r"text.sqlite: cannot be opened \(file is not a database"):
        open_store(tmp_path / "text.sqlite")
    with pytest.raises(StoreError, match="no such capture store"):
        open_store(tmp_path / "none.sqlite", create=False)
    with pytest.raises(StoreError, match="a SQLite file or a PostgreSQL database"):
        open_store("mysql://u:secret@h/d")
    with pytest.raises(StoreError, match="cannot be opened") as refused:
        open_store("postgresql://me:secret@127.0.0.1:1/db")
    assert "secret" not in str(refused.value)
    for where in ("postgresql://127.0.0.1:1/db?password=secret", "postgresql://me:p%40secret@127.0.0.1:1/db"):
        with pytest.raises(StoreError) as refused:
            open_store(where)
        assert "secret" not in str(refused.value) and "me" not in str(refused.value).partition("(")[0]
    with pytest.raises(StoreError, match="as %40"):
        open_store("postgresql://me:p@ss@127.0.0.1:1/db")
    for where in ("", ":memory:"):
        with pytest.raises(StoreError, match="cannot keep anything"):
            open_store(where, create=False)
    with pytest.raises(StoreError, match="not a valid URL"):
        open_store("postgresql://h:notaport/db")
    with sqlite3.connect(tmp_path / "foreign.sqlite") as foreign:
        foreign.execute("create table alembic_version (version_num text)")
        foreign.execute("create table theirs (x int)")
    foreign.close()
    with pytest.raises(StoreError, match=r"another program's database \(it has alembic_version, theirs\)"):
        open_store(tmp_path / "foreign.sqlite")
    (tmp_path / "empty.sqlite").touch()
    with pytest.raises(StoreError, match="no capture store in it"):
        open_store(tmp_path / "empty.sqlite", create=False)
    with pytest.raises(StoreError, match="is a folder"):
        open_store(tmp_path)
    with open_store(tmp_path / "later.sqlite") as later:
        with later.engine.begin() as connection:
            connection.execute(sa.text("update tunepoint_version set version_num = '9999'"))
        later.set_state(COMPATIBILITY, {"oldest": "9998"})
    with pytest.raises(StoreError, match="another version of tunepoint"):
        open_store(tmp_path / "later.sqlite")


def test_the_latest_migration_is_named() -> None:
    config = Config()
    config.set_main_option("script_location", "tunepoint.capture:migrations")
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_gateways_of_this_version_serve_beside_a_later_one_whose_migration_only_added(store: Store) -> None:
    store.add([captured()])
    with store.engine.begin() as connection:
        connection.execute(sa.text("alter table requests add column later integer"))
        connection.execute(sa.text("update tunepoint_version set version_num = '0004'"))
    where = store.engine.url.render_as_string(hide_password=False).replace("+psycopg", "")
    with open_store(where.removeprefix("sqlite:///")) as beside:
        beside.add([captured(1)])
        assert [request.id for request in beside.requests()] == ["r0", "r1"]


def test_gateways_of_the_version_before_serve_on_beside_this_one(store: Store) -> None:
    """What the schema of before allowed still works: states without a version."""
    with store.engine.begin() as connection:
        insert = "insert into states (name, content, at) values ('routes/t', '{}', 1)"
        connection.execute(sa.text(insert))
    assert store.versioned_state("routes/t") == ({}, 0)


# -- the writer ---------------------------------------------------------------------------------


class Sink:
    """A store that may be away, or refuse rows that say so."""

    def __init__(self) -> None:
        self.rows: dict[str, CapturedRequest] = {}
        self.feedback: list[Feedback] = []
        self.away = False
        self.batches = 0

    def add(self, requests: Sequence[CapturedRequest] = (), feedback: Sequence[Feedback] = ()) -> None:
        if self.away:
            raise StoreError("away")
        if any(request.input == "refuse" for request in requests):
            raise RefusedRow("no")
        self.batches += 1
        for request in requests:
            self.rows.setdefault(request.id, request)
        self.feedback += feedback


def until(condition: object, seconds: float = 10.0) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.005)


def test_requests_are_batched_and_all_written_at_the_end() -> None:
    sink = Sink()
    writer = Writer(sink, None)
    for number in range(5_000):
        writer.put(captured(number))
    assert writer.close() == 0
    assert len(sink.rows) == writer.counts.written == 5_000
    assert sink.batches < 50


def test_feedback_is_acknowledged_when_it_is_written() -> None:
    sink = Sink()
    writer = Writer(sink, PatternRedactor())
    done = writer.put_feedback(Feedback("r1", 1.0, comment="mail me at a.b@example.com"))
    done.result(5)
    assert [entry.comment for entry in sink.feedback] == ["mail me at <email>"]
    sink.away = True
    with pytest.raises(StoreError):
        writer.put_feedback(Feedback("r2", 1.0)).result(5)
    sink.away = False
    writer.close()


def test_while_the_store_is_away_requests_wait_and_the_oldest_go_first() -> None:
    sink = Sink()
    sink.away = True
    writer = Writer(sink, None, capacity=100, linger=0.0, pause=lambda seconds: time.sleep(0.002))
    for number in range(400):
        writer.put(captured(number))
        if number == 0:
            until(lambda: writer.counts.failing)
    # a batch that the store refuses is in the writer's hands meanwhile, at most a full queue
    assert writer.waiting <= 200 and writer.counts.dropped >= 200
    sink.away = False
    until(lambda: not writer.waiting and not writer.counts.failing)
    assert writer.close() == 0
    assert "r399" in sink.rows and len(sink.rows) + writer.counts.dropped == 400


def test_the_batch_that_is_being_written_takes_its_part_of_the_capacity() -> None:
    writing, go_on = threading.Event(), threading.Event()

    class HeldSink(Sink):
        def add(self, requests: Sequence[CapturedRequest] = (), feedback: Sequence[Feedback] = ()) -> None:
            writing.set()
            assert go_on.wait(60)
            super().add(requests, feedback)

    writer = Writer(HeldSink(), None, capacity=10, linger=0.0)
    writer.put(captured(0))
    assert writing.wait(60)
    for number in range(1, 30):
        writer.put(captured(number))
    assert writer.waiting == 10 and writer.counts.dropped == 20
    go_on.set()
    assert writer.close() == 0


def test_one_refused_row_keeps_no_other_out() -> None:
    sink = Sink()
    writer = Writer(sink, None)
    for number in range(20):
        writer.put(captured(number, input="refuse" if number == 7 else "fine"))
    writer.close()
    assert len(sink.rows) == 19 and writer.counts.refused == 1


def test_a_caller_that_gives_up_on_its_feedback_stops_nothing() -> None:
    sink = Sink()
    writer = Writer(sink, None, linger=0.2)
    given_up = writer.put_feedback(Feedback("r1", 1.0))
    given_up.cancel()
    writer.put_feedback(Feedback("r2", 1.0)).result(5)
    writer.put(captured(1))
    assert writer.close() == 0 and list(sink.rows) == ["r1"]


@pytest.mark.parametrize(
    "bad",
    [
        {"input_tokens": 2**70},
        {"input": None},
        {"answer": ["x"]},
        {"parameters": None},
        {"parameters": {"x": {1, 2}}},
        {"slice": ["x"]},
    ],
)
def test_no_row_whatever_it_holds_stops_the_writer(store: Store, bad: dict[str, object]) -> None:
    writer = Writer(store, PatternRedactor())
    for number in range(5):
        writer.put(captured(number, **(bad if number == 2 else {})))
    writer.put_feedback(Feedback("r1\ud800", 1.0, comment="half \ud83d")).result(10)
    assert writer.close() == 0
    assert len(list(store.requests())) == writer.counts.written == 4 and writer.counts.refused == 1


def test_a_redactor_that_fails_keeps_only_its_row_out() -> None:
    def redact(text: str) -> str:
        if text == "question 2":
            raise RuntimeError("no")
        return text

    sink = Sink()
    writer = Writer(sink, redact)
    for number in range(5):
        writer.put(captured(number))
    assert writer.close() == 0 and sorted(sink.rows) == ["r0", "r1", "r3", "r4"]
    assert (writer.counts.written, writer.counts.refused) == (4, 1)


def test_after_the_end_nothing_is_taken_in_silence() -> None:
    writer = Writer(Sink(), None)
    writer.close()
    writer.put(captured(1))
    assert writer.counts.dropped == 1
    with pytest.raises(StoreError, match="closed"):
        writer.put_feedback(Feedback("r1", 1.0)).result(1)


def test_what_is_being_written_still_waits() -> None:
    class Slow(Sink):
        def add(self, requests: Sequence[CapturedRequest] = (), feedback: Sequence[Feedback] = ()) -> None:
            time.sleep(1.0)
            super().add(requests, feedback)

    writer = Writer(Slow(), None, linger=0.0)
    for number in range(10):
        writer.put(captured(number))
    assert writer.close(0.3) == 10
    until(lambda: not writer.waiting)


def test_a_store_that_stays_away_does_not_keep_the_process_from_ending() -> None:
    sink = Sink()
    sink.away = True
    writer = Writer(sink, None, pause=lambda seconds: time.sleep(min(seconds, 0.01)))
    writer.put(captured(1))
    assert writer.close(5) == 1


def test_text_that_no_database_takes_is_mended(store: Store) -> None:
    writer = Writer(store, None)
    writer.put(captured(1, input="nul\x00 and half \ud83d of a pair", answer=None))
    writer.close()
    assert next(store.requests()).input == "nul and half ? of a pair"


def test_acknowledged_feedback_survives_a_kill(tmp_path: Path) -> None:
    """SIGKILL under load: all acknowledged feedback is there, and all requests but the last moments'."""
    script = f"""
import sys, time
from tunepoint.capture.records import CapturedRequest, Feedback
from tunepoint.capture.opening import open_store
from tunepoint.capture.writer import Writer
writer = Writer(open_store({str(tmp_path / "c.sqlite")!r}), None)
for n in range(100_000):
    writer.put(CapturedRequest(f"r{{n}}", time.time(), "t", "a", "champion", "m", "q", "x"))
    if n % 50 == 0:
        writer.put_feedback(Feedback(f"r{{n}}", time.time(), 1.0)).result()
        print(n, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = [int(process.stdout.readline()) for _ in range(40)]
    process.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in process.stdout.read().splitlines()]
    process.wait()
    process.stdout.close()
    with open_store(tmp_path / "c.sqlite") as store:
        kept = store.feedback([f"r{n}" for n in acknowledged])
        assert set(kept) == {f"r{n}" for n in acknowledged}
        written = len(list(store.requests()))
    assert written >= acknowledged[-1] + 1  # what came before an acknowledgement was in its batch or before


# -- redaction ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("write to jo.smith+x@mail.example.co.uk today", "write to <email> today"),
        ("call +49 151 2345 6789 or (212) 736-5000", "call <phone> or <phone>"),
        ("London is 020 7946 0958", "London is <phone>"),
        ("card 4111 1111 1111 1111, please", "card <card>, please"),
        ("IBAN DE89 3704 0044 0532 0130 00 IS MINE", "IBAN <account> IS MINE"),
        ("GB82WEST12345698765432", "<account>"),
        ("ssn 536-90-4399", "ssn <ssn>"),
        ("from 192.168.10.254.", "from <ip>."),
        ("from 192.168.10.254 on", "from <ip> on"),
        ("key sk-proj-abcdEFGH1234567890xyz", "key <secret>"),
        ("order 1234567890123 of 2024-05-06", "order 1234567890123 of 2024-05-06"),
        ("version 1.2.3, 15% of 20,000", "version 1.2.3, 15% of 20,000"),
    ],
)
def test_personal_data_is_taken_out_and_numbers_stay(text: str, kept: str) -> None:
    assert PatternRedactor()(text) == kept


def test_long_texts_are_read_in_no_time() -> None:
    # It was quadratic once, 15 seconds for a tenth of this: then this test would never end.
    assert PatternRedactor()("a" * 1_000_000 + " jo@x.example").endswith(" <email>")


def test_json_is_redacted_text_by_text() -> None:
    value = {"a@b.example": ["a@b.example", 3, None, {"x": ("call +49 151 2345 6789",)}]}
    assert redacted(value, PatternRedactor()) == {
        "a@b.example": ["<email>", 3, None, {"x": ["call <phone>"]}]
    }
