# SPDX-License-Identifier: Apache-2.0
"""What is written for many events at once is what would be written for each by itself."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from minihs.matrix.event import Event
from minihs.matrix.ids import domain_of
from minihs.runtime import InlineThreads, Runtime
from minihs.store import device_keys, devices, events, ids, memberships, new_events, rooms, users
from minihs.store.database import Database, Tx
from minihs.store.events import Outcome
from minihs.store.new_events import NewEvent
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
            new_events.insert(tx, room_nid, NewEvent(event, outcome, 17, reason=reason, outlier=True))

    def together(tx: Tx) -> None:
        room_nid = rooms.intern(tx, room_id, version)
        new = []
        for event in stored:
            reason = reasons[event.event_id]
            outcome = Outcome.ACCEPTED if reason is None else Outcome.REJECTED
            new.append(NewEvent(event, outcome, 17, reason=reason, outlier=True))
        new_events.insert_all(tx, room_nid, new[:20])
        new_events.insert_all(tx, room_nid, new[10:])

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


def placed_at_random(factory: RoomFactory, seed: int) -> list[NewEvent]:
    """Messages as a timeline has them: some with parents that are missing, rejected or without a place, some
    before their parents."""
    chance = random.Random(seed)
    made: list[NewEvent] = []
    for number in range(40):
        known = [each.event.event_id for each in made]
        prevs = chance.sample(known, min(len(known), chance.randrange(1, 4)))
        if not prevs or chance.random() < 0.2:
            prevs.append(f"$missing{chance.randrange(5)}")
        content: dict[str, Any] = {"body": str(number)}
        if known and chance.random() < 0.3:
            content |= {"m.relates_to": {"rel_type": "m.reference", "event_id": chance.choice(known)}}
        json = factory.send(FOUNDER, "m.room.message", content).json | {"prev_events": prevs}
        event = Event.from_store(json, factory.version, f"$event{number}")
        outcome = chance.choice([Outcome.ACCEPTED] * 4 + [Outcome.SOFT_FAILED, Outcome.REJECTED])
        outlier = chance.random() < 0.1
        topo = None if outlier or outcome is Outcome.REJECTED else number
        arrival = None if topo is None else chance.choice([number + 1, -number - 1])
        made.append(NewEvent(event, outcome, 1, outlier=outlier, topo=topo, arrival=arrival))
    chance.shuffle(made)
    again = [each._replace(outlier=False, topo=3, arrival=7) for each in made if each.outlier]
    return [*made, *again]


@pytest.mark.parametrize("seed", range(5))
async def test_events_of_the_timeline(tmp_path: Path, seed: int) -> None:
    factory = RoomFactory("11", FOUNDER)
    new = placed_at_random(factory, seed)
    assert factory.room_id is not None
    room_id = factory.room_id

    def write(tx: Tx, part: list[NewEvent], tips: set[str] | None) -> set[str]:
        room_nid = rooms.intern(tx, room_id, "11")
        nids, unheard = new_events.insert_all(tx, room_nid, part)
        placed = {nid: each for nid, each in zip(nids, part, strict=True) if not each.outlier}
        if tips is None:
            new_events.connect_all(tx, room_nid, placed)
        else:
            new_events.connect_all(tx, room_nid, placed, unheard=unheard, tips=tips)
        rows = events.get_nids(tx, nids).values()
        return {row.event.event_id for row in rows if not row.outlier and row.topo is not None}

    found = []
    singly, halves = [[each] for each in new], [new[:15], new[15:]]
    for number, (parts, tells) in enumerate(itertools.product((singly, halves), (False, True))):
        async with open_database(tmp_path / f"{number}.db") as db:
            whole: set[str] = set()
            for part in parts:
                whole |= await db.write(partial(write, part=part, tips=whole if tells else None))
            named = dict(db.read.execute("SELECT event_nid, event_id FROM event_ids").fetchall())
            rows = events.get_many(db.read, list(named.values()))
            found.append(
                [sorted((name, str(row._replace(nid=0)), str(row.event.json)) for name, row in rows.items())]
                + [
                    sorted(
                        tuple(named[nid] for nid in row)
                        for row in db.read.execute(f"SELECT {columns} FROM {table}").fetchall()
                    )
                    for table, columns in (
                        ("edges", "event_nid, prev_nid"),
                        ("backward_extremities", "event_nid, successor"),
                        ("relations", "parent_nid, child_nid"),
                    )
                ]
            )
    assert all(each == found[0] for each in found[1:])
    assert all(found[0])


async def test_what_nobody_named_is_not_looked_for(tmp_path: Path) -> None:
    factory = RoomFactory("11", FOUNDER)
    first = factory.send(FOUNDER, "m.room.message", {"body": "named by the second"})
    second = factory.send(FOUNDER, "m.room.message", {"body": "unheard of"})
    assert first.event_id in second.prev_events

    def write(tx: Tx, event: Event) -> bool:
        room_nid = rooms.intern(tx, event.room_id, "11")
        nids, unheard = new_events.insert_all(
            tx, room_nid, [NewEvent(event, Outcome.ACCEPTED, 1, topo=1, arrival=1)]
        )
        return nids[0] in unheard

    async with open_database(tmp_path / "m.db") as db:
        assert await db.write(partial(write, event=second))
        assert not await db.write(partial(write, event=first))
        assert not await db.write(partial(write, event=second))


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
            nid = new_events.insert(tx, room_nid, NewEvent(event, Outcome.ACCEPTED, 1, outlier=True))
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
                nid = new_events.insert(tx, room_nid, NewEvent(event, Outcome.ACCEPTED, 1, outlier=True))
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
