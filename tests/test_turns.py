"""Fair turns of the event loop: a crowd of requests and of connections leaves room for others."""

from __future__ import annotations

import asyncio
import socket

from tunepoint.serve.process import ACCEPTS_PER_TURN, open_socket, several_handles
from tunepoint.serve.turns import Pace


def turns_of_starts(crowd: int, per_turn: int, leaves: int | None = None) -> dict[int, int]:
    """In which turn each of a crowd of requests starts; one of them may leave while it waits."""
    started: dict[int, int] = {}

    async def run() -> None:
        pace, turn = Pace(per_turn), 0

        async def request(number: int) -> None:
            await pace.start()
            started[number] = turn

        requests = [asyncio.create_task(request(number)) for number in range(crowd)]
        while not all(task.done() for task in requests):
            await asyncio.sleep(0)
            turn += 1
            if turn == 1 and leaves is not None:
                requests[leaves].cancel()

    asyncio.run(run())
    return started


def test_a_crowd_starts_in_the_order_of_its_arrival_some_in_each_turn() -> None:
    started = turns_of_starts(crowd=7, per_turn=2)
    assert sorted(started, key=lambda number: (started[number], number)) == list(range(7))
    turns = list(started.values())
    assert max(turns.count(turn) for turn in turns) == 2
    assert max(turns) < 12  # nobody waits for nothing


def test_who_leaves_while_waiting_takes_no_place() -> None:
    started = turns_of_starts(crowd=6, per_turn=2, leaves=3)
    assert set(started) == {0, 1, 2, 4, 5}


def test_the_pace_rests_and_begins_again() -> None:
    async def run() -> None:
        pace = Pace(1)
        for _ in range(3):
            await asyncio.gather(pace.start(), pace.start())
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(run(), 10))


def test_connections_are_accepted_by_several_handles_of_one_socket() -> None:
    with open_socket("127.0.0.1", 0) as listener:
        address = listener.getsockname()
        with several_handles(listener) as handles:
            assert len({handle.fileno() for handle in handles}) == ACCEPTS_PER_TURN
            clients = [socket.create_connection(address) for _ in handles]
            accepted = [handle.accept()[0] for handle in handles]
            for connection in (*clients, *accepted):
                connection.close()
        assert all(handle.fileno() == -1 for handle in handles[1:]) and listener.fileno() != -1
