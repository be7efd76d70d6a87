# SPDX-License-Identifier: Apache-2.0
"""What our own users do in rooms, and what they are told when they may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minihs.matrix.errors import MatrixError
from minihs.matrix.federation_errors import RemoteRefused, Unreachable
from minihs.rooms.service import Rooms
from minihs.store import memberships
from minihs.store import rooms as room_store
from tests.rooms.world import membership_of, state_of, stored, timeline_of, worlds

type JsonObject = dict[str, Any]

ALICE, ADA, BOB = "@alice:a.test", "@ada:a.test", "@bob:b.test"


def content_of(server: Rooms, room_id: str, type: str, state_key: str = "") -> JsonObject:
    found = stored(server, state_of(server, room_id)[type, state_key])
    assert found is not None
    return found.event.content


# -- creating --------------------------------------------------------------------------------------


async def test_a_room_is_made_as_asked_for(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test") as world:
        a = world.servers["a.test"]
        request = {
            "room_version": "11",
            "preset": "private_chat",
            "name": "Hall",
            "topic": "Talk",
            "room_alias_name": "hall",
            "invite": [ADA],
            "is_direct": True,
            "creation_content": {"m.federate": False, "creator": "@evil:x", "room_version": "1"},
            "power_level_content_override": {"events_default": 10},
            "initial_state": [
                {"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}},
                {"type": "x.keyed", "state_key": "k", "content": {"n": 1}},
            ],
        }
        room_id = await a.create(ALICE, request)
        assert content_of(a, room_id, "m.room.create") == {"m.federate": False, "room_version": "11"}
        assert content_of(a, room_id, "m.room.name") == {"name": "Hall"}
        assert content_of(a, room_id, "m.room.topic")["topic"] == "Talk"
        assert content_of(a, room_id, "m.room.canonical_alias") == {"alias": "#hall:a.test"}
        assert content_of(a, room_id, "m.room.history_visibility") == {"history_visibility": "joined"}
        assert content_of(a, room_id, "x.keyed", "k") == {"n": 1}
        assert content_of(a, room_id, "m.room.power_levels")["events_default"] == 10
        assert content_of(a, room_id, "m.room.member", ADA)["is_direct"] is True
        assert membership_of(a, room_id, ADA) == "invite"
        assert await a.resolve_alias("#hall:a.test") == (room_id, ["a.test"])


@pytest.mark.parametrize("version", ["11", "12"])
async def test_in_a_trusted_chat_the_invited_are_the_creators_equals(tmp_path: Path, version: str) -> None:
    async with worlds(tmp_path, "a.test") as world:
        a = world.servers["a.test"]
        request = {"room_version": version, "preset": "trusted_private_chat", "invite": [ADA]}
        room_id = await a.create(ALICE, request)
        await a.join(ADA, room_id)
        await a.send(ADA, room_id, "m.room.server_acl", {"allow": ["*"]}, state_key="")
        if version == "12":
            assert content_of(a, room_id, "m.room.create")["additional_creators"] == [ADA]
        else:
            assert content_of(a, room_id, "m.room.power_levels")["users"] == {ALICE: 100, ADA: 100}


@pytest.mark.parametrize(
    ("request_", "status", "errcode"),
    [
        ({"room_version": 5}, 400, "M_BAD_JSON"),
        ({"room_version": "99"}, 400, "M_UNSUPPORTED_ROOM_VERSION"),
        ({"visibility": "hidden"}, 400, "M_INVALID_PARAM"),
        ({"preset": ["public_chat"]}, 400, "M_INVALID_PARAM"),
        ({"creation_content": []}, 400, "M_BAD_JSON"),
        ({"creation_content": {"additional_creators": "x"}}, 400, "M_INVALID_PARAM"),
        ({"creation_content": {"additional_creators": [5]}}, 400, "M_INVALID_PARAM"),
        ({"invite": "@x:y"}, 400, "M_BAD_JSON"),
        ({"invite": ["x"]}, 400, "M_INVALID_PARAM"),
        ({"invite": [f"@u{n}:a.test" for n in range(101)]}, 400, "M_BAD_JSON"),
        ({"invite_3pid": [{"address": "x@y"}]}, 400, "M_THREEPID_NOT_FOUND"),
        ({"is_direct": "yes"}, 400, "M_BAD_JSON"),
        ({"name": 5}, 400, "M_BAD_JSON"),
        ({"topic": {}}, 400, "M_BAD_JSON"),
        ({"room_alias_name": ""}, 400, "M_INVALID_PARAM"),
        ({"room_alias_name": "a:b"}, 400, "M_INVALID_PARAM"),
        ({"room_alias_name": "x" * 256}, 400, "M_INVALID_PARAM"),
        ({"initial_state": {}}, 400, "M_BAD_JSON"),
        ({"initial_state": ["x"]}, 400, "M_BAD_JSON"),
        ({"initial_state": [{"type": "x"}]}, 400, "M_BAD_JSON"),
        ({"initial_state": [{"type": "m.room.create", "content": {}}]}, 400, "M_INVALID_PARAM"),
        ({"initial_state": [{"type": "x", "content": {"t": "y" * 70_000}}]}, 413, "M_TOO_LARGE"),
        ({"initial_state": [{"type": "x", "content": {"t": 1.5}}]}, 400, "M_BAD_JSON"),
        ({"initial_state": [{"type": "x" * 300, "content": {}}]}, 413, "M_TOO_LARGE"),
        ({"power_level_content_override": []}, 400, "M_BAD_JSON"),
        ({"power_level_content_override": {"users": {ALICE: 5}}}, 403, "M_FORBIDDEN"),
        ({"name": "x" * 70_000}, 413, "M_TOO_LARGE"),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_a_room_that_can_not_be_is_not_made_at_all(
    tmp_path: Path, request_: JsonObject, status: int, errcode: str
) -> None:
    async with worlds(tmp_path, "a.test") as world:
        a = world.servers["a.test"]
        with pytest.raises(MatrixError) as refused:
            await a.create(ALICE, {"visibility": "private", **request_})
        assert (refused.value.status, refused.value.errcode) == (status, errcode)
        assert a.parts.db.read.execute("SELECT COUNT(*) FROM rooms").fetchone() == (0,)


async def test_an_alias_that_is_taken_makes_no_room(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test") as world:
        a = world.servers["a.test"]
        await a.create(ALICE, {"room_alias_name": "hall"})
        with pytest.raises(MatrixError) as refused:
            await a.create(ADA, {"room_alias_name": "hall"})
        assert refused.value.errcode == "M_ROOM_IN_USE"
        assert a.parts.db.read.execute("SELECT COUNT(*) FROM rooms").fetchone() == (1,)


async def test_an_invite_that_fails_does_not_undo_the_new_room(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a = world.servers["a.test"]
        targets = ["@nobody:a.test", "@x:nowhere.test", "@nobody:b.test", ADA]
        room_id = await a.create(ALICE, {"invite": targets})
        assert membership_of(a, room_id, ADA) == "invite"
        for target in targets[:3]:
            assert membership_of(a, room_id, target) is None


@pytest.mark.parametrize("version", ["10", "12"])
async def test_nobody_elsewhere_is_invited_to_a_room_that_is_not_for_them(
    tmp_path: Path, version: str
) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a = world.servers["a.test"]
        plan = {"room_version": version, "creation_content": {"m.federate": False}}
        room_id = await a.create(ALICE, plan)
        with pytest.raises(MatrixError) as refused:
            await a.invite(ALICE, room_id, BOB)
        assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")
        assert world.asked == []
        await a.invite(ALICE, room_id, ADA)
        assert membership_of(a, room_id, ADA) == "invite"


@pytest.mark.parametrize("errcode", ["M_INVALID_PARAM", "M_MISSING_PARAM"])
async def test_what_another_server_finds_wrong_with_a_request_of_ours_is_not_the_users_fault(
    tmp_path: Path, errcode: str
) -> None:
    async def refuse(honest: Any, *args: Any) -> Any:
        raise RemoteRefused("b.test", 400, {"errcode": errcode, "error": "the event is not signed"})

    async with worlds(tmp_path, "a.test", "b.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        room_id = await a.create(ALICE, {})
        theirs = await b.create(BOB, {"preset": "public_chat"})
        for verb in ("make_join", "invite"):
            world.hooks["b.test", verb] = refuse
        for attempt in (a.invite(ALICE, room_id, BOB), a.join(ALICE, theirs, via=["b.test"])):
            with pytest.raises(MatrixError) as refused:
                await attempt
            assert (refused.value.status, refused.value.errcode) == (502, "M_UNKNOWN")


# -- members ---------------------------------------------------------------------------------------


async def test_who_may_do_what_to_whom(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test") as world:
        a = world.servers["a.test"]
        room_id = await a.create(ALICE, {"preset": "private_chat"})
        refusals: list[Any] = [
            (a.join(ADA, room_id), 403),
            (a.send(ADA, room_id, "m.room.message", {}), 403),
            (a.invite(ADA, room_id, BOB), 403),
            (a.invite(ALICE, room_id, "bob"), 400),
            (a.invite(ALICE, room_id, "@nobody:a.test"), 404),
            (a.kick(ALICE, room_id, ADA), 403),
            (a.unban(ALICE, room_id, ADA), 403),
            (a.kick(ALICE, "!unknown:a.test", ADA), 403),
            (a.ban(ADA, room_id, ALICE), 403),
            (a.leave(ADA, room_id), 404),
            (a.leave(ALICE, "!unknown:a.test"), 404),
            (a.forget(ALICE, room_id), 400),
            (a.forget(ADA, room_id), 404),
            (a.join(ADA, "hall"), 400),
            (a.put_membership(ALICE, room_id, "ada", {"membership": "ban"}), 400),
            (a.put_membership(ALICE, room_id, ADA, {"membership": 5}), 400),
            (a.send(ALICE, room_id, "m.room.create", {}), 403),
            (a.send(ALICE, room_id, "m.room.redaction", {}), 400),
            (a.send(ALICE, room_id, "m.room.redaction", {"redacts": "$x"}, state_key=""), 403),
            (a.send(ALICE, room_id, "x", {"n": 1.5}), 400),
            (a.send(ALICE, room_id, "x", {"n": "x" * 70_000}), 413),
            (a.send(ALICE, room_id, "m.room.canonical_alias", {"alias": "hall"}, state_key=""), 400),
            (a.send(ALICE, room_id, "m.room.canonical_alias", {"alias": "#no:a.test"}, state_key=""), 400),
            (a.send(ALICE, room_id, "m.room.canonical_alias", {"alt_aliases": "x"}, state_key=""), 400),
        ]
        before = timeline_of(a, room_id)
        for number, (call, status) in enumerate(refusals):
            try:
                await call
            except MatrixError as error:
                told = error.status
            else:
                told = 200
            assert told == status, f"number {number}"
        assert timeline_of(a, room_id) == before


async def test_the_verbs_by_hand(tmp_path: Path) -> None:
    """PUT state m.room.member does what the verbs do."""
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        room_id = await a.create(ALICE, {})
        await a.send(ALICE, room_id, "m.room.member", {"membership": "invite", "reason": "x"}, state_key=BOB)
        assert membership_of(b, room_id, BOB) == "invite"
        joined = await b.put_membership(BOB, room_id, BOB, {"membership": "join", "x": 1})
        assert content_of(b, room_id, "m.room.member", BOB)["x"] == 1
        assert state_of(b, room_id)["m.room.member", BOB] == joined
        sneaky = {"membership": "join", "join_authorised_via_users_server": ALICE}
        await b.put_membership(BOB, room_id, BOB, sneaky)
        assert "join_authorised_via_users_server" not in content_of(b, room_id, "m.room.member", BOB)
        await world.deliver()
        assert state_of(a, room_id) == state_of(b, room_id)
        await a.put_membership(ALICE, room_id, BOB, {"membership": "ban"})
        await world.deliver()
        assert membership_of(b, room_id, BOB) == "ban"
        await a.put_membership(ALICE, room_id, BOB, {"membership": "leave"})
        await a.invite(ALICE, room_id, BOB)
        await b.put_membership(BOB, room_id, BOB, {"membership": "leave"})
        await world.deliver()
        assert membership_of(a, room_id, BOB) == "leave"
        await b.forget(BOB, room_id)
        nid = room_store.room_nid(b.parts.db.read, room_id)
        assert nid is not None
        held = memberships.get(b.parts.db.read, nid, BOB)
        assert held is not None
        assert held.forgotten
        await b.leave(BOB, room_id)  # to leave twice is no error


async def test_a_new_profile_goes_to_all_rooms(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test") as world:
        a = world.servers["a.test"]
        open_room = await a.create(ALICE, {"preset": "public_chat"})
        left = await a.create(ALICE, {})
        await a.leave(ALICE, left)
        strict = await a.create(ADA, {"preset": "public_chat"})
        await a.join(ALICE, strict)
        await a.put_membership(ALICE, open_room, ALICE, {"membership": "join", "displayname": "old", "x": 1})
        await a.update_profile(ALICE)
        assert content_of(a, open_room, "m.room.member", ALICE) == {
            "membership": "join",
            "displayname": "alice",
            "x": 1,
        }
        assert membership_of(a, left, ALICE) == "leave"


async def test_what_is_set_already_makes_no_event(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test") as world:
        a = world.servers["a.test"]
        room_id = await a.create(ALICE, {"room_version": "11"})
        one = await a.send(ALICE, room_id, "x.state", {"n": 1, "b": True}, state_key="")
        assert await a.send(ALICE, room_id, "x.state", {"b": True, "n": 1}, state_key="") == one
        assert await a.send(ALICE, room_id, "x.state", {"n": True, "b": True}, state_key="") != one


async def test_a_redaction_of_what_is_elsewhere_or_unknown(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test") as world:
        a = world.servers["a.test"]
        room_id, other = await a.create(ALICE, {}), await a.create(ALICE, {})
        there = await a.send(ALICE, other, "m.room.message", {})
        with pytest.raises(MatrixError) as refused:
            await a.redact(ALICE, room_id, there, {}, None, None)
        assert refused.value.status == 404
        # Of an event that we don't have it may be right.
        assert await a.redact(ALICE, room_id, "$unknown", {}, "D", "t") == await a.redact(
            ALICE, room_id, "$unknown", {}, "D", "t"
        )
        mine = await a.send(ALICE, room_id, "m.room.message", {"body": "x"})
        await a.send(ALICE, room_id, "m.room.redaction", {"redacts": mine, "reason": "no"})
        found = stored(a, mine)
        assert found is not None
        assert found.event.content == {}


async def test_what_would_do_nothing_or_shut_all_out_is_not_redacted(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test") as world:
        a = world.servers["a.test"]
        room_id = await a.create(ALICE, {})
        acl = await a.send(ALICE, room_id, "m.room.server_acl", {"allow": ["*"]}, state_key="")
        for event_id in ("$" + room_id[1:], acl):
            with pytest.raises(MatrixError) as refused:
                await a.redact(ALICE, room_id, event_id, {}, None, None)
            assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")


# -- aliases ---------------------------------------------------------------------------------------


async def test_aliases_are_made_by_who_is_in_the_room_and_removed_by_who_may(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test") as world:
        a = world.servers["a.test"]
        room_id = await a.create(ALICE, {"preset": "public_chat"})
        for call, status in (
            (a.set_alias(ALICE, "hall", room_id), 400),
            (a.set_alias(ALICE, "#hall:b.test", room_id), 400),
            (a.set_alias(ALICE, "#hall:a.test", "!unknown:a.test"), 404),
            (a.set_alias(ADA, "#hall:a.test", room_id), 403),
            (a.delete_alias(ALICE, "#hall:a.test"), 404),
            (a.resolve_alias("#hall:a.test"), 404),
            (a.resolve_alias("hall"), 400),
        ):
            with pytest.raises(MatrixError) as refused:
                await call
            assert refused.value.status == status
        await a.set_alias(ALICE, "#hall:a.test", room_id)
        with pytest.raises(MatrixError) as refused:
            await a.set_alias(ALICE, "#hall:a.test", room_id)
        assert refused.value.status == 409
        await a.join(ADA, "#hall:a.test")
        with pytest.raises(MatrixError) as refused:
            await a.delete_alias(ADA, "#hall:a.test")
        assert refused.value.status == 403
        await a.set_alias(ADA, "#adas:a.test", room_id)
        await a.delete_alias(ALICE, "#adas:a.test")
        await a.delete_alias(ALICE, "#hall:a.test")
        await a.set_alias(ALICE, "#hall:a.test", room_id)
        await a.delete_alias("@admin:a.test", "#hall:a.test", is_admin=True)


async def test_publishing_a_room_takes_power(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test") as world:
        a = world.servers["a.test"]
        room_id = await a.create(ALICE, {"preset": "public_chat"})
        await a.join(ADA, room_id)
        for call, status in (
            (a.directory.publish(ADA, room_id, True), 403),
            (a.directory.publish("@other:a.test", room_id, True), 403),
            (a.directory.publish(ALICE, "!unknown:a.test", True), 404),
        ):
            with pytest.raises(MatrixError) as refused:
                await call
            assert refused.value.status == status
        await a.directory.publish(ALICE, room_id, True)
        room = room_store.get(a.parts.db.read, room_id)
        assert room is not None
        assert room.published
        await a.directory.publish("@admin:a.test", room_id, False, is_admin=True)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RemoteRefused("b.test", 404, {"errcode": "M_NOT_FOUND"}), 404),
        (RemoteRefused("b.test", 500, {}), 502),
        (Unreachable("b.test", "is away"), 502),
        (("no room id", ["b.test"]), 502),
    ],
    ids=["unknown", "refused", "away", "rubbish"],
)
async def test_an_alias_of_another_server_that_leads_nowhere(tmp_path: Path, error: Any, status: int) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:

        async def answer(honest: Any, *args: Any) -> Any:
            if isinstance(error, Exception):
                raise error
            return error

        world.hooks["b.test", "query_directory"] = answer
        with pytest.raises(MatrixError) as refused:
            await world.servers["a.test"].join(ALICE, "#hall:b.test")
        assert refused.value.status == status
