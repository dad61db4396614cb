"""Several gateways on one store: routes, budgets, rates and canaries are those of all of them together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from gateways import Behind, Running, behind, running, settings, until
from postgres_server import INSTALLED, Postgres, postgres_server
from test_gateway import ASK, get, post
from typer.testing import CliRunner

from tunepoint.capture.copying import copy_store
from tunepoint.capture.opening import open_store
from tunepoint.capture.schema import leases, metadata
from tunepoint.capture.sharing import give_lease_back, hold_lease, take_tokens
from tunepoint.capture.spending import spending
from tunepoint.capture.store import Store
from tunepoint.cli.app import app as command_line
from tunepoint.errors import StateConflict, StoreError
from tunepoint.serve.auth import make_key
from tunepoint.serve.canary import Canary
from tunepoint.serve.routing import Policy, RouteConflict, Router
from tunepoint.serve.settings import ServeSettings

BODY = {"model": "triage", "messages": ASK}


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    if not INSTALLED:
        pytest.skip("no PostgreSQL server is installed")
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty store."""
    if request.param == "sqlite":
        yield str(tmp_path / "capture.sqlite")
        return
    database: Postgres = request.getfixturevalue("database")
    name = f"t{time.monotonic_ns()}"
    as_admin = ("-h", str(database.folder), "-U", "tunepoint", "-c")
    database.call("psql", *as_admin, f"create database {name}", "postgres")
    yield f"postgresql://tunepoint@/{name}?host={database.folder}"


@pytest.fixture
def server() -> Iterator[Behind]:
    with behind() as behind_it:
        yield behind_it


@contextmanager
def replicas(count: int, load: Callable[[], ServeSettings]) -> Iterator[list[Running]]:
    with ExitStack() as stack:
        yield [stack.enter_context(running(load)) for _ in range(count)]


def ask(url: str, user: str | None = None, key: str = "") -> tuple[int, dict[str, str]]:
    body = BODY if user is None else {**BODY, "user": user}
    headers = {"authorization": f"Bearer {key}"} if key else {}
    status, _, answered = post(f"{url}/v1/chat/completions", body, **headers)
    return status, answered


# -- in the store ------------------------------------------------------------------------------------


def test_of_two_changes_of_a_state_neither_is_lost(where: str) -> None:
    with open_store(where) as store:
        store.set_state("s", {"n": 1}, read=None)
        with pytest.raises(StateConflict, match="another process has just changed s"):
            store.set_state("s", {"n": 2}, read=None)
        content, version = store.versioned_state("s") or ({}, 0)
        assert content == {"n": 1}
        store.set_state("s", {"n": 2}, read=version)
        with pytest.raises(StateConflict):
            entry = {"task": "", "who": "", "what": "x", "detail": None}
            store.set_state("s", {"n": 3}, read=version, audit=entry)
        assert store.state("s") == {"n": 2} and store.audit_log() == []  # with its entry
        store.set_state("s", {"n": 4})  # who names no version replaces whatever is there
        assert store.versioned_state("s") == ({"n": 4}, version + 2)


def test_a_lease_is_of_one_until_it_runs_out_or_is_given_back(where: str) -> None:
    with open_store(where) as store:
        assert hold_lease(store, "x", "a", 60) and hold_lease(store, "x", "a", 60)
        assert not hold_lease(store, "x", "b", 60) and hold_lease(store, "y", "b", 60)
        give_lease_back(store, "x", "b")
        assert not hold_lease(store, "x", "b", 60)
        give_lease_back(store, "x", "a")
        assert hold_lease(store, "x", "b", -1)  # it has run out at once
        assert hold_lease(store, "x", "a", 60)


def test_a_lease_goes_to_one_of_many(where: str) -> None:
    with open_store(where) as store, ThreadPoolExecutor(8) as threads:
        got = list(threads.map(lambda n: hold_lease(store, "one", f"p{n}", 60), range(16)))
        assert sum(got) == 1


def test_a_bucket_gives_a_minutes_requests_to_all_together(where: str) -> None:
    with open_store(where) as store, ThreadPoolExecutor(8) as threads:
        given = threads.map(lambda n: take_tokens(store, {"k": (7, 120.0)})["k"], range(40))
        whole = sum(int(tokens) for tokens in given)
        assert 120 <= whole <= 120 + 20  # two a second come back meanwhile
        short = take_tokens(store, {"k": (500, 120.0)})["k"]
        assert short < 500


# -- routes ------------------------------------------------------------------------------------------


def test_a_change_of_routes_that_were_changed_meanwhile_is_refused(where: str) -> None:
    with open_store(where) as store:
        ours, theirs = (Router("t", ["a", "b", "c"], Policy("a"), store) for _ in range(2))
        theirs.promote("b", "they", "better")
        with pytest.raises(RouteConflict, match="somebody else has just changed the routes"):
            ours.set_fallback(["c"], "we")
        assert ours.policy.champion == "b"  # it follows them from now on
        ours.set_fallback(["c"], "we")
        theirs.refresh()
        assert theirs.policy == ours.policy and theirs.policy.fallback == ("c",)
        what = [entry["what"] for entry in store.audit_log("t")]
        assert what == ["first start", "promoted b: better", "fallback: c"]


def test_routes_to_arms_that_serve_elsewhere_only_are_not_followed(where: str) -> None:
    with open_store(where) as store:
        old = Router("t", ["a"], Policy("a"), store)
        new = Router("t", ["a", "b"], Policy("a"), store)
        new.promote("b", "we", "it is new")
        old.refresh()
        assert old.policy.champion == "a"


def test_gateways_that_start_together_agree(where: str) -> None:
    with open_store(where) as store, ThreadPoolExecutor(6) as threads:
        routers = list(threads.map(lambda n: Router("t", ["a", "b"], Policy("a"), store), range(6)))
        assert all(router.policy == Policy("a") for router in routers)
        assert [entry["what"] for entry in store.audit_log("t")] == ["first start"]
        for number, router in enumerate(routers):
            router.refresh()
            router.set_fallback(["b"] if number % 2 else [], f"p{number}")
            for other in routers:
                other.refresh()


def test_what_one_gateway_changes_another_follows_within_two_seconds(
    where: str, server: Behind, tmp_path: Path
) -> None:
    with replicas(2, lambda: settings(tmp_path, server.url, server={"store": where})) as (one, other):
        status, _, _ = post(f"{one.url}/v1/routes/triage", {"promote": "spare"})
        assert status == 200
        until(lambda: ask(other.url)[1]["x-tunepoint-arm"] == "spare", 2.0)
        other.gateway.dispatcher.task("triage").router._version = 1  # it has not looked yet
        status, refused, _ = post(f"{other.url}/v1/routes/triage", {"promote": "main"})
        assert status == 409 and "try again" in refused["error"]["message"]
        assert post(f"{other.url}/v1/routes/triage", {"promote": "main"})[0] == 200


# -- keys --------------------------------------------------------------------------------------------


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store on a busy machine is slow, and not away."""
    for module in ("budgets", "rate_limits"):
        monkeypatch.setattr(f"tunepoint.serve.{module}.STORE_SECONDS", 60.0)


@pytest.mark.usefixtures("patient")
def test_a_budget_holds_over_four_gateways_and_sixteen_callers(
    where: str, server: Behind, tmp_path: Path
) -> None:
    cents = 0.01
    with open_store(where) as store:
        key = make_key(store, "app", ("call",), usd_a_month=cents)
        with replicas(4, lambda: settings(tmp_path, server.url, server={"store": where})) as gateways:
            body = json.dumps({**BODY, "max_completion_tokens": 50}).encode()

            def call(number: int) -> Counter[int]:
                url = f"{gateways[number % 4].url}/v1/chat/completions"
                return Counter(post(url, body, authorization=f"Bearer {key}")[0] for _ in range(30))

            with ThreadPoolExecutor(16) as callers:
                answers: Counter[int] = sum(callers.map(call, range(16)), Counter())
            assert answers[200] > 50 and answers[429] > 50 and set(answers) == {200, 429}
            until(lambda: spending(store)["app"] == sum(r.cost_nanousd or 0 for r in store.requests()))
            spent = spending(store)["app"] / 1e9
            assert 0.5 * cents < spent <= cents


@pytest.mark.usefixtures("patient")
def test_a_rate_holds_over_gateways(where: str, server: Behind, tmp_path: Path) -> None:
    with open_store(where) as store:
        key = make_key(store, "app", ("call",), requests_a_minute=60)
        with replicas(2, lambda: settings(tmp_path, server.url, server={"store": where})) as gateways:
            started = time.monotonic()
            codes = [ask(gateways[n % 2].url, key=key)[0] for n in range(90)]
            most = 60 + (time.monotonic() - started) + 2
            assert 60 <= codes.count(200) <= most
            for status, headers in (ask(gateway.url, key=key) for gateway in gateways):
                assert status == 200 or 0 < float(headers["retry-after"]) <= 2


def test_a_revoked_key_is_rejected_everywhere_within_two_seconds(
    where: str, server: Behind, tmp_path: Path
) -> None:
    from tunepoint.capture.keys import revoke_key

    with open_store(where) as store:
        key = make_key(store, "app", ("call",))
        with replicas(2, lambda: settings(tmp_path, server.url, server={"store": where})) as gateways:
            assert all(ask(gateway.url, key=key)[0] == 200 for gateway in gateways)
            revoke_key(store, "app")
            until(lambda: all(ask(gateway.url, key=key)[0] == 401 for gateway in gateways), 2.0)


# -- canaries ----------------------------------------------------------------------------------------


def test_a_canary_is_judged_by_all_gateways_together_and_promoted_once(
    where: str, server: Behind, tmp_path: Path
) -> None:
    """Neither gateway alone would have the answers that a step takes."""
    canary = {"arm": "spare", "steps": [0.5], "requests": 120, "margin": 0.7}
    with replicas(2, lambda: settings(tmp_path, server.url, server={"store": where})) as gateways:
        assert post(f"{gateways[0].url}/v1/routes/triage", {"canary": canary})[0] == 200
        until(lambda: get(f"{gateways[1].url}/v1/routes/triage")[1]["policy"]["canary"])

        def use(number: int) -> str:
            return ask(gateways[number % 2].url, user=f"u{number}")[1]["x-tunepoint-role"]

        with ThreadPoolExecutor(8) as callers:
            roles = Counter(callers.map(use, range(180)))
        assert 60 < roles["canary"] < 120  # a user is on the same side of the share everywhere
        for gateway in gateways:
            until(lambda g=gateway: get(f"{g.url}/v1/routes/triage")[1]["canary"])  # type: ignore[misc]
        with ThreadPoolExecutor(8) as callers:
            list(callers.map(use, range(180, 400)))
        for gateway in gateways:
            until(lambda g=gateway: get(f"{g.url}/v1/routes/triage")[1]["policy"]["champion"] == "spare")  # type: ignore[misc]
        what = [entry["what"] for entry in get(f"{gateways[1].url}/v1/audit?task=triage")[1]["data"]]
        assert [line.split(":")[0] for line in what] == ["first start", "canary", "promoted spare"]


def test_whoever_decides_ends_and_another_one_takes_over(where: str, server: Behind, tmp_path: Path) -> None:
    def load() -> ServeSettings:
        return settings(tmp_path, server.url, server={"store": where})

    with open_store(where) as store, running(load) as stays:
        with running(load) as ends:
            ends.gateway.dispatcher.task("triage").router.start_canary(Canary("spare", (0.5,)), "me")
            until(lambda: _holder(store))
        until(lambda: _holder(store) == stays.gateway.name)


def _holder(store: Store) -> str | None:
    with store.transaction("read") as connection:
        return connection.scalar(sa.select(leases.c.holder).where(leases.c.name == "canary/triage"))


# -- a database that is away -------------------------------------------------------------------------


def test_a_gateway_answers_while_its_database_is_away_and_catches_up(
    database: Postgres, server: Behind, tmp_path: Path
) -> None:
    where = database.url
    with running(lambda: settings(tmp_path, server.url, server={"store": where})) as gateway:
        before = _count(where)
        assert ask(gateway.url)[0] == 200
        until(lambda: _count(where) == before + 1)
        database.stop()
        try:
            assert [ask(gateway.url)[0] for _ in range(20)] == [200] * 20
            health = until(lambda: (h := get(f"{gateway.url}/healthz")[1])["on_disk"] == 20 and h, 30.0)
            assert health["capture"] == "away"
            ready = get(f"{gateway.url}/readyz")
            assert ready == (200, {"ready": True, "store": "away"})
            assert list((tmp_path / ".tunepoint-spool").iterdir())
        finally:
            database.start()
        until(lambda: get(f"{gateway.url}/healthz")[1]["capture"] == "ok", 30.0)
        until(lambda: _count(where) == before + 21, 30.0)
        assert get(f"{gateway.url}/readyz")[1] == {"ready": True, "store": "ok"}


def _count(where: str) -> int:
    with open_store(where) as store:
        return len(list(store.requests()))


# -- backups -----------------------------------------------------------------------------------------


def test_a_copy_of_a_store_holds_all_of_it_and_goes_on_behind_it(
    where: str, server: Behind, tmp_path: Path
) -> None:
    """From either database to a file, and from the file to an empty one of either."""
    with open_store(where) as store:
        key = make_key(store, "app", ("call", "read"), usd_a_month=5)
        with running(lambda: settings(tmp_path, server.url, server={"store": where})) as gateway:
            answered = [ask(gateway.url, key=key)[1]["x-request-id"] for _ in range(5)]
            body = {"request_id": answered[0], "thumbs": "down", "correction": "billing"}
            assert post(f"{gateway.url}/v1/feedback", body, authorization=f"Bearer {key}")[0] == 200
            until(lambda: len(list(store.requests())) == 5)
            backup = CliRunner().invoke(command_line, ["backup", where, str(tmp_path / "backup.sqlite")])
            assert backup.exit_code == 0 and "5 requests" in backup.output and "1 feedback" in backup.output
        for address in (str(tmp_path / "again.sqlite"), where):
            if address == where:
                with store.engine.begin() as connection:  # the store is lost
                    for table in reversed(metadata.sorted_tables):
                        connection.execute(sa.delete(table))
            with open_store(tmp_path / "backup.sqlite") as saved, open_store(address) as restored:
                copied = copy_store(saved, restored)
                assert copied.rows["requests"] == 5 and copied.rows["gateway_keys"] == 1
                assert list(restored.requests()) == list(saved.requests())
                assert restored.feedback(answered) == saved.feedback(answered)
                assert restored.audit_log() == saved.audit_log() and spending(restored) == spending(saved)
                restored.add_audit("t", "me", "it goes on")  # with the next number
                with pytest.raises(StoreError, match=r"holds .* already; name an empty store"):
                    copy_store(saved, restored)
        with running(lambda: settings(tmp_path, server.url, server={"store": where})) as gateway:
            assert ask(gateway.url, key=key)[0] == 200  # by the same key


# -- workers -----------------------------------------------------------------------------------------


@contextmanager
def served(
    folder: Path, url: str, options: Sequence[str] = (), code: int = 0
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`tunepoint serve` as a process of its own, and its address."""
    content = '[server]\nstore = "c.sqlite"\nport = 0\n[[tasks]]\nname = "triage"\n'
    content += '[[tasks.arms]]\nname = "main"\n'
    content += f'model = "{url}#main"\n'
    (folder / "serve.toml").write_text(content)
    command = [sys.executable, "-m", "tunepoint", "serve", "serve.toml", *options]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines: list[str] = []
    reading = threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True)
    reading.start()
    try:
        until(lambda: any("workers serve" in line for line in lines) or process.poll() is not None, 60.0)
        address = next(word for word in " ".join(lines).split() if word.startswith("http"))
        yield process, address.removesuffix("/v1")
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == code, lines
        reading.join()
        process.stdout.close()


@pytest.mark.no_cover  # in processes of their own
def test_workers_share_a_port_and_their_metrics_and_one_that_dies_is_replaced(
    server: Behind, tmp_path: Path
) -> None:
    with served(tmp_path, server.url, ["--workers", "2"]) as (process, url):
        with ThreadPoolExecutor(8) as callers:
            codes = Counter(code for code, _ in callers.map(lambda n: ask(url), range(80)))
        assert codes == {200: 80}
        first = _children(process.pid)
        assert len(first) == 2

        def counted() -> float:
            with urllib.request.urlopen(f"{url}/metrics") as response:
                lines = response.read().decode().splitlines()
            values = [line.split()[-1] for line in lines if line.startswith("tunepoint_requests_total{")]
            return sum(map(float, values))

        assert {counted() for _ in range(10)} == {80.0}  # whichever worker is asked
        store = str(tmp_path / "c.sqlite")
        until(lambda: _count(store) == 80)
        os.kill(first[0], signal.SIGKILL)
        until(lambda: len(now := _children(process.pid)) == 2 and now != first, 30.0)
        until(lambda: ask(url)[0] == 200, 30.0)
        assert counted() >= 81.0  # what the dead one has counted stays
    assert _count(store) >= 81


@pytest.mark.no_cover
def test_workers_end_with_the_process_that_started_them(server: Behind, tmp_path: Path) -> None:
    with served(tmp_path, server.url, ["--workers", "2"], code=-signal.SIGKILL) as (process, _):
        children = _children(process.pid)
        process.kill()
        until(lambda: not any(Path(f"/proc/{child}").exists() for child in children), 30.0)


@pytest.mark.no_cover
def test_a_port_that_is_taken_and_settings_that_are_wrong_end_all_workers(
    server: Behind, tmp_path: Path
) -> None:
    with served(tmp_path, server.url, ["--workers", "2"]) as (_, url):
        again = [sys.executable, "-m", "tunepoint", "serve", "serve.toml", "--workers", "2"]
        again += ["--port", url.rpartition(":")[2]]
        second = subprocess.run(again, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert second.returncode == 2 and "choose another --port" in second.stderr
    wrong = [sys.executable, "-m", "tunepoint", "serve", "serve.toml", "--workers", "2", "--host", "0.0.0.0"]
    ended = subprocess.run(wrong, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2 and ended.stderr.count("there are no API keys") == 1


def _children(parent: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]
