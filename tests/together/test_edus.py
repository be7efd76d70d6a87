# SPDX-License-Identifier: Apache-2.0
"""What passes between servers beside events: typing, receipts, messages to devices; and nothing stops it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from minihs.testing.api import ApiClient
from minihs.testing.servers import Cluster, cluster
from tests.together.kit import MALLORY, scene, seg, tell, with_mallory

ONE = "one.test"


async def two(world: Cluster) -> tuple[ApiClient, ApiClient, str]:
    alice, bob = await world[ONE].user("alice"), await world["two.test"].user("bob")
    room = await alice.create_room(preset="public_chat")
    await bob.join(room, ONE)
    await trio.sleep(5)
    for client in (alice, bob):
        await client.sync()
    return alice, bob, room


async def ephemeral(client: ApiClient, room: str, kind: str, wait_ms: int = 0) -> list[Any]:
    joined = (await client.sync(wait_ms))["rooms"]["join"]
    events = joined.get(room, {}).get("ephemeral", {}).get("events", [])
    return [event["content"] for event in events if event["type"] == kind]


@pytest.mark.parametrize("from_first", [True, False])
async def test_typing_is_seen_on_the_other_server(tmp_path: Path, from_first: bool) -> None:
    async with cluster(ONE, "two.test", folder=tmp_path) as world:
        alice, bob, room = await two(world)
        typist, reader = (alice, bob) if from_first else (bob, alice)
        path = f"/rooms/{seg(room)}/typing/{seg(typist.user_id)}"
        await typist.put(path, {"typing": True, "timeout": 20_000})
        await trio.sleep(2)
        assert await ephemeral(reader, room, "m.typing") == [{"user_ids": [typist.user_id]}]
        await typist.put(path, {"typing": False})
        await trio.sleep(2)
        assert await ephemeral(reader, room, "m.typing") == [{"user_ids": []}]


async def test_who_types_elsewhere_and_is_not_heard_of_again_has_stopped(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        room = await with_mallory(at)
        await at.alice.sync()
        await tell(at, "t", ("m.typing", {"room_id": room, "user_id": MALLORY, "typing": True}))
        assert await ephemeral(at.alice, room, "m.typing") == [{"user_ids": [MALLORY]}]
        started = trio.current_time()
        assert await ephemeral(at.alice, room, "m.typing", wait_ms=300_000) == [{"user_ids": []}]
        assert trio.current_time() - started < 120


@pytest.mark.parametrize("thread", [None, "main", "root"])
async def test_receipts_are_seen_on_the_other_server_with_their_thread(
    tmp_path: Path, thread: str | None
) -> None:
    async with cluster(ONE, "two.test", folder=tmp_path) as world:
        alice, bob, room = await two(world)
        message = await alice.send(room, "read me")
        await trio.sleep(2)
        await alice.sync()
        body = {} if thread is None else {"thread_id": message if thread == "root" else thread}
        await bob.post(f"/rooms/{seg(room)}/receipt/m.read/{seg(message)}", body)
        await trio.sleep(2)
        (content,) = await ephemeral(alice, room, "m.receipt")
        receipt = content[message]["m.read"][bob.user_id]
        assert {name: value for name, value in receipt.items() if name != "ts"} == body


async def test_private_receipts_never_leave(tmp_path: Path) -> None:
    async with cluster(ONE, "two.test", folder=tmp_path) as world:
        alice, bob, room = await two(world)
        message = await alice.send(room, "read me")
        await trio.sleep(2)
        sent: list[Any] = []
        senders = world["two.test"].server.services.senders
        honest = senders.queue_edu

        def watch(hosts: Any, edu_type: str, content: Any, *, key: Any) -> None:
            sent.append(edu_type)
            honest(hosts, edu_type, content, key=key)

        receipts = world["two.test"].server.services.sync.receipts
        receipts._edus = type("Watched", (), {"queue_edu": staticmethod(watch)})()
        await bob.post(f"/rooms/{seg(room)}/receipt/m.read.private/{seg(message)}", {})
        await trio.sleep(5)
        assert sent == []
        await bob.post(f"/rooms/{seg(room)}/receipt/m.read/{seg(message)}", {})
        assert sent == ["m.receipt"]


async def test_the_acl_keeps_typing_and_receipts_out(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        room = await with_mallory(at)
        message = await at.alice.send(room, "hello")
        await at.alice.sync()
        typing = ("m.typing", {"room_id": room, "user_id": MALLORY, "typing": True})
        receipt = {room: {"m.read": {MALLORY: {"event_ids": [message], "data": {"ts": 1}}}}}
        await tell(at, "before", typing, ("m.receipt", receipt))
        events = (await at.alice.sync())["rooms"]["join"][room]["ephemeral"]["events"]
        assert {event["type"] for event in events} == {"m.typing", "m.receipt"}
        await at.alice.set_state(room, "m.room.server_acl", {"allow": ["*"], "deny": ["PEER.test"]})
        await trio.sleep(120)  # the typing is over
        second = await at.alice.send(room, "hello again")
        await at.alice.sync()
        receipt = {room: {"m.read": {MALLORY: {"event_ids": [second], "data": {"ts": 2}}}}}
        await tell(at, "after", typing, ("m.receipt", receipt))
        assert room not in (await at.alice.sync())["rooms"]["join"]


async def test_who_is_not_in_the_room_types_unseen(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        room = await with_mallory(at)
        await at.alice.sync()
        for number, user in enumerate(("@stranger:peer.test", "@alice:one.test", "@bob:two.test")):
            await tell(at, f"t{number}", ("m.typing", {"room_id": room, "user_id": user, "typing": True}))
        assert room not in (await at.alice.sync())["rooms"]["join"]


async def test_a_message_to_a_device_is_sent_once_however_often_it_comes(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        content = {
            "sender": MALLORY,
            "type": "org.example.secret",
            "message_id": "m1",
            "messages": {at.alice.user_id: {"*": {"n": 1}}},
        }
        for txn in ("a", "b", "b"):
            await tell(at, txn, ("m.direct_to_device", content))
        await tell(at, "other", ("m.direct_to_device", {**content, "sender": "@bob:two.test"}))
        await trio.sleep(1)
        events = (await at.alice.sync())["to_device"]["events"]
        assert events == [{"sender": MALLORY, "type": "org.example.secret", "content": {"n": 1}}]


async def test_messages_to_devices_wait_for_a_server_that_is_down(tmp_path: Path) -> None:
    async with cluster(ONE, "two.test", folder=tmp_path) as world:
        alice, bob, _ = await two(world)
        await world.stop("two.test")
        for number in range(3):
            messages = {bob.user_id: {bob.device_id: {"n": number}}}
            await alice.put(f"/sendToDevice/org.example.test/t{number}", {"messages": messages})
        await world.start("two.test")
        await trio.sleep(3600)
        again = world["two.test"].client()
        again.user_id, again.device_id, again.token, again.since = (
            bob.user_id,
            bob.device_id,
            bob.token,
            bob.since,
        )
        events = (await again.sync())["to_device"]["events"]
        assert [event["content"]["n"] for event in events] == [0, 1, 2]


DEEP: Any = []
for _ in range(40):
    DEEP = [DEEP]
NONSENSE: list[tuple[Any, Any]] = [
    (kind, content)
    for kind in (
        "m.typing",
        "m.receipt",
        "m.presence",
        "m.direct_to_device",
        "m.device_list_update",
        "m.signing_key_update",
        "m.unheard_of",
        5,
    )
    for content in (
        None,
        [],
        {},
        {"user_id": MALLORY, "room_id": 5, "typing": "yes", "push": {}, "messages": [], "sender": MALLORY},
        {"user_id": "@:", "device_id": "\x00", "stream_id": 2**70, "prev_id": DEEP, "keys": DEEP},
        {
            "sender": MALLORY,
            "type": "x",
            "message_id": "y" * 70_000,
            "messages": {"@alice:one.test": {"*": {}}},
        },
        {"!r:one.test": {"m.read": {MALLORY: {"event_ids": DEEP, "data": 5}}}},
    )
]


async def test_nonsense_does_not_hold_up_what_comes_after_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        good = {
            "sender": MALLORY,
            "type": "org.example.test",
            "message_id": "good",
            "messages": {at.alice.user_id: {at.alice.device_id: {"good": True}}},
        }
        await tell(at, "mixed", *NONSENSE, ("m.direct_to_device", good))
        await trio.sleep(1)
        events = (await at.alice.sync())["to_device"]["events"]
        assert [event["content"] for event in events] == [{"good": True}]


async def test_a_handler_that_fails_on_one_takes_the_next(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        e2ee = at.world[ONE].server.services.e2ee
        transactions = at.world[ONE].server.services.rooms.transactions
        honest = e2ee.to_device.receive

        async def failing(origin: str, content: Any) -> None:
            if content["message_id"] == "poison":
                raise ZeroDivisionError
            await honest(origin, content)

        transactions._durable = {**transactions._durable, "m.direct_to_device": failing}
        edus = [
            {
                "sender": MALLORY,
                "type": "org.example.test",
                "message_id": name,
                "messages": {at.alice.user_id: {at.alice.device_id: {"name": name}}},
            }
            for name in ("first", "poison", "last")
        ]
        await tell(at, "t", *(("m.direct_to_device", edu) for edu in edus))
        await trio.sleep(1)
        events = (await at.alice.sync())["to_device"]["events"]
        assert [event["content"]["name"] for event in events] == ["first", "last"]
        row = at.world[ONE].server.services.db.read.execute("SELECT COUNT(*) FROM inbox").fetchone()
        assert row == (0,)
