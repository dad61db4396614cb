"""Clients that are slow, many, or too large: none of them keeps the others waiting."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gateways import Behind, Running, behind, running, settings, until
from test_gateway import ASK, get, post

from tunepoint.capture.records import CapturedRequest, Feedback
from tunepoint.capture.writer import Writer
from tunepoint.serve.connections import GuardedProtocol, Limits
from tunepoint.serve.memory import ALWAYS_FREE_BYTES, BYTES_PER_VALUE, BodyMemory
from tunepoint.serve.process import max_connections
from tunepoint.serve.protocol import RequestError, read_request

TIGHT = Limits(
    connections=20, head_bytes=4_096, header_count=30, head_seconds=0.3, body_seconds=0.3, write_seconds=0.3
)
PATIENT = replace(TIGHT, head_seconds=60, body_seconds=60, write_seconds=60)
"""As few connections, and all the time that a test on a busy machine may need."""
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Behind]:
    with behind() as behind_it:
        yield behind_it


@pytest.fixture(scope="module")
def gateway(server: Behind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("gateway")
    with running(lambda: settings(folder, server.url), TIGHT) as opened:
        yield opened


@pytest.fixture(scope="module")
def patient(server: Behind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("patient")
    with running(lambda: settings(folder, server.url), PATIENT) as opened:
        yield opened


def connected(gateway: Running) -> socket.socket:
    host, port = gateway.url.removeprefix("http://").split(":")
    raw = socket.create_connection((host, int(port)))
    raw.settimeout(10)
    return raw


def answer(gateway: Running, *pieces: bytes) -> bytes:
    """All that the gateway sends before it closes the connection."""
    with connected(gateway) as raw:
        received = b""
        try:
            for piece in pieces:
                raw.sendall(piece)
            while part := raw.recv(65_536):
                received += part
        except ConnectionError:
            pass  # closed while we were still sending
        return received


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\nhost: lo", 408),
        (CHAT + b"content-length: 50\r\n\r\n{", 408),
        (CHAT.replace(b"/chat/completions", b"/feedback") + b"content-length: 50\r\n\r\n{", 408),
        (CHAT + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n", 408),
        (b"GET /healthz HTTP/1.1\r\nx: " + b"y" * 5_000, 431),
        (b"GET /" + b"y" * 5_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\n" + b"x: y\r\n" * 31 + b"\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"CONNECT evil.example:80 HTTP/1.1\r\n\r\n", 400),
    ],
)
def test_what_does_not_arrive_in_time_or_is_too_large_is_refused(
    gateway: Running, sent: bytes, status: int
) -> None:
    reply = answer(gateway, sent)
    assert reply.startswith(f"HTTP/1.1 {status} ".encode())
    assert json.loads(reply.partition(b"\r\n\r\n")[2])["error"]["message"]


def test_a_connection_that_asks_nothing_is_closed(gateway: Running) -> None:
    assert answer(gateway) == b""


def test_a_body_that_nobody_reads_ends_with_its_time(gateway: Running) -> None:
    reply = answer(gateway, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n", b"x")
    assert reply.startswith(b"HTTP/1.1 200 ") and reply.count(b"HTTP/1.1") == 1


def test_chunks_that_are_mostly_framing_are_refused(patient: Running) -> None:
    chunked = CHAT + b"transfer-encoding: chunked\r\n\r\n"
    pieces = [b"1;" + b"x" * 30_000 + b"\r\n{\r\n"] * 5
    with connected(patient) as raw:
        raw.sendall(chunked)
        time.sleep(0.05)  # the headers are read by themselves
        try:
            for piece in pieces:
                raw.sendall(piece)
            assert b" 400 " in raw.recv(4_096)
        except ConnectionError:
            pass  # it was closed before all was sent


def test_too_many_requests_on_one_connection_close_it_after_their_answers(patient: Running) -> None:
    many = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n" * 100
    with connected(patient) as raw:
        raw.sendall(many)
        reply = b"".join(iter(lambda: raw.recv(65_536), b""))
    assert reply.count(b"HTTP/1.1 200 ") == 1 + Limits().pipelined


def test_answers_that_take_longer_than_the_headers_may_go_out_too(server: Behind, gateway: Running) -> None:
    body = json.dumps({"model": "triage", "messages": ASK}).encode()
    call = CHAT + b"content-length: %d\r\n\r\n%s" % (len(body), body)
    server.latency = 2 * TIGHT.head_seconds / Limits().pipelined
    try:
        with connected(gateway) as raw:
            raw.sendall(call * (Limits().pipelined + 4))
            reply = b"".join(iter(lambda: raw.recv(65_536), b""))
    finally:
        server.latency = 0.0
    assert reply.count(b"HTTP/1.1 200 ") == 1 + Limits().pipelined


@pytest.mark.parametrize("end", [b"", b'"', b"\\"])
def test_values_in_a_string_without_end_are_counted_once(end: bytes) -> None:
    body = b"," * 2_001 + b'"' + b'\\",' * 200_000 + end
    memory = BodyMemory(lambda: 2**30)
    with memory.share() as share:
        share.take_values(body)
        assert share.used == 2_001 * BYTES_PER_VALUE


def test_half_open_connections_lock_nobody_out(patient: Running) -> None:
    halves = [CHAT, CHAT + b"content-length: 50\r\n\r\n{", b""]
    sockets = []
    for number in range(60):
        raw = connected(patient)
        raw.sendall(halves[number % 3])
        sockets.append(raw)
        if number % 10 == 9:
            body = {"model": "triage", "messages": ASK}
            assert post(f"{patient.url}/v1/chat/completions", body)[0] == 200
    assert get(f"{patient.url}/healthz")[0] == 200
    for raw in sockets:
        raw.close()


def test_a_client_that_reads_nothing_is_cut_off(server: Behind, tmp_path: Path) -> None:
    piece = b'data: {"choices": [{"index": 0, "delta": {"content": "' + b"x" * 30_000 + b'"}}]}\n\n'
    server.streams["long"] = [piece] * 1_000
    body = json.dumps({"model": "triage", "messages": ASK, "stream": True}).encode()
    load = settings(tmp_path, server.url, {"long": "long"})
    with running(lambda: load, TIGHT) as gateway, connected(gateway) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        raw.sendall(CHAT + f"content-length: {len(body)}\r\n\r\n".encode() + body)
        until(lambda: gateway.application.in_flight == 1)
        until(lambda: gateway.application.in_flight == 0)
        (captured,) = until(lambda: list(gateway.gateway.store.requests()))
    assert captured.status == 499 and captured.output == ""


class Transport:
    """A connection whose client has so many bytes to read."""

    def __init__(self) -> None:
        self.unread, self.aborted = 0, False

    def get_write_buffer_size(self) -> int:
        return self.unread

    def abort(self) -> None:
        self.aborted = True


@pytest.mark.parametrize(
    ("looks", "aborted"),
    [((900, 100, 0), False), ((900, 900), True), ((900, 950), True)],
)
def test_a_client_that_reads_slowly_is_left_alone(looks: Sequence[int], aborted: bool) -> None:
    protocol: Any = GuardedProtocol.__new__(GuardedProtocol)
    protocol.transport, protocol.loop = Transport(), SimpleNamespace(call_later=lambda *_: object())
    protocol._write_deadline = None
    protocol.transport.unread = looks[0]
    protocol._time_writing()
    for unread in looks[1:]:
        protocol.transport.unread = unread
        protocol._look_at_unread()
    assert protocol.transport.aborted == aborted


def test_signs_in_a_text_are_no_values() -> None:
    memory = BodyMemory(lambda: 32 * 2**20)
    table = json.dumps({"messages": [{"role": "user", "content": 'a,b,{c},[d]\\\n"' * 100_000}]}).encode()
    with memory.share() as share:
        share.take_values(table)
        with pytest.raises(RequestError, match="too many values"):
            share.take_values(b"[" + b"[]," * 1_000_000 + b"0]")


def test_requests_that_still_arrive_take_no_place_of_others(server: Behind, tmp_path: Path) -> None:
    load = settings(tmp_path, server.url, server={"at_once": 1})
    with running(lambda: load) as gateway, connected(gateway) as raw:
        raw.sendall(CHAT + b"content-length: 50\r\n\r\n{")
        body = {"model": "triage", "messages": ASK}
        assert post(f"{gateway.url}/v1/chat/completions", body)[0] == 200


def test_bodies_together_take_no_more_memory_than_there_is() -> None:
    memory = BodyMemory(lambda: 1_000_000)
    with memory.share() as first, memory.share() as second, memory.share() as third:
        first.take(400_000)
        with pytest.raises(RequestError, match="try again") as refused:
            second.take(400_000)
        assert refused.value.status == 503 and refused.value.wait
        third.take(ALWAYS_FREE_BYTES // 4)  # short ones are answered all the same
        first.take_values(b"[[],[]]")
        with pytest.raises(RequestError, match="too many values"):
            second.take_values(b"[]," * 10_000)
    assert memory.used == 0


def test_a_nest_of_lists_is_refused_before_anything_walks_it() -> None:
    for depth, fits in ((90, True), (101, False), (900, False)):
        nest = b"[" * depth + b"]" * depth
        body = b'{"model": "t", "messages": [{"role": "user"}], "x": ' + nest + b"}"
        if fits:
            assert read_request(body)
        else:
            with pytest.raises(RequestError, match="nested too deep"):
                read_request(body)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "evil.example:8484", "[::1].evil", "a@localhost", "x" * 4_000],
)
def test_a_forged_host_reaches_nothing_and_is_put_into_no_address(patient: Running, host: str) -> None:
    assert get(f"{patient.url}/v1/models", host=host)[0] in (403, 431)
    for path in ("/healthz/", "/v1/models/", "/v1/feedback/", "//evil.example/"):
        reply = answer(patient, f"GET {path} HTTP/1.0\r\nhost: {host}\r\n\r\n".encode())
        assert b"location" not in reply.lower() and b" 30" not in reply.partition(b"\r\n")[0]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:8484", "[::1]:1", "[::1]"])
def test_the_names_of_this_machine_are_known(patient: Running, host: str) -> None:
    assert get(f"{patient.url}/v1/models", host=host)[0] == 200


def test_connections_leave_room_for_the_servers_behind() -> None:
    import resource

    assert 16 <= max_connections() <= Limits().connections
    assert max_connections() * 2 < resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class SlowStore:
    """A store that keeps what it gets."""

    def __init__(self) -> None:
        self.rows: list[CapturedRequest] = []

    def add(self, requests: Sequence[CapturedRequest] = (), feedback: Sequence[Feedback] = ()) -> None:
        self.rows += requests


def test_texts_that_cannot_be_redacted_in_time_are_left_out_and_the_facts_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tunepoint.capture.writer.MAX_WAITING_CHARACTERS", 100)
    stop, store = threading.Event(), SlowStore()

    def redact(text: str) -> str:
        stop.wait(0 if not text else 10)
        return text

    writer = Writer(store, redact, linger=0)
    for number in range(5):
        writer.put(
            CapturedRequest(f"r{number}", 1.0, "t", "a", "champion", "m", "x" * 30, "", cost_nanousd=7)
        )
    assert writer.counts.shortened == 2  # three fit
    threading.Timer(0.2, stop.set).start()
    assert writer.close(patience=10) == 0
    assert [row.input for row in store.rows] == ["x" * 30] * 3 + [""] * 2
    assert {row.cost_nanousd for row in store.rows} == {7} and writer.waiting_characters == 0


def test_a_writer_in_a_hurry_leaves_texts_out() -> None:
    store = SlowStore()

    def redact(text: str) -> str:
        time.sleep(0.2 if text else 0)
        return text

    writer = Writer(store, redact, linger=0)
    for number in range(30):
        writer.put(CapturedRequest(f"r{number}", 1.0, "t", "a", "champion", "m", "some text", ""))
    assert writer.close(patience=2) == 0
    assert len(store.rows) == 30 and writer.counts.shortened > 10
