# SPDX-License-Identifier: Apache-2.0
"""A room goes on in another one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from minihs.matrix import push_rules as rules
from minihs.matrix.errors import MatrixError
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.rooms.upgrade import whole_numbers
from minihs.store import account_data, aliases, push_rules, rooms
from tests.sync.world import ALICE, BOB, CAROL, DAVE, Json, World, new_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with new_world(tmp_path) as made:
        yield made


async def upgrade(world: World, user: str, room: str, version: str = "12", **request: Any) -> str:
    return await world.rooms.upgrades.upgrade(user, room, {"new_version": version, **request})


def state(world: World, room: str) -> dict[tuple[str, str], Json]:
    parts = world.rooms.parts
    ids = parts.graph.full(parts.head(room).current)
    found: dict[tuple[str, str], Json] = {}
    for key, event_id in ids.items():
        event = parts.graph.event(event_id)
        assert event is not None
        found[key] = event.content
    return found


async def set_state(world: World, room: str, type: str, content: Json, state_key: str = "") -> str:
    return await world.rooms.send(ALICE, room, type, content, state_key=state_key)


async def refused(world: World, *request: Any, **more: Any) -> tuple[int, str]:
    with pytest.raises(MatrixError) as refusal:
        await upgrade(world, *request, **more)
    return refusal.value.status, refusal.value.errcode


async def test_the_new_room_is_like_the_old_one(world: World) -> None:
    old = await world.room(name="Lounge", topic="Talk", room_version="9")
    wanted: dict[str, Json] = {
        "m.room.server_acl": {"allow": ["*"], "deny": ["evil.test"]},
        "m.room.encryption": {"algorithm": "m.megolm.v1.aes-sha2"},
        "m.room.avatar": {"url": "mxc://here.test/abc"},
        "m.room.history_visibility": {"history_visibility": "joined"},
        "m.room.join_rules": {"join_rule": "knock"},
        "m.room.guest_access": {"guest_access": "forbidden"},
    }
    for type, content in wanted.items():
        await set_state(world, old, type, content)
    await set_state(world, old, "org.example.widget", {"private": True})
    await world.say(ALICE, old, "hello")
    new = await upgrade(world, ALICE, old)
    made = state(world, new)
    for type, content in wanted.items():
        assert made[type, ""] == content
    assert made["m.room.name", ""] == {"name": "Lounge"}
    assert made["m.room.topic", ""] == state(world, old)["m.room.topic", ""]
    assert ("org.example.widget", "") not in made
    assert [key for key in made if key[0] == "m.room.member"] == [("m.room.member", ALICE)]


@pytest.mark.parametrize("version", ["6", "11", "12"])
async def test_the_two_rooms_name_each_other(world: World, version: str) -> None:
    old = await world.room(creation_content={"type": "m.space", "m.federate": False})
    last = await world.say(ALICE, old, "the last word")
    new = await upgrade(world, ALICE, old, version)
    create = state(world, new)["m.room.create", ""]
    assert create["room_version"] == version
    assert create["type"] == "m.space"
    assert create["m.federate"] is False
    assert create["predecessor"]["room_id"] == old
    # The new room's id is a hash of this event in version 12, and the tombstone has to name it.
    assert create["predecessor"].get("event_id") == (None if version == "12" else last)
    assert state(world, old)["m.room.tombstone", ""]["replacement_room"] == new


async def test_power_goes_along_and_creators_need_none_written_down(world: World) -> None:
    old = await world.room(
        room_version="9",
        power_level_content_override={"users": {ALICE: "100", BOB: 50, CAROL: 100}, "ban": " 60 "},
    )
    new = await upgrade(world, ALICE, old, "12", additional_creators=[CAROL])
    made = state(world, new)
    assert made["m.room.create", ""]["additional_creators"] == [CAROL]
    levels = made["m.room.power_levels", ""]
    assert levels["users"] == {BOB: 50}
    assert levels["ban"] == 60
    back = await upgrade(world, ALICE, new, "11", additional_creators=[BOB])
    made = state(world, back)
    assert "additional_creators" not in made["m.room.create", ""]
    assert made["m.room.power_levels", ""]["users"] == {ALICE: 100, CAROL: 100, BOB: 50}


async def test_who_may_send_a_tombstone_can_upgrade_even_with_little_power(world: World) -> None:
    old = await world.room(
        name="Room",
        power_level_content_override={
            "users": {ALICE: 100, BOB: 50},
            "events": {"m.room.tombstone": 50, "m.room.power_levels": 100},
            "state_default": 90,
        },
    )
    await world.rooms.join(BOB, old)
    new = await upgrade(world, BOB, old, "11")
    made = state(world, new)
    assert made["m.room.name", ""] == {"name": "Room"}
    assert made["m.room.power_levels", ""]["users"] == {ALICE: 100, BOB: 50}
    # What he may not do in the old room stays undone.
    assert state(world, old)["m.room.power_levels", ""]["events_default"] == 0


async def test_nobody_goes_on_in_the_old_room(world: World) -> None:
    old = await world.room(power_level_content_override={"users_default": 60, "users": {ALICE: 100}})
    await world.rooms.join(BOB, old)
    await upgrade(world, ALICE, old)
    levels = state(world, old)["m.room.power_levels", ""]
    assert (levels["events_default"], levels["invite"]) == (61, 61)
    with pytest.raises(MatrixError):
        await world.say(BOB, old, "still here")


async def test_aliases_and_the_listing_move(world: World) -> None:
    old = await world.room(room_alias_name="lounge", visibility="public")
    alias = "#lounge:here.test"
    elsewhere = "#lounge:there.test"
    await set_state(world, old, "m.room.canonical_alias", {"alias": alias, "alt_aliases": [elsewhere]})
    new = await upgrade(world, ALICE, old)
    db = world.db.read
    assert aliases.resolve(db, alias) == new
    assert state(world, new)["m.room.canonical_alias", ""] == {"alias": alias}
    assert state(world, old)["m.room.canonical_alias", ""] == {"alt_aliases": [elsewhere]}
    listed = {room_id: (found := rooms.get(db, room_id)) and found.published for room_id in (old, new)}
    assert listed == {old: False, new: True}


async def test_bans_stay(world: World) -> None:
    old = await world.room()
    await world.rooms.ban(ALICE, old, DAVE, "spam")
    new = await upgrade(world, ALICE, old)
    assert state(world, new)["m.room.member", DAVE] == {"membership": "ban", "reason": "spam"}


async def test_a_space_keeps_its_rooms(world: World) -> None:
    old = await world.room(creation_content={"type": "m.space"})
    child = await world.room()
    await set_state(world, old, "m.space.child", {"via": ["here.test"]}, child)
    new = await upgrade(world, ALICE, old)
    assert state(world, new)["m.space.child", child] == {"via": ["here.test"]}


async def test_a_join_rule_that_the_version_lacks_becomes_invite(world: World) -> None:
    old = await world.room()
    await set_state(world, old, "m.room.join_rules", {"join_rule": "knock_restricted", "allow": []})
    new = await upgrade(world, ALICE, old, "6")
    assert state(world, new)["m.room.join_rules", ""] == {"join_rule": "invite"}


def test_levels_are_whole_numbers_that_fit_or_left_behind() -> None:
    old = {
        "kick": 49.9, "ban": 10**20, "redact": None, "users": {ALICE: "100", "nobody": 1, BOB: []},
        "events": [], "notifications": {"room": " 7 "}, "other": "kept",
    }  # fmt: skip
    assert whole_numbers(old, ROOM_VERSIONS["5"]) == {
        "kick": 49,
        "users": {ALICE: 100},
        "events": {},
        "notifications": {"room": 7},
        "other": "kept",
    }


async def test_settings_follow_into_the_new_room(world: World) -> None:
    old = await world.room()
    await world.rooms.join(BOB, old)
    mute = {"actions": [], "conditions": [{"kind": "event_match", "key": "room_id", "pattern": old}]}
    changes = rules.put_rule({}, "override", old, mute, before=None, after=None)
    changes = rules.put_rule(changes, "room", old, {"actions": ["notify"]}, before=None, after=None)

    def settle(tx: Any) -> None:
        for user in (ALICE, BOB):
            account_data.put(tx, user, "m.tag", json.dumps({"tags": {"m.favourite": {}}}), old)
            account_data.put(tx, user, "m.direct", json.dumps({CAROL: [old], DAVE: ["!x:y"]}))
            push_rules.put(tx, user, changes)

    await world.db.write(settle)
    new = await upgrade(world, ALICE, old)
    db = world.db.read
    assert account_data.get(db, BOB, "m.tag", new) is None
    await world.rooms.join(BOB, new)
    for user in (ALICE, BOB):
        assert account_data.get(db, user, "m.tag", new) == {"tags": {"m.favourite": {}}}
        assert account_data.get(db, user, "m.direct") == {CAROL: [old, new], DAVE: ["!x:y"]}
        after, _ = push_rules.changes(db, user)
        override, room = after["rules"]["override"][0], after["rules"]["room"][0]
        assert override["rule_id"] == room["rule_id"] == new
        assert override["conditions"][0]["pattern"] == new


async def test_settings_do_not_follow_into_a_room_that_only_claims_to_follow(world: World) -> None:
    old = await world.room()
    tags = json.dumps({"tags": {"m.favourite": {}}})
    await world.db.write(lambda tx: account_data.put(tx, ALICE, "m.tag", tags, old))
    claim = {"predecessor": {"room_id": old, "event_id": "$a"}}
    new = await world.room(BOB, creation_content=claim)
    await world.rooms.join(ALICE, new)
    assert account_data.get(world.db.read, ALICE, "m.tag", new) is None


async def test_who_may_not_upgrade_is_refused(world: World) -> None:
    old = await world.room()
    await world.rooms.join(BOB, old)
    assert await refused(world, BOB, old) == (403, "M_FORBIDDEN")
    assert await refused(world, CAROL, old) == (403, "M_FORBIDDEN")
    assert await refused(world, ALICE, "!unknown:here.test") == (403, "M_FORBIDDEN")
    assert ("m.room.tombstone", "") not in state(world, old)


async def test_a_bad_request_is_refused(world: World) -> None:
    old = await world.room()
    assert await refused(world, ALICE, old, "99") == (400, "M_UNSUPPORTED_ROOM_VERSION")
    creators: Any
    for creators, errcode in (("x", "M_BAD_JSON"), (["x"], "M_INVALID_PARAM"), ([1], "M_INVALID_PARAM")):
        assert await refused(world, ALICE, old, additional_creators=creators) == (400, errcode)
    for body, errcode in (({}, "M_MISSING_PARAM"), ({"new_version": 12}, "M_BAD_JSON")):
        with pytest.raises(MatrixError) as refusal:
            await world.rooms.upgrades.upgrade(ALICE, old, body)
        assert refusal.value.errcode == errcode
