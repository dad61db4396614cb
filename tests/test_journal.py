"""A study at an address of an object store: what is there after a kill, on this machine and on another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
from conftest import ROOT

from tunepoint import Result, Task, run
from tunepoint.errors import StudyError
from tunepoint.files.object_store import ObjectStore
from tunepoint.models.chat import Message, Usage
from tunepoint.models.endpoints import Completion, Request
from tunepoint.models.recording import CallRecording
from tunepoint.study import journal as journals
from tunepoint.study import ownership
from tunepoint.study.directory import CALLS
from tunepoint.study.journal import Journal, is_address, working_copy


def address_of(folder: Path) -> str:
    return f"file://{folder}/bucket/study"


def plain(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in journals.OWN_FILES and path.name != CALLS
    }


@pytest.fixture(autouse=True)
def opened_ones() -> Iterator[None]:
    """Journals that a test opens, which stop signing at its end."""
    yield
    while OPENED:
        OPENED.pop().ownership.stop()


OPENED: list[Journal] = []


def opened(address: str, folder: Path) -> Journal:
    made = Journal(ObjectStore.of(address), folder)
    OPENED.append(made)
    made.open()
    return made


def test_an_address_has_a_protocol() -> None:
    assert is_address("s3://bucket/study") and not is_address("studies/mine")


def test_a_study_that_ends_leaves_a_study_directory(tmp_path: Path) -> None:
    address = address_of(tmp_path)
    with working_copy(address, folder=tmp_path / "here") as place:
        folder = place.folder
        (folder / "dev.jsonl").write_text('{"a": 1}\n')
        (folder / "arms").mkdir()
        (folder / "arms" / "run.safetensors").write_bytes(b"weights")
        (folder / "manifest.json").write_text("{}")
    there = plain(tmp_path / "bucket" / "study")
    assert there.pop(ownership.OWNER)
    assert there == plain(tmp_path / "here")


def test_lines_go_as_parts_and_come_back_whole(tmp_path: Path) -> None:
    address = address_of(tmp_path)
    first = opened(address, tmp_path / "first")
    log = first.folder / "dev.jsonl"
    for number in range(3):
        with log.open("a") as file:
            file.write(f'{{"line": {number}}}\n{{"half')
        first.sync()
        log.write_bytes(log.read_bytes().removesuffix(b'{"half'))  # same file, half a line shorter
    parts = sorted((tmp_path / "bucket" / "study" / "dev.jsonl.parts").iterdir())
    assert [path.stat().st_size for path in parts] == [12, 12, 12]
    second = second_machine(address, tmp_path, first)
    assert (second.folder / "dev.jsonl").read_text() == '{"line": 0}\n{"line": 1}\n{"line": 2}\n'


def second_machine(address: str, tmp_path: Path, dead: Journal) -> Journal:
    """Take over from a process that died a while ago."""
    dead.ownership.stop()
    long_ago = time.time() - 2 * ownership.LEASE_SECONDS
    sign = {"writer": dead.ownership.writer, "host": "first", "at": long_ago, "open": True}
    dead.storage.write(ownership.OWNER, json.dumps(sign).encode())
    return opened(address, tmp_path / "second")


def test_a_file_that_was_replaced_goes_anew(tmp_path: Path) -> None:
    address = address_of(tmp_path)
    first = opened(address, tmp_path / "first")
    log = first.folder / "dev.jsonl"
    log.write_text("1\n2\n3\n")
    first.sync()
    log.with_suffix(".new").write_text("2\n")
    log.with_suffix(".new").replace(log)
    first.sync()
    with log.open("a") as file:
        file.write("4\n")
    first.sync()
    assert (second_machine(address, tmp_path, first).folder / "dev.jsonl").read_text() == "2\n4\n"


def test_calls_come_back_with_their_numbers(tmp_path: Path) -> None:
    address = address_of(tmp_path)
    first = opened(address, tmp_path / "first")
    recording = CallRecording(first.folder / CALLS)
    request = Request((Message("user", "hello"),))
    for number in range(3):
        recording.keep(f"key {number}", "m", request, Completion(f"answer {number}", Usage("m")))
        first.sync()
    recording.set_aside(["key 1"])  # asked for once more, under a name that no request has
    recording.keep("key 1", "m", request, Completion("anew", Usage("m")))
    first.sync()
    recording.close()
    second = second_machine(address, tmp_path, first)
    restored = CallRecording(second.folder / CALLS)
    calls = restored.find(["key 0", "key 1", "key 2"])
    restored.close()
    assert {key: answer.text for key, answer in calls.items()} == {
        "key 0": "answer 0",
        "key 1": "anew",
        "key 2": "answer 2",
    }


def test_the_working_copy_goes_on_where_it_is_the_newest(tmp_path: Path) -> None:
    address = address_of(tmp_path)
    first = opened(address, tmp_path / "here")
    (first.folder / "dev.jsonl").write_text("1\n")
    first.sync()
    with (first.folder / "dev.jsonl").open("a") as file:
        file.write("2\n")  # the process dies before the next look
    again = opened(address, tmp_path / "here")
    assert (again.folder / "dev.jsonl").read_text() == "1\n2\n"
    assert (second_machine(address, tmp_path, again).folder / "dev.jsonl").read_text() == "1\n2\n"
    assert (opened_after(address, tmp_path) / "dev.jsonl").read_text() == "1\n2\n3\n"


def opened_after(address: str, tmp_path: Path) -> Path:
    """The first machine again, after the second one has gone on and ended."""
    second = opened(address, tmp_path / "second")
    with (second.folder / "dev.jsonl").open("a") as file:
        file.write("3\n")
    second.close()
    return opened(address, tmp_path / "here").folder


def test_two_machines_do_not_work_on_one_study(tmp_path: Path) -> None:
    address = address_of(tmp_path)
    first = opened(address, tmp_path / "first")
    (first.folder / "dev.jsonl").write_text("1\n")
    with pytest.raises(StudyError, match=r"is working on this study .* 60 s after it died"):
        opened(address, tmp_path / "second")
    second_machine(address, tmp_path, first)
    with pytest.raises(StudyError, match="took this study over, because this one gave no sign for 60 s"):
        first.sync()


def test_a_second_start_on_the_same_machine_takes_nothing_over(tmp_path: Path) -> None:
    address = address_of(tmp_path)
    with working_copy(address, folder=tmp_path / "here") as place:
        with (
            pytest.raises(StudyError, match="another process is working on this study"),
            working_copy(address, folder=tmp_path / "here"),
        ):
            raise AssertionError
        (place.folder / "dev.jsonl").write_text("1\n")
    assert (tmp_path / "bucket" / "study" / "dev.jsonl").read_text() == "1\n"


def test_a_writer_that_was_taken_for_dead_stops_before_it_spends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "SIGN_SECONDS", 0.02)
    first = opened(address_of(tmp_path), tmp_path / "first")
    first.ownership.raise_lost()
    second = {"writer": "second", "host": "elsewhere", "at": time.time(), "open": True}
    first.storage.write(ownership.OWNER, json.dumps(second).encode())
    deadline = time.monotonic() + 10
    with pytest.raises(StudyError, match="elsewhere took this study over"):
        while time.monotonic() < deadline:
            first.ownership.raise_lost()
    (first.folder / "dev.jsonl").write_text("1\n")
    with pytest.raises(StudyError):
        first.sync()
    signed = json.loads(first.storage.read(ownership.OWNER) or b"")
    assert signed["writer"] == "second"  # it does not take it back
    assert not (tmp_path / "bucket" / "study" / "dev.jsonl.parts").exists()


def test_a_slow_upload_looks_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "SIGN_SECONDS", 0.02)
    first = opened(address_of(tmp_path), tmp_path / "first")
    write, signs = first.storage.write, list[float]()

    def slow(name: str, content: bytes) -> None:
        if name == ownership.OWNER:
            signs.append(time.monotonic())
        else:
            time.sleep(0.5)
        write(name, content)

    monkeypatch.setattr(first.storage, "write", slow)
    (first.folder / "dev.jsonl").write_text("1\n")
    first.sync()
    assert len(signs) > 5


def test_a_kill_while_parts_are_removed_leaves_the_plain_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = address_of(tmp_path)
    first = opened(address, tmp_path / "first")
    for number in range(6):
        with (first.folder / "dev.jsonl").open("a") as file:
            file.write(f"{number}\n")
        first.sync()
    remove = first.storage.remove

    def killed(names: Collection[str]) -> None:
        remove(sorted(names)[:3])
        raise KeyboardInterrupt

    monkeypatch.setattr(first.storage, "remove", killed)
    with pytest.raises(KeyboardInterrupt):
        first.close()
    sign = json.loads(first.storage.read(ownership.OWNER) or b"")
    first.storage.write(ownership.OWNER, json.dumps({**sign, "at": 0.0}).encode())
    second = opened(address, tmp_path / "second")
    assert (second.folder / "dev.jsonl").read_text() == "".join(f"{n}\n" for n in range(6))


def test_a_study_of_days_leaves_few_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "MOST_PARTS", 4)
    address = address_of(tmp_path)
    first = opened(address, tmp_path / "first")
    recording = CallRecording(first.folder / CALLS)
    for number in range(30):
        recording.keep(f"key {number}", "m", Request(()), Completion(str(number), Usage("m")))
        with (first.folder / "dev.jsonl").open("a") as file:
            file.write(f"{number}\n")
        first.sync()
    recording.close()
    assert sum(journals.PARTS in name for name in first.storage.names()) <= 10
    second = second_machine(address, tmp_path, first)
    assert (second.folder / "dev.jsonl").read_text() == "".join(f"{n}\n" for n in range(30))
    restored = CallRecording(second.folder / CALLS)
    assert len(restored) == 30
    restored.close()


def test_a_storage_that_does_not_answer_is_an_error_that_says_where_the_study_is(tmp_path: Path) -> None:
    (tmp_path / "bucket").write_text("a file where the folder should be")
    with pytest.raises(StudyError, match=r"cannot be read .* is in .*here"):
        opened(address_of(tmp_path), tmp_path / "here")
    with pytest.raises(StudyError, match="cannot be opened"):
        ObjectStore.of("nowhere://bucket/study")


def test_the_manifest_never_tells_of_what_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened(address_of(tmp_path), tmp_path / "first")
    (first.folder / "manifest.json").write_text("before")
    written: list[str] = []
    write = first.storage.write

    def writing(name: str, content: bytes) -> None:
        written.append(f"{name} {content.decode()[:6]}" if name == "manifest.json" else name)
        (first.folder / "manifest.json").write_text("after")  # the study goes on meanwhile
        write(name, content)

    monkeypatch.setattr(first.storage, "write", writing)
    (first.folder / "dev.jsonl").write_text("1\n")
    (first.folder / "payments.jsonl").write_text("1\n")
    first.sync()
    names = [name.partition(".parts")[0] for name in written]
    assert names == ["payments.jsonl", "dev.jsonl", "manifest.json before"]


def test_a_study_in_memory_storage_is_that_of_a_folder(small_task: Path, tmp_path: Path) -> None:
    address = f"memory://{tmp_path.name}/study"
    os.environ["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    try:
        result = run(Task.load(small_task), out=address, seed=3)
    finally:
        del os.environ["XDG_CACHE_HOME"]
    store = ObjectStore.of(address)
    assert {"manifest.json", "trials.jsonl", "report.html", "decision.json"} <= store.names()
    assert json.loads(store.read("decision.json") or b"") == result.document
    assert not any(journals.PARTS in name for name in store.names())


OFTEN = """
import sys
from pathlib import Path
import small_encoder
from tunepoint.cli.app import app
from tunepoint.study import journal
journal.SYNC_SECONDS = 0.02
small_encoder.use(Path(sys.argv.pop(1)))
app()
"""
"""The command line with the small encoder, and a journal that looks at what is new all the time."""


def test_a_driver_that_is_killed_goes_on_elsewhere(
    small_task: Path, tmp_path: Path, small_weights: Path, finished: Result
) -> None:
    """Its machine is lost too: only what is at the address is left."""
    address = address_of(tmp_path)
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "lost"), "PYTHONPATH": str(ROOT / "tests")}
    command = [sys.executable, "-c", OFTEN, str(small_weights), "run", str(small_task)]
    command += ["--out", address, "--seed", "3", "--quiet"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    parts = tmp_path / "bucket" / "study" / "dev.jsonl.parts"
    deadline = time.monotonic() + 120
    while not parts.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = sum(path.read_bytes().count(b"\n") for path in parts.iterdir())
    owner = tmp_path / "bucket" / "study" / ownership.OWNER
    sign = json.loads(owner.read_bytes())
    owner.write_text(json.dumps({**sign, "at": sign["at"] - 100}))
    environment["XDG_CACHE_HOME"] = str(tmp_path / "other")
    done = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert kept > 0
    lines = (tmp_path / "bucket" / "study" / "dev.jsonl").read_text().splitlines()
    keys = [(t["arm"], t["item"], t.get("seed")) for t in map(json.loads, lines)]
    assert len(keys) == len(set(keys)) > kept
    assert json.loads(done.stdout)["winner"] == finished.document["winner"]
