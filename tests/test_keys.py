"""API keys and their budgets: many at once, on both databases, and after a kill."""

from __future__ import annotations

import json
import stat
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from gateways import Behind, behind, running, settings, until
from test_capture import captured, postgres
from test_gateway import ASK, post
from test_routing import chat_request
from test_serving import TUNEPOINT, free_port, settings_file
from typer.testing import CliRunner

from tunepoint.arms.cascade import Gate
from tunepoint.capture.keys import active_keys, any_key_ever, revoke_key
from tunepoint.capture.opening import open_store
from tunepoint.capture.records import attempt_id
from tunepoint.capture.schema import VERSION, metadata
from tunepoint.capture.spending import Reservation, absorb, month_of, release, reserve, spending
from tunepoint.capture.store import Store
from tunepoint.capture.writer import Writer
from tunepoint.cli.app import app
from tunepoint.errors import StoreError
from tunepoint.files.amounts import TokenPrice
from tunepoint.models.prices import call_price
from tunepoint.models.recording import CallRecording
from tunepoint.serve.auth import make_key
from tunepoint.serve.backends import CascadeArm, Pricer, ProxyArm, RemoteArm
from tunepoint.serve.estimates import DEFAULT_OUTPUT_TOKENS, FREE, estimate_cost

__all__ = ["postgres"]
ANSWER_NANOUSD = 30 * 1_000 + 10 * 500 + 6 * 2_000
"""What one answer of the server behind the gateway costs."""
NOW = time.time()


@pytest.fixture
def server() -> Iterator[Behind]:
    with behind() as opened:
        yield opened


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty store, on each database."""
    if request.param == "sqlite":
        return str(tmp_path / "capture.sqlite")
    url: str = request.getfixturevalue("postgres")
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        metadata.drop_all(connection)
        connection.execute(sa.text(f"drop table if exists {VERSION}"))
    engine.dispose()
    return url


def at_once(address: str, count: int, work: Callable[[Store, int], Any]) -> list[Any]:
    """Do work `count` times at the same moment, each over a store of its own as a process would."""
    ready = threading.Barrier(count)
    open_store(address).close()  # a new store is set up once, by one

    def one(number: int) -> Any:
        with open_store(address) as store:
            ready.wait(120)
            try:
                return work(store, number)
            except StoreError as error:
                return error

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(one, range(count)))


# -- keys are rows ------------------------------------------------------------------------------


def test_keys_that_are_added_at_once_are_all_kept(address: str) -> None:
    tokens = at_once(address, 20, lambda store, number: make_key(store, f"k{number:02}", ("call",)))
    with open_store(address) as store:
        assert [key.name for key in active_keys(store)] == [f"k{number:02}" for number in range(20)]
        assert len(set(tokens)) == len(store.audit_log()) == 20


def test_a_revoked_key_stays_revoked_while_others_are_added(address: str) -> None:
    with open_store(address) as store:
        for number in range(10):
            make_key(store, f"old{number}", ("call",))

    def change(store: Store, number: int) -> None:
        if number % 2:
            revoke_key(store, f"old{number // 2}")
        else:
            make_key(store, f"new{number // 2}", ("call",))

    assert at_once(address, 20, change) == [None] * 20
    with open_store(address) as store:
        assert [key.name for key in active_keys(store)] == [f"new{number}" for number in range(10)]
        make_key(store, "old3", ("call",))  # the name is free again
        revoke_key(store, "old3")
        with pytest.raises(StoreError, match="no key named 'old3'"):
            revoke_key(store, "old3")


def test_of_two_keys_with_one_name_the_first_is_taken(address: str) -> None:
    results = at_once(address, 6, lambda store, number: make_key(store, "app", ("call",)))
    refused = [result for result in results if isinstance(result, StoreError)]
    assert len(refused) == 5 and all("already a key named 'app'" in str(error) for error in refused)


def test_the_list_of_keys_says_what_each_has_spent(tmp_path: Path) -> None:
    where = tmp_path / "c.sqlite"
    with open_store(where) as store:
        make_key(store, "app", ("call",), usd_a_month=50)
        make_key(store, "idle", ("call",))
        store.add([captured(1, key="app", cost_nanousd=1_234_000_000, at=NOW)])
    listed = CliRunner().invoke(app, ["keys", "list", "--store", str(where)]).output
    assert listed.splitlines() == ["app: call, $50.00 a month, $1.23 spent this month", "idle: call"]


@pytest.mark.parametrize("usd", [float("nan"), float("inf"), -1.0, 1e10])
def test_a_budget_that_is_no_amount_of_money_is_refused(tmp_path: Path, usd: float) -> None:
    with open_store(tmp_path / "c.sqlite") as store:
        with pytest.raises(StoreError, match=r"a budget of .* give 0 to 1,000,000,000"):
            make_key(store, "app", ("call",), usd_a_month=usd)
        assert active_keys(store) == []


def test_keys_and_spending_of_the_old_documents_are_taken_over(address: str) -> None:
    from alembic import command
    from alembic.config import Config

    with open_store(address) as store:
        make_key(store, "app", ("call", "read"), usd_a_month=5, requests_a_minute=60)
        make_key(store, "gone", ("call",))
        revoke_key(store, "gone")
        store.add([captured(1, key="app", cost_nanousd=700, at=NOW)])
        before = active_keys(store)
        config = Config()
        config.set_main_option("script_location", "tunepoint.capture:migrations")
        with store.engine.begin() as connection:
            config.attributes["connection"] = connection
            command.downgrade(config, "0001")
        assert store.state(f"spent/{month_of(NOW)}") == {"app": 700}
        assert [key["name"] for key in (store.state("keys") or {}).values()] == ["app"]
    with open_store(address) as store:
        assert active_keys(store) == before and spending(store) == {"app": 700}
        assert store.state("keys") is None and store.state(f"spent/{month_of(NOW)}") is None


def test_a_store_whose_last_key_was_revoked_before_the_upgrade_stays_closed(tmp_path: Path) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "tunepoint.capture:migrations")
    with open_store(tmp_path / "c.sqlite") as store:
        make_key(store, "only", ("call",))
        revoke_key(store, "only")
        with store.engine.begin() as connection:
            config.attributes["connection"] = connection
            command.downgrade(config, "0001")
        assert store.state("keys") == {}  # as the earlier version left it
    with open_store(tmp_path / "c.sqlite") as store:
        assert any_key_ever(store) and active_keys(store) == []


def test_a_restart_after_the_last_key_was_revoked_opens_nothing(server: Behind, tmp_path: Path) -> None:
    with open_store(tmp_path / "capture.sqlite") as store:
        make_key(store, "only", ("call",))
        revoke_key(store, "only")
    with running(lambda: settings(tmp_path, server.url)) as gateway:
        assert post(f"{gateway.url}/v1/chat/completions", {"model": "triage", "messages": ASK})[0] == 401


def test_what_holds_texts_and_keys_is_for_its_owner_only(tmp_path: Path) -> None:
    with open_store(tmp_path / "new" / "capture.sqlite") as store:
        store.add([captured(1)])
        files = list((tmp_path / "new").iterdir())
        assert len(files) > 1  # the log of changes is beside the database
    recording = CallRecording(tmp_path / "calls.sqlite")
    files += tmp_path.glob("calls.sqlite*")
    assert {stat.S_IMODE(path.stat().st_mode) for path in files if path.exists()} == {0o600}
    recording.close()


# -- reservations -------------------------------------------------------------------------------


def wish(number: int, cost: int, limit: int = 100, **changes: Any) -> Reservation:
    return Reservation(attempt_id(f"r{number}", "tuned"), "app", NOW, cost, limit, **changes)


def granted(store: Store, *wishes: Reservation) -> list[bool]:
    return [balance.granted for balance in reserve(store, wishes)]


def test_what_does_not_fit_reserves_nothing(address: str) -> None:
    with open_store(address) as store:
        assert granted(store, wish(1, 60), wish(2, 60), wish(3, 40), wish(4, 1)) == [True, False, True, False]
        assert spending(store) == {"app": 100}
        release(store, [wish(3, 40).attempt])
        assert granted(store, wish(5, 41), wish(6, 40)) == [False, True]


def test_a_guess_takes_what_is_left_and_leaves_nothing(address: str) -> None:
    with open_store(address) as store:
        assert granted(store, wish(1, 70, guessed=True), wish(2, 70, guessed=True)) == [True, True]
        assert granted(store, wish(3, 70, guessed=True), wish(4, 0)) == [False, False]
        assert spending(store) == {"app": 100}


def test_reservations_of_several_gateways_never_pass_the_budget(address: str) -> None:
    results = at_once(address, 12, lambda store, number: granted(store, wish(number, 30)))
    assert sum(result == [True] for result in results) == 3
    with open_store(address) as store:
        assert spending(store) == {"app": 90}


def test_an_answer_settles_its_reservation_once(address: str) -> None:
    answer = captured(1, key="app", cost_nanousd=42, at=NOW)
    with open_store(address) as store:
        reserve(store, [wish(1, 60), wish(2, 30)])
        store.add([answer])
        store.add([answer, captured(3, key="app", cost_nanousd=5, at=NOW), captured(4, cost_nanousd=9)])
        assert spending(store) == {"app": 42 + 5 + 30}
        store.purge(NOW + 1)  # what was spent outlives the requests
        assert spending(store) == {"app": 42 + 5 + 30}


@pytest.mark.parametrize(
    ("status", "cost", "spent"),
    [
        (200, None, 60),
        (499, None, 60),
        (504, None, 60),
        (499, 7, 60),
        (499, 70, 70),
        (502, 7, 7),
        (500, None, 0),
        (429, None, 0),
    ],
)
def test_calls_that_may_have_been_billed_count_as_estimated(
    tmp_path: Path, status: int, cost: int | None, spent: int
) -> None:
    with open_store(tmp_path / "c.sqlite") as store:
        reserve(store, [wish(1, 60)])
        failed = attempt_id("r1", "tuned") if status >= 400 else "r1"
        store.add([captured(1, id=failed, status=status, cost_nanousd=cost, key="app", at=NOW)])
        assert spending(store).get("app", 0) == spent


def test_what_a_killed_process_had_reserved_is_spent(address: str) -> None:
    with open_store(address) as store:
        reserve(store, [wish(1, 60)])
        absorb(store, NOW - 1)
        assert granted(store, wish(2, 41)) == [False]
        absorb(store, NOW + 1)
        assert spending(store) == {"app": 60}
        release(store, [wish(1, 60).attempt])  # it is no reservation any more
        assert spending(store) == {"app": 60} and granted(store, wish(3, 40)) == [True]


def test_a_request_that_somebody_waits_for_is_written_at_once(tmp_path: Path) -> None:
    with open_store(tmp_path / "c.sqlite") as store:
        writer = Writer(store, None, linger=60.0)
        writer.put_acknowledged(captured(1)).result(10)
        assert store.find("r1") is not None
        refused = writer.put_acknowledged(captured(2, input_tokens=2**70))
        with pytest.raises(StoreError):
            refused.result(10)
        writer.close()
        with pytest.raises(StoreError, match="closed"):
            writer.put_acknowledged(captured(3)).result(10)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that waits for its store, however slow the disk of the machine is."""
    monkeypatch.setattr("tunepoint.serve.budgets.STORE_SECONDS", 60.0)
    monkeypatch.setattr("tunepoint.serve.recording.SETTLE_SECONDS", 60.0)


# -- estimates ----------------------------------------------------------------------------------


def proxy(price: TokenPrice | None = None) -> ProxyArm:
    arm = ProxyArm.__new__(ProxyArm)
    arm.model = "m"
    arm.pricer = Pricer(call_price("http://127.0.0.1:1/v1#m", price or TokenPrice(input=1.0, output=2.0)))
    return arm


def estimate(**body: Any) -> tuple[int, bool]:
    request = chat_request()
    request.body |= body
    cost = estimate_cost(proxy(), request)
    return cost.nanodollars, cost.guessed


def test_an_estimate_is_what_the_request_allows() -> None:
    short, guessed = estimate(max_tokens=10)
    assert not guessed and 20_000 < short < 40_000
    assert estimate(max_tokens=10, max_completion_tokens=1_010) == (short + 2_000_000, False)
    assert estimate(max_tokens=10, n=3) == (short + 40_000, False)
    assert estimate(max_tokens=10, tools=[{"type": "function"}])[0] > short
    assert estimate() == (short + (DEFAULT_OUTPUT_TOKENS - 10) * 2_000, True)
    for three in ("3", 3.0, 2.5):
        assert estimate(max_tokens=10, n=three) == estimate(max_tokens=10, n=3)
    for nonsense in (None, "many", float("nan"), -4, True):
        assert estimate(max_tokens=10, n=nonsense) == estimate(max_tokens=10)
    for nonsense in (None, True, -5, "10", 1.5):
        assert estimate(max_tokens=nonsense) == estimate()
    assert estimate(max_tokens=10**30)[0] > 10**12


def test_an_attachment_counts_as_what_it_usually_has() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 3_000_000}}
    words = {"type": "text", "text": "what is this?"}
    cost, _ = estimate(messages=[{"role": "user", "content": [words, picture]}], max_tokens=1)
    assert 1_500_000 < cost < 1_600_000


def test_an_arm_of_a_study_and_a_cascade_are_estimated_too() -> None:
    price = call_price("http://127.0.0.1:1/v1#m", TokenPrice(input=1.0, output=2.0))
    assert price is not None
    remote = RemoteArm.__new__(RemoteArm)
    remote.model, remote.prices = "m", {"m": price}
    request = estimate_cost(remote, chat_request())
    assert request.guessed and request.nanodollars > DEFAULT_OUTPUT_TOKENS * 2_000
    cascade = CascadeArm("c", remote, proxy(), Gate(1.0, 0.0, 0.5))
    assert estimate_cost(cascade, chat_request()).nanodollars > request.nanodollars
    remote.prices = {}
    assert estimate_cost(remote, chat_request()) == FREE


# -- budgets of a gateway -----------------------------------------------------------------------


def ask_at_once(url: str, token: str, count: int, **parameters: Any) -> list[int]:
    body = {"model": "triage", "messages": ASK, **parameters}

    def one(number: int) -> int:
        return post(f"{url}/v1/chat/completions", body, authorization=f"Bearer {token}")[0]

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(one, range(count)))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.usefixtures("patient")
def test_callers_at_once_do_not_pass_a_budget(server: Behind, tmp_path: Path, stream: bool) -> None:
    server.latency = 0.3
    budget = 4 * ANSWER_NANOUSD
    with open_store(tmp_path / "capture.sqlite") as store:
        token = make_key(store, "app", ("call",), usd_a_month=budget / 1e9)
    with running(lambda: settings(tmp_path, server.url)) as gateway:
        # Streams are no JSON: what matters is how often the server behind was called.
        body = {"model": "triage", "messages": ASK, "max_tokens": 18, "stream": stream}
        raw = json.dumps(body).encode()
        headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}

        def one(number: int) -> int:
            request = urllib.request.Request(f"{gateway.url}/v1/chat/completions", raw, headers)
            try:
                with urllib.request.urlopen(request, timeout=30) as reply:
                    reply.read()
                    return int(reply.status)
            except urllib.error.HTTPError as error:
                with error:
                    return error.code

        with ThreadPoolExecutor(50) as threads:
            codes = list(threads.map(one, range(50)))
        assert set(codes) == {200, 429} and len(server.calls) == codes.count(200)
        until(lambda: gateway.gateway.access.spent()["app"] == len(server.calls) * ANSWER_NANOUSD)
        assert 0 < gateway.gateway.access.spent()["app"] <= budget


@pytest.mark.usefixtures("patient")
def test_without_a_limit_one_answer_at_most_passes_a_budget(server: Behind, tmp_path: Path) -> None:
    server.latency = 0.2
    with open_store(tmp_path / "capture.sqlite") as store:
        token = make_key(store, "app", ("call",), usd_a_month=ANSWER_NANOUSD / 2e9)
    with running(lambda: settings(tmp_path, server.url)) as gateway:
        for _ in range(2):
            ask_at_once(gateway.url, token, 25)
        assert len(server.calls) == 1 and gateway.gateway.access.spent() == {"app": ANSWER_NANOUSD}


def test_a_call_that_may_cost_more_than_is_left_says_what_to_do(server: Behind, tmp_path: Path) -> None:
    with open_store(tmp_path / "capture.sqlite") as store:
        token = make_key(store, "app", ("call",), usd_a_month=0.001)
    with running(lambda: settings(tmp_path, server.url)) as gateway:
        url, ask = f"{gateway.url}/v1/chat/completions", {"model": "triage", "messages": ASK}
        bearer = f"Bearer {token}"
        status, reply, _ = post(url, {**ask, "max_completion_tokens": 10_000}, authorization=bearer)
        assert status == 429 and "set a lower max_completion_tokens" in reply["error"]["message"]
        assert reply["error"]["code"] == "insufficient_quota" and server.calls == []
        assert post(url, {**ask, "max_completion_tokens": 100}, authorization=bearer)[0] == 200
        assert post(url, {**ask, "max_tokens": 100, "n": 9}, authorization=bearer)[0] == 429


@pytest.mark.usefixtures("patient")
def test_an_arm_that_fails_gives_back_what_it_had_reserved(server: Behind, tmp_path: Path) -> None:
    server.faults["main"] = "500"
    with open_store(tmp_path / "capture.sqlite") as store:
        token = make_key(store, "app", ("call",), usd_a_month=0.00006)
    with running(lambda: settings(tmp_path, server.url, fallback=["spare"])) as gateway:
        assert ask_at_once(gateway.url, token, 1, max_tokens=18) == [200]
        assert gateway.gateway.access.spent() == {"app": ANSWER_NANOUSD}


@pytest.mark.usefixtures("patient")
def test_a_copy_for_the_shadow_fits_into_the_budget_or_is_not_made(server: Behind, tmp_path: Path) -> None:
    with open_store(tmp_path / "capture.sqlite") as store:
        token = make_key(store, "app", ("call",), usd_a_month=2.5 * ANSWER_NANOUSD / 1e9)
    with running(lambda: settings(tmp_path, server.url, shadow="spare")) as gateway:
        assert ask_at_once(gateway.url, token, 1, max_tokens=18) == [200]
        until(lambda: gateway.gateway.access.spent() == {"app": 2 * ANSWER_NANOUSD})
        assert ask_at_once(gateway.url, token, 1, max_tokens=18) == [429]
    assert [call["model"] for call in server.calls] == ["main", "spare"]


def test_while_the_store_is_away_a_budget_holds_by_what_is_known(
    server: Behind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(tmp_path / "capture.sqlite") as store:
        token = make_key(store, "app", ("call",), usd_a_month=0.0002)

    def away(*words: Any) -> Any:
        raise StoreError("database or disk is full")

    with running(lambda: settings(tmp_path, server.url)) as gateway:
        monkeypatch.setattr("tunepoint.serve.budgets.reserve", away)
        monkeypatch.setattr(Store, "add", away)
        codes = [ask_at_once(gateway.url, token, 1, max_tokens=18)[0] for _ in range(8)]
        assert codes.count(200) == len(server.calls) == 4 and codes[4:] == [429] * 4
        monkeypatch.undo()
        until(lambda: gateway.gateway.access.spent() == {"app": 4 * ANSWER_NANOUSD})


def test_spending_and_feedback_are_exact_after_a_kill(tmp_path: Path) -> None:
    """SIGKILL right after an answer: all that was acknowledged is counted, once."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with open_store(tmp_path / "c.sqlite") as store:
        token = make_key(store, "app", ("call",), usd_a_month=5)
    acknowledged: list[str] = []
    with behind() as server:
        path = settings_file(tmp_path, server.url, port)
        path.write_text(
            path.read_text().rstrip() + "\nprice = { input = 1, cached_input = 0.5, output = 2 }\n"
        )
        for _ in range(2):
            process = subprocess.Popen([TUNEPOINT, "serve", str(path)], stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            until(lambda out=process.stdout: "is ready" in str(out.readline()), 60)
            for _ in range(10):
                body = {"model": "triage", "messages": ASK}
                status, _, headers = post(f"{url}/v1/chat/completions", body, authorization=f"Bearer {token}")
                assert status == 200
                feedback = {"request_id": headers["x-request-id"], "score": 1}
                assert post(f"{url}/v1/feedback", feedback, authorization=f"Bearer {token}")[0] == 200
                acknowledged.append(headers["x-request-id"])
            assert post(f"{url}/v1/chat/completions", body, authorization=f"Bearer {token}")[0] == 200
            process.kill()
            process.wait()
            process.stdout.close()
        assert len(server.calls) == 22
    with open_store(tmp_path / "c.sqlite") as store:
        assert spending(store) == {"app": 22 * ANSWER_NANOUSD}
        assert set(store.feedback(acknowledged)) == set(acknowledged)
