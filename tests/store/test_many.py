# SPDX-License-Identifier: Apache-2.0
"""What is written for many events at once is what would be written for each by itself."""

from __future__ import annotations

import json
import random
from collections import Counter
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from minihs.matrix.ids import domain_of
from minihs.runtime import InlineThreads, Runtime
from minihs.store import device_keys, devices, events, ids, memberships, outliers, rooms, users
from minihs.store.database import Database, Tx
from minihs.store.events import Outcome
from minihs.testing.events import RoomFactory

OURS = "ours.example"
ALICE = f"@alice:{OURS}"
FOUNDER = "@founder:there.example"
ROOM = "!den:there.example"


def open_database(path: Path) -> AbstractAsyncContextManager[Database]:
    return Database.open(path, Runtime(threads=InlineThreads()), inline=True, synchronous="OFF")


def busy_room(version: str) -> RoomFactory:
    factory = RoomFactory(version, FOUNDER)
    for number in range(40):
        factory.join(f"@user{number}:host{number % 7}.example", {"displayname": "Käthe" * (number % 3)})
    factory.send(FOUNDER, "m.room.topic", {"topic": "t"}, "", ts=-5)
    factory.send(FOUNDER, "m.room.message", {"body": "no state"})
    factory.send(FOUNDER, "m.room.member", {"membership": "ban"}, "@user3:host3.example")
    factory.send(FOUNDER, "org.example.odd", {"membership": "join"}, "@nobody:nowhere.example", check=False)
    return factory


@pytest.mark.parametrize("version", ["1", "5", "11", "12"])
async def test_outliers(tmp_path: Path, version: str) -> None:
    factory = busy_room(version)
    stored = list(factory.events.values())
    reasons = {event.event_id: "of a whim" if place % 9 == 8 else None for place, event in enumerate(stored)}
    assert factory.room_id is not None
    room_id = factory.room_id

    def singly(tx: Tx) -> None:
        room_nid = rooms.intern(tx, room_id, version)
        for event in stored:
            reason = reasons[event.event_id]
            outcome = Outcome.ACCEPTED if reason is None else Outcome.REJECTED
            events.insert(tx, room_nid, event, outcome=outcome, reason=reason, outlier=True, received_ts=17)

    def together(tx: Tx) -> None:
        room_nid = rooms.intern(tx, room_id, version)
        with_reasons = [(event, reasons[event.event_id]) for event in stored]
        outliers.insert_new(tx, room_nid, with_reasons[:20], received_ts=17)
        outliers.insert_new(tx, room_nid, with_reasons[20:], received_ts=17)

    found = []
    for write in (singly, together):
        async with open_database(tmp_path / f"{write.__name__}.db") as db:
            await db.write(write)
            names = [event.event_id for event in stored]
            rows = events.get_many(db.read, names)
            chains = {
                name: ids.event_ids(db.read, events.auth_chain(db.read, [rows[name].nid])) for name in names
            }
            keys = db.read.execute(
                "SELECT event_id, type, state_key, membership, sender, depth, ts FROM events "
                "JOIN event_ids USING (event_nid) LEFT JOIN state_keys USING (key_nid, type) "
                "ORDER BY event_id"
            ).fetchall()
            found.append(
                (
                    [(row._replace(nid=0), row.event.json) for row in map(rows.__getitem__, names)],
                    [set(chains[name].values()) for name in names],
                    keys,
                )
            )
    assert found[0] == found[1]


MEMBERSHIPS = ("join", "join", "join", "leave", "ban", "invite", "knock")


def changes_at_random(tx: Tx, factory: RoomFactory, room_nid: int, seed: int) -> list[dict[int, int | None]]:
    """Changes of a room's state, each of many keys: members come and go, are forgotten and brought back."""
    chance = random.Random(seed)
    users = [f"@user{number}:host{chance.randrange(6)}.example" for number in range(60)]
    keys: list[tuple[str, str]] = [("m.room.member", user) for user in [*users, ALICE, f"@bob:{OURS}", "odd"]]
    keys.append(("m.room.topic", ""))
    made = []
    for _ in range(6):
        change: dict[int, int | None] = {}
        for type, state_key in chance.sample(keys, chance.randrange(1, len(keys))):
            content = {"membership": chance.choice(MEMBERSHIPS)} if chance.random() < 0.95 else {}
            event = factory.send(FOUNDER, type, content, state_key, check=False)
            nid = events.insert(tx, room_nid, event, outcome=Outcome.ACCEPTED, outlier=True, received_ts=1)
            change[ids.intern_key(tx, type, state_key)] = nid if chance.random() < 0.9 else None
        made.append(change)
    return made


def unfolded(tx: Tx) -> list[list[Any]]:
    return [
        tx.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall()
        for table in ("current_state", "memberships", "membership_log")
    ] + [
        tx.execute(
            "SELECT * FROM room_hosts JOIN hosts USING (host_nid) WHERE joined > 0 ORDER BY host"
        ).fetchall()
    ]


def unfold_at_random(tx: Tx, seed: int, *, together: bool) -> tuple[list[list[Any]], list[bool]]:
    """What the tables hold in the end, and of each change whether it moved servers."""
    factory = RoomFactory("11", FOUNDER, name="den")
    room_nid = rooms.intern(tx, ROOM, "11")
    for host in (OURS, *(f"host{number}.example" for number in range(6))):
        ids.intern_host(tx, host)
    moved = []
    for pos, change in enumerate(changes_at_random(tx, factory, room_nid, seed), 1):
        parts = [change] if together else [{key: nid} for key, nid in change.items()]
        of_parts = [memberships.unfold(tx, room_nid, part, pos=pos, our_name=OURS) for part in parts]
        moved.append(any(of_parts))
    return unfolded(tx), moved


@pytest.mark.parametrize("seed", range(4))
async def test_unfolded_state(tmp_path: Path, seed: int) -> None:
    found = []
    for together in (False, True):
        async with open_database(tmp_path / f"{together}.db") as db:
            found.append(await db.write(partial(unfold_at_random, seed=seed, together=together)))
    assert found[0] == found[1]
    _, members, _, hosts = found[1][0]
    joined = Counter(domain_of(row[1]) for row in members if row[3] == "join")
    assert {row[3]: row[2] for row in hosts} == joined


async def test_a_server_is_told_once_of_our_devices_however_many_of_its_users_come(tmp_path: Path) -> None:
    """And not at all if it was there before, or comes and goes at once."""
    factory = RoomFactory("11", FOUNDER, name="den")
    keys = {
        "user_id": ALICE,
        "device_id": "D",
        "algorithms": [],
        "keys": {"ed25519:D": "k"},
        "signatures": {},
    }

    def write(tx: Tx) -> None:
        users.add(tx, ALICE, None, admin=False, now=1)
        devices.add(tx, ALICE, "D", None, now=1)
        device_keys.put(tx, ALICE, "D", keys)
        room_nid = rooms.intern(tx, ROOM, "11")

        def unfold(pos: int, *members: tuple[str, str]) -> None:
            changes: dict[int, int | None] = {}
            for user_id, membership in members:
                event = factory.send(
                    FOUNDER, "m.room.member", {"membership": membership}, user_id, check=False
                )
                nid = events.insert(
                    tx, room_nid, event, outcome=Outcome.ACCEPTED, outlier=True, received_ts=1
                )
                changes[ids.intern_key(tx, "m.room.member", user_id)] = nid
            memberships.unfold(tx, room_nid, changes, pos=pos, our_name=OURS)

        unfold(1, ("@first:before.example", "join"), ("@one:growing.example", "join"), (ALICE, "join"))
        unfold(
            2,
            ("@second:before.example", "join"),
            ("@first:before.example", "leave"),
            ("@two:growing.example", "join"),
            ("@banned:elsewhere.example", "ban"),
            *((f"@user{number}:new.example", "join") for number in range(3)),
        )

    async with open_database(tmp_path / "test.db") as db:
        await db.write(write)
        told = db.read.execute("SELECT host, edu FROM outbound_edus JOIN hosts USING (host_nid)").fetchall()
    assert Counter(host for host, _ in told) == {"before.example": 1, "growing.example": 1, "new.example": 1}
    assert {json.loads(edu)["content"]["user_id"] for _, edu in told} == {ALICE}
