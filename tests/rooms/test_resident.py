# SPDX-License-Identifier: Apache-2.0
"""Being the resident: which templates other servers get, and what they may hand in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minihs.matrix.errors import MatrixError
from minihs.rooms.head import TIE_TYPE
from tests.rooms.forge import Forger
from tests.rooms.world import membership_of, state_of, timeline_of, worlds

type JsonObject = dict[str, Any]

ALICE, BOB = "@alice:a.test", "@bob:b.test"


@pytest.mark.parametrize(
    ("origin", "user_id", "membership", "versions", "status", "errcode"),
    [
        ("b.test", "bob", "join", ["12"], 400, "M_INVALID_PARAM"),
        ("b.test", "@carol:c.test", "join", ["12"], 403, "M_FORBIDDEN"),
        ("b.test", BOB, "join", ["10"], 400, "M_INCOMPATIBLE_ROOM_VERSION"),
        ("b.test", BOB, "join", [], 400, "M_INCOMPATIBLE_ROOM_VERSION"),
        ("b.test", BOB, "leave", None, 403, "M_FORBIDDEN"),
        ("b.test", BOB, "knock", ["12"], 403, "M_FORBIDDEN"),
    ],
)
async def test_templates_are_made_for_ones_own_users_and_what_the_room_allows(
    tmp_path: Path,
    origin: str,
    user_id: str,
    membership: str,
    versions: list[str] | None,
    status: int,
    errcode: str,
) -> None:
    async with worlds(tmp_path, "a.test") as world:
        a = world.servers["a.test"]
        room_id = await a.create(ALICE, {"preset": "public_chat"})
        with pytest.raises(MatrixError) as refused:
            await a.resident.make(origin, room_id, user_id, membership, versions)
        assert (refused.value.status, refused.value.errcode) == (status, errcode)
        if errcode == "M_INCOMPATIBLE_ROOM_VERSION":
            assert refused.value.to_json()["room_version"] == "12"
        with pytest.raises(MatrixError) as refused:
            await a.resident.make("b.test", "!unknown:a.test", BOB, "join", ["12"])
        assert refused.value.status == 404


@pytest.mark.parametrize("version", ["1", "6", "11", "12"])
async def test_a_template_holds_nothing_that_is_for_us_to_sign(tmp_path: Path, version: str) -> None:
    async with worlds(tmp_path, "a.test") as world:
        a = world.servers["a.test"]
        room_id = await a.create(ALICE, {"preset": "public_chat", "room_version": version})
        answer = await a.resident.make("b.test", room_id, BOB, "join", [version])
        assert answer["room_version"] == version
        assert not {"hashes", "signatures", "event_id", "unsigned"} & answer["event"].keys()
        assert answer["event"]["content"] == {"membership": "join"}
        assert answer["event"]["origin"] == "a.test"
        assert (answer["event"]["sender"], answer["event"]["state_key"]) == (BOB, BOB)
        assert answer["event"]["type"] == "m.room.member"
        assert type(answer["event"]["origin_server_ts"]) is int


@pytest.mark.parametrize(
    ("verb", "change", "status", "errcode"),
    [
        ("send_join", {"content": {"membership": "leave"}}, 400, "M_INVALID_PARAM"),
        ("send_join", {"type": "m.room.message"}, 400, "M_INVALID_PARAM"),
        ("send_join", {"state_key": "@other:b.test"}, 400, "M_INVALID_PARAM"),
        ("send_leave", {"content": {"membership": "join"}}, 400, "M_INVALID_PARAM"),
        ("send_knock", {"content": {"membership": "join"}}, 400, "M_INVALID_PARAM"),
    ],
)
async def test_what_is_handed_in_must_be_what_the_path_says(
    tmp_path: Path, verb: str, change: JsonObject, status: int, errcode: str
) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a = world.servers["a.test"]
        room_id = await a.create(ALICE, {"preset": "public_chat"})
        forger = Forger(world, "b.test", "a.test", room_id)
        membership = verb.removeprefix("send_")
        pdu = forger.draft("m.room.member", BOB, {"membership": membership}, BOB) | change
        sealed = forger.seal(pdu)
        call = getattr(a.resident, verb)
        with pytest.raises(MatrixError) as refused:
            await call("b.test", room_id, forger.id_of(sealed), sealed)
        assert (refused.value.status, refused.value.errcode) == (status, errcode)
        good = forger.seal(forger.draft("m.room.member", BOB, {"membership": membership}, BOB))
        for args, expected in (
            (("c.test", room_id, forger.id_of(good), good), 400),
            (("b.test", room_id, "$another", good), 400),
            (("b.test", "!unknown:a.test", forger.id_of(good), good), 404),
            (("b.test", room_id, forger.id_of(good), [good]), 400),
        ):
            with pytest.raises(MatrixError) as refused:
                await call(*args)
            assert refused.value.status == expected
        assert membership_of(a, room_id, BOB) is None


async def test_a_newcomer_is_given_what_was_said_since_its_template(tmp_path: Path) -> None:
    """It goes to the servers then in the room; an event that follows it and the join ties both together."""
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        room_id = await a.create(ALICE, {"preset": "public_chat"})
        sent: list[str] = []

        async def late(honest: Any, *args: Any) -> Any:
            sent.append(await a.send(ALICE, room_id, "m.room.message", {"body": "meanwhile"}))
            return await honest()

        world.hooks["a.test", "send_join"] = late
        await b.join(BOB, room_id, via=["a.test"])
        (tie,) = a.parts.head(room_id).tips
        event = a.parts.graph.event(tie)
        assert event is not None
        assert (event.type, event.sender) == (TIE_TYPE, ALICE)
        assert set(event.prev_events) == {*sent, state_of(a, room_id)["m.room.member", BOB]}
        await world.deliver()
        assert sent[0] in timeline_of(b, room_id)
        assert set(b.parts.head(room_id).tips) == {tie}


@pytest.mark.parametrize("version", ["6", "12"])
async def test_a_room_for_one_server_lets_nobody_elsewhere_in(tmp_path: Path, version: str) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a = world.servers["a.test"]
        plan = {"preset": "public_chat", "room_version": version, "creation_content": {"m.federate": False}}
        room_id = await a.create(ALICE, plan)
        with pytest.raises(MatrixError) as refused:
            await a.resident.make("b.test", room_id, BOB, "join", [version])
        assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")
        forger = Forger(world, "b.test", "a.test", room_id)
        pdu = forger.seal(forger.draft("m.room.member", BOB, {"membership": "join"}, BOB))
        with pytest.raises(MatrixError) as refused:
            await a.resident.send_join("b.test", room_id, forger.id_of(pdu), pdu)
        assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")
        assert membership_of(a, room_id, BOB) is None
