# SPDX-License-Identifier: Apache-2.0
"""A server that was killed catches up; two that were parted agree afterwards."""

from __future__ import annotations

import uuid

import pytest
import trio

from tests.interop.conftest import Stage
from tests.interop.kit.client import Client
from tests.interop.kit.homeserver import Homeserver
from tests.interop.kit.state import wait_for_the_same_state

CATCH_UP_SECONDS = 90.0


async def eventually_hears(listener: Client, speaker: Client, room: str) -> None:
    """After a failure the other side is in backoff: a new message may be the first to get through."""
    event_id = await speaker.say(room, f"are you there? {uuid.uuid4().hex}")
    await listener.wait_for_id(room, event_id, seconds=CATCH_UP_SECONDS)


async def miss_thirty_events(victim: Homeserver, speaker: Client, room: str) -> list[str]:
    await victim.kill()
    missed = [await speaker.say(room, f"missed {number}") for number in range(30)]
    await victim.start()
    return missed


async def scroll_back_through(sleeper: Client, room: str, missed: list[str]) -> None:
    """/sync may have come as a gap; scrolling back must close it, in order."""
    scrolled = [event["event_id"] for event in await sleeper.history(room)]
    assert [event_id for event_id in reversed(scrolled) if event_id in missed] == missed


@pytest.mark.parametrize(("version", "victim"), [("11", "home"), ("12", "away")])
async def test_a_killed_server_gets_the_thirty_events_it_missed(
    stage: Stage, version: str, victim: str
) -> None:
    room = await stage.shared_room(version)
    server, speaker, sleeper = (
        (stage.home, stage.guest, stage.host) if victim == "home" else (stage.away, stage.host, stage.guest)
    )

    missed = await miss_thirty_events(server, speaker, room)
    back = await sleeper.say(room, "I am back")  # whoever gave it up learns that it lives

    await speaker.wait_for_id(room, back, seconds=CATCH_UP_SECONDS)
    await sleeper.wait_for_id(room, missed[-1], seconds=CATCH_UP_SECONDS)
    await scroll_back_through(sleeper, room, missed)
    await eventually_hears(speaker, sleeper, room)
    await wait_for_the_same_state(room, speaker, sleeper)


async def test_a_server_that_comes_back_without_a_word_is_found_again(stage: Stage) -> None:
    if stage.home.kind == "synapse":
        pytest.skip("Synapse looks for lost servers once a minute only: this is about our own retries")
    room = await stage.shared_room("11")

    missed = await miss_thirty_events(stage.away, stage.host, room)

    await stage.guest.wait_for_id(room, missed[-1], seconds=CATCH_UP_SECONDS)
    await scroll_back_through(stage.guest, room, missed)


@pytest.mark.parametrize("version", ["11", "12"])
async def test_an_invite_can_be_declined_while_its_server_is_away(stage: Stage, version: str) -> None:
    room = await stage.host.create_room(preset="private_chat", room_version=version)
    await stage.host.act("invite", room, stage.guest.user_id)
    await stage.guest.wait_for_section(room, "invite")

    stage.pair.part()
    await stage.guest.leave(room)
    await stage.guest.wait_for_section(room, "leave")
    stage.pair.heal()

    await stage.host.act("kick", room, stage.guest.user_id)  # the invite still stands on this side
    await stage.host.act("invite", room, stage.guest.user_id)
    await stage.guest.wait_for_section(room, "invite", seconds=CATCH_UP_SECONDS)
    assert await stage.guest.join(room) == room
    await eventually_hears(stage.guest, stage.host, room)


@pytest.mark.parametrize("version", ["6", "10", "11", "12"])
async def test_both_sides_of_a_partition_change_state_and_agree_after_it(stage: Stage, version: str) -> None:
    levels = {"users_default": 0, "state_default": 50, "users": {}}
    room = await stage.shared_room(version)
    power = (await stage.host.state(room))["m.room.power_levels", ""]["content"]
    granted = await stage.host.set_state(
        room,
        "m.room.power_levels",
        {**levels, **power, "users": {**power.get("users", {}), stage.guest.user_id: 50}},
    )
    await stage.guest.wait_for_id(room, granted)

    stage.pair.part()
    # Both write the same key, each writes one of its own, and the host takes the guest's rights away: what
    # the guest changed on the other side of the partition must not survive where the two meet.
    await stage.guest.set_state(room, "m.room.topic", {"topic": "the guest's"})
    await stage.guest.set_state(room, "m.room.name", {"name": "the guest's"})
    await stage.guest.set_state(room, "org.example.guest", {"by": "guest"}, "one")
    await stage.host.set_state(room, "m.room.topic", {"topic": "the host's"})
    await stage.host.set_state(room, "org.example.host", {"by": "host"}, "one")
    await stage.host.set_state(room, "m.room.power_levels", power)
    stage.pair.heal()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(eventually_hears, stage.guest, stage.host, room)
        nursery.start_soon(eventually_hears, stage.host, stage.guest, room)
    await eventually_hears(stage.guest, stage.host, room)  # an event on top of both branches
    state = await wait_for_the_same_state(room, stage.host, stage.guest, seconds=CATCH_UP_SECONDS)
    assert state["m.room.power_levels", ""]["content"]["users"].get(stage.guest.user_id, 0) == 0
    assert state["m.room.topic", ""]["content"]["topic"] == "the host's"
    assert state["org.example.host", "one"]["content"] == {"by": "host"}
    assert state["m.room.member", stage.guest.user_id]["content"]["membership"] == "join"
