# SPDX-License-Identifier: Apache-2.0
"""Jumping back in time, relations and an upgrade, across two servers."""

from __future__ import annotations

import time
from urllib.parse import quote

from tests.interop.conftest import Stage
from tests.interop.kit.client import Client, JsonObject


def segment(text: str) -> str:
    return quote(text, safe="")


async def at(client: Client, room: str, ts: int, direction: str) -> str:
    path = f"/_matrix/client/v1/rooms/{segment(room)}/timestamp_to_event?ts={ts}&dir={direction}"
    answer: JsonObject = await client.call("GET", path)
    return str(answer["event_id"])


async def test_a_newcomer_jumps_to_before_their_join(stage: Stage) -> None:
    room, alias = await stage.public_room("11")
    said, times = [], []
    for number in range(30):
        times.append(int(time.time() * 1000))
        said.append(await stage.host.say(room, f"message {number}"))
    assert await stage.guest.join(alias) == room

    # Clocks of one machine, so the event after the time noted is the one that was sent then.
    assert await at(stage.guest, room, times[10], "f") == said[10]

    path = f"/_matrix/client/v3/rooms/{segment(room)}/context/{segment(said[10])}?limit=2"
    context = await stage.guest.call("GET", path)
    assert context["event"]["content"]["body"] == "message 10"
    if stage.away.kind == "minihs":  # Synapse fetches what is around it only later
        assert context["events_before"][0]["content"]["body"] == "message 9"


async def test_threads_and_edits_are_summed_up_on_both_sides(stage: Stage) -> None:
    room = await stage.shared_room("11")
    root = await stage.host.say(room, "root")
    await stage.guest.wait_for_id(room, root)
    thread = {"rel_type": "m.thread", "event_id": root}
    reply = await stage.guest.send(
        room, "m.room.message", {"msgtype": "m.text", "body": "reply", "m.relates_to": thread}
    )
    edit = await stage.host.send(
        room,
        "m.room.message",
        {
            "msgtype": "m.text",
            "body": "* better",
            "m.new_content": {"msgtype": "m.text", "body": "better"},
            "m.relates_to": {"rel_type": "m.replace", "event_id": root},
        },
    )
    await stage.host.wait_for_id(room, reply)
    await stage.guest.wait_for_id(room, edit)
    for reader in (stage.host, stage.guest):
        summed = (await reader.event(room, root))["unsigned"]["m.relations"]
        assert summed["m.replace"]["event_id"] == edit
        assert summed["m.thread"]["count"] == 1
        assert summed["m.thread"]["latest_event"]["event_id"] == reply
        assert summed["m.thread"]["current_user_participated"] is True
        path = f"/_matrix/client/v1/rooms/{segment(room)}/threads"
        assert [event["event_id"] for event in (await reader.call("GET", path))["chunk"]] == [root]


async def test_an_upgraded_room_is_followed_by_the_other_side(stage: Stage) -> None:
    room = await stage.shared_room("10", name="Kitchen")
    path = f"/_matrix/client/v3/rooms/{segment(room)}/upgrade"
    new = (await stage.host.call("POST", path, {"new_version": "12"}))["replacement_room"]
    tombstone = await stage.guest.wait_for(
        room, lambda event: event["type"] == "m.room.tombstone", "the tombstone"
    )
    assert tombstone["content"]["replacement_room"] == new
    assert await stage.guest.join(new, via=[stage.home.server_name]) == new
    state = await stage.guest.state(new)
    assert state["m.room.create", ""]["content"]["predecessor"]["room_id"] == room
    assert state["m.room.name", ""]["content"] == {"name": "Kitchen"}
    await stage.host.wait_for_membership(new, stage.guest.user_id, "join")
