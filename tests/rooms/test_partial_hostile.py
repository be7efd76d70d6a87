# SPDX-License-Identifier: Apache-2.0
"""Joining by partial state through servers that lie, or leave out what matters."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import trio

from minihs.matrix.errors import MatrixError
from minihs.rooms import head, partial_join, partial_resync
from minihs.rooms.service import Rooms
from tests.rooms import invariants
from tests.rooms.forge import inbox_of, rows_of
from tests.rooms.partial_kit import ALICE, BOB, VIC, scenes
from tests.rooms.world import state_of, timeline_of

type JsonObject = dict[str, Any]


def answering(**changes: Any) -> Any:
    """send_join as the server would answer, with some fields changed."""

    async def hook(honest: Any, *args: Any) -> Any:
        answer = await honest()
        if answer["members_omitted"]:
            answer |= {name: change(answer) for name, change in changes.items()}
        return answer

    return hook


def without(key: tuple[str, str]) -> Any:
    def change(answer: JsonObject) -> list[JsonObject]:
        return [pdu for pdu in answer["state"] if (pdu["type"], pdu.get("state_key")) != key]

    return change


NOT_ENOUGH: dict[str, Any] = {
    "no create event": answering(state=without(("m.room.create", "")), auth_chain=lambda answer: []),
    "no power levels": answering(state=without(("m.room.power_levels", ""))),
    "no join rules": answering(state=without(("m.room.join_rules", ""))),
    "no state": answering(state=lambda answer: []),
    "no servers": answering(servers_in_room=lambda answer: None),
    "rubbish for servers": answering(servers_in_room=lambda answer: ["", "a b", "v.test"]),
}


@pytest.mark.parametrize("name", NOT_ENOUGH)
async def test_what_is_not_enough_to_join_by_is_not_joined_by(tmp_path: Path, name: str) -> None:
    """The whole state is asked for instead."""
    async with scenes(tmp_path) as scene:
        scene.world.hooks["h.test", "send_join"] = NOT_ENOUGH[name]
        await scene.join()
        assert not scene.is_partial
        assert [verb for _, _, verb in scene.world.asked].count("send_join") == 3
        scene.check_like_others()


async def test_a_partial_answer_that_nobody_asked_for_is_none(tmp_path: Path) -> None:
    async with scenes(tmp_path) as scene:
        scene.world.partial_joins = False
        await scene.world.restart("v.test")

        async def unasked(honest: Any, *args: Any) -> Any:
            return {**await honest(), "members_omitted": True, "servers_in_room": ["h.test"]}

        scene.world.hooks["h.test", "send_join"] = unasked
        with pytest.raises(MatrixError) as refused:
            await scene.join()
        assert refused.value.status == 502
        assert rows_of(scene.v) == {}


async def test_a_room_in_too_many_servers_is_joined_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial_join, "MAX_SERVERS", 2)
    async with scenes(tmp_path) as scene:
        named = ["h.test", "e.test", "more.test"]
        scene.world.hooks["h.test", "send_join"] = answering(servers_in_room=lambda answer: named)
        await scene.join()
        assert not scene.is_partial


async def test_events_beyond_the_bound_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "MAX_PARTIAL_EVENTS", 3)
    async with scenes(tmp_path) as scene:
        await scene.join()
        said = [await scene.say(scene.h, BOB, str(n)) for n in range(5)]
        assert timeline_of(scene.v, scene.room_id)[1:] == said[:3]
        assert inbox_of(scene.v).keys() == set(said[3:])
        await scene.complete()
        await scene.world.rest()
        assert timeline_of(scene.v, scene.room_id)[1:] == said


def state_told(change: Any) -> Any:
    """A server's answer to /state, changed."""

    async def hook(honest: Any, *args: Any) -> Any:
        answer = await honest()
        return {**answer, "pdus": change(answer["pdus"])}

    return hook


def but(pdus: Iterable[JsonObject], *types: str) -> list[JsonObject]:
    return [pdu for pdu in pdus if pdu["type"] not in types]


@pytest.mark.parametrize("left_out", ["m.room.create", "m.room.join_rules", "m.room.name", "everything"])
async def test_a_state_that_contradicts_what_we_joined_by_is_not_believed(
    tmp_path: Path, left_out: str
) -> None:
    async with scenes(tmp_path) as scene:
        await scene.join()
        lie = state_told(lambda pdus: [] if left_out == "everything" else but(pdus, left_out))
        for host in ("h.test", "e.test"):
            scene.world.hooks[host, "state_at"] = lie
        await scene.world.wait(100)
        assert scene.is_partial
        await scene.complete()  # somebody honest in the end
        scene.check_like_others()


async def test_if_nobody_says_the_same_somebody_is_believed_in_the_end(tmp_path: Path) -> None:
    async with scenes(tmp_path) as scene:
        await scene.join()
        for host in ("h.test", "e.test"):
            scene.world.hooks[host, "state_at"] = state_told(lambda pdus: but(pdus, "m.room.name"))
        for _ in range(partial_resync.STRICT_ATTEMPTS):
            assert scene.is_partial
            await scene.world.wait(7200)
        assert not scene.is_partial
        assert ("m.room.name", "") not in state_of(scene.v, scene.room_id)
        assert ("m.room.member", BOB) in state_of(scene.v, scene.room_id)
        invariants.check(scene.v, scene.room_id)


async def test_only_so_many_rooms_are_fetched_at_the_same_time(tmp_path: Path) -> None:
    async with scenes(tmp_path) as scene:
        world, go, asked = scene.world, trio.Event(), list[str]()

        async def slowly(honest: Any, asker: str, room_id: str, *args: Any) -> Any:
            asked.append(room_id)
            await go.wait()
            return await honest()

        world.hooks["h.test", "state_at"] = slowly
        made = [
            await scene.h.create(ALICE, {"preset": "public_chat"})
            for _ in range(partial_resync.MAX_AT_ONCE + 1)
        ]
        for room_id in made:
            await scene.v.join(VIC, room_id, via=["h.test"])
        await world.rest()
        assert len(asked) == partial_resync.MAX_AT_ONCE
        go.set()
        await world.rest()
        assert set(asked) == set(made)
        assert not any(scene.v.parts.whole.is_partial(room_id) for room_id in made)


async def test_others_are_asked_each_time(tmp_path: Path) -> None:
    async with scenes(tmp_path) as scene:
        named = [f"s{n}.test" for n in range(20)]
        scene.world.hooks["h.test", "send_join"] = answering(servers_in_room=lambda answer: named)
        await scene.join()
        for _ in range(5):
            await scene.world.wait(7200)
        asked = {host for _, host, verb in scene.world.asked if verb == "state_at"}
        assert {"h.test", *named} <= asked


async def test_who_was_forgotten_by_the_resident_is_sent_what_we_said(tmp_path: Path) -> None:
    async with scenes(tmp_path) as scene:
        scene.world.hooks["h.test", "send_join"] = answering(servers_in_room=lambda answer: ["h.test"])
        await scene.join()
        scene.world.separate("e.test")
        ours = await scene.v.send(VIC, scene.room_id, "m.room.message", {"body": "hello"})
        assert sent_to(scene.v, "e.test") == []
        scene.world.reunite()
        await scene.complete()
        assert sent_to(scene.v, "e.test") == [ours]


def sent_to(server: Rooms, host: str) -> list[str]:
    return [
        row[0]
        for row in server.parts.db.read.execute(
            "SELECT i.event_id FROM outbound o JOIN host_set_members m USING (host_set_nid) "
            "JOIN hosts h ON h.host_nid = m.host_nid JOIN event_ids i ON i.event_nid = o.event_nid "
            "WHERE h.host = ? ORDER BY o.seq",
            (host,),
        ).fetchall()
    ]
