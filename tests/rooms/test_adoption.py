# SPDX-License-Identifier: Apache-2.0
"""What is made of a state that another server sends does not depend on the order in which it comes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from minihs.matrix import canonical
from minihs.matrix.event import Event
from minihs.matrix.hashes import event_id_of
from minihs.rooms import adoption
from minihs.rooms.adoption import Adoption
from minihs.store import rooms
from minihs.store.events import Outcome
from minihs.store.new_events import NewEvent, insert
from minihs.testing.events import RoomFactory
from tests.rooms.world import World, worlds

FOUNDER, EVE = "@founder:there.test", "@eve:e.test"

type Found = dict[str, tuple[str | None, bool, bool]]
"""event id → (why it was rejected, is it part of the state, is it whole)."""


async def well_signed(self: World, events: Sequence[Event]) -> list[Exception | None]:
    return [None] * len(events)


class Answer:
    """State and auth chain: good events, some that are against the rules, some that rest upon those, or upon
    what is not there, and some in two forms."""

    def __init__(self, version: str) -> None:
        self.factory = factory = RoomFactory(version, FOUNDER, power_levels={"users": {EVE: 50}})
        factory.join(EVE)
        for number in range(12):
            factory.join(f"@user{number}:u.test", {"displayname": f"User {number}"})
        factory.send(FOUNDER, "m.room.member", {"membership": "ban"}, "@user3:u.test")
        factory.send(EVE, "m.room.topic", {"topic": "good"}, "")
        # Before room version 11 the redacted form says no more who may invite.
        factory.set_power_levels(FOUNDER, users={EVE: 50}, invite=80)
        good = list(factory.events.values())
        levels = factory.state["m.room.power_levels", ""]
        user = factory.state["m.room.member", "@user1:u.test"]
        create = [factory.create] if factory.version.create_event_in_auth_events else []
        bad = self._made(user.sender, "m.room.power_levels", [*create, levels, user])
        upon_bad = self._made(user.sender, "m.room.name", [*create, bad, user])
        elsewhere = RoomFactory(version, FOUNDER, name="elsewhere").join(EVE)
        factory.events[elsewhere.event_id] = elsewhere
        upon_missing = self._made(user.sender, "m.room.avatar", [*create, elsewhere])
        upon_that = self._made(user.sender, "org.example.more", [*create, user, upon_missing])
        invite = factory.build(EVE, "m.room.member", {"membership": "invite"}, "@guest:u.test")
        self.rejected = [bad, upon_bad, invite]
        self.left_out = [upon_missing, upon_that]
        self.state: list[bytes] = []
        self.chain: list[bytes] = []
        for place, event in enumerate([*good, *self.rejected, *self.left_out]):
            whole = event.json
            # The same event though its hash is not right. (A create event keeps all of its content.)
            broken = whole | {"content": event.content | {"org.example.more": 1}}
            is_same = event_id_of(broken, factory.version) == event.event_id
            for pdu in [whole, broken] if (place % 3 == 0 or event == levels) and is_same else [whole]:
                is_in_chain = pdu is not whole if event == levels else place < 6 or place % 4 == 0
                (self.chain if is_in_chain else self.state).append(canonical.dumps(pdu))
                if place % 5 == 0:
                    self.state.append(canonical.dumps(pdu | {"unsigned": {"age": 2**60}}))

    def _made(self, sender: str, type: str, auth_events: list[Event]) -> Event:
        event = self.factory.build(sender, type, {}, "", auth_events=auth_events)
        self.factory.events[event.event_id] = event
        return event


async def adopt(world: World, factory: RoomFactory, state: list[bytes], chain: list[bytes]) -> Found:
    assert factory.room_id is not None
    taken = Adoption(world.servers["v.test"].parts, factory.room_id, factory.version)
    await taken.read("there.test", chain, is_state=False)
    await taken.read("there.test", state, is_state=True)
    await taken.authorise()
    return {
        event_id: (item.rejected, item.in_state, item.is_whole)
        for event_id, item in taken._items.items()
        if taken.event(event_id) is not None
    }


@pytest.mark.parametrize("version", ["1", "6", "11", "12"])
async def test_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(World, "verify_events", well_signed)
    answer = Answer(version)
    factory, state, chain = answer.factory, answer.state, answer.chain
    known = next(event for event in factory.events.values() if event.state_key == "@user5:u.test")
    async with worlds(tmp_path, "v.test") as world:

        def reject(tx: Any) -> None:
            room_nid = rooms.intern(tx, known.room_id, version)
            insert(tx, room_nid, NewEvent(known, Outcome.REJECTED, 1, reason="before", outlier=True))

        await world.servers["v.test"].parts.db.write(reject)
        with monkeypatch.context() as patch:
            patch.setattr(Adoption, "_judge_ready", lambda *_: None)  # all of it at the end, parents first
            expected = await adopt(world, factory, state, chain)
        for event in (known, *answer.rejected):
            assert expected[event.event_id][0] is not None
        assert expected.keys().isdisjoint(event.event_id for event in answer.left_out)
        assert len(expected) > 15
        chance = random.Random(version)
        for size in (1, 4, 250):
            monkeypatch.setattr(adoption, "_BATCH", size)
            for _ in range(8):
                assert await adopt(world, factory, state, chain) == expected
                chance.shuffle(state)
                chance.shuffle(chain)


async def test_little_is_read_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if each event of the chain comes before what it rests upon."""
    monkeypatch.setattr(World, "verify_events", well_signed)
    monkeypatch.setattr(adoption, "_CACHE_BYTES", 40_000)
    factory = RoomFactory("11", FOUNDER)
    for number in range(50):
        factory.join(f"@user{number}:u.test")
    cited = {event_id for event in factory.state.values() for event_id in event.auth_events}
    latest_first = sorted(map(factory.events.__getitem__, cited), key=lambda event: -event.depth)
    loaded: list[str] = []
    load = Adoption._load

    def counted(self: Adoption, event_id: str, item: Any) -> Event:
        loaded.append(event_id)
        return load(self, event_id, item)

    monkeypatch.setattr(Adoption, "_load", counted)
    async with worlds(tmp_path, "v.test") as world:
        assert factory.room_id is not None
        taken = Adoption(world.servers["v.test"].parts, factory.room_id, factory.version)
        for events, is_state in ((latest_first, False), (factory.state.values(), True)):
            raws = [canonical.dumps(event.json) for event in events]
            await taken.read("there.test", raws, is_state=is_state)
        await taken.authorise()
    assert len(taken.state_ids()) == len(factory.state)
    assert set(loaded) <= cited
    assert len(loaded) <= len(cited)


async def test_signatures_without_form_are_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing covers them: whoever passes an event on may add some."""
    monkeypatch.setattr(World, "verify_events", well_signed)
    factory = RoomFactory("11", FOUNDER)
    rubbish = {"x.test": 5, "y.test": {"ed25519:1": "good", "ed25519:2": None}}
    raws = [
        canonical.dumps(event.json | {"signatures": event.json["signatures"] | rubbish})
        for event in factory.events.values()
    ]
    join = factory.build("@vic:v.test", "m.room.member", {"membership": "join"}, "@vic:v.test")
    for cached in (0, 1_000_000):
        monkeypatch.setattr(adoption, "_CACHE_BYTES", cached)
        folder = tmp_path / str(cached)
        folder.mkdir()
        async with worlds(folder, "v.test") as world:
            parts = world.servers["v.test"].parts
            taken = Adoption(parts, join.room_id, factory.version)
            await taken.read("there.test", raws, is_state=True)
            await taken.authorise()
            await taken.promote(join)
            for event in factory.events.values():
                stored = parts.graph.event(event.event_id)
                assert stored is not None
                assert stored.json["signatures"] == event.json["signatures"] | {
                    "y.test": {"ed25519:1": "good"}
                }
