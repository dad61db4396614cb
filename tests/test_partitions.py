"""Requests by month on PostgreSQL: tables made ahead, dropped when they are old, and the same answers."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from postgres_server import INSTALLED, Postgres, postgres_server

from tunepoint.capture.copying import copy_store
from tunepoint.capture.opening import open_store
from tunepoint.capture.partitions import drop_months, make_months
from tunepoint.capture.records import CapturedRequest, Feedback
from tunepoint.capture.store import Store
from tunepoint.errors import StoreError

pytestmark = pytest.mark.skipif(not INSTALLED, reason="no PostgreSQL server is installed")
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres_server() as running:
        yield running


def new_database(server: Postgres) -> str:
    name = f"months{next(NUMBERS)}"
    as_admin = ("-h", str(server.folder), "-U", "tunepoint", "-c")
    server.call("psql", *as_admin, f"create database {name}", "postgres")
    return f"postgresql://tunepoint@/{name}?host={server.folder}"


@pytest.fixture
def store(server: Postgres) -> Iterator[Store]:
    with open_store(new_database(server)) as opened:
        yield opened


def at(year: int, month: int, day: int = 1) -> float:
    return datetime(year, month, day, tzinfo=UTC).timestamp()


def request(name: str, when: float) -> CapturedRequest:
    return CapturedRequest(name, when, "t", "a", "champion", "m", "x", "y")


def tables(store: Store) -> dict[str, int]:
    """Name of a table with requests -> how many."""
    query = "select relname from pg_inherits join pg_class on oid = inhrelid where relkind = 'r' order by 1"
    with store.transaction("read") as connection:
        names = connection.scalars(sa.text(query)).all()
        counts = {name: connection.scalar(sa.text(f"select count(*) from only {name}")) for name in names}
    return {name: int(count or 0) for name, count in counts.items() if name.startswith("requests")}


def test_each_month_has_a_table_made_ahead(store: Store) -> None:
    make_months(store, at(2026, 11, 20), at(2026, 11, 20))
    make_months(store, at(2026, 11, 20), at(2026, 12, 1))  # an hour later, say
    store.add([request("a", at(2026, 11, 30)), request("b", at(2026, 12, 1)), request("c", at(2020, 1, 1))])
    assert tables(store) == {
        "requests_2026_11": 1,
        "requests_2026_12": 1,
        "requests_2027_01": 0,
        "requests_2027_02": 0,
        "requests_default": 1,
    }
    assert [r.id for r in store.requests("t")] == ["c", "a", "b"] and store.find("b") is not None
    assert [r.id for r in store.latest("t", 2)] == ["a", "b"]


def test_a_request_that_is_sent_again_is_there_once(store: Store) -> None:
    make_months(store, at(2026, 11), at(2026, 11))
    for _ in range(2):
        store.add(
            [replace(request("a", at(2026, 11, 3)), key="k", cost_nanousd=7), request("b", at(2019, 1))]
        )
    assert len(list(store.requests())) == 2


def test_a_request_that_is_imported_again_at_another_time_is_there_once(store: Store) -> None:
    for when in (1_000.0, 2_000.0):
        store.add([replace(request(f"r{n}", when), origin="import") for n in range(5)])
    assert len(list(store.requests())) == 5


def test_old_months_are_dropped_and_the_rest_goes_row_by_row(store: Store) -> None:
    make_months(store, at(2026, 8), at(2026, 11))
    days = [at(2019, 1), at(2026, 8, 5), at(2026, 9, 5), at(2026, 10, 5), at(2026, 10, 25), at(2026, 11, 5)]
    store.add([request(f"r{n}", when) for n, when in enumerate(days)])
    store.add(feedback=[Feedback(f"r{n}", when + 60, 1.0) for n, when in enumerate(days)])
    assert store.purge(at(2026, 10, 15)) == 2  # that of 2019 and the first of October
    assert [r.id for r in store.requests()] == ["r4", "r5"]
    assert sorted(store.feedback([f"r{n}" for n in range(6)])) == ["r4", "r5"]
    assert "requests_2026_08" not in tables(store) and "requests_2026_10" in tables(store)
    assert drop_months(store, at(2026, 10, 15)) == 0


def test_requests_that_came_before_their_month_had_a_table_stay(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.add([request("a", at(2026, 11, 3))])
    with caplog.at_level(logging.WARNING):
        make_months(store, at(2026, 11, 3), at(2026, 11, 3))
    assert "requests of 2026-11 have no table of their own" in caplog.text
    assert store.find("a") is not None and "requests_2026_12" in tables(store)


def test_a_copy_has_its_requests_by_month(server: Postgres, tmp_path: Path) -> None:
    with open_store(tmp_path / "here.sqlite") as here, open_store(new_database(server)) as there:
        here.add([request("a", at(2025, 5, 5)), request("b", at(2026, 2, 2))])
        copy_store(here, there)
        assert tables(there)["requests_2025_05"] == 1 and tables(there)["requests_2026_02"] == 1
        assert tables(there)["requests_default"] == 0
        with open_store(tmp_path / "back.sqlite") as back:
            copy_store(there, back)
            assert [r.id for r in back.requests()] == ["a", "b"]


def test_a_store_that_has_requests_stays_in_one_table(
    server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = new_database(server)
    upgrade = command.upgrade
    monkeypatch.setattr(command, "upgrade", lambda config, revision: upgrade(config, "0003"))
    with open_store(address) as before:
        before.add([request("a", at(2026, 11, 3))])
    monkeypatch.undo()
    with open_store(address) as store:
        make_months(store, at(2026, 11), at(2026, 11))
        assert tables(store) == {} and store.find("a") is not None
        assert store.purge(at(2026, 12)) == 1


def test_a_locked_table_does_not_hold_captures_for_long(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.engine.begin() as other:
        other.exec_driver_sql("lock table requests in access exclusive mode")
        with pytest.raises(StoreError, match="lock timeout"):
            store.add([request("a", 1.0)])
