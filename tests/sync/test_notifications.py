# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from minihs.matrix import push_rules as rules
from minihs.matrix.errors import MatrixError
from minihs.requester import Requester
from minihs.store import push_rules
from minihs.sync.notifications import Notifications
from minihs.sync.unread import Unread
from tests.sync.world import ALICE, BOB, Json, World


async def page(world: World, user: str, **options: Any) -> Json:
    reads = Notifications(world.db, world.runtime, world.facts, Unread(world.facts))
    options = {"limit": 20, "start": None, "highlights_only": False, **options}
    return await reads.page(Requester(user, "PHONE", 1), **options)


def ids_of(answer: Json) -> list[str]:
    return [each["event"]["event_id"] for each in answer["notifications"]]


async def two_in_a_room(world: World) -> str:
    room = await world.room()
    await world.rooms.join(BOB, room)
    return room


async def test_what_notified_is_listed_with_what_is_to_be_done(world: World) -> None:
    room, other = await two_in_a_room(world), await two_in_a_room(world)
    first = await world.say(ALICE, room, "one")
    second = await world.say(ALICE, other, "two", **{"m.mentions": {"user_ids": [BOB]}})
    await world.say(BOB, other, "my own")
    third = await world.say(ALICE, room, "three")
    await world.receipts.set_markers(BOB, room, {"m.read": first})
    answer = await page(world, BOB)
    assert ids_of(answer) == [third, second, first]
    newest, mention, oldest = answer["notifications"]
    assert (newest["room_id"], newest["read"], oldest["read"]) == (room, False, True)
    assert newest["actions"] == ["notify", {"set_tweak": "sound", "value": "default"}]
    assert {"set_tweak": "highlight", "value": True} in mention["actions"]
    assert mention["read"]  # they have answered since
    assert newest["ts"] <= world.clock.ms
    assert "room_id" not in newest["event"]
    assert ids_of(await page(world, BOB, highlights_only=True)) == [second]


async def test_notifications_come_page_by_page(world: World) -> None:
    rooms = [await two_in_a_room(world) for _ in range(3)]
    said = [await world.say(ALICE, rooms[number % 3], str(number)) for number in range(10)]
    found: list[str] = []
    token = None
    for _ in range(5):
        answer = await page(world, BOB, limit=4, start=token)
        found += ids_of(answer)
        token = answer.get("next_token")
        if token is None:
            break
    assert found == said[::-1]


async def test_a_long_search_goes_on_with_the_next_page(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minihs.sync.notifications.MAX_LOOKED_AT", 5)
    monkeypatch.setattr("minihs.sync.notifications.CHUNK", 3)
    room = await two_in_a_room(world)
    event_id = await world.say(ALICE, room, "for bob")
    for _ in range(7):
        await world.say(BOB, room, "bob's own")
    answer = await page(world, BOB)
    assert answer["notifications"] == []
    assert ids_of(await page(world, BOB, start=answer["next_token"])) == [event_id]


async def test_the_rules_as_they_are_now_decide(world: World) -> None:
    room = await two_in_a_room(world)
    await world.say(ALICE, room, "one")
    muted = rules.put_rule({}, "room", room, {"actions": []}, before=None, after=None)
    await world.db.write(lambda tx: push_rules.put(tx, BOB, muted))
    assert ids_of(await page(world, BOB)) == []


async def test_what_was_said_before_one_came_or_was_redacted_did_not_notify(world: World) -> None:
    room = await world.room()
    await world.say(ALICE, room, "before")
    await world.rooms.join(BOB, room)
    gone = await world.say(ALICE, room, "gone")
    await world.rooms.redact(ALICE, room, gone, {}, None, None)
    assert ids_of(await page(world, BOB)) == []


async def test_a_malformed_token_is_refused(world: World) -> None:
    for token in ("x", "-1", "1" * 19):
        with pytest.raises(MatrixError) as refusal:
            await page(world, BOB, start=token)
        assert refusal.value.errcode == "M_INVALID_PARAM"
