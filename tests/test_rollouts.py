"""Gateways of different settings on one store, as while they are restarted one by one."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from gateways import behind, running, settings, until
from test_gateway import get, post
from test_replicas import ask

from tunepoint.capture.canary_values import ValueColumns, count_values, read_values
from tunepoint.capture.keys import revoke_key
from tunepoint.capture.opening import open_store
from tunepoint.capture.records import CanaryValue, CapturedRequest
from tunepoint.capture.sharing import forget_leases, hold_lease, take_tokens
from tunepoint.capture.store import Store
from tunepoint.errors import StoreError
from tunepoint.serve import canary_monitor, presence
from tunepoint.serve.auth import make_key
from tunepoint.serve.canary import Canary, CanaryDecision
from tunepoint.serve.canary_monitor import CanaryMonitor
from tunepoint.serve.gateway import _salt
from tunepoint.serve.routing import Policy, RouteConflict, Router


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "store.sqlite") as opened:
        yield opened


def router(store: Store, arms: str, policy: Policy, holder: str) -> Router:
    return Router("t", list(arms), policy, store, holder=holder)


def said(store: Store) -> list[str]:
    return [entry["what"] for entry in store.audit_log("t")]


def test_settings_that_are_edited_wait_until_the_last_gateway_of_the_old_ones_is_gone(store: Store) -> None:
    old = router(store, "ab", Policy("a"), "old")
    new = router(store, "ab", Policy("b"), "new")
    assert new.policy.champion == "a" and not new.behind
    new.refresh()
    assert new.policy.champion == "a"
    old.leave()
    new.refresh()
    assert new.policy.champion == "b" and said(store)[-1] == "the settings have changed"
    new.refresh()
    assert len(said(store)) == 2  # once


def test_a_gateway_that_was_killed_holds_up_new_settings_for_seconds_only(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    router(store, "ab", Policy("a"), "killed")
    new = router(store, "ab", Policy("b"), "new")
    assert new.policy.champion == "a"
    now = time.time()
    monkeypatch.setattr("tunepoint.capture.sharing.time.time", lambda: now + presence.PRESENCE_SECONDS + 1)
    new.refresh()
    assert new.policy.champion == "b"


def test_new_settings_are_tried_again_where_the_store_was_away(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = router(store, "ab", Policy("a"), "old")
    new = router(store, "ab", Policy("b"), "new")
    old.leave()
    with monkeypatch.context() as patched:

        def away(*arguments: Any, **options: Any) -> None:
            raise StoreError("away")

        patched.setattr(Store, "set_state", away)
        with pytest.raises(StoreError):
            new.refresh()
    assert new.policy.champion == "a"
    new.refresh()
    assert new.policy.champion == "b"


def test_an_old_gateway_that_restarts_leaves_the_routes_of_the_new_ones(store: Store) -> None:
    first = router(store, "ac", Policy("a"), "old 1")
    new = router(store, "abc", Policy("a"), "new")
    new.promote("b", "we", "it is better")
    new.start_canary(Canary("c"), "we")
    first.leave()
    again = router(store, "ac", Policy("a"), "old 2")
    assert again.behind and again.policy.champion == "a" and again.policy.canary is not None
    new.refresh()
    assert new.policy.champion == "b" and said(store)[-1].startswith("canary: c")
    with pytest.raises(RouteConflict, match="an arm that does not serve here"):
        again.set_fallback(["c"], "we")
    new.leave()
    again.refresh()  # nobody else serves: its own settings hold
    assert not again.behind and said(store)[-1] == "routes from the settings: b no longer serves"


def test_a_gateway_that_is_behind_judges_no_canary(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    old = router(store, "ac", Policy("a"), "old")
    old.start_canary(Canary("c"), "we")
    new = router(store, "abc", Policy("a"), "new")
    new.promote("b", "we", "it is better")
    old.refresh()
    assert old.behind and old.policy.canary is None  # the canary ended with the promotion
    monitor = CanaryMonitor(old, store, "old")
    monkeypatch.setattr(canary_monitor, "hold_lease", lambda *a: pytest.fail("it takes no lease"))
    assert monitor.evaluate() is None


def test_an_automatic_change_leaves_new_settings_to_come(store: Store) -> None:
    old = router(store, "ab", Policy("a", canary=Canary("b", (0.1, 0.5))), "old")
    new = router(store, "ab", Policy("a", fallback=("b",)), "new")
    new.raise_canary(7, "canary", "no worse")
    assert new.policy.canary is not None and new.policy.canary.step == 1
    old.leave()
    new.refresh()
    assert new.policy.fallback == ("b",)


# -- canaries --------------------------------------------------------------------------------------


def test_a_canary_of_the_settings_begins_when_it_is_first_followed(store: Store) -> None:
    first = router(store, "abc", Policy("a", canary=Canary("b")), "g")
    began = first.policy.canary
    assert began is not None and began.since > time.time() - 60
    first.roll_back("we", "bad")
    first.leave()
    second = router(store, "abc", Policy("a", canary=Canary("c")), "g")
    assert second.policy.canary is not None and second.policy.canary.since > began.since
    again = router(store, "abc", Policy("a", canary=Canary("c")), "g")
    assert again.policy.canary == second.policy.canary  # a restart does not begin it anew


def answer(number: int) -> CapturedRequest:
    return CapturedRequest(f"r{number}", float(number), "t", "b", "canary", "m", "x", "y", user=f"u{number}")


def test_a_decision_on_a_canary_that_somebody_has_ended_is_not_carried_out(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes = router(store, "ab", Policy("a"), "g")
    routes.start_canary(Canary("b", (0.5,), requests=1), "we")
    monitor = CanaryMonitor(routes, store, "g")
    store.add([replace(answer(n), outcomes=monitor.outcomes(answer(n))) for n in range(3)])

    def decide(*sides: Any) -> CanaryDecision:
        routes.roll_back("we", "it insults customers")  # while the intervals are computed
        return CanaryDecision("promote", "no worse", {}, ())

    monkeypatch.setattr(canary_monitor, "decide_canary", decide)
    with pytest.raises(RouteConflict, match="ended or gone on meanwhile"):
        monitor.evaluate()
    assert routes.policy.champion == "a" and said(store)[-1] == "rolled back b: it insults customers"


def test_outcomes_beyond_enough_are_not_written_and_go_when_the_canary_has_ended(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canary_monitor, "ENOUGH_VALUES", 5)
    monkeypatch.setattr(canary_monitor, "FORGET_SECONDS", -1.0)
    routes = router(store, "ab", Policy("a"), "one")
    routes.start_canary(Canary("b", (0.5,), requests=10_000), "we")
    judge, other = CanaryMonitor(routes, store, "one"), CanaryMonitor(routes, store, "other")
    for number in range(5):
        store.add([replace(answer(number), outcomes=judge.outcomes(answer(number)))])
    assert judge.evaluate() is not None and other.evaluate() is None  # the other one reads the decision
    assert judge.outcomes(answer(9)) == other.outcomes(answer(9)) == ()
    canary = routes.policy.canary
    assert canary is not None and count_values(store, "t", canary.since) > 0
    routes.roll_back("we", "enough")
    judge.evaluate()
    assert count_values(store, "t", canary.since) == 0


def test_outcomes_are_read_page_by_page_and_late_ones_too(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunepoint.capture.canary_values.PAGE_VALUES", 4)

    def add(*numbers: int) -> None:
        values = [CanaryValue("t", 1.0, "canary", "answer", f"u{n}", float(n)) for n in numbers]
        store.add([replace(answer(numbers[0]), outcomes=tuple(values))])

    add(*range(11))
    known = read_values(store, "t", 1.0, ValueColumns())
    assert (known.count, len(known.by_measure["canary", "answer"])) == (11, 11)
    assert read_values(store, "t", 1.0, known) is known
    known.last = 10**6  # as if numbers below had been committed after it
    add(50)
    assert read_values(store, "t", 1.0, known).count == 12


# -- clocks and starts ------------------------------------------------------------------------------


def test_a_clock_that_was_set_back_blocks_neither_leases_nor_rates(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [time.time() + 3_600]
    monkeypatch.setattr("tunepoint.capture.sharing.time.time", lambda: now[0])
    assert hold_lease(store, "x", "fast", 10)
    take_tokens(store, {"k": (120, 120.0)})
    now[0] -= 3_600
    assert hold_lease(store, "x", "slow", 10)
    assert take_tokens(store, {"k": (1, 120.0)})["k"] < 1
    now[0] += 2
    assert take_tokens(store, {"k": (1, 120.0)})["k"] == 1


def test_leases_of_killed_gateways_are_forgotten_in_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [time.time()]
    monkeypatch.setattr("tunepoint.capture.sharing.time.time", lambda: now[0])
    for number in range(5):
        router(store, "ab", Policy("a"), f"killed {number}")
    now[0] += 2 * 86_400
    hold_lease(store, "x", "living", 10)
    forget_leases(store)
    with store.transaction("read") as connection:
        assert connection.scalars(sa.text("select name from leases")).all() == ["x"]


def test_gateways_that_start_together_hash_users_alike(store: Store, tmp_path: Path) -> None:
    barrier = threading.Barrier(4)

    def salt(number: int) -> str:
        with open_store(tmp_path / "store.sqlite") as own:
            barrier.wait()
            return _salt(own)

    with ThreadPoolExecutor(4) as threads:
        assert len({*threads.map(salt, range(4)), _salt(store)}) == 1


def test_a_purge_that_takes_long_holds_up_no_revoked_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunepoint.serve.gateway.PURGE_SECONDS", 0.1)
    monkeypatch.setattr(Store, "purge", lambda self, before: time.sleep(8))
    address = str(tmp_path / "keys.sqlite")
    with open_store(address) as opened, behind() as server:
        key = make_key(opened, "app", ("call",))
        given = {"store": address, "retention_days": 1}
        with running(lambda: settings(tmp_path, server.url, server=given)) as gateway:
            assert ask(gateway.url, key=key)[0] == 200
            time.sleep(0.5)
            revoke_key(opened, "app")
            until(lambda: ask(gateway.url, key=key)[0] == 401, 3.0)


def test_an_idle_gateway_says_that_its_store_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:

    with behind() as server, running(lambda: settings(tmp_path, server.url)) as gateway:
        assert get(f"{gateway.url}/readyz")[1]["store"] == "ok"
        routes = gateway.gateway.dispatcher.task("triage").router
        refresh = routes.refresh

        def away() -> None:
            raise StoreError("it does not reply")

        routes.refresh = away  # type: ignore[method-assign]
        until(lambda: get(f"{gateway.url}/readyz")[1]["store"] == "away", 5.0)
        assert get(f"{gateway.url}/healthz")[1]["capture"] == "away"
        routes.refresh = refresh  # type: ignore[method-assign]
        until(lambda: get(f"{gateway.url}/readyz")[1]["store"] == "ok", 5.0)
    lines = [record.getMessage() for record in caplog.records if "store is" in record.getMessage()]
    assert len(lines) == 2 and "it does not reply" in lines[0]


# -- processes ---------------------------------------------------------------------------------------


def write_settings(path: Path, url: str, arms: list[str], port: int = 0) -> None:
    lines = ["[server]", f"port = {port}", '[[tasks]]\nname = "triage"']
    for arm in arms:
        lines.append(f'[[tasks.arms]]\nname = "{arm}"\nmodel = "{url}#m"\nprice = {{input = 1, output = 1}}')
    path.write_text("\n".join(lines) + "\n")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def two_workers(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str, Path, Any]]:
    port, path = free_port(), tmp_path / "serve.toml"
    with behind() as server:
        write_settings(path, server.url, ["a"], port)
        command = [sys.executable, "-m", "tunepoint", "serve", str(path), "--workers", "2"]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        try:
            url = f"http://127.0.0.1:{port}"
            until(lambda: reached(url), 60.0)
            time.sleep(1.0)
            yield process, url, path, server
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            assert process.stdout is not None
            process.stdout.close()


def reached(url: str) -> bool:
    try:
        return get(f"{url}/healthz")[0] == 200
    except OSError:
        return False


def arms_of(url: str) -> set[str]:
    """The arms that the workers serve, each asked several times by a connection of its own."""
    return {json.dumps(sorted(get(f"{url}/v1/routes/triage")[1]["arms"])) for _ in range(12)}


def test_reload_reaches_every_worker(two_workers: tuple[subprocess.Popen[str], str, Path, Any]) -> None:
    process, url, path, server = two_workers
    write_settings(path, server.url, ["a", "b"], int(url.rpartition(":")[2]))
    assert post(f"{url}/v1/reload", {})[0] == 200
    try:
        until(lambda: arms_of(url) == {'["a", "b"]'}, 10.0)
    except AssertionError:
        process.terminate()
        process.wait(60)
        assert process.stdout is not None
        pytest.fail(f"a worker serves by the old settings:\n{process.stdout.read()}")


def test_a_worker_says_what_is_wrong_with_new_settings(
    two_workers: tuple[subprocess.Popen[str], str, Path, Any],
) -> None:
    process, url, path, _ = two_workers
    path.write_text("[server\n")
    process.send_signal(signal.SIGHUP)
    time.sleep(2.0)
    assert arms_of(url) == {'["a"]'}
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    assert process.stdout is not None
    assert "settings not reloaded" in process.stdout.read()


def test_a_reload_before_it_serves_does_not_end_a_gateway(tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "serve.toml"
    with behind() as server:
        write_settings(path, server.url, ["a"], port)
        command = [sys.executable, "-m", "tunepoint", "serve", str(path), "--workers", "1"]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
        try:
            status = Path(f"/proc/{process.pid}/status")
            until(lambda: sighup_is_handled(status) or process.poll() is not None, 30.0)
            process.send_signal(signal.SIGHUP)
            until(lambda: reached(f"http://127.0.0.1:{port}"), 60.0)
            assert process.poll() is None
        finally:
            process.terminate()
            process.wait(60)


def sighup_is_handled(status: Path) -> bool:
    """Whether a process ignores or catches SIGHUP."""
    if not status.exists():
        return True
    lines = dict(line.split(":\t") for line in status.read_text().splitlines() if ":\t" in line)
    return bool((int(lines["SigIgn"], 16) | int(lines["SigCgt"], 16)) & (1 << (signal.SIGHUP - 1)))


def test_a_gateway_that_drains_still_takes_requests_and_is_not_ready(tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "serve.toml"
    with behind() as server:
        write_settings(path, server.url, ["a"], port)
        path.write_text(path.read_text().replace("[server]", "[server]\ndrain_seconds = 4"))
        command = [sys.executable, "-m", "tunepoint", "serve", str(path), "--workers", "1"]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
        url = f"http://127.0.0.1:{port}"
        try:
            until(lambda: reached(url), 60.0)
            kept = http.client.HTTPConnection("127.0.0.1", port)
            assert closes(kept) is False
            process.send_signal(signal.SIGTERM)
            until(lambda: get(f"{url}/readyz")[0] == 503, 3.0)
            assert ask(url)[0] == 200
            assert closes(kept) is True  # else a load balancer would send its next request into it
            kept.close()
            process.send_signal(signal.SIGTERM)  # in a hurry
            assert process.wait(10) == 0
        finally:
            process.kill()
            process.wait()


def closes(connection: http.client.HTTPConnection) -> bool:
    """Whether the server closes a connection after its reply."""
    connection.request("GET", "/healthz")
    response = connection.getresponse()
    response.read()
    return response.getheader("connection") == "close"
