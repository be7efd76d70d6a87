# SPDX-License-Identifier: Apache-2.0
"""POST /createRoom and knocking, over HTTP (client-server-api, "Creation", "Knocking on rooms")."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from .rooms_kit import Person, TestHome, open_home


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[TestHome]:
    async with open_home(tmp_path) as home:
        yield home


async def made(person: Person, **request: Any) -> str:
    room_id: str = (await person.post("/createRoom", request))["room_id"]
    return room_id


async def content(person: Person, room: str, type: str, key: str = "") -> Any:
    return await person.get(f"/rooms/{quote(room, safe='')}/state/{type}/{quote(key, safe='')}")


@pytest.mark.parametrize(
    ("request_", "rule", "guests"),
    [
        ({}, "invite", "can_join"),
        ({"visibility": "private"}, "invite", "can_join"),
        ({"visibility": "public"}, "public", "forbidden"),
        ({"preset": "private_chat", "visibility": "public"}, "invite", "can_join"),
        ({"preset": "public_chat"}, "public", "forbidden"),
        ({"preset": "trusted_private_chat"}, "invite", "can_join"),
    ],
)
async def test_presets(home: TestHome, request_: Any, rule: str, guests: str) -> None:
    alice = await home.person("alice")
    room = await made(alice, **request_)
    assert await content(alice, room, "m.room.join_rules") == {"join_rule": rule}
    assert await content(alice, room, "m.room.guest_access") == {"guest_access": guests}
    assert await content(alice, room, "m.room.history_visibility") == {"history_visibility": "shared"}


async def test_what_is_given_goes_into_the_room(home: TestHome) -> None:
    alice, bob = await home.person("alice"), await home.person("bob")
    room = await made(
        alice,
        name="Lounge",
        topic="Talk",
        room_alias_name="lounge",
        visibility="public",
        invite=[bob.user_id],
        is_direct=True,
        creation_content={"m.federate": False, "type": "org.example.kind", "creator": "@evil:x"},
        initial_state=[
            {"type": "m.room.join_rules", "content": {"join_rule": "knock"}},
            {"type": "org.example.thing", "state_key": "a/b", "content": {"x": 1}},
        ],
        power_level_content_override={"events_default": 7},
    )
    assert await content(alice, room, "m.room.name") == {"name": "Lounge"}
    topic = await content(alice, room, "m.room.topic")
    assert (topic["topic"], topic["m.topic"]) == ("Talk", {"m.text": [{"body": "Talk"}]})
    assert await content(alice, room, "m.room.canonical_alias") == {"alias": "#lounge:example.org"}
    create = await content(alice, room, "m.room.create")
    assert (create["m.federate"], create["type"]) == (False, "org.example.kind")
    assert "creator" not in create
    assert await content(alice, room, "m.room.join_rules") == {"join_rule": "knock"}
    assert await content(alice, room, "org.example.thing", "a/b") == {"x": 1}
    assert (await content(alice, room, "m.room.power_levels"))["events_default"] == 7
    listed = (await bob.get("/publicRooms"))["chunk"]
    assert [each["room_id"] for each in listed] == [room]
    invited = (await bob.sync())["rooms"]["invite"][room]["invite_state"]["events"]
    own = next(event for event in invited if event.get("state_key") == bob.user_id)
    assert own["content"]["is_direct"] is True


async def test_creators_of_version_12_have_no_written_power(home: TestHome) -> None:
    alice, bob = await home.person("alice"), await home.person("bob")
    room = await made(alice, preset="trusted_private_chat", invite=[bob.user_id])
    assert ":" not in room
    create = await content(alice, room, "m.room.create")
    assert (create["room_version"], create["additional_creators"]) == ("12", [bob.user_id])
    levels = await content(alice, room, "m.room.power_levels")
    assert levels["users"] == {}
    assert levels["events"]["m.room.tombstone"] > levels["state_default"]


async def test_trusted_users_of_older_versions_have_the_creators_power(home: TestHome) -> None:
    alice, bob = await home.person("alice"), await home.person("bob")
    room = await made(alice, preset="trusted_private_chat", invite=[bob.user_id], room_version="11")
    levels = await content(alice, room, "m.room.power_levels")
    assert levels["users"] == {alice.user_id: 100, bob.user_id: 100}


@pytest.mark.parametrize(
    ("request_", "errcode"),
    [
        ({"room_version": "none"}, "M_UNSUPPORTED_ROOM_VERSION"),
        ({"room_version": 12}, "M_BAD_JSON"),
        ({"preset": "mine"}, "M_INVALID_PARAM"),
        ({"visibility": "some"}, "M_INVALID_PARAM"),
        ({"invite": "@bob:example.org"}, "M_BAD_JSON"),
        ({"invite": ["bob"]}, "M_INVALID_PARAM"),
        ({"invite_3pid": [{"medium": "email"}]}, "M_THREEPID_NOT_FOUND"),
        ({"initial_state": {}}, "M_BAD_JSON"),
        ({"initial_state": [{"type": "m.room.name"}]}, "M_BAD_JSON"),
        ({"initial_state": [{"type": "m.room.create", "content": {}}]}, "M_INVALID_PARAM"),
        ({"creation_content": []}, "M_BAD_JSON"),
        ({"power_level_content_override": []}, "M_BAD_JSON"),
        ({"room_alias_name": "a:b"}, "M_INVALID_PARAM"),
        ({"name": 1}, "M_BAD_JSON"),
        ({"is_direct": "yes"}, "M_BAD_JSON"),
    ],
)
async def test_a_bad_request_makes_nothing(home: TestHome, request_: Any, errcode: str) -> None:
    alice = await home.person("alice")
    answer = await alice.ask("POST", "/createRoom", request_)
    assert (answer.status, answer.json["errcode"]) == (400, errcode)
    assert (await alice.get("/joined_rooms"))["joined_rooms"] == []


async def test_an_alias_is_given_once(home: TestHome) -> None:
    alice = await home.person("alice")
    await made(alice, room_alias_name="lounge")
    answer = await alice.ask("POST", "/createRoom", {"room_alias_name": "lounge"})
    assert (answer.status, answer.json["errcode"]) == (400, "M_ROOM_IN_USE")
    assert len((await alice.get("/joined_rooms"))["joined_rooms"]) == 1


async def test_knocking_and_being_let_in(home: TestHome) -> None:
    alice, bob = await home.person("alice"), await home.person("bob")
    rule = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
    room = await made(alice, initial_state=[rule], name="Door")
    since = (await alice.sync())["next_batch"]
    assert await bob.post(f"/knock/{quote(room, safe='')}", {"reason": "please"}) == {"room_id": room}
    knocked = (await bob.sync())["rooms"]["knock"][room]["knock_state"]["events"]
    assert "Door" in [event["content"].get("name") for event in knocked]
    news = (await alice.sync(since))["rooms"]["join"][room]["timeline"]["events"]
    assert [(event["state_key"], event["content"]["reason"]) for event in news] == [(bob.user_id, "please")]
    await alice.post(f"/rooms/{quote(room)}/invite", {"user_id": bob.user_id})
    await bob.post(f"/rooms/{quote(room)}/join")
    assert (await bob.get("/joined_rooms"))["joined_rooms"] == [room]
    closed = await made(alice)
    answer = await bob.ask("POST", f"/knock/{quote(closed, safe='')}")
    assert (answer.status, answer.json["errcode"]) == (403, "M_FORBIDDEN")


async def test_there_is_no_oauth_here_yet(home: TestHome) -> None:
    for path in ("v1/auth_metadata", "unstable/org.matrix.msc2965/auth_metadata"):
        answer = await home.house.ask("GET", f"/_matrix/client/{path}")
        assert (answer.status, answer.json["errcode"]) == (404, "M_UNRECOGNIZED")
