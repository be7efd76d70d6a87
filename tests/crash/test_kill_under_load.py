# SPDX-License-Identifier: Apache-2.0
"""kill -9 under load, round after round: what was acknowledged is there, the database is whole, and the
other server ends up with each event exactly once.

Clients send without a pause and repeat under the same transaction id what was not answered; a peer does
the same with its transactions. After the last round nothing is killed any more, and the books are
compared.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from minihs.matrix.event import Event
from tests.interop.kit.authority import Authority
from tests.interop.kit.client import ApiError, Client
from tests.interop.kit.homeserver import Homeserver, Place, log_shown_on_failure
from tests.interop.kit.hosted import JoinedRoom
from tests.interop.kit.http import BrokenConnection
from tests.interop.kit.minihs import Minihs
from tests.interop.kit.peer import V1, Peer, Transaction
from tests.interop.kit.ports import free_port

CLIENTS = 3
LOAD_SECONDS = (0.3, 2.0)  # between two kills
UNREACHABLE = (BrokenConnection, trio.TooSlowError)


@dataclass(slots=True)
class Books:
    """What each side was promised."""

    by_clients: dict[str, str] = field(default_factory=dict)  # event id -> body, answered with 200
    by_peer: list[str] = field(default_factory=list)  # event ids in transactions answered with 200


@dataclass(slots=True)
class Load:
    server: Homeserver
    people: list[Client]
    peer: Peer
    room: JoinedRoom
    books: Books = field(default_factory=Books)
    ending: bool = False

    async def speak(self, person: Client) -> None:
        """Until told to end; a message that was begun is repeated until it is answered."""
        number = 0
        while not self.ending:
            number += 1
            body = f"{person.device_id} {number}"
            txn = person.next_txn()
            while True:
                try:
                    event_id = await person.say(self.room.room_id, body, txn=txn)
                except UNREACHABLE:
                    await trio.sleep(0.02)
                else:
                    self.books.by_clients[event_id] = body
                    break

    async def federate(self, user: str) -> None:
        number = 0
        while not self.ending:
            events: list[Event] = []
            for _ in range(5):
                number += 1
                events.append(self.room.message(user, f"peer {number}"))
            txn_id, body = self.peer.transaction(events)
            while True:
                try:
                    answer = await self.peer.ask(self.server, "PUT", f"{V1}/send/{txn_id}", body)
                except UNREACHABLE:
                    await trio.sleep(0.02)
                else:
                    assert not any(answer["pdus"].values()), answer
                    self.books.by_peer += [event.event_id for event in events]
                    break


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Homeserver]:
    port = free_port()
    authority = Authority.create(tmp_path / "ca")
    place = Place(f"localhost:{port}", tmp_path / "server", port, free_port(), authority)
    async with Minihs(place) as running:
        with log_shown_on_failure(running):
            yield running


@pytest.mark.parametrize("rounds", [5, pytest.param(50, marks=pytest.mark.slow)])
async def test_nothing_acknowledged_is_lost_and_the_peer_gets_each_event_once(
    server: Homeserver, tmp_path: Path, rounds: int
) -> None:
    chance = random.Random(rounds)
    people = [await server.register(f"person{number}") for number in range(CLIENTS)]
    room_id = await people[0].create_room(preset="public_chat", room_version="11")
    for person in people[1:]:
        await person.join(room_id)
    async with trio.open_nursery() as nursery:
        peer = Peer(server.place.authority)
        await nursery.start(peer.serve)
        user = f"@far:{peer.server_name}"
        load = Load(server, people, peer, await JoinedRoom.join(peer, server, room_id, user))

        async with trio.open_nursery() as work:
            for person in people:
                work.start_soon(load.speak, person)
            work.start_soon(load.federate, user)
            for round_ in range(rounds):
                await trio.sleep(chance.uniform(*LOAD_SECONDS))
                await server.kill()
                await trio.sleep(0.2)  # what the dead one had written is still on its way to the peer
                check_database(server, tmp_path / f"copy{round_}")
                await server.start()
            await trio.sleep(1)
            load.ending = True

        await check_history(load)
        await check_peer(load)
        await peer.aclose()
        for person in people:
            await person.aclose()
        nursery.cancel_scope.cancel()


def check_database(server: Homeserver, copy: Path) -> None:
    """On a copy, so that it is the server that recovers the original."""
    files = server.database_files
    assert files, "no database was found"
    copy.mkdir()
    for file in files:
        for name in (file.name, f"{file.name}-wal"):
            if (part := file.with_name(name)).exists():
                shutil.copy(part, copy / name)
        with contextlib.closing(sqlite3.connect(copy / file.name)) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)], file.name
            assert db.execute("PRAGMA foreign_key_check").fetchall() == [], file.name
    shutil.rmtree(copy)


async def check_history(load: Load) -> None:
    """Each acknowledged event once in the room, under the id that was acknowledged; nothing said twice."""
    reader, books = load.people[0], load.books
    wanted = {*books.by_clients, *books.by_peer}
    with trio.move_on_after(60):
        while True:
            history = await reader.history(load.room.room_id, pages=1000, limit=500)
            if wanted <= {event["event_id"] for event in history}:
                break
            await trio.sleep(0.5)
    seen = Counter(event["event_id"] for event in history)
    assert wanted <= set(seen), f"lost: {wanted - set(seen)}"
    assert max(seen.values()) == 1, (
        f"twice in the history: {[key for key, count in seen.items() if count > 1]}"
    )
    bodies = Counter(event["content"]["body"] for event in history if event["type"] == "m.room.message")
    assert max(bodies.values()) == 1, f"said twice: {[body for body, count in bodies.items() if count > 1]}"
    for event in history:
        if event["event_id"] in books.by_clients:
            assert event["content"]["body"] == books.by_clients[event["event_id"]]
    with pytest.raises(ApiError):
        await reader.event(load.room.room_id, "$never-sent")  # the check above can fail


async def check_peer(load: Load) -> None:
    """Each event comes, in one transaction. That may come again after a kill, when the sender can't know what
    was answered; then it is the same one."""
    wanted = set(load.books.by_clients)
    with trio.move_on_after(90):
        await load.peer.wait_until(lambda: wanted <= set(load.peer.received_ids()), seconds=100)
    transactions: dict[str, Transaction] = {}
    for transaction in load.peer.transactions:
        first = transactions.setdefault(transaction.txn_id, transaction)
        assert first.body == transaction.body, f"transaction {transaction.txn_id} came with two contents"
    received = Counter(id_ for txn in transactions.values() for id_ in load.peer.ids_in(txn))
    assert wanted <= set(received), f"never reached the peer: {wanted - set(received)}"
    assert max(received.values()) == 1, f"in two transactions: {received.most_common(5)}"
    assert not set(received) & set(load.books.by_peer), "the peer was sent its own events"
