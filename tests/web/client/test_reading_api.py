# SPDX-License-Identifier: Apache-2.0
"""Relations, threads, search, time, upgrades, reports and the like, as clients ask for them over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from minihs.store import reports

from .rooms_kit import Person, TestHome, open_home

V1 = "/_matrix/client/v1"
V3 = "/_matrix/client/v3"
UNSTABLE = "/_matrix/client/unstable"


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[TestHome]:
    async with open_home(tmp_path) as home:
        yield home


async def refusal(person: Person, method: str, target: str, body: Any = b"") -> tuple[int, str]:
    answer = await person.ask(method, target, body)
    return answer.status, answer.json["errcode"]


def in_room(room: str, rest: str, prefix: str = V3) -> str:
    return f"{prefix}/rooms/{quote(room, safe='')}/{rest}"


async def relate(person: Person, room: str, parent: str, rel_type: str, txn: str, **more: Any) -> str:
    content = {"body": "x", "m.relates_to": {"rel_type": rel_type, "event_id": parent, **more}}
    sent = await person.put(in_room(room, f"send/m.room.message/{txn}"), content)
    event_id: str = sent["event_id"]
    return event_id


# --- relations and threads


async def test_relations_in_all_their_forms(home: TestHome) -> None:
    alice = await home.person("alice")
    room = await alice.room()
    root = await alice.say(room, "root")
    thread = await relate(alice, room, root, "m.thread", "t1")
    edit = await relate(alice, room, root, "m.replace", "t2")
    path = in_room(room, f"relations/{quote(root, safe='')}", V1)
    for suffix, expected in (
        ("", [edit, thread]),
        ("/m.thread", [thread]),
        ("/m.thread/m.room.message", [thread]),
        ("/m.thread/m.other", []),
        ("?dir=f&limit=1", [thread]),
    ):
        answer = await alice.get(path + suffix)
        assert [event["event_id"] for event in answer["chunk"]] == expected, suffix
    assert (await alice.get(path + "?recurse=true"))["recursion_depth"] == 3
    page = await alice.get(path + "?limit=1")
    rest = await alice.get(path + f"?limit=1&from={page['next_batch']}")
    assert [event["event_id"] for event in rest["chunk"]] == [thread]
    for query in ("dir=x", "limit=0", "limit=x", "from=x", "recurse=1"):
        assert await refusal(alice, "GET", f"{path}?{query}") == (400, "M_INVALID_PARAM"), query
    assert await refusal(alice, "GET", in_room(room, "relations/$no", V1)) == (404, "M_NOT_FOUND")


async def test_the_threads_of_a_room(home: TestHome) -> None:
    alice, bob = await home.person("alice"), await home.person("bob")
    room = await alice.room()
    await bob.post(in_room(room, "join"))
    root = await alice.say(room, "root")
    await relate(alice, room, root, "m.thread", "t1")
    path = in_room(room, "threads", V1)
    (event,) = (await bob.get(path))["chunk"]
    assert event["event_id"] == root
    assert event["unsigned"]["m.relations"]["m.thread"]["count"] == 1
    assert (await bob.get(path + "?include=participated"))["chunk"] == []
    assert len((await alice.get(path + "?include=participated"))["chunk"]) == 1
    for query in ("include=some", "from=x", "limit=0"):
        assert await refusal(alice, "GET", f"{path}?{query}") == (400, "M_INVALID_PARAM"), query
    carol = await home.person("carol")
    private = await alice.room(preset="private_chat")
    assert await refusal(carol, "GET", in_room(private, "threads", V1)) == (403, "M_FORBIDDEN")


async def test_a_second_reaction_of_the_same_kind_is_refused(home: TestHome) -> None:
    alice = await home.person("alice")
    room = await alice.room()
    root = await alice.say(room, "root")
    content = {"m.relates_to": {"rel_type": "m.annotation", "event_id": root, "key": "👍"}}
    first = await alice.put(in_room(room, "send/m.reaction/t1"), content)
    # The same request again is not a second reaction.
    assert await alice.put(in_room(room, "send/m.reaction/t1"), content) == first
    second = await refusal(alice, "PUT", in_room(room, "send/m.reaction/t2"), content)
    assert second == (400, "M_DUPLICATE_ANNOTATION")


# --- search, time, upgrade


async def test_search_over_http(home: TestHome) -> None:
    alice = await home.person("alice")
    room = await alice.room()
    for number in range(3):
        await alice.say(room, f"needle {number}")
    wanted = {"search_term": "needle", "order_by": "recent", "filter": {"limit": 2}}
    body = {"search_categories": {"room_events": wanted}}
    found = (await alice.post("/search", body))["search_categories"]["room_events"]
    assert [result["result"]["content"]["body"] for result in found["results"]] == ["needle 2", "needle 1"]
    assert found["count"] == 3
    rest = await alice.post(f"/search?next_batch={found['next_batch']}", body)
    results = rest["search_categories"]["room_events"]["results"]
    assert [result["result"]["content"]["body"] for result in results] == ["needle 0"]
    assert await alice.post("/search", {"search_categories": {}}) == {"search_categories": {}}
    assert await refusal(alice, "POST", "/search", {}) == (400, "M_MISSING_PARAM")


async def test_the_event_at_a_time(home: TestHome) -> None:
    alice = await home.person("alice")
    room = await alice.room()
    event_id = await alice.say(room, "hello")
    path = in_room(room, "timestamp_to_event", V1)
    answer = await alice.get(f"{path}?ts=9000000000000&dir=b")
    assert answer.keys() == {"event_id", "origin_server_ts"}
    assert answer["event_id"] == event_id
    assert await refusal(alice, "GET", f"{path}?ts=9000000000000&dir=f") == (404, "M_NOT_FOUND")
    for query, errcode in (
        ("ts=1", "M_MISSING_PARAM"),
        ("dir=f", "M_MISSING_PARAM"),
        ("ts=x&dir=f", "M_INVALID_PARAM"),
        ("ts=1&dir=x", "M_INVALID_PARAM"),
    ):
        assert await refusal(alice, "GET", f"{path}?{query}") == (400, errcode), query


async def test_an_upgrade_over_http(home: TestHome) -> None:
    alice = await home.person("alice")
    room = await alice.room(room_version="10")
    answer = await alice.post(in_room(room, "upgrade"), {"new_version": "12"})
    new = answer["replacement_room"]
    create = await alice.get(in_room(new, "state/m.room.create"))
    assert (create["room_version"], create["predecessor"]["room_id"]) == ("12", room)
    assert (await alice.get(in_room(room, "state/m.room.tombstone")))["replacement_room"] == new
    bad = await refusal(alice, "POST", in_room(room, "upgrade"), {"new_version": "none"})
    assert bad == (400, "M_UNSUPPORTED_ROOM_VERSION")


# --- notifications and pushers


async def test_notifications_over_http(home: TestHome) -> None:
    alice, bob = await home.person("alice"), await home.person("bob")
    room = await alice.room()
    await bob.post(in_room(room, "join"))
    event_id = await alice.say(room, "hello")
    (entry,) = (await bob.get("/notifications"))["notifications"]
    assert entry["event"]["event_id"] == event_id
    assert (await bob.get("/notifications?only=highlight"))["notifications"] == []
    page = await bob.get("/notifications?limit=1")
    assert (await bob.get(f"/notifications?from={page['next_token']}"))["notifications"] == []
    for query in ("only=some", "from=x", "limit=0"):
        assert await refusal(bob, "GET", f"/notifications?{query}") == (400, "M_INVALID_PARAM"), query


# --- reports


async def test_reports_are_kept(home: TestHome) -> None:
    alice, bob = await home.person("alice"), await home.person("bob")
    room = await alice.room()
    await bob.post(in_room(room, "join"))
    event_id = await alice.say(room, "rude")
    report = in_room(room, f"report/{quote(event_id, safe='')}")
    assert await bob.post(report, {"reason": "rude", "score": -100}) == {}
    assert await bob.post(report, {}) == {}
    assert await bob.post(in_room(room, "report"), {"reason": "bad room"}) == {}
    assert await bob.post(f"/users/{quote(alice.user_id)}/report", {"reason": ""}) == {}
    kept = reports.latest(home.server.services.db.read, 10)
    assert [(each.room_id, each.event_id, each.user_id, each.reason) for each in kept] == [
        (None, None, alice.user_id, ""),
        (room, None, None, "bad room"),
        (room, event_id, None, ""),
        (room, event_id, None, "rude"),
    ]
    assert {each.reporter for each in kept} == {bob.user_id}


async def test_nobody_learns_from_a_report_what_there_is(home: TestHome) -> None:
    alice, bob = await home.person("alice"), await home.person("bob")
    room = await alice.room(preset="private_chat")
    event_id = await alice.say(room, "secret")
    for target in (room, "!unknown:example.org"):
        assert await bob.post(in_room(target, "report"), {"reason": "x"}) == {}
        path = in_room(target, f"report/{quote(event_id, safe='')}")
        assert await refusal(bob, "POST", path, {"reason": "x"}) == (404, "M_NOT_FOUND")
    assert await bob.post("/users/@nobody:example.org/report", {"reason": "x"}) == {}


async def test_a_bad_report_is_refused(home: TestHome) -> None:
    alice = await home.person("alice")
    room = await alice.room()
    event_id = await alice.say(room, "hello")
    event = in_room(room, f"report/{quote(event_id, safe='')}")
    for path, body, errcode in (
        (event, {"reason": 1}, "M_BAD_JSON"),
        (event, {"score": "bad"}, "M_BAD_JSON"),
        (event, {"reason": "x" * 4001}, "M_INVALID_PARAM"),
        (in_room(room, "report"), {}, "M_MISSING_PARAM"),
        (in_room("room", "report"), {"reason": "x"}, "M_INVALID_PARAM"),
        (f"{V3}/users/alice/report", {"reason": "x"}, "M_INVALID_PARAM"),
    ):
        assert await refusal(alice, "POST", path, body) == (400, errcode), (path, body)
    assert reports.latest(home.server.services.db.read, 10) == []


async def test_only_so_many_reports_are_kept(home: TestHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "MAX_REPORTS", 3)
    alice = await home.person("alice")
    room = await alice.room()
    for number in range(5):
        await alice.post(in_room(room, "report"), {"reason": str(number)})
    assert [each.reason for each in reports.latest(home.server.services.db.read, 10)] == ["4", "3", "2"]


# --- mutual rooms, initialSync


async def test_rooms_that_two_users_share(home: TestHome) -> None:
    alice, bob, carol = await home.person("alice"), await home.person("bob"), await home.person("carol")
    shared = [await alice.room() for _ in range(3)]
    await alice.room()
    for room in shared:
        await bob.post(in_room(room, "join"))
    await bob.post(in_room(shared[2], "leave"))
    for path in (f"{V1}/mutual_rooms", f"{UNSTABLE}/uk.half-shot.msc2666/user/mutual_rooms"):
        answer = await alice.get(f"{path}?user_id={quote(bob.user_id)}")
        assert answer == {"joined": shared[:2], "count": 2}
    path = f"{V1}/mutual_rooms"
    assert (await carol.get(f"{path}?user_id={quote(bob.user_id)}"))["joined"] == []
    assert (await alice.get(f"{path}?user_id=%40nobody%3Aelsewhere.org"))["joined"] == []
    for query in (f"user_id={quote(alice.user_id)}", "user_id=bob", f"user_id={quote(bob.user_id)}&from=x"):
        assert await refusal(alice, "GET", f"{path}?{query}") == (400, "M_INVALID_PARAM"), query
    assert await refusal(alice, "GET", path) == (400, "M_MISSING_PARAM")


async def test_many_shared_rooms_come_page_by_page(home: TestHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minihs.web.routes.client.mutual_rooms.MAX_ROOMS", 2)
    alice, bob = await home.person("alice"), await home.person("bob")
    shared = [await alice.room() for _ in range(3)]
    for room in shared:
        await bob.post(in_room(room, "join"))
    path = f"{V1}/mutual_rooms?user_id={quote(bob.user_id)}"
    first = await alice.get(path)
    assert (first["joined"], first["count"]) == (shared[:2], 3)
    rest = await alice.get(f"{path}&from={first['next_batch']}")
    assert rest == {"joined": shared[2:], "count": 3}
    assert await alice.get(f"{path}&batch_token={first['next_batch_token']}") == rest


async def test_a_room_at_a_glance(home: TestHome) -> None:
    alice, bob = await home.person("alice"), await home.person("bob")
    room = await alice.room(name="Lounge", visibility="public")
    await alice.put(f"/user/{quote(alice.user_id)}/rooms/{quote(room)}/tags/m.favourite", {})
    for number in range(3):
        await alice.say(room, str(number))
    answer = await alice.get(in_room(room, "initialSync?limit=2"))
    assert (answer["room_id"], answer["membership"], answer["visibility"]) == (room, "join", "public")
    assert [event["content"]["body"] for event in answer["messages"]["chunk"]] == ["1", "2"]
    assert "Lounge" in [event["content"].get("name") for event in answer["state"]]
    assert [each["type"] for each in answer["account_data"]] == ["m.tag"]
    more = await alice.get(in_room(room, f"messages?dir=b&limit=1&from={answer['messages']['start']}"))
    assert more["chunk"][0]["content"]["body"] == "0"
    assert await refusal(bob, "GET", in_room(room, "initialSync")) == (403, "M_FORBIDDEN")
    visibility = {"history_visibility": "world_readable"}
    await alice.put(in_room(room, "state/m.room.history_visibility"), visibility)
    peeked = await bob.get(in_room(room, "initialSync"))
    assert "membership" not in peeked
    assert peeked["messages"]["chunk"]
    await alice.say(room, "later")
    later = await bob.get(in_room(room, f"messages?dir=f&from={peeked['messages']['end']}"))
    assert [event["content"]["body"] for event in later["chunk"]] == ["later"]
