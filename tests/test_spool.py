"""Requests that wait on disk while the store is away, and come to it when it is back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tunepoint.capture.opening import open_store
from tunepoint.capture.records import CanaryValue, CapturedRequest, Feedback
from tunepoint.capture.spool import Spool
from tunepoint.capture.writer import Writer
from tunepoint.errors import StoreError


def request(number: int, words: str = "where is my parcel?") -> CapturedRequest:
    outcome = CanaryValue("t", 1.5, "canary", "answered", f"u{number}", 1.0)
    return CapturedRequest(
        f"r{number}",
        float(number),
        "t",
        "a",
        "canary",
        "m",
        words,
        "x",
        parameters={"temperature": 0, "tools": [{"name": "n"}]},
        messages=[{"role": "user", "content": words}],
        cost_nanousd=12_345,
        outcomes=(outcome,),
    )


@dataclass
class Away:
    """A store that is away for a while."""

    is_away: bool = True
    rows: list[CapturedRequest] = field(default_factory=list)

    def add(self, requests: Sequence[CapturedRequest] = (), feedback: Sequence[Feedback] = ()) -> None:
        if self.is_away:
            raise StoreError("the store is away")
        self.rows += requests


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def briefly(seconds: float) -> None:
    time.sleep(0.001)


def test_what_is_added_is_taken_once_and_in_order(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 10**6)
    assert spool.next(5) == [] and not (tmp_path / "spool").exists()  # nothing is made before it is needed
    assert spool.add([request(0), request(1)]) == 2 and spool.add([request(2)]) == 1
    (file,) = (tmp_path / "spool").iterdir()
    assert file.stat().st_mode & 0o077 == 0
    assert spool.next(2) == [request(0), request(1)] == spool.next(2)  # until it is removed
    spool.remove(2)
    assert spool.waiting == 1 and spool.next(9) == [request(2)]
    spool.remove(1)
    assert spool.waiting == 0 and file.stat().st_size == 0
    spool.close()
    assert not file.exists()


def test_it_takes_what_there_is_room_for(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 2_000)
    kept = spool.add([request(n) for n in range(20)])
    assert 2 < kept < 20 and spool.waiting == kept
    assert spool.add([request(99)]) == 0
    assert [r.id for r in spool.next(99)] == [f"r{n}" for n in range(kept)]
    spool.close()
    assert len(list(tmp_path.iterdir())) == 1  # what waits stays


def test_the_file_of_a_killed_process_is_taken_over_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    living = Spool(tmp_path, 10**6)
    living.add([request(7)])
    (file,) = tmp_path.iterdir()
    (tmp_path / "123-dead.jsonl").write_bytes(file.read_bytes() + b'{"id": "half')
    other = Spool(tmp_path, 10**6)
    assert other.next(9) == [request(7)] and other.waiting == 1  # the half line of the kill is left out
    assert not (tmp_path / "123-dead.jsonl").exists() and living.waiting == 1
    assert len(list(tmp_path.iterdir())) == 2
    living.close()
    other.close()


def test_a_damaged_file_stops_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10**6)
    spool.add([request(1)])
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"{}\n")
    assert spool.next(9) == [] and spool.waiting == 0
    spool.close()


def test_a_writer_spools_while_the_store_is_away_and_catches_up(tmp_path: Path) -> None:
    store = Away()
    # Memory holds five: without the disk, forty would have been dropped.
    writer = Writer(store, None, Spool(tmp_path, 10**6), capacity=5, linger=0.0, pause=briefly)
    for number in range(45):
        writer.put(request(number))
        until(lambda: writer.waiting < 5)
    until(lambda: writer.spooled == 45)
    assert writer.counts.failing and writer.counts.dropped == 0 and writer.waiting == 0
    store.is_away = False
    writer.put(request(45))
    until(lambda: len(store.rows) == 46)
    assert {row.id for row in store.rows} == {f"r{n}" for n in range(46)}
    assert writer.close(5) == 0 and writer.spooled == 0 and not list(tmp_path.iterdir())


def test_a_writer_that_closes_leaves_the_rest_on_disk_at_once(tmp_path: Path) -> None:
    """Catching up may take long; who stops a gateway does not wait for it."""
    store = Away()
    writer = Writer(store, None, Spool(tmp_path, 10**6), batch=1, linger=0.0, pause=briefly)
    for number in range(30):
        writer.put(request(number))
    until(lambda: writer.spooled == 30)
    slow = store.add

    def add(requests: Sequence[CapturedRequest] = (), feedback: Sequence[Feedback] = ()) -> None:
        time.sleep(0.05)
        slow(requests, feedback)

    store.add, store.is_away = add, False  # type: ignore[method-assign]
    writer.put(request(30))
    until(lambda: len(store.rows) > 2)
    started = time.monotonic()
    assert writer.close(10) == 0 and time.monotonic() - started < 5
    assert writer.spooled + len(store.rows) >= 31 and writer.spooled > 0


def test_what_waits_at_the_end_is_there_at_the_next_start(tmp_path: Path) -> None:
    writer = Writer(Away(), None, Spool(tmp_path / "s", 10**6), linger=0.0, pause=briefly)
    for number in range(10):
        writer.put(request(number))
    assert writer.close(2) == 0  # none of them is lost
    with open_store(tmp_path / "c.sqlite") as store:
        again = Writer(store, None, Spool(tmp_path / "s", 10**6), linger=0.0)
        until(lambda: len(list(store.requests())) == 10)
        assert again.close(5) == 0
        assert [row.cost_nanousd for row in store.requests()] == [12_345] * 10
    assert not list((tmp_path / "s").iterdir())
