"""Requests that wait on disk while the store is away, and come to it when it is back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

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
    assert living.waiting == 1 and len(list(tmp_path.iterdir())) == 2
    other.add([request(8)])
    assert other.next(9) == [request(7), request(8)]
    other.remove(2)
    other.close()
    living.close()
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_file_larger_than_its_room_is_taken_over_whole(tmp_path: Path) -> None:
    dead = Spool(tmp_path, 10**6)
    dead.add([request(n) for n in range(100)])
    dead._file.close()  # type: ignore[union-attr]  # as a kill does
    other = Spool(tmp_path, 1_000)
    assert other.next(500) == [request(n) for n in range(100)]
    other.remove(100)
    assert other.waiting == 0
    other.close()


def test_what_another_version_has_written_is_kept(tmp_path: Path) -> None:
    dead = Spool(tmp_path, 10**6)
    dead.add([request(1)])
    dead._file.close()  # type: ignore[union-attr]
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes().replace(b'{"id"', b'{"added_later": 1, "id"'))
    (tmp_path / "2-other.jsonl").write_bytes(b'{"nothing": "known"}\n')
    other = Spool(tmp_path, 10**6)
    assert other.next(9) == [request(1)]
    other.remove(1)
    other._looked = -1e9
    assert other.next(9) == [] and (tmp_path / "2-other.unreadable").exists()
    other.close()


class FullDisk(FileIO):
    """A file on a disk with room for so many bytes more."""

    room = 0

    def write(self, content: Any) -> int:
        taken = bytes(content)[: self.room]
        FullDisk.room -= len(taken)
        if not taken:
            raise OSError(28, "No space left on device")
        return super().write(taken)


def test_a_full_disk_loses_nothing_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunepoint.capture.spool.FileIO", FullDisk)
    store = Away()
    writer = Writer(store, None, Spool(tmp_path, 10**6), linger=0.0, pause=briefly)
    FullDisk.room = 3_000
    for number in range(60):
        writer.put(request(number))
        until(lambda: writer.counts.failing)
    until(lambda: writer.spooled > 0)
    assert writer.spooled + writer.waiting == 60
    FullDisk.room = 10**6
    until(lambda: writer.spooled == 60)
    store.is_away = False
    writer.put(request(60))
    until(lambda: len(store.rows) == 61)
    assert {row.id for row in store.rows} == {f"r{n}" for n in range(61)}
    assert writer.close(5) == 0


def test_a_disk_that_fails_does_not_end_the_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, spool = Away(), Spool(tmp_path, 10**6)
    store.is_away = False
    broken = [True]
    following = spool.next

    def fail(count: int) -> list[CapturedRequest]:
        if broken[0]:
            raise PermissionError(13, "Permission denied")
        return following(count)

    monkeypatch.setattr(spool, "next", fail)
    writer = Writer(store, None, spool, linger=0.0, pause=briefly)
    writer.put(request(0))
    until(lambda: len(store.rows) == 1 and writer.counts.failing)
    broken[0] = False
    writer.put(request(1))
    until(lambda: len(store.rows) == 2 and not writer.counts.failing)
    assert writer.close(5) == 0


def test_an_error_that_nobody_foresaw_does_not_end_the_writer(tmp_path: Path) -> None:
    store, faults = Away(), [ZeroDivisionError("odd")]
    store.is_away = False
    add = store.add

    def odd(requests: Sequence[CapturedRequest] = (), feedback: Sequence[Feedback] = ()) -> None:
        if faults:
            raise SystemError(faults.pop())
        add(requests, feedback)

    store.add = odd  # type: ignore[method-assign]
    writer = Writer(store, None, None, linger=0.0, pause=briefly)
    for number in range(3):
        writer.put(request(number))
    until(lambda: len(store.rows) == 3)
    assert writer.close(5) == 0


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
