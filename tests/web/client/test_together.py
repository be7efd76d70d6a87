# SPDX-License-Identifier: Apache-2.0
"""Accounts, keys and account data as the rest of a whole server sees them: in /sync and in rooms."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from .kit import PASSWORD
from .rooms_kit import Person, TestHome, open_home


@pytest.fixture
async def home(tmp_path: Path, autojump_clock: object) -> AsyncIterator[TestHome]:
    async with open_home(tmp_path) as home:
        yield home


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


async def woken_by(waiting: Person, since: str, cause: Any) -> tuple[dict[str, Any], float]:
    """The answer of a long poll that `cause` ends, and how long it took from then on."""
    found: dict[str, Any] = {}

    async def poll() -> None:
        found.update(await waiting.sync(since, timeout=30_000))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(poll)
        await trio.sleep(1)
        started = trio.current_time()
        await cause()
    return found, trio.current_time() - started


async def test_the_first_sync_has_the_push_rules(home: TestHome) -> None:
    alice = await home.person("alice")
    first = await alice.sync()
    assert types(first["account_data"]["events"]) == ["m.push_rules"]
    rules = first["account_data"]["events"][0]["content"]["global"]
    assert rules["override"][0]["rule_id"] == ".m.rule.master"


async def test_account_data_come_back_to_a_waiting_client(home: TestHome) -> None:
    alice = await home.person("alice")
    since = (await alice.sync())["next_batch"]
    path = f"/user/{alice.user_id}/account_data/m.secret_storage.default_key"
    found, waited = await woken_by(alice, since, lambda: alice.put(path, {"key": "abc"}))
    assert waited < 1
    assert found["account_data"]["events"] == [
        {"type": "m.secret_storage.default_key", "content": {"key": "abc"}}
    ]
    path = "/pushrules/global/override/.m.rule.master/enabled"
    found, waited = await woken_by(alice, found["next_batch"], lambda: alice.put(path, {"enabled": True}))
    assert waited < 1
    assert types(found["account_data"]["events"]) == ["m.push_rules"]


async def test_tags_come_with_their_room(home: TestHome) -> None:
    alice = await home.person("alice")
    room = await alice.room()
    since = (await alice.sync())["next_batch"]
    await alice.put(f"/user/{alice.user_id}/rooms/{room}/tags/m.favourite", {"order": 0.5})
    entry = (await alice.sync(since))["rooms"]["join"][room]
    assert entry["account_data"]["events"] == [
        {"type": "m.tag", "content": {"tags": {"m.favourite": {"order": 0.5}}}}
    ]


async def test_a_to_device_message_wakes_its_device_and_is_given_until_it_is_acknowledged(
    home: TestHome,
) -> None:
    alice, bob = await home.person("alice"), await home.person("bob")
    since = (await bob.sync())["next_batch"]
    body = {"messages": {bob.user_id: {"*": {"n": 1}}}}
    found, waited = await woken_by(bob, since, lambda: alice.put("/sendToDevice/m.test/1", body))
    assert waited < 1
    expected = [{"sender": alice.user_id, "type": "m.test", "content": {"n": 1}}]
    assert found["to_device"]["events"] == expected
    assert (await bob.sync(since))["to_device"]["events"] == expected
    assert (await bob.sync(found["next_batch"]))["to_device"]["events"] == []
    assert (await bob.sync(since))["to_device"]["events"] == []


async def test_a_full_inbox_is_emptied_in_order_a_hundred_at_a_time(home: TestHome) -> None:
    alice, bob = await home.person("alice"), await home.person("bob")
    since = (await bob.sync())["next_batch"]
    for i in range(250):
        await alice.put(f"/sendToDevice/m.test/{i}", {"messages": {bob.user_id: {"*": {"i": i}}}})
    seen: list[int] = []
    for _ in range(4):
        found = await bob.sync(since)
        seen += [event["content"]["i"] for event in found["to_device"]["events"]]
        since = found["next_batch"]
    assert seen == list(range(250))


async def test_new_keys_of_a_room_mate_wake_a_client(home: TestHome) -> None:
    alice, bob, carol = [await home.person(name) for name in ("alice", "bob", "carol")]
    room = await alice.room()
    await bob.post(f"/join/{room}")
    starts = [(await person.sync())["next_batch"] for person in (bob, carol)]
    device_id = (await alice.get("/account/whoami"))["device_id"]
    keys = {
        "user_id": alice.user_id,
        "device_id": device_id,
        "algorithms": [],
        "keys": {f"ed25519:{device_id}": "abc"},
    }
    found, waited = await woken_by(
        bob,
        starts[0],
        lambda: alice.post("/keys/upload", {"device_keys": keys, "one_time_keys": {"a:b": "c"}}),
    )
    assert waited < 1
    assert found["device_lists"]["changed"] == [alice.user_id]
    assert (await carol.sync(starts[1]))["device_lists"]["changed"] == []
    assert (await alice.sync())["device_one_time_keys_count"]["a"] == 1


async def test_a_new_name_reaches_the_rooms(home: TestHome) -> None:
    alice, bob = await home.person("alice"), await home.person("bob")
    await alice.put(f"/profile/{alice.user_id}/displayname", {"displayname": "Alice"})
    room = await alice.room()
    await bob.post(f"/join/{room}")
    members = (await bob.get(f"/rooms/{room}/joined_members"))["joined"]
    assert members[alice.user_id]["display_name"] == "Alice"
    await alice.put(f"/profile/{alice.user_id}/displayname", {"displayname": "Alicia"})
    members = (await bob.get(f"/rooms/{room}/joined_members"))["joined"]
    assert members[alice.user_id]["display_name"] == "Alicia"
    await alice.put(f"/profile/{alice.user_id}/displayname", {"displayname": ""})
    members = (await bob.get(f"/rooms/{room}/joined_members"))["joined"]
    assert members[alice.user_id].get("display_name") is None


async def test_a_closed_account_leaves_its_rooms(home: TestHome) -> None:
    alice, bob = await home.person("alice"), await home.person("bob")
    room = await alice.room()
    await bob.post(f"/join/{room}")
    auth = {"type": "m.login.password", "user": "bob", "password": PASSWORD}
    await bob.post("/account/deactivate", {"auth": auth})
    assert list((await alice.get(f"/rooms/{room}/joined_members"))["joined"]) == [alice.user_id]
    refusal = await alice.ask("POST", f"/rooms/{room}/invite", {"user_id": bob.user_id})
    assert refusal.status in (403, 404)


async def test_who_wants_no_invites_gets_none(home: TestHome) -> None:
    alice, bob = await home.person("alice"), await home.person("bob")
    path = f"/user/{bob.user_id}/account_data/m.invite_permission_config"
    await bob.put(path, {"default_action": "block"})
    room = await alice.room(preset="private_chat")
    refusal = await alice.ask("POST", f"/rooms/{room}/invite", {"user_id": bob.user_id})
    assert (refusal.status, refusal.json["errcode"]) == (403, "M_INVITE_BLOCKED")
    member = f"/rooms/{room}/state/m.room.member/{bob.user_id}"
    refusal = await alice.ask("PUT", member, {"membership": "invite"})
    assert (refusal.status, refusal.json["errcode"]) == (403, "M_INVITE_BLOCKED")
    refusal = await alice.ask("POST", "/createRoom", {"invite": ["@carol:example.org", bob.user_id]})
    assert (refusal.status, refusal.json["errcode"]) == (403, "M_INVITE_BLOCKED")
    assert (await alice.get("/joined_rooms"))["joined_rooms"] == [room]
    await bob.put(path, {})
    await alice.post(f"/rooms/{room}/invite", {"user_id": bob.user_id})


async def test_members_of_ones_rooms_are_found_by_their_name_there(home: TestHome) -> None:
    alice, bob = await home.person("alice"), await home.person("bob")
    await home.person("carol")
    room = await alice.room(preset="private_chat", invite=[bob.user_id])
    await bob.post(f"/join/{room}")
    path = f"/rooms/{room}/state/m.room.member/{bob.user_id}"
    await bob.put(path, {"membership": "join", "displayname": "Robert"})
    found = await alice.post("/user_directory/search", {"search_term": "ROBERT"})
    assert found["results"] == [{"user_id": bob.user_id, "display_name": "Robert"}]


async def test_using_sync_shows_one_as_online_unless_one_hides(home: TestHome) -> None:
    alice = await home.person("alice")
    path = f"/presence/{alice.user_id}/status"
    await alice.sync(set_presence="offline")
    assert (await alice.get(path))["presence"] == "offline"
    await alice.sync()
    assert (await alice.get(path))["presence"] == "online"
    await alice.sync(set_presence="unavailable")
    assert (await alice.get(path))["presence"] == "unavailable"
    assert (await alice.ask("GET", "/sync?set_presence=dancing")).status == 400


async def test_passwords_are_not_in_the_log(home: TestHome, capsys: pytest.CaptureFixture[str]) -> None:
    alice = await home.person("alice")
    await alice.ask("POST", "/account/password", {"new_password": "another secret thing"})
    written = capsys.readouterr()
    for secret in (PASSWORD, "another secret thing", alice.token):
        assert secret not in written.out + written.err
