# SPDX-License-Identifier: Apache-2.0
"""The bounds of what clients may ask and send, each with one more than is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from minihs.e2ee import key_backups, to_device
from minihs.rooms import upgrade
from minihs.store import pushers, relations
from minihs.store import search as search_store
from minihs.sync import aggregations, by_time, initial_sync, messages, notifications, search, syncer, unread
from minihs.sync import relations as relation_pages
from minihs.users import account_data, profiles
from minihs.web.routes.client import initial_sync as initial_routes
from minihs.web.routes.client import messages as message_routes
from minihs.web.routes.client import pushers as pusher_routes
from minihs.web.routes.client import relations as relation_routes
from minihs.web.routes.client import report
from tests.advisories.kit import ALICE, MALLORY, Siege, seg, siege
from tests.sync.world import BOB, new_world


@pytest.mark.parametrize("more", [0, 1])
async def test_what_is_stored_for_a_user_has_a_size(tmp_path: Path, more: int) -> None:
    async with siege(tmp_path) as at:
        user = seg(at.alice.user_id)
        content = account_data.MAX_CONTENT_BYTES - len('{"x":""}') + more
        filters = account_data.MAX_FILTER_BYTES - len('{"x":""}') + more
        device = {"body": "y" * (to_device.MAX_CONTENT_BYTES - len('{"body":""}') + more)}
        for method, path, body in (
            ("PUT", f"/user/{user}/account_data/x.y", {"x": "y" * content}),
            ("POST", f"/user/{user}/filter", {"x": "y" * filters}),
            ("PUT", f"/sendToDevice/x.y/t{more}", {"messages": {ALICE: {at.alice.device_id: device}}}),
            ("POST", f"/rooms/{at.room}/report", {"reason": "y" * (report.MAX_REASON + more)}),
        ):
            status, answer = await at.alice.ask(method, path, body)
            assert (status == 200) == (not more), (path, status, answer)
            assert status in (200, 400, 413)


async def test_a_profile_has_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "MAX_PROFILE_BYTES", 1000)
    async with siege(tmp_path) as at:
        for number, expected in ((1, 200), (2, 413)):
            path = f"/profile/{seg(at.alice.user_id)}/org.test.field{number}"
            body = {f"org.test.field{number}": "x" * 600}
            status, answer = await at.alice.ask("PUT", path, body)
            assert status in (expected, 400 if expected == 413 else 200), answer


async def test_a_sync_waits_so_long(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        await at.alice.sync()
        started = trio.current_time()
        await at.alice.sync(timeout_ms=syncer.MAX_TIMEOUT_MS * 100)
        assert trio.current_time() - started == pytest.approx(syncer.MAX_TIMEOUT_MS / 1000, abs=1)


async def test_so_many_last_answers_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syncer, "MAX_TOLD", 1)
    async with new_world(tmp_path) as world:
        for device in ("PHONE", "LAPTOP"):
            await world.sync(BOB, device=device)
            assert list(world.syncer._told) == [(BOB, device)]


async def test_pages_have_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert message_routes.MAX_PAGE == messages.MAX_PAGE
    monkeypatch.setattr(message_routes, "MAX_PAGE", 3)
    assert initial_routes.MAX_MESSAGES == initial_sync.MAX_MESSAGES
    monkeypatch.setattr(initial_routes, "MAX_MESSAGES", 2)
    assert pusher_routes.MAX_NOTIFICATIONS == notifications.MAX_NOTIFICATIONS
    monkeypatch.setattr(pusher_routes, "MAX_NOTIFICATIONS", 2)
    monkeypatch.setattr(unread, "MAX_COUNTED", 4)
    async with siege(tmp_path) as at:
        await at.send(*(at.event(content={"msgtype": "m.text", "body": f"alice {n}"}) for n in range(8)))
        assert len(await at.alice.messages(at.room, limit=100)) == 3
        first = await at.alice.get(f"/rooms/{seg(at.room)}/initialSync", limit=100)
        assert len(first["messages"]["chunk"]) <= 2
        assert len((await at.alice.get("/notifications", limit=100))["notifications"]) <= 2
        counts = (await at.alice.sync())["rooms"]["join"][at.room]["unread_notifications"]
        assert counts["notification_count"] <= 4


async def relate(at: Siege, root: str, kind: str, count: int, **fields: Any) -> list[str]:
    sent = []
    for number in range(count):
        relation = {"rel_type": kind, "event_id": root, **fields}
        content = {"msgtype": "m.text", "body": f"{kind} {number}", "m.relates_to": relation}
        sent.append(await at.alice.send_event(at.room, "m.room.message", content))
    return sent


async def test_relations_have_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relation_routes, "MAX_RELATIONS", 3)
    monkeypatch.setattr(relation_routes, "MAX_THREADS", 2)
    monkeypatch.setattr(aggregations, "MAX_REFERENCES", 2)
    monkeypatch.setattr(relations, "MAX_BUNDLED", 4)
    async with siege(tmp_path) as at:
        root = await at.alice.send(at.room, "root")
        await relate(at, root, "m.reference", 5)
        path = f"/_matrix/client/v1/rooms/{seg(at.room)}"
        page = await at.alice.get(f"{path}/relations/{seg(root)}", limit=100)
        assert len(page["chunk"]) == 3
        event = await at.alice.get(f"/rooms/{seg(at.room)}/event/{seg(root)}")
        bundled = event["unsigned"]["m.relations"]["m.reference"]["chunk"]
        assert 1 <= len(bundled) <= 2
        for number in range(3):
            await relate(at, await at.alice.send(at.room, f"thread {number}"), "m.thread", 1)
        threads = await at.alice.get(f"{path}/threads", limit=100)
        assert len(threads["chunk"]) == 2


async def test_recursion_has_a_depth(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        root = last = await at.alice.send(at.room, "root")
        chain = []
        for _ in range(relation_pages.MAX_DEPTH + 1):
            (last,) = await relate(at, last, "m.reference", 1)
            chain.append(last)
        path = f"/_matrix/client/v1/rooms/{seg(at.room)}/relations/{seg(root)}"
        page = await at.alice.get(path, recurse="true", limit=50)
        assert {event["event_id"] for event in page["chunk"]} == set(chain[: relation_pages.MAX_DEPTH])
        assert unread.THREAD_HOPS == 3


async def test_a_search_has_its_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MAX_LIMIT", 3)
    monkeypatch.setattr(search, "MAX_CONTEXT", 1)
    monkeypatch.setattr(search_store, "MAX_WORDS", 2)
    async with siege(tmp_path) as at:
        for number in range(6):
            await at.alice.send(at.room, f"one two number{number}")

        async def ask(term: str, **more: Any) -> tuple[int, Any]:
            wanted = {"search_term": term, "keys": ["content.body"], **more}
            body = {"search_categories": {"room_events": wanted}}
            status, answer = await at.alice.ask("POST", "/search", body)
            return status, answer.get("search_categories", {}).get("room_events")

        context = {"before_limit": 5, "after_limit": 5}
        _, found = await ask("one", filter={"limit": 100}, event_context=context)
        assert len(found["results"]) == 3
        assert all(len(each["context"]["events_before"]) <= 1 for each in found["results"])
        _, found = await ask("one two missing")  # the third word is not looked at
        assert found["count"] == 6
        for more, expected in ((0, 200), (1, 400)):
            assert (await ask("x" * (search.MAX_TERM + more)))[0] == expected


async def test_an_upgrade_takes_so_much_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade, "MAX_BANS", 2)
    monkeypatch.setattr(upgrade, "MAX_CHILDREN", 2)
    async with siege(tmp_path, room={"creation_content": {"type": "m.space"}}) as at:
        for number in range(3):
            await at.alice.post(f"/rooms/{at.room}/ban", {"user_id": f"@b{number}:peer.test"})
            await at.alice.set_state(at.room, "m.space.child", {"via": ["one.test"]}, f"!c{number}:one.test")
        path = f"/rooms/{at.room}/upgrade"
        creators = [f"@c{number}:one.test" for number in range(upgrade.MAX_CREATORS + 1)]
        status, _ = await at.alice.ask("POST", path, {"new_version": "12", "additional_creators": creators})
        assert status == 400
        new = (await at.alice.post(path, {"new_version": "12"}))["replacement_room"]
        state = await at.alice.state(new)
        bans = [event for event in state.values() if event["content"].get("membership") == "ban"]
        assert len(bans) == 2
        assert len([key for key in state if key[0] == "m.space.child"]) == 2


async def test_a_user_has_so_many_pushers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushers, "MAX_PUSHERS", 2)
    async with siege(tmp_path) as at:
        for number in range(3):
            pusher: dict[str, Any] = {
                "kind": "http",
                "app_id": "app",
                "pushkey": f"key{number}",
                "app_display_name": "x",
                "device_display_name": "x",
                "lang": "en",
                "append": True,
                "data": {"url": "https://push.test/_matrix/push/v1/notify"},
            }
            await at.alice.ask("POST", "/pushers/set", pusher)
        assert len((await at.alice.get("/pushers"))["pushers"]) == 2


async def test_one_upload_to_a_backup_has_so_many_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_backups, "MAX_KEYS_IN_REQUEST", 2)
    async with siege(tmp_path) as at:
        version = {"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {"public_key": "x"}}
        made = (await at.alice.post("/room_keys/version", version))["version"]
        key = {
            "first_message_index": 0,
            "forwarded_count": 0,
            "is_verified": True,
            "session_data": {"x": "y"},
        }
        for count, expected in ((2, 200), (3, 413)):
            sessions = {f"s{number}": key for number in range(count)}
            body = {"rooms": {at.room: {"sessions": sessions}}}
            status, answer = await at.alice.ask("PUT", f"/room_keys/keys?version={made}", body)
            assert status == expected, answer


async def test_so_many_events_next_to_a_time_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_time, "FIRST_LOOK", 1)
    monkeypatch.setattr(by_time, "MAX_LOOK", 2)
    hidden = [
        {"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": "joined"}}
    ]
    async with siege(tmp_path, room={"initial_state": hidden}) as at:
        for number in range(10):
            await trio.sleep(1)
            await at.alice.send(at.room, f"{number}")
        bob = await at.world["one.test"].user("bob")
        await bob.join(at.room)
        await trio.sleep(1)
        mine = await bob.send(at.room, "mine")
        path = f"/_matrix/client/v1/rooms/{seg(at.room)}/timestamp_to_event"
        now = at.world.clock.now_ms()
        assert (await bob.get(path, ts=now, dir="b"))["event_id"] == mine
        status, answer = await bob.ask("GET", f"{path}?ts=1&dir=f")
        assert status == 404 or answer["event_id"] != mine
        assert MALLORY in str(await bob.get(f"/rooms/{seg(at.room)}/joined_members"))
