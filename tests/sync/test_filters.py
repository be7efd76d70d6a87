# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from minihs.matrix.errors import MatrixError
from minihs.sync.filters import MAX_TIMELINE_LIMIT, parse_event_filter, parse_filter, parse_inline, prune
from tests.sync.world import ALICE, BOB, Json, World, bodies, state_of


@pytest.mark.parametrize(
    ("pattern", "type", "matches"),
    [
        ("m.room.message", "m.room.message", True),
        ("m.room.*", "m.room.message", True),
        ("m.room.*", "m.roomy", False),
        ("*", "anything", True),
        ("m.*.a*e", "m.room.avatarse", True),
        ("m.*.a*e", "m.room.topic", False),
        ("a*a", "a", False),
        ("m.room.?", "m.room.x", False),
        ("*x*x*x*x*x*x*x*x*x*", "x" * 8, False),
    ],
)
def test_a_star_in_a_type_stands_for_any_text(pattern: str, type: str, matches: bool) -> None:
    assert parse_event_filter({"types": [pattern]}).allows(type, ALICE) is matches
    assert parse_event_filter({"not_types": [pattern]}).allows(type, ALICE) is not matches


def test_what_is_excluded_wins_over_what_is_included() -> None:
    wanted = parse_event_filter({"senders": [ALICE], "not_senders": [ALICE]})
    assert not wanted.allows("m.any", ALICE)
    wanted = parse_event_filter({"rooms": ["!a", "!b"], "not_rooms": ["!b"]})
    assert [room for room in ("!a", "!b", "!c") if wanted.allows_room(room)] == ["!a"]
    assert not parse_event_filter({"types": []}).allows("m.any", ALICE)


@pytest.mark.parametrize(
    "body",
    [
        [], "x", 5, None,
        {"room": []}, {"room": {"timeline": 5}}, {"room": {"timeline": {"limit": "5"}}},
        {"room": {"timeline": {"limit": True}}}, {"room": {"timeline": {"limit": -1}}},
        {"room": {"state": {"types": "m.room.name"}}}, {"room": {"state": {"types": [5]}}},
        {"room": {"rooms": {"!a": 1}}}, {"room": {"include_leave": 1}}, {"event_format": "xml"},
        {"event_fields": "content"}, {"presence": {"senders": [None]}}, {"account_data": {"contains_url": 1}},
    ],
)  # fmt: skip
def test_a_filter_of_a_wrong_shape_is_refused(body: Any) -> None:
    with pytest.raises(MatrixError) as refusal:
        parse_filter(body)
    assert (refusal.value.status, refusal.value.errcode) == (400, "M_BAD_JSON")


@pytest.mark.parametrize("text", ["{", "{" * 50_000, '{"a": NaN}', "{" + " " * 70_000 + "}"])
def test_an_inline_filter_that_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(MatrixError) as refusal:
        parse_inline(text)
    assert refusal.value.status == 400


def test_a_huge_limit_counts_as_the_largest() -> None:
    assert parse_filter({"room": {"timeline": {"limit": 2**60}}}).timeline_limit == MAX_TIMELINE_LIMIT


def test_event_fields_keep_what_they_name() -> None:
    event = {
        "type": "t", "event_id": "$e", "sender": ALICE, "origin_server_ts": 5,
        "content": {"body": "b", "a.b": 1, "x": {"y": 1, "z": 2}}, "unsigned": {"age": 1},
    }  # fmt: skip
    kept = prune(
        event,
        parse_filter(
            {"event_fields": ["content.body", "content.a\\.b", "content.x.y", "no.such"]}
        ).event_fields
        or (),
    )
    assert kept == {
        "type": "t", "event_id": "$e", "sender": ALICE, "content": {"body": "b", "a.b": 1, "x": {"y": 1}},
    }  # fmt: skip
    assert event["content"]["x"] == {"y": 1, "z": 2}  # type: ignore[index]  # the original is left alone


async def test_the_timeline_filter_leaves_events_out_and_their_state_comes_as_state(world: World) -> None:
    room = await world.room()
    first = await world.sync(ALICE)
    await world.rooms.send(ALICE, room, "m.room.topic", {"topic": "hidden from the timeline"}, state_key="")
    await world.say(ALICE, room, "hello")
    wanted: Json = {"room": {"timeline": {"types": ["m.room.message"]}}}
    joined = (await world.sync(ALICE, first["next_batch"], filter=wanted))["rooms"]["join"][room]
    assert [event["type"] for event in joined["timeline"]["events"]] == ["m.room.message"]
    assert list(state_of(joined["state"])) == [("m.room.topic", "")]
    assert joined["timeline"]["limited"] is False


async def test_filters_by_sender_url_room_and_state_type(world: World) -> None:
    room, other = await world.room(name="Den"), await world.room()
    await world.rooms.join(BOB, room)
    await world.say(ALICE, room, "alice")
    await world.say(BOB, room, "picture", url="mxc://x/y")

    async def synced(wanted: Json) -> Json:
        rooms: Json = (await world.sync(ALICE, filter=wanted))["rooms"]["join"]
        return rooms

    rooms = await synced({"room": {"timeline": {"senders": [BOB]}}})
    assert bodies(rooms[room]["timeline"]) == ["picture"]
    rooms = await synced({"room": {"timeline": {"contains_url": True}}})
    assert bodies(rooms[room]["timeline"]) == ["picture"]
    rooms = await synced({"room": {"timeline": {"contains_url": False}}})
    assert bodies(rooms[room]["timeline"]) == ["alice"]
    assert list(await synced({"room": {"rooms": [room]}})) == [room]
    assert list(await synced({"room": {"not_rooms": [room]}})) == [other]
    rooms = await synced({"room": {"timeline": {"rooms": [other], "limit": 1}}})
    assert rooms[room]["timeline"]["events"] == []
    assert rooms[other]["timeline"]["events"]
    rooms = await synced({"room": {"state": {"types": ["m.room.name"]}, "timeline": {"limit": 1}}})
    assert list(state_of(rooms[room]["state"])) == [("m.room.name", "")]
    rooms = await synced({"room": {"timeline": {"limit": 0}}})
    assert rooms[room]["timeline"]["events"] == []
    assert rooms[room]["timeline"]["limited"] is True


async def test_account_data_and_ephemeral_filters(world: World) -> None:
    from minihs.store import account_data

    room = await world.room()
    event_id = await world.say(ALICE, room, "hello")
    await world.receipts.set_markers(ALICE, room, {"m.read": event_id, "m.fully_read": event_id})
    await world.db.write(lambda tx: account_data.put(tx, ALICE, "m.direct", "{}"))
    answer = await world.sync(
        ALICE,
        filter={
            "account_data": {"types": ["m.nothing"]},
            "room": {"ephemeral": {"not_types": ["m.receipt"]}, "account_data": {"types": ["m.other"]}},
        },
    )
    assert answer["account_data"]["events"] == []
    assert answer["rooms"]["join"][room]["ephemeral"]["events"] == []
    assert answer["rooms"]["join"][room]["account_data"]["events"] == []
    answer = await world.sync(ALICE)
    assert {event["type"] for event in answer["account_data"]["events"]} == {"m.direct", "m.push_rules"}
    assert answer["rooms"]["join"][room]["ephemeral"]["events"][0]["type"] == "m.receipt"


async def test_the_federation_format_gives_the_raw_event(world: World) -> None:
    room = await world.room()
    answer = await world.sync(ALICE, filter={"event_format": "federation"})
    event = answer["rooms"]["join"][room]["timeline"]["events"][-1]
    assert {"auth_events", "hashes", "signatures", "event_id"} <= event.keys()
