# SPDX-License-Identifier: Apache-2.0
"""Servers that all tie the ends of a room's history together come to rest, whoever makes the ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from minihs.rooms import ties
from minihs.rooms.head import TIE_TYPE
from tests.rooms import invariants
from tests.rooms.forge import Forger
from tests.rooms.world import World, outbound_rows, stored, timeline_of, worlds

ALICE = "@alice:a.test"
NAMES = [f"{letter}.test" for letter in "abcdefgh"]
HOSTILE = NAMES[-1]
MAX_ENDS = 3


@pytest.mark.parametrize("of_type", ["m.room.message", TIE_TYPE])
async def test_servers_that_tie_do_not_tie_each_others_ties_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_type: str
) -> None:
    """There are more of them than ends that are left alone, and all tie before they hear of the others."""
    monkeypatch.setattr(ties, "MAX_ENDS", MAX_ENDS)
    async with worlds(tmp_path, *NAMES) as world:
        a = world.servers["a.test"]
        room_id = await a.create(ALICE, {"preset": "public_chat"})
        for name in NAMES[1:]:
            await world.servers[name].join(f"@user:{name}", room_id, via=["a.test"])
            await world.deliver()
        forger = Forger(world, HOSTILE, "a.test", room_id)
        made = [forger.draft(of_type, f"@user:{HOSTILE}", {"n": n}, prev=forger.tips) for n in range(50)]
        sealed = [forger.seal(pdu) for pdu in made]
        ends, more = sealed[:30], sealed[30:]
        victims = NAMES[:-1]
        for name in victims:
            await world.send(HOSTILE, name, ends)
        assert len(ties_of(world, room_id)) >= len(victims)
        for _ in range(5):
            await deliver_at_once(world)
        assert not await deliver_at_once(world), "they never come to rest"
        assert len(ties_of(world, room_id)) < 3 * len(victims)
        for name in victims:
            assert len(tips_of(world, name, room_id)) <= MAX_ENDS + len(NAMES)
        before = ties_of(world, room_id)
        await world.send(HOSTILE, "a.test", more)
        if of_type != TIE_TYPE:
            assert len(ties_of(world, room_id)) == len(before) + 1, "loose ends are tied before ties"
        for _ in range(3):
            said = await a.send(ALICE, room_id, "m.room.message", {})
            await world.deliver()
        for name in victims:
            assert tips_of(world, name, room_id) == {said}
            await world.restart(name)
            invariants.check(world.servers[name], room_id)


async def deliver_at_once(world: World) -> bool:
    """Send what waits now; what is made of it waits for the next time. Whether there was anything."""
    waiting = [
        (host, target, rows)
        for host, server in world.servers.items()
        for target in world.servers
        if target != host and (rows := outbound_rows(server, target, world.sent_up_to.get((host, target), 0)))
    ]
    for host, target, rows in waiting:
        world.sent_up_to[host, target] = rows[-1][0]
        for start in range(0, len(rows), 50):
            await world.send(host, target, [pdu for _, pdu in rows[start : start + 50]])
    return bool(waiting)


async def test_many_ties_of_many_servers_are_tied_some_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """One stranger can have as many servers as it likes; each may leave one end."""
    monkeypatch.setattr(ties, "MANY_ENDS", 5)
    async with worlds(tmp_path, "a.test", *NAMES[1:]) as world:
        a = world.servers["a.test"]
        room_id = await a.create(ALICE, {"preset": "public_chat"})
        for name in NAMES[1:]:
            await world.servers[name].join(f"@user:{name}", room_id, via=["a.test"])
            await world.deliver()
        ends = []
        for name in NAMES[1:]:
            forger = Forger(world, name, "a.test", room_id)
            ends.append((name, forger.seal(forger.draft(TIE_TYPE, f"@user:{name}", {}, prev=forger.tips))))
        prev = forger.tips
        for name, end in ends:
            await world.send(name, "a.test", [end])
        assert len(tips_of(world, "a.test", room_id)) == len(ends)
        more = [
            forger.seal(forger.draft("m.room.message", f"@user:{forger.name}", {"n": n}, prev=prev))
            for n in range(2)
        ]
        await trio.sleep(1)
        await world.send(forger.name, "a.test", more[:1])
        assert len(tips_of(world, "a.test", room_id)) == len(ends) + 1
        await trio.sleep(ties.MANY_ENDS_PAUSE)
        await world.send(forger.name, "a.test", more[1:])
        (tip,) = tips_of(world, "a.test", room_id)
        assert ties_of(world, room_id) >= {tip}


def tips_of(world: World, name: str, room_id: str) -> set[str]:
    return set(world.servers[name].parts.head(room_id).tips)


def ties_of(world: World, room_id: str) -> set[str]:
    """Those of the honest servers."""
    found: set[str] = set()
    for name in NAMES[:-1]:
        server = world.servers[name]
        for event_id in timeline_of(server, room_id):
            kept = stored(server, event_id)
            if kept is not None and kept.event.type == TIE_TYPE and kept.event.origin != HOSTILE:
                found.add(event_id)
    return found
