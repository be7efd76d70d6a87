# SPDX-License-Identifier: Apache-2.0
"""A server whose last user is removed on top of something that it has not got: it finds out, and learns
nothing that is not its to know."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from minihs.matrix import canonical
from minihs.matrix.errors import MatrixError
from minihs.matrix.hashes import event_id_of
from minihs.rooms import serving as serving_module
from minihs.rooms.service import Rooms
from minihs.rooms.serving import MAX_ASKED_AT
from minihs.store import sync_rooms
from minihs.sync.group_facts import GroupFacts
from minihs.sync.visibility import HostVisibility
from tests.rooms.forge import Forger, inbox_of, rows_of
from tests.rooms.world import World, membership_of, state_of, worlds

ALICE, BOB, CAROL = "@alice:a.test", "@bob:b.test", "@carol:c.test"


@dataclass
class Scene:
    world: World
    room_id: str
    before_bob: str
    """Said by Alice before Bob came."""
    heard: str
    """Said by Alice while Bob was in."""
    unheard: str
    """Said by Carol while Bob was in; his server did not get it."""
    kick: str

    @property
    def a(self) -> Rooms:
        return self.world.servers["a.test"]

    @property
    def b(self) -> Rooms:
        return self.world.servers["b.test"]


async def refuses(ask: Callable[[], Any]) -> None:
    async def whole() -> None:
        answer = ask()
        if isinstance(answer, Awaitable):
            await answer

    with pytest.raises(MatrixError) as error:
        await whole()
    assert (error.value.status, error.value.errcode) == (403, "M_FORBIDDEN")


@asynccontextmanager
async def scenes(tmp_path: Path, action: str = "kick", visibility: str = "shared") -> AsyncIterator[Scene]:
    async with worlds(tmp_path, "a.test", "b.test", "c.test") as world:
        a, b, c = (world.servers[f"{name}.test"] for name in "abc")
        a.serving._visible_to = HostVisibility(GroupFacts())
        history = {"type": "m.room.history_visibility", "content": {"history_visibility": visibility}}
        room_id = await a.create(ALICE, {"preset": "public_chat", "initial_state": [history]})
        before_bob = await a.send(ALICE, room_id, "m.room.message", {"body": "before"})
        for server, user_id in ((b, BOB), (c, CAROL)):
            await server.join(user_id, room_id, via=["a.test"])
            await world.deliver()
        heard = await a.send(ALICE, room_id, "m.room.message", {"body": "heard"})
        await world.deliver()
        world.cut.add(frozenset({"b.test", "c.test"}))
        unheard = await c.send(CAROL, room_id, "m.room.message", {"body": "unheard"})
        await world.deliver()
        await getattr(a, action)(ALICE, room_id, BOB, None)
        kick = state_of(a, room_id)["m.room.member", BOB]
        yield Scene(world, room_id, before_bob, heard, unheard, kick)


@pytest.mark.parametrize(("action", "membership"), [("kick", "leave"), ("ban", "ban")])
async def test_it_finds_out_that_it_was_removed(tmp_path: Path, action: str, membership: str) -> None:
    async with scenes(tmp_path, action) as scene:
        assert membership_of(scene.b, scene.room_id, BOB) == "join"
        await scene.world.deliver()
        assert membership_of(scene.b, scene.room_id, BOB) == membership
        assert scene.unheard in rows_of(scene.b)
        assert inbox_of(scene.b) == {}


async def test_it_may_ask_about_what_it_was_there_for(tmp_path: Path) -> None:
    async with scenes(tmp_path) as scene:
        serving, room_id = scene.a.serving, scene.room_id
        version = scene.a.parts.head(room_id).version
        told = await serving.missing_events(
            "b.test", room_id, earliest=[], latest=[scene.kick], limit=20, min_depth=0
        )
        pdus = [canonical.loads(each) for each in told]
        ids = [event_id_of(pdu, version) for pdu in pdus]
        assert {scene.heard, scene.unheard} < set(ids)
        assert all(pdu["content"] for pdu in pdus), "something was redacted"
        # What was said before it came is a resident's to see, and it is none now.
        assert scene.before_bob not in ids
        assert serving.event("b.test", scene.unheard)["content"] == {"body": "unheard"}
        await serving.state("b.test", room_id, scene.kick)
        await serving.state_ids("b.test", room_id, scene.unheard)
        await serving.event_auth("b.test", room_id, scene.kick)


@pytest.mark.parametrize("visibility", ["shared", "world_readable"])
async def test_it_may_not_ask_about_anything_else(tmp_path: Path, visibility: str) -> None:
    async with scenes(tmp_path, visibility=visibility) as scene:
        serving, room_id = scene.a.serving, scene.room_id
        after = await scene.a.send(ALICE, room_id, "m.room.message", {"body": "after"})
        for event_id in (after, scene.before_bob):
            for verb in (serving.state, serving.state_ids, serving.event_auth):
                await refuses(lambda verb=verb, at=event_id: verb("b.test", room_id, at))
            await refuses(lambda at=event_id: serving.event("b.test", at))

        def missing(origin: str, *latest: str) -> Any:
            return serving.missing_events(origin, room_id, earliest=[], latest=latest, limit=20, min_depth=0)

        for latest in ([], [after], ["$unknown"], [scene.kick, after], [scene.kick, "$unknown"]):
            await refuses(lambda latest=latest: missing("b.test", *latest))
        assert await missing("b.test", *[scene.kick] * MAX_ASKED_AT)
        await refuses(lambda: missing("b.test", *[scene.kick] * (MAX_ASKED_AT + 1)))
        await refuses(lambda: missing("d.test", scene.kick))
        await refuses(lambda: serving.backfill("b.test", room_id, [scene.kick], 10))
        await refuses(lambda: serving.extremities("b.test", room_id))


async def test_it_may_ask_about_so_many_states_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scenes(tmp_path) as scene:
        room_id, at = scene.room_id, [scene.heard, scene.unheard]
        forger = Forger(scene.world, "a.test", "a.test", room_id)
        for n in range(3):  # on branches of their own, at which Bob is still in
            topic = forger.draft("m.room.topic", ALICE, {"topic": str(n)}, "", prev=[at[-1]])
            said = forger.draft(
                "m.room.message", ALICE, {}, prev=[forger.id_of(forger.seal(topic))], depth=topic["depth"] + 1
            )
            for pdu in (topic, said):
                await scene.world.send("c.test", "a.test", [forger.seal(pdu)])
            at.append(forger.id_of(forger.seal(said)))

        def missing() -> Any:
            return scene.a.serving.missing_events(
                "b.test", room_id, earliest=[], latest=at, limit=20, min_depth=0
            )

        monkeypatch.setattr(serving_module, "MAX_STATES_ASKED_AT", 4)
        assert await missing()
        monkeypatch.setattr(serving_module, "MAX_STATES_ASKED_AT", 3)
        await refuses(missing)


async def test_of_many_users_some_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scenes(tmp_path) as scene:
        monkeypatch.setattr(sync_rooms, "MAX_USERS_OF_HOST", 1)
        assert scene.a.serving.event("b.test", scene.heard)["content"] == {"body": "heard"}
        monkeypatch.setattr(sync_rooms, "MAX_USERS_OF_HOST", 0)
        await refuses(lambda: scene.a.serving.event("b.test", scene.heard))


async def test_events_of_other_rooms_and_rejected_ones_open_nothing(tmp_path: Path) -> None:
    async with scenes(tmp_path) as scene:
        other = await scene.a.create(ALICE, {"preset": "public_chat"})
        forger = Forger(scene.world, "b.test", "a.test", scene.room_id)
        topic = forger.draft("m.room.topic", BOB, {"topic": "mine"}, "", prev=[scene.heard])
        await scene.world.send("b.test", "a.test", [forger.seal(topic)])
        rejected = forger.id_of(forger.seal(topic))
        assert rejected in rows_of(scene.a)
        for room_id, event_id in ((other, scene.kick), (scene.room_id, rejected)):
            await refuses(
                lambda room_id=room_id, at=event_id: scene.a.serving.missing_events(
                    "b.test", room_id, earliest=[], latest=[at], limit=20, min_depth=0
                )
            )


async def test_the_acl_decides_first(tmp_path: Path) -> None:
    async with scenes(tmp_path) as scene:
        acl = {"allow": ["*"], "deny": ["b.test"]}
        await scene.a.send(ALICE, scene.room_id, "m.room.server_acl", acl, state_key="")
        await refuses(lambda: scene.a.serving.event("b.test", scene.heard))
