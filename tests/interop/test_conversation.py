# SPDX-License-Identifier: Apache-2.0
"""Two people on two servers, one room: what passes between them, in each room version and in both
directions.
"""

from __future__ import annotations

import uuid

import pytest

from tests.interop.conftest import Stage
from tests.interop.kit.client import ApiError, Client, JsonObject
from tests.interop.kit.state import wait_for_the_same_state

VERSIONS = ["6", "10", "11", "12"]
every_version = pytest.mark.parametrize("version", VERSIONS)
# Rooms of the other versions still exist; that one can be in them is enough here.
all_versions = pytest.mark.parametrize("version", [str(number) for number in range(1, 13)])


async def hear(listener: Client, room: str, text: str) -> JsonObject:
    return await listener.wait_for(
        room, lambda event: event["content"].get("body") == text, f"the message {text!r}"
    )


async def talk_both_ways(stage: Stage, room: str) -> None:
    for speaker, listener in ((stage.host, stage.guest), (stage.guest, stage.host)):
        text = uuid.uuid4().hex
        event_id = await speaker.say(room, text)
        heard = await hear(listener, room, text)
        assert (heard["event_id"], heard["sender"]) == (event_id, speaker.user_id)


@all_versions
async def test_a_room_is_joined_by_alias_and_messages_go_both_ways(stage: Stage, version: str) -> None:
    room, alias = await stage.public_room(version, name="Kitchen", topic="Soup")

    assert await stage.guest.join(alias) == room

    await stage.host.wait_for_membership(room, stage.guest.user_id, "join")
    await talk_both_ways(stage, room)
    state = await wait_for_the_same_state(room, stage.host, stage.guest)
    assert state["m.room.create", ""]["content"]["room_version"] == version
    assert state["m.room.name", ""]["content"] == {"name": "Kitchen"}
    assert await stage.guest.joined_members(room) == {stage.host.user_id, stage.guest.user_id}


async def test_a_server_that_cannot_help_does_not_hinder_a_join(stage: Stage) -> None:
    room, _ = await stage.public_room("11")

    assert await stage.guest.join(room, via=["localhost:1", stage.home.server_name]) == room

    await talk_both_ways(stage, room)


@every_version
async def test_redactions_reach_the_other_side(stage: Stage, version: str) -> None:
    room = await stage.shared_room(version)
    of_guest = await stage.guest.say(room, "taken back by its author")
    moderated = await stage.guest.say(room, "taken away by a moderator")
    of_host = await stage.host.say(room, "the host's own")
    for listener, event_id in ((stage.host, moderated), (stage.guest, of_host)):
        await listener.wait_for_id(room, event_id)

    redactions = {
        of_guest: (stage.guest, stage.host, await stage.guest.redact(room, of_guest, "mine")),
        moderated: (stage.host, stage.guest, await stage.host.redact(room, moderated, "rude")),
        of_host: (stage.host, stage.guest, await stage.host.redact(room, of_host)),
    }

    for target, (author, other, redaction) in redactions.items():
        seen = await other.wait_for_id(room, redaction)
        assert (seen.get("redacts") or seen["content"].get("redacts")) == target
        for reader in (author, other):
            event = await reader.event(room, target)
            assert event["content"] == {}
            assert event["unsigned"]["redacted_because"]["event_id"] == redaction


@every_version
async def test_kick_ban_and_unban_hold_on_both_sides(stage: Stage, version: str) -> None:
    room, alias = await stage.public_room(version)
    guest = stage.guest.user_id
    await stage.guest.join(alias)
    await stage.guest.wait_for_section(room, "join")

    await stage.host.act("kick", room, guest, "too loud")
    await stage.guest.wait_for_section(room, "leave")
    kicked = await stage.guest.wait_for_membership(room, guest, "leave")
    assert (kicked["sender"], kicked["content"].get("reason")) == (stage.host.user_id, "too loud")
    with pytest.raises(ApiError) as refused:
        await stage.guest.say(room, "still here")
    assert refused.value.status == 403

    await stage.guest.join(alias)  # a kick is no ban
    await stage.host.wait_for_membership(room, guest, "join")
    await stage.host.act("ban", room, guest)
    await stage.guest.wait_for_membership(room, guest, "ban")
    with pytest.raises(ApiError) as refused:
        await stage.guest.join(alias)
    assert refused.value.status == 403

    await stage.host.act("unban", room, guest)
    await stage.guest.join(alias)
    await stage.host.wait_for_membership(room, guest, "join")
    await talk_both_ways(stage, room)
    await wait_for_the_same_state(room, stage.host, stage.guest)


@every_version
async def test_one_leaves_and_joins_again(stage: Stage, version: str) -> None:
    room, alias = await stage.public_room(version)
    await stage.guest.join(alias)
    await stage.host.wait_for_membership(room, stage.guest.user_id, "join")
    await stage.guest.wait_for_section(room, "join")

    await stage.guest.leave(room)
    await stage.host.wait_for_membership(room, stage.guest.user_id, "leave")
    await stage.guest.wait_for_section(room, "leave")
    unheard = await stage.host.say(room, "while the guest was out")
    await stage.host.set_state(room, "m.room.topic", {"topic": "changed meanwhile"})

    assert await stage.guest.join(alias) == room
    await stage.host.wait_for_membership(room, stage.guest.user_id, "join")
    await talk_both_ways(stage, room)
    state = await wait_for_the_same_state(room, stage.host, stage.guest)
    assert state["m.room.topic", ""]["content"]["topic"] == "changed meanwhile"
    assert unheard in [event["event_id"] for event in await stage.guest.history(room)]


@every_version
async def test_an_invite_is_accepted(stage: Stage, version: str) -> None:
    room = await stage.host.create_room(preset="private_chat", room_version=version, name="Private")
    with pytest.raises(ApiError):
        await stage.guest.join(room, via=[stage.home.server_name])

    await stage.host.act("invite", room, stage.guest.user_id)
    await stage.guest.wait_for_section(room, "invite")
    stripped = {(event["type"], event["state_key"]): event for event in stage.guest.invites[room]}
    assert stripped["m.room.name", ""]["content"] == {"name": "Private"}
    assert stripped["m.room.member", stage.guest.user_id]["sender"] == stage.host.user_id

    assert await stage.guest.join(room) == room
    await stage.host.wait_for_membership(room, stage.guest.user_id, "join")
    await talk_both_ways(stage, room)
    await wait_for_the_same_state(room, stage.host, stage.guest)


@every_version
async def test_an_invite_is_declined(stage: Stage, version: str) -> None:
    room = await stage.host.create_room(
        preset="private_chat", room_version=version, invite=[stage.guest.user_id], is_direct=True
    )
    await stage.guest.wait_for_section(room, "invite")

    await stage.guest.leave(room)

    await stage.host.wait_for_membership(room, stage.guest.user_id, "leave")
    await stage.guest.wait_for_section(room, "leave")
    assert await stage.host.joined_members(room) == {stage.host.user_id}


@every_version
async def test_an_invite_is_withdrawn(stage: Stage, version: str) -> None:
    room = await stage.host.create_room(preset="private_chat", room_version=version)
    await stage.host.act("invite", room, stage.guest.user_id)
    await stage.guest.wait_for_section(room, "invite")

    await stage.host.act("kick", room, stage.guest.user_id)

    await stage.guest.wait_for_section(room, "leave")
    with pytest.raises(ApiError):
        await stage.guest.join(room, via=[stage.home.server_name])


@every_version
async def test_history_from_before_the_join_is_scrolled_back_to(stage: Stage, version: str) -> None:
    room, alias = await stage.public_room(version)
    before = [await stage.host.say(room, f"before {number}") for number in range(60)]
    await stage.guest.join(alias)
    after = await stage.host.say(room, "after")
    await stage.guest.wait_for_id(room, after)

    seen = await stage.guest.history(room, limit=25)

    ids = [event["event_id"] for event in seen]
    assert len(ids) == len(set(ids)), "an event came twice"
    assert [event_id for event_id in reversed(ids) if event_id in {*before, after}] == [*before, after]
    assert seen[-1]["type"] == "m.room.create"
    bodies = [event["content"].get("body") for event in seen if event["event_id"] in before]
    assert bodies == [f"before {number}" for number in reversed(range(60))]
