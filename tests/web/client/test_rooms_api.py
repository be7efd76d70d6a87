# SPDX-License-Identifier: Apache-2.0
"""Rooms as a client meets them over HTTP: each endpoint once, and what wrong requests get."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trio
from trio.testing import MockClock

from .kit import V3, refused
from .rooms_kit import Person, TestHome, open_home


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[TestHome]:
    async with open_home(tmp_path) as home:
        yield home


async def two(home: TestHome) -> tuple[Person, Person]:
    return await home.person("alice"), await home.person("bob")


async def test_a_conversation(home: TestHome) -> None:
    alice, bob = await two(home)
    room = await alice.room(name="Den")
    assert (await bob.post(f"/join/{quote(room)}"))["room_id"] == room
    event_id = await alice.say(room, "hello")
    first = await bob.sync()
    joined = first["rooms"]["join"][room]
    assert joined["timeline"]["events"][-1]["event_id"] == event_id
    assert joined["unread_notifications"]["notification_count"] == 1
    await bob.post(f"/rooms/{quote(room)}/receipt/m.read/{quote(event_id)}", {"thread_id": "main"})
    second = await bob.sync(first["next_batch"])
    assert second["rooms"]["join"][room]["unread_notifications"]["notification_count"] == 0
    assert await bob.get("/joined_rooms") == {"joined_rooms": [room]}
    assert (await bob.get(f"/rooms/{quote(room)}/event/{quote(event_id)}"))["content"]["body"] == "hello"
    page = await bob.get(f"/rooms/{quote(room)}/messages?dir=b&limit=1&from={first['next_batch']}")
    assert page["chunk"][0]["event_id"] == event_id
    assert page["start"] == first["next_batch"]
    assert (await bob.get(f"/rooms/{quote(room)}/context/{quote(event_id)}"))["event"]["event_id"] == event_id


async def test_a_waiting_client_is_answered_when_something_is_said(
    home: TestHome, autojump_clock: MockClock
) -> None:
    alice, bob = await two(home)
    room = await alice.room()
    await bob.post(f"/rooms/{quote(room)}/join")
    since = (await bob.sync())["next_batch"]
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def later() -> None:
            await trio.sleep(4)
            await alice.say(room, "wake up")

        started = trio.current_time()
        answer = await bob.sync(since, timeout=30_000)
    assert 3 < trio.current_time() - started < 6
    assert answer["rooms"]["join"][room]["timeline"]["events"][0]["content"]["body"] == "wake up"


async def test_a_repeated_transaction_id_makes_one_event_and_comes_back_to_its_device(home: TestHome) -> None:
    alice = await home.person("alice", "ONE")
    other = await home.person("alice", "TWO")
    room = await alice.room()
    target = f"/rooms/{quote(room)}/send/m.room.message/t1"
    first, again = await alice.put(target, {"body": "x"}), await alice.put(target, {"body": "x"})
    assert first == again
    assert (await other.put(target, {"body": "x"})) != first
    for person, expected in ((alice, "t1"), (other, None)):
        events = (await person.sync())["rooms"]["join"][room]["timeline"]["events"]
        mine = next(event for event in events if event["event_id"] == first["event_id"])
        assert mine["unsigned"].get("transaction_id") == expected


async def test_invite_decline_kick_ban_unban_forget(home: TestHome) -> None:
    alice, bob = await two(home)
    room = await alice.room(preset="private_chat", name="Den")
    path = f"/rooms/{quote(room)}"
    await alice.post(path + "/invite", {"user_id": bob.user_id, "reason": "come"})
    answer = await bob.sync()
    assert room in answer["rooms"]["invite"]
    await bob.post(path + "/leave")
    answer = await bob.sync(answer["next_batch"])
    assert room in answer["rooms"]["leave"]
    await alice.post(path + "/invite", {"user_id": bob.user_id})
    await bob.post(path + "/join")
    await alice.post(path + "/kick", {"user_id": bob.user_id})
    await alice.post(path + "/ban", {"user_id": bob.user_id})
    assert refused(await bob.ask("POST", path + "/join", {}), 403, "M_FORBIDDEN")
    await alice.post(path + "/unban", {"user_id": bob.user_id})
    members = await alice.get(path + "/members?not_membership=join")
    assert [(event["state_key"], event["content"]["membership"]) for event in members["chunk"]] == [
        (bob.user_id, "leave")
    ]
    assert (await bob.get(path + "/state/m.room.name/"))["name"] == "Den"
    await bob.post(path + "/forget")
    assert refused(await bob.ask("GET", path + "/state/m.room.name"), 403, "M_FORBIDDEN")


@pytest.mark.parametrize("tail", ["", "/"])
async def test_state_with_an_empty_key_has_two_paths(home: TestHome, tail: str) -> None:
    alice = await home.person("alice")
    path = f"/rooms/{quote(await alice.room())}/state/m.room.topic{tail}"
    event_id = (await alice.put(path, {"topic": "cats"}))["event_id"]
    assert await alice.get(path) == {"topic": "cats"}
    event = await alice.get(path + "?format=event")
    assert (event["event_id"], event["state_key"]) == (event_id, "")
    assert refused(await alice.ask("GET", path + "?format=xml"), 400, "M_INVALID_PARAM")


async def test_a_state_key_may_hold_anything(home: TestHome) -> None:
    alice = await home.person("alice")
    room = await alice.room()
    path = f"/rooms/{quote(room)}/state/org.example/{quote('a/b %?#ü', safe='')}"
    await alice.put(path, {"x": 1})
    assert await alice.get(path) == {"x": 1}
    state = json.loads((await alice.ask("GET", f"/rooms/{quote(room)}/state")).body)
    assert ("org.example", "a/b %?#ü") in {(event["type"], event["state_key"]) for event in state}


async def test_redaction_by_both_ways(home: TestHome) -> None:
    alice = await home.person("alice")
    room = await alice.room()
    one, two = await alice.say(room, "one"), await alice.say(room, "two")
    path = f"/rooms/{quote(room)}"
    await alice.put(f"{path}/redact/{quote(one)}/r1", {"reason": "oops"})
    await alice.put(f"{path}/send/m.room.redaction/r2", {"redacts": two})
    for event_id in (one, two):
        event = await alice.get(f"{path}/event/{quote(event_id)}")
        assert event["content"] == {}
        assert event["unsigned"]["redacted_because"]["redacts"] == event_id


async def test_aliases_and_the_directory(home: TestHome) -> None:
    alice, bob = await two(home)
    room = await alice.room(name="Den")
    alias = quote("#den:example.org", safe="")
    await alice.put(f"/directory/room/{alias}", {"room_id": room})
    assert (await bob.get(f"/directory/room/{alias}"))["room_id"] == room
    assert (await bob.post(f"/join/{alias}"))["room_id"] == room
    assert await alice.get(f"/rooms/{quote(room)}/aliases") == {"aliases": ["#den:example.org"]}
    response = await alice.ask("PUT", f"/directory/room/{alias}", {"room_id": room})
    assert response.status == 409
    assert (await alice.get(f"/directory/list/room/{quote(room)}")) == {"visibility": "private"}
    await alice.put(f"/directory/list/room/{quote(room)}", {"visibility": "public"})
    listed = await home.house.ask("GET", V3 + "/publicRooms")
    assert [entry["room_id"] for entry in listed.json["chunk"]] == [room]
    assert (await bob.post("/publicRooms", {"third_party_instance_id": "irc-freenode"}))["chunk"] == []
    found = await bob.post("/publicRooms", {"filter": {"generic_search_term": "de"}, "limit": 5})
    assert found["chunk"][0]["name"] == "Den"
    assert (await alice.ask("DELETE", f"/directory/room/{alias}")).status == 200
    assert refused(await bob.ask("GET", f"/directory/room/{alias}"), 404, "M_NOT_FOUND")


async def test_typing_and_read_markers(home: TestHome) -> None:
    alice, bob = await two(home)
    room = await alice.room()
    await bob.post(f"/join/{quote(room)}")
    since = (await bob.sync())["next_batch"]
    path = f"/rooms/{quote(room)}"
    await alice.put(f"{path}/typing/{quote(alice.user_id)}", {"typing": True, "timeout": 20_000})
    answer = await bob.sync(since)
    assert answer["rooms"]["join"][room]["ephemeral"]["events"] == [
        {"type": "m.typing", "content": {"user_ids": [alice.user_id]}}
    ]
    event_id = await alice.say(room, "done")
    answer = await bob.sync(answer["next_batch"])
    assert answer["rooms"]["join"][room]["ephemeral"]["events"][0]["content"]["user_ids"] == []
    markers = {"m.fully_read": event_id, "m.read": event_id, "m.read.private": event_id}
    await bob.post(f"{path}/read_markers", markers)
    answer = await bob.sync(answer["next_batch"])
    [data] = answer["rooms"]["join"][room]["account_data"]["events"]
    assert data == {"type": "m.fully_read", "content": {"event_id": event_id}}
    [receipts] = answer["rooms"]["join"][room]["ephemeral"]["events"]
    assert receipts["content"][event_id].keys() == {"m.read", "m.read.private"}


async def test_sync_takes_filters_by_id_and_inline(home: TestHome) -> None:
    alice = await home.person("alice")
    room = await alice.room()
    wanted = {"room": {"timeline": {"limit": 1}}}
    stored = await alice.post(f"/user/{quote(alice.user_id)}/filter", wanted)
    for text in (stored["filter_id"], json.dumps(wanted)):
        answer = await alice.sync(filter=text)
        assert len(answer["rooms"]["join"][room]["timeline"]["events"]) == 1
    stable = await alice.sync(use_state_after="true")
    assert "state_after" in stable["rooms"]["join"][room]
    unstable = await alice.sync(**{"org.matrix.msc4222.use_state_after": "true", "_cacheBuster": "5"})
    assert "org.matrix.msc4222.state_after" in unstable["rooms"]["join"][room]
    assert "state" not in unstable["rooms"]["join"][room]


WRONG: list[tuple[str, str, Any, int, str]] = [
    ("GET", "/sync?since=rubbish", b"", 400, "M_INVALID_PARAM"),
    ("GET", "/sync?filter=99999", b"", 400, "M_INVALID_PARAM"),
    ("GET", "/sync?filter=%7B", b"", 400, "M_INVALID_PARAM"),
    ("GET", "/sync?filter=%7B%22room%22%3A5%7D", b"", 400, "M_BAD_JSON"),
    ("GET", "/sync?timeout=soon", b"", 400, "M_INVALID_PARAM"),
    ("GET", "/sync?full_state=maybe", b"", 400, "M_INVALID_PARAM"),
    ("GET", "/rooms/{room}/messages", b"", 400, "M_MISSING_PARAM"),
    ("GET", "/rooms/{room}/messages?dir=x", b"", 400, "M_INVALID_PARAM"),
    ("GET", "/rooms/{room}/messages?dir=b&from=x", b"", 400, "M_INVALID_PARAM"),
    ("GET", "/rooms/{room}/messages?dir=b&filter=x", b"", 400, "M_INVALID_PARAM"),
    ("GET", "/rooms/{room}/members?membership=x", b"", 400, "M_INVALID_PARAM"),
    ("GET", "/rooms/{room}/members?at=x", b"", 400, "M_INVALID_PARAM"),
    ("GET", "/rooms/{room}/event/$nothing", b"", 404, "M_NOT_FOUND"),
    ("GET", "/rooms/{room}/context/$nothing", b"", 404, "M_NOT_FOUND"),
    ("GET", "/rooms/{room}/state/m.room.topic", b"", 404, "M_NOT_FOUND"),
    ("GET", "/rooms/!other:example.org/state", b"", 403, "M_FORBIDDEN"),
    ("GET", "/rooms/nonsense/messages?dir=b", b"", 403, "M_FORBIDDEN"),
    ("POST", "/rooms/{room}/receipt/m.read/nonsense", {}, 400, "M_INVALID_PARAM"),
    ("POST", "/rooms/{room}/receipt/m.nonsense/$x", {}, 400, "M_INVALID_PARAM"),
    ("POST", "/rooms/{room}/receipt/m.read/$x", {"thread_id": 5}, 400, "M_INVALID_PARAM"),
    ("POST", "/rooms/{room}/read_markers", {"m.read": 5}, 400, "M_BAD_JSON"),
    ("POST", "/rooms/!other:example.org/receipt/m.read/$x", {}, 403, "M_FORBIDDEN"),
    ("PUT", "/rooms/{room}/typing/@bob:example.org", {"typing": True}, 403, "M_FORBIDDEN"),
    ("PUT", "/rooms/{room}/typing/{me}", {"typing": "yes"}, 400, "M_BAD_JSON"),
    ("PUT", "/rooms/{room}/typing/{me}", {"typing": True, "timeout": "1"}, 400, "M_BAD_JSON"),
    ("PUT", "/rooms/{room}/send/m.room.message/1", b"{", 400, "M_NOT_JSON"),
    ("PUT", "/rooms/{room}/send/m.room.message/1", [], 400, "M_BAD_JSON"),
    ("PUT", "/rooms/!other:example.org/send/m.room.message/1", {}, 403, "M_FORBIDDEN"),
    ("POST", "/rooms/{room}/kick", {}, 400, "M_MISSING_PARAM"),
    ("POST", "/rooms/{room}/kick", {"user_id": 5}, 400, "M_BAD_JSON"),
    ("POST", "/rooms/{room}/ban", {"user_id": "@x:example.org", "reason": 5}, 400, "M_BAD_JSON"),
    ("POST", "/join/nonsense", {}, 400, "M_INVALID_PARAM"),
    ("PUT", "/directory/room/nonsense", {"room_id": "!x:y"}, 400, "M_INVALID_PARAM"),
    ("PUT", "/directory/room/%23a:example.org", {}, 400, "M_MISSING_PARAM"),
    ("GET", "/directory/list/room/!other:example.org", b"", 404, "M_NOT_FOUND"),
    ("GET", "/publicRooms?limit=x", b"", 400, "M_INVALID_PARAM"),
    ("GET", "/publicRooms?since=x", b"", 400, "M_INVALID_PARAM"),
    ("POST", "/publicRooms", b'{"third_party_instance_id": 5}', 400, "M_BAD_JSON"),
]


async def test_wrong_requests_get_the_right_refusal(home: TestHome) -> None:
    alice = await home.person("alice")
    room = await alice.room()
    wrong = []
    for method, target, body, status, errcode in WRONG:
        path = target.replace("{room}", quote(room)).replace("{me}", quote(alice.user_id))
        response = await alice.ask(method, path, body)
        if not refused(response, status, errcode):
            wrong.append((method, target, status, errcode, response))
    assert wrong == []


async def test_the_old_prefix_serves_the_same(home: TestHome) -> None:
    alice = await home.person("alice")
    room = await alice.room()
    answer = await alice.get("/_matrix/client/r0/sync")
    assert room in answer["rooms"]["join"]


async def test_without_a_token_nothing_is_read(home: TestHome) -> None:
    for target in ("/sync", "/joined_rooms", "/rooms/!x:y/messages?dir=b"):
        assert refused(await home.house.ask("GET", V3 + target), 401, "M_MISSING_TOKEN")
