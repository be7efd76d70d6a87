# SPDX-License-Identifier: Apache-2.0
"""Who gets into a room, and how: knocks, restricted rooms, invites to an address, bans of servers."""

from __future__ import annotations

import json
import uuid

import pytest
import trio

from minihs.matrix.signatures import SigningKey, sign_json
from tests.interop.conftest import Stage
from tests.interop.kit.client import V3, ApiError, JsonObject, segment
from tests.interop.kit.state import wait_for_the_same_state


async def talk_both_ways(stage: Stage, room: str) -> None:
    for speaker, listener in ((stage.host, stage.guest), (stage.guest, stage.host)):
        event_id = await speaker.say(room, f"{speaker.user_id} speaks")
        await listener.wait_for_id(room, event_id)


# -- knocking ------------------------------------------------------------------------------------------


async def knocking_room(stage: Stage, version: str) -> str:
    rules = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
    return await stage.host.create_room(
        preset="private_chat", room_version=version, initial_state=[rules], name="Behind a door"
    )


async def knock(stage: Stage, room: str) -> None:
    server = stage.home.server_name
    path = f"{V3}/knock/{segment(room)}"
    await stage.guest.call("POST", path, {"reason": "please"}, [("via", server), ("server_name", server)])


@pytest.mark.parametrize("version", ["10", "11", "12"])
async def test_a_knock_is_seen_and_answered_with_an_invite(stage: Stage, version: str) -> None:
    room = await knocking_room(stage, version)

    await knock(stage, room)

    seen = await stage.host.wait_for_membership(room, stage.guest.user_id, "knock")
    assert seen["content"].get("reason") == "please"
    shown = (await stage.guest.sync()).get("rooms", {}).get("knock", {})
    state = {event["type"] for event in shown[room]["knock_state"]["events"]} if room in shown else set()
    assert {"m.room.name", "m.room.create"} <= state
    await stage.host.act("invite", room, stage.guest.user_id)
    await stage.guest.wait_for_section(room, "invite")
    assert await stage.guest.join(room, via=[stage.home.server_name]) == room
    await stage.host.wait_for_membership(room, stage.guest.user_id, "join")
    await talk_both_ways(stage, room)


async def test_a_knock_is_taken_back(stage: Stage) -> None:
    if stage.away.kind == "synapse":
        pytest.skip("Synapse takes knocks back on its own side only")
    room = await knocking_room(stage, "11")
    await knock(stage, room)
    await stage.host.wait_for_membership(room, stage.guest.user_id, "knock")

    await stage.guest.leave(room)

    await stage.host.wait_for_membership(room, stage.guest.user_id, "leave")


async def test_a_knock_is_turned_down(stage: Stage) -> None:
    room = await knocking_room(stage, "11")
    await knock(stage, room)
    await stage.host.wait_for_membership(room, stage.guest.user_id, "knock")

    await stage.host.act("kick", room, stage.guest.user_id)

    if {stage.home.kind, stage.away.kind} == {"minihs"}:
        # Synapse tells the end of a knock to nobody who is not in the room, and takes no notice of it.
        await stage.guest.wait_for_section(room, "leave")
    with pytest.raises(ApiError):
        await stage.guest.join(room, via=[stage.home.server_name])


# -- restricted rooms ----------------------------------------------------------------------------------


async def hall_and_room(stage: Stage, rule: str, version: str) -> tuple[str, str]:
    hall, _ = await stage.public_room(version)
    content = {"join_rule": rule, "allow": [{"type": "m.room_membership", "room_id": hall}]}
    rules = {"type": "m.room.join_rules", "state_key": "", "content": content}
    room = await stage.host.create_room(preset="private_chat", room_version=version, initial_state=[rules])
    return hall, room


@pytest.mark.parametrize(
    ("rule", "version"),
    [("restricted", "8"), ("restricted", "11"), ("restricted", "12"), ("knock_restricted", "11")],
)
async def test_a_restricted_room_lets_in_who_is_in_the_allowed_one(
    stage: Stage, rule: str, version: str
) -> None:
    hall, room = await hall_and_room(stage, rule, version)
    via = [stage.home.server_name]
    with pytest.raises(ApiError) as refused:
        await stage.guest.join(room, via=via)
    assert refused.value.status == 403

    await stage.guest.join(hall, via=via)
    await stage.host.wait_for_membership(hall, stage.guest.user_id, "join")
    await stage.guest.join(room, via=via)

    joined = await stage.host.wait_for_membership(room, stage.guest.user_id, "join")
    assert joined["content"]["join_authorised_via_users_server"] == stage.host.user_id
    await talk_both_ways(stage, room)
    await wait_for_the_same_state(room, stage.host, stage.guest)


async def test_a_second_user_of_a_resident_that_may_not_vouch_is_let_in_through_the_other(
    stage: Stage,
) -> None:
    hall, room = await hall_and_room(stage, "restricted", "11")
    via = [stage.home.server_name]
    levels = (await stage.host.state(room))["m.room.power_levels", ""]["content"]
    await stage.host.set_state(room, "m.room.power_levels", {**levels, "invite": 50})
    second = await stage.away.register(f"carla-{uuid.uuid4().hex[:8]}")
    for person in (stage.guest, second):
        await person.join(hall, via=via)
        await stage.host.wait_for_membership(hall, person.user_id, "join")
    await stage.guest.join(room, via=via)
    await stage.host.wait_for_membership(room, stage.guest.user_id, "join")

    await second.join(room, via=via)

    joined = await stage.host.wait_for_membership(room, second.user_id, "join")
    assert joined["content"]["join_authorised_via_users_server"] == stage.host.user_id
    await stage.guest.wait_for_membership(room, second.user_id, "join")
    await wait_for_the_same_state(room, stage.host, stage.guest)
    await second.aclose()


# -- third-party invites -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["11", "12"])
@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_an_invite_to_an_address_becomes_one_to_its_user(
    stage: Stage, version: str, method: str
) -> None:
    if method == "PUT" and stage.away.kind == "synapse":
        pytest.skip("Synapse takes the POST of identity servers only")
    identity = SigningKey.generate(uuid.uuid4().bytes * 2, "0")
    room = await stage.host.create_room(preset="private_chat", room_version=version)
    token = uuid.uuid4().hex
    offer = {
        "display_name": "b...@m...",
        "key_validity_url": "https://identity.invalid/isvalid",
        "public_key": identity.verify_key_base64,
        "public_keys": [{"public_key": identity.verify_key_base64}],
    }
    if stage.home.kind == "synapse":
        del offer["key_validity_url"]  # it would ask there
    await stage.host.set_state(room, "m.room.third_party_invite", offer, token)
    signed = sign_json({"mxid": stage.guest.user_id, "token": token}, "identity.invalid", identity)
    invite = {
        "medium": "email",
        "address": "b@mail.invalid",
        "mxid": stage.guest.user_id,
        "room_id": room,
        "sender": stage.host.user_id,
        "signed": signed,
    }
    body = {
        "medium": "email",
        "address": "b@mail.invalid",
        "mxid": stage.guest.user_id,
        "invites": [invite],
    }

    http = stage.away.federation_http()
    headers = [("Content-Type", "application/json")]
    path = "/_matrix/federation/v1/3pid/onbind"
    answer = await http.request(method, path, headers=headers, body=json.dumps(body).encode())
    await http.aclose()

    assert answer.status == 200, answer.body
    await stage.guest.wait_for_section(room, "invite")
    await stage.guest.join(room, via=[stage.home.server_name])
    await stage.host.wait_for_membership(room, stage.guest.user_id, "join")
    await talk_both_ways(stage, room)


# -- ACLs and upgrades ---------------------------------------------------------------------------------


async def test_a_server_that_the_acl_bans_is_out(stage: Stage) -> None:
    room = await stage.shared_room("11")
    banned = stage.away.server_name.partition(":")[0]
    acl = {"allow": ["*"], "deny": [banned], "allow_ip_literals": True}
    event_id = await stage.host.set_state(room, "m.room.server_acl", acl)
    await stage.guest.wait_for_id(room, event_id)

    unheard = await stage.guest.say(room, "behind the wall")
    heard = await stage.host.say(room, "before the wall")

    await trio.sleep(2)
    await stage.host.sync()
    assert stage.host.seen(room, lambda event: event["event_id"] == unheard) is None
    await stage.host.wait_for_id(room, heard)
    late = await stage.away.register(f"late-{uuid.uuid4().hex[:8]}")
    alias_room, alias = await stage.public_room("11")
    await stage.host.set_state(alias_room, "m.room.server_acl", acl)
    with pytest.raises(ApiError) as refused:
        await late.join(alias)
    assert refused.value.status == 403
    await late.aclose()


@pytest.mark.parametrize("new_version", ["11", "12"])
async def test_an_upgrade_is_seen_and_followed(stage: Stage, new_version: str) -> None:
    room = await stage.shared_room("10", name="Old hall")

    answer = await stage.host.call(
        "POST", f"{V3}/rooms/{segment(room)}/upgrade", {"new_version": new_version}
    )

    replacement = answer["replacement_room"]

    def tombstone(event: JsonObject) -> bool:
        return event["type"] == "m.room.tombstone"

    seen = await stage.guest.wait_for(room, tombstone, "the tombstone")
    assert seen["content"]["replacement_room"] == replacement
    await stage.guest.join(replacement, via=[stage.home.server_name])
    await stage.host.wait_for_membership(replacement, stage.guest.user_id, "join")
    create = (await stage.guest.state(replacement))["m.room.create", ""]["content"]
    assert create["predecessor"]["room_id"] == room
    assert create["room_version"] == new_version
    await talk_both_ways(stage, replacement)
