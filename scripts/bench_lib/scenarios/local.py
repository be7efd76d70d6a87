# SPDX-License-Identifier: Apache-2.0
"""Clients of one server among themselves: sending, being woken, and the first /sync."""

from __future__ import annotations

import json
import statistics
from urllib.parse import urlencode

import trio

from scripts.bench_lib.measure import Span, measured, times, wall_clock
from scripts.bench_lib.subject import Subject
from tests.interop.kit.client import V3, Client

SLIDING = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
_NAMES = (
    "create", "name", "topic", "avatar", "encryption", "power_levels", "join_rules", "history_visibility",
    "canonical_alias", "tombstone",
)  # fmt: skip
_OTHERS = [
    ["m.room.member", "$ME"],
    ["m.room.member", "$LAZY"],
    ["m.space.child", "*"],
    ["m.space.parent", "*"],
]
SLIDING_STATE = [*([f"m.room.{name}", ""] for name in _NAMES), *_OTHERS]
"""What Element X asks for."""


async def send(subject: Subject) -> dict[str, float]:
    """One sender and then several in one room, while one other client listens."""
    sizes = subject.sizes
    *senders, listener = await subject.people(sizes.senders + 1)
    room = await senders[0].create_room(preset="public_chat")
    for person in (*senders[1:], listener):
        await person.join(room)
    await listener.sync()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_listen, listener)
        await times(10, lambda number: senders[0].say(room, f"warming up {number}"))
        async with measured(subject.server) as one:
            taken = await times(sizes.sends, lambda number: senders[0].say(room, f"message {number}"))
        async with measured(subject.server) as many, trio.open_nursery() as crowd:
            for sender in senders:
                crowd.start_soon(_send_many, sender, room, sizes.sends // 2)
        nursery.cancel_scope.cancel()
    return {
        "send_ms": 1000 * statistics.median(taken),
        "send_cpu_ms": 1000 * one.cpu / sizes.sends,
        "sends_per_s_1": sizes.sends / one.wall,
        f"sends_per_s_{sizes.senders}": len(senders) * (sizes.sends // 2) / many.wall,
    }


async def _listen(listener: Client) -> None:
    while True:
        await listener.sync(30_000)
        listener.timeline.clear()


async def _send_many(sender: Client, room: str, count: int) -> None:
    for number in range(count):
        await sender.say(room, f"one of many {number}")


async def wake(subject: Subject) -> dict[str, float]:
    """From the moment of sending until the other client's waiting /sync has brought the message."""
    sender, listener = await subject.people(2)
    room = await sender.create_room(preset="public_chat")
    await listener.join(room)
    await listener.sync()

    async def hear(text: str, heard: trio.Event) -> None:
        await listener.wait_for(room, lambda event: event["content"].get("body") == text, text)
        heard.set()

    taken = []
    for number in range(subject.sizes.pings):
        span, text, heard = Span(), f"ping {number}", trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear, text, heard)
            await trio.sleep(0.02)  # the long poll is waiting by now
            with wall_clock(span):
                nursery.start_soon(sender.say, room, text)
                await heard.wait()
        taken.append(span.wall)
        listener.timeline.clear()
    return {"wake_ms": 1000 * statistics.median(taken)}


async def initial_sync(subject: Subject) -> dict[str, float]:
    """A client that starts from nothing, in some rooms with some history."""
    sizes = subject.sizes
    people = await subject.people(3)
    for number in range(sizes.sync_rooms):
        room = await people[0].create_room(preset="public_chat", name=f"Room {number}", topic="Something")
        for person in people[1:]:
            await person.join(room)
        for message in range(10):
            await people[message % 3].say(room, f"message {message}")

    async def sync(number: int) -> None:
        # Each asks for the same, in other words: neither server may answer from a cache of answers.
        rules = {
            "room": {"timeline": {"limit": 20}},
            "account_data": {"not_types": [f"org.example.{number}"]},
        }
        query = urlencode({"filter": json.dumps(rules)})
        answer = await people[1].call("GET", f"{V3}/sync?{query}")
        assert len(answer["rooms"]["join"]) == sizes.sync_rooms

    async def slide(number: int) -> None:
        wish = {"ranges": [[0, sizes.sync_rooms - 1]], "timeline_limit": 1, "required_state": SLIDING_STATE}
        body = {"conn_id": f"{number}", "lists": {"all": wish}}
        answer = await people[1].call("POST", SLIDING, body)
        assert len(answer["rooms"]) == sizes.sync_rooms

    taken = await times(11, sync)
    slid = await times(11, slide)
    return {
        "initial_sync_first_ms": 1000 * taken[0],
        "initial_sync_ms": 1000 * statistics.median(taken[1:]),
        "first_window_ms": 1000 * statistics.median(slid[1:]),
    }
